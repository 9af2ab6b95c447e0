// snippet.js: a call of the API as a reader would type it into a shell or a notebook.

import { copyButton, h, tabs } from './dom.js';

const shellText = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** JSON is almost Python. */
function pythonText(value, indent = '') {
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (value === null) return 'None';
  const deeper = `${indent}    `;
  if (Array.isArray(value)) return value.length ? `[\n${value.map((v) => deeper + pythonText(v, deeper)).join(',\n')},\n${indent}]` : '[]';
  if (typeof value === 'object') return `{\n${Object.entries(value).map(([k, v]) => `${deeper}${JSON.stringify(k)}: ${pythonText(v, deeper)}`).join(',\n')},\n${indent}}`;
  return JSON.stringify(value);
}

const curlOf = (path, body) => `curl ${location.origin}${path} -H 'Content-Type: application/json' -d ${shellText(JSON.stringify(body))}`;

const pythonOf = (path, body, answer) =>
  `import requests\n\nreply = requests.post("${location.origin}${path}", json=${pythonText(body)})\nreply.raise_for_status()\nprint(reply.json()${answer})`;

/** {bar, texts, refresh(body)}: the call in two languages, with a button that copies it. `answer` is what Python shows of the reply. */
export function sameCall(path, answer = '') {
  const curl = h('pre', { class: 'wrap', tabindex: 0 });
  const python = h('pre', { class: 'wrap', tabindex: 0, hidden: true });
  const refresh = (body) => {
    curl.textContent = curlOf(path, body);
    python.textContent = pythonOf(path, body, answer);
  };
  const choose = (which) => { curl.hidden = which !== 'curl'; python.hidden = which !== 'python'; };
  const bar = [tabs('Language', [['curl', 'curl'], ['python', 'Python']], 'curl', choose), copyButton(() => (curl.hidden ? python : curl).textContent)];
  return { refresh, bar, texts: [curl, python] };
}

/** The same behind a line that opens. */
export function sameCallBelow(path, body) {
  const call = sameCall(path);
  call.refresh(body);
  return h('details', {}, h('summary', {}, 'The same call'), h('div', { class: 'stack tight' }, h('div', { class: 'row' }, call.bar), call.texts));
}
