// tokens.js: tokens with the strength of a feature: highlighted text, small bars, lists of logits. Token text comes
// from files and strangers: it is shown as it is, each token isolated, with invisible characters made visible.

import { column, h, num, say, tipAt, visible } from './dom.js';

const shown = (text) => visible(text).replace(/\n/g, '↵\n');

/** A token alone, its spaces shown: " the" as "·the". */
export function tokenChip(text) {
  const spaces = /^ */.exec(text)[0].length;
  const rest = visible(text.slice(spaces)).replace(/\n/g, '↵').replace(/ /g, '·');
  return h('span', { class: 'tok mono' }, spaces > 0 && h('span', { class: 'soft' }, '·'.repeat(spaces)), rest || (spaces ? '' : '∅'));
}

const level = (value, max) => (value > 0 && max > 0 ? Math.max(1, Math.min(10, Math.ceil((value / max) * 10))) : 0);

function oneToken(text, value, max, stacked) {
  const step = level(value, max);
  return h('span', { class: `tok${step ? ` h${step}` : ''}`, 'data-v': `${text}\n${num(value, 4)}` },
    shown(text), stacked && h('small', {}, value ? num(value, 3) : '·'));
}

/** Where a one-line view begins, so that the token in focus still fits into it. */
function lead(tokens, focus) {
  let room = innerWidth < 700 ? 12 : 36;
  let from = Math.max(0, focus);
  while (from > 0 && (room -= visible(tokens[from - 1]).length) > 0) from--;
  return from;
}

/** Tokens side by side. Runs that say nothing become one text, so that a page of examples stays light.
 * view: "expanded", "compact" (one line, from a little before `focus`), "stacked" (a box a token, value below). */
export function tokenLine(tokens, values, { max, view = 'expanded', focus = 0, every = false, label } = {}) {
  const top = max ?? Math.max(0, ...values);
  const from = view === 'compact' ? lead(tokens, focus) : 0;
  const line = h('p', { class: `tokens ${view}`, tabindex: 0, role: 'group', 'aria-roledescription': 'tokens',
    'aria-label': label ?? `${visible(tokens.join(''))}; strongest ${num(Math.max(0, ...values))}` });
  let run = from > 0 ? '…' : '';
  const flush = () => { if (run) line.append(visible(run)); run = ''; };
  for (let i = from; i < tokens.length; i++) {
    const marked = every || view === 'stacked' || values[i] > 0;
    if (!marked) { run += view === 'compact' ? tokens[i].replace(/\n/g, ' ') : shown(tokens[i]); continue; }
    flush();
    const node = oneToken(view === 'compact' ? tokens[i].replace(/\n/g, ' ') : tokens[i], values[i] ?? 0, top, view === 'stacked');
    if (i === focus) node.classList.add('peak');
    line.append(node);
  }
  flush();
  walkByArrows(line);
  return line;
}

/** Left and right go from value to value, for keyboards and screen readers. */
function walkByArrows(line) {
  let at = null;
  const go = (to) => {
    at?.classList.remove('here');
    at = to;
    at?.classList.add('here');
    tipAt(at);
    if (at) say(at.dataset.v.replace('\n', ' '));
  };
  line.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const all = [...line.querySelectorAll('[data-v]')];
    if (!all.length) return;
    event.preventDefault();
    const next = at ? all.indexOf(at) + step : step > 0 ? 0 : all.length - 1;
    go(all[Math.max(0, Math.min(all.length - 1, next))]);
  });
  line.addEventListener('blur', () => go(null));
}

/** A bar beside a number; widths are set by script because the policy forbids them in markup. */
export function meter(value, max, cool) {
  const fill = h('i');
  fill.style.width = `${Math.max(0, Math.min(100, (100 * Math.abs(value)) / (max || 1)))}%`;
  return h('span', { class: `meter${cool ? ' cool' : ''}`, 'aria-hidden': 'true' }, fill);
}

export function logitList(title, tokens, values) {
  const told = column(values);
  return h('div', {}, h('h3', {}, title), h('ol', {}, tokens.map((token, i) =>
    h('li', {}, tokenChip(token), h('span', { class: 'number soft' }, told[i])))));
}
