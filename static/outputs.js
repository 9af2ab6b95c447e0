// outputs.js: two texts beside each other, as a model goes on by itself and with something turned: where they part is marked.

import { h, show } from './dom.js';

export function output(title, className, note) {
  const text = h('div', { class: 'text' });
  return { text, node: h('section', { class: `card output ${className}`, 'aria-label': title }, h('div', { class: 'row apart' }, h('h2', {}, title), h('small', { class: 'soft' }, note)), text) };
}

/** The prompt is quiet, what was written is plain, and from where the two part it is marked. */
export function writeText(host, whole, prompt, parted) {
  const written = whole.slice(prompt.length);
  const same = parted === null ? written.length : Math.min(parted, written.length);
  show(host, h('span', { class: 'given' }, prompt), written.slice(0, same), same < written.length && h('span', { class: 'other' }, written.slice(same)));
}

/** Where two continuations first differ, told only as far as both are written; null while they agree. */
export function whereParted(a, b, complete) {
  const most = Math.min(a.length, b.length);
  for (let i = 0; i < most; i++) if (a[i] !== b[i]) return i;
  return complete && a.length !== b.length ? most : null;
}
