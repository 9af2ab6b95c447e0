// dom.js: making elements, the three states of everything that is loaded, numbers as text, the tooltip.
// Text from outside becomes text nodes only; nothing here parses markup.

/** An element. Keys of `props` that begin with "on" are listeners, booleans are set or left out, the rest are
 * attributes; `value` and `checked` are properties. Children: nodes, texts, arrays; null and false are left out. */
export function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (key === 'value' || key === 'checked') node[key] = value;
    else node.setAttribute(key, value === true ? '' : String(value));
  }
  node.append(...flat(children));
  return node;
}

export function svg(tag, attributes, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [key, value] of Object.entries(attributes ?? {})) node.setAttribute(key, String(value));
  node.append(...flat(children));
  return node;
}

/** Control characters by their number, direction marks and other invisible ones as a dot: what is shown is what there is,
 * and no text can turn its neighbours round. Newlines and tabs stay. */
export const visible = (text) => text.replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => `\\x${c.codePointAt(0).toString(16).padStart(2, '0')}`)
  .replace(/[\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, '·');

function flat(children) {
  return children.flat(4).filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : visible(String(child))));
}

export const show = (host, ...children) => host.replaceChildren(...flat(children));

let lastId = 0;
export const freshId = (word) => `${word}-${++lastId}`;

/** A labelled control: the label is bound to it. */
export function field(label, control, hint) {
  control.id ||= freshId('field');
  const note = hint ? h('p', { class: 'hint', id: freshId('hint') }, hint) : null;
  if (note) control.setAttribute('aria-describedby', note.id);
  return h('div', {}, h('label', { for: control.id }, label), control, note);
}

export function select(options, chosen, props) {
  return h('select', props, options.map(([value, text]) => h('option', { value, selected: value === chosen }, text)));
}

/** Radio buttons that look like tabs. `options` are [value, text]. */
export function tabs(legend, options, chosen, onchange) {
  const name = freshId('tabs');
  return h('fieldset', { class: 'tabs' }, h('legend', { class: 'unseen' }, legend),
    options.map(([value, text]) => h('label', {},
      h('input', { type: 'radio', name, value, checked: value === chosen, onchange: () => onchange(value) }), h('span', {}, text))));
}

export function card(title, ...children) {
  return h('section', { class: 'card' }, title && h('h2', {}, title), ...children);
}

/** Pairs of [term, value]; those without a value are left out. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return h('dl', { class: 'facts' }, known.map(([term, value]) => h('div', {}, h('dt', {}, term), h('dd', {}, value))));
}

/** Says something to a screen reader. */
export function say(text) {
  document.getElementById('said').textContent = visible(text);
}

export function setTitle(...parts) {
  document.title = [...parts, 'steerd'].join(' · ');
}

export function crumbs(...links) {
  return h('nav', { class: 'crumbs', 'aria-label': 'Where this is' },
    links.map(([text, href], i) => [i > 0 && ' / ', h('a', { href }, text)]));
}

// ---- states ---------------------------------------------------------------------------------------------

export const waiting = (text = 'Loading…') => h('p', { class: 'state wait', role: 'status' }, text);

export function empty(title, ...hint) {
  return h('div', { class: 'notice' }, h('strong', {}, title), hint.length > 0 && h('p', { class: 'soft' }, hint));
}

/** The way through a long table, `size` rows a page; `turn(offset)` goes there. */
export const pager = ({ offset, size, shown, total }, turn) => h('div', { class: 'row apart' },
  h('button', { type: 'button', disabled: offset === 0, onclick: () => turn(Math.max(0, offset - size)) }, 'Previous'),
  h('span', { class: 'soft number' }, `${count(offset + 1)} to ${count(offset + shown)} of ${count(total)}`),
  h('button', { type: 'button', disabled: offset + shown >= total, onclick: () => turn(offset + size) }, 'Next'));

/** Where nothing can have been kept. */
export const noStore = (what) => empty(`${what}: this server keeps nothing.`, 'Start the daemon with ', h('code', {}, '--store FILE'), ' to keep statistics, explanations and jobs.');

/** An error as the server words it. Something that this daemon was started without is no failure and looks like none. */
export function failure(error, retry) {
  const without = error.status === 501;
  const title = without ? 'Not on this server' : error.status === 404 ? 'Not found' : 'That did not work';
  return h('div', { class: `notice ${without ? 'without' : 'bad'}`, role: without ? 'note' : 'alert' },
    h('strong', {}, title), h('p', {}, sentence(error.message)),
    error.status === 401 ? keyForm() : retry && (error.status >= 502 || error.status === 500 || !error.status) && h('div', { class: 'row' }, h('button', { onclick: retry }, 'Try again')));
}

/** An error of the server as a sentence. */
export const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) + (/[.!?)]$/.test(text) ? '' : '.') : '');

/** The key lives as long as the tab does. */
function keyForm() {
  const input = h('input', { type: 'password', autocomplete: 'off', required: true });
  const keep = (event) => {
    event.preventDefault();
    sessionStorage.setItem('steerd-key', input.value);
    location.reload();
  };
  return h('form', { onsubmit: keep }, field('Key', input), h('div', { class: 'row' }, h('button', { class: 'main' }, 'Use this key')));
}

/** Fills host with what `work` resolves to, with the states on the way. A later load of the same host wins. */
export async function load(host, work, text) {
  const turn = (host.turn = (host.turn ?? 0) + 1);
  show(host, waiting(text));
  let shown;
  try {
    shown = await work();
  } catch (error) {
    if (error.name === 'AbortError') return;
    shown = failure(error, () => load(host, work, text));
    if (!error.status) console.warn(error.message);
  }
  if (host.turn === turn) show(host, shown);
}

/** A button's work: disabled meanwhile, errors into `notes`. */
export async function during(button, notes, work) {
  button.disabled = true;
  show(notes);
  try {
    await work();
  } catch (error) {
    if (error.name !== 'AbortError') show(notes, failure(error));
  } finally {
    button.disabled = false;
  }
}

export function copyButton(text, label = 'Copy') {
  const button = h('button', { type: 'button', onclick: copy }, label);
  async function copy() {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = 'Copied';
    } catch {
      button.textContent = 'Select and copy by hand';
    }
    say(button.textContent);
    setTimeout(() => { button.textContent = label; }, 1600);
  }
  return button;
}

// ---- numbers --------------------------------------------------------------------------------------------

const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);
export const known = isNumber;

export function num(value, digits = 3) {
  if (!isNumber(value)) return '–';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(Math.max(0, digits - 2));
  return String(Number(value.toPrecision(Math.max(digits, Math.ceil(Math.log10(size + 1))))));
}

/** Numbers that stand beneath each other: as many decimals for each as the largest needs for three digits. */
export function column(values) {
  const most = Math.max(...values.filter(isNumber).map(Math.abs), 0);
  if (most < 1e-3 || most >= 1e6) return values.map((value) => num(value));
  const decimals = Math.max(0, 2 - Math.floor(Math.log10(most)));
  return values.map((value) => (isNumber(value) ? value.toFixed(decimals) : '–'));
}

export const count = (value) => (isNumber(value) ? value.toLocaleString('en') : '–');

export function percent(share) {
  if (!isNumber(share)) return '–';
  const value = share * 100;
  const short = Math.abs(value) >= 1000 ? Math.round(value) : Number(value.toPrecision(3));
  return `${short !== 0 && Math.abs(short) < 1e-6 ? short.toExponential() : short.toLocaleString('en', { maximumFractionDigits: 8 })} %`;
}

export function bytes(value) {
  if (!isNumber(value)) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const step = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, value)) / 10));
  return `${Number((value / 2 ** (10 * step)).toPrecision(3))} ${units[step]}`;
}

export function duration(seconds) {
  if (!isNumber(seconds) || seconds < 0) return '–';
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 129600 ? `${num(seconds / 3600, 2)} h` : `${num(seconds / 86400, 2)} days`;
}

// ---- the tooltip ----------------------------------------------------------------------------------------

/** One for the page: whatever carries data-v shows it under the pointer, or when `tipAt` is told to. */
export function tipAt(target) {
  const tip = document.getElementById('tip');
  tip.hidden = !target;
  if (!target) return;
  tip.textContent = visible(target.dataset.v);
  const box = target.getBoundingClientRect();
  const width = tip.offsetWidth;
  tip.style.left = `${Math.max(6, Math.min(box.left + box.width / 2 - width / 2, innerWidth - width - 6))}px`;
  const above = box.top - tip.offsetHeight - 6;
  tip.style.top = `${above >= 4 ? above : box.bottom + 6}px`;
}

export function startTips() {
  document.addEventListener('pointerover', (event) => tipAt(event.target.closest?.('[data-v]')));
  document.addEventListener('pointerleave', () => tipAt(null));
  document.addEventListener('scroll', () => tipAt(null), { passive: true, capture: true });
  document.addEventListener('keydown', (event) => event.key === 'Escape' && tipAt(null));
}
