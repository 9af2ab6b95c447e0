// grid.js: a table of coloured cells: layers by positions, queries by keys. The colour says how much, the tooltip and
// the arrow keys say it in numbers.

import { h, num, say, tipAt, visible } from './dom.js';

/** Warm for positive, cool for negative, in ten steps of `max`. */
function shade(value, max) {
  const step = Math.min(10, Math.ceil((Math.abs(value) / max) * 10 - 1e-6));
  return !Number.isFinite(value) || step < 1 ? '' : ` ${value > 0 ? 'h' : 'c'}${step}`;
}

const short = (label) => visible(String(label)).replace(/\n/g, '↵') || '∅';

/** rows, columns: labels. value(r, c): a number, or null for a cell that is not there. text(r, c): words in the cell. tip(r, c): what
 * the tooltip says behind the labels; by default the value. max: the size that has full colour; by default the largest. */
export function grid({ label, corner, rows, columns, value, text, tip, max }) {
  const all = rows.flatMap((_, r) => columns.map((__, c) => Math.abs(value(r, c) ?? 0))).filter(Number.isFinite);
  const top = max ?? all.reduce((a, b) => Math.max(a, b), 1e-12);
  const cell = (r, c) => {
    const number = value(r, c);
    if (number === null) return h('td', { class: 'cell none' });
    return h('td', { class: `cell${shade(number, top)}`, 'data-v': `${short(rows[r])} · ${short(columns[c])}\n${tip ? tip(r, c) : num(number, 4)}` },
      text && h('span', { class: 'tok' }, short(text(r, c))));
  };
  const table = h('table', { class: `grid${text ? ' worded' : ''}` }, h('caption', { class: 'unseen' }, label),
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, corner), columns.map((name) => h('th', { scope: 'col' }, h('span', { class: 'tok' }, short(name)))))),
    h('tbody', {}, rows.map((name, r) => h('tr', {}, h('th', { scope: 'row' }, h('span', { class: 'tok' }, short(name))), columns.map((_, c) => cell(r, c))))));
  const host = h('div', { class: 'scroll', tabindex: 0, role: 'group', 'aria-label': `${label}; arrow keys go from cell to cell` }, table);
  walk(host, [...table.tBodies[0].rows].map((row) => [...row.cells].slice(1)));
  return host;
}

const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };

function walk(host, cells) {
  let at = null;
  const mark = (place) => {
    if (at) cells[at[0]][at[1]].classList.remove('here');
    at = place;
    const cell = at && cells[at[0]][at[1]];
    cell?.classList.add('here');
    cell?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    tipAt(cell?.dataset.v ? cell : null);
    if (cell?.dataset.v) say(cell.dataset.v.replace('\n', ' '));
  };
  host.addEventListener('keydown', (event) => {
    const step = STEPS[event.key];
    if (!step || !cells.length || !cells[0].length) return;
    event.preventDefault();
    const clamp = (value, end) => Math.max(0, Math.min(end - 1, value));
    mark(at ? [clamp(at[0] + step[0], cells.length), clamp(at[1] + step[1], cells[0].length)] : [0, 0]);
  });
  host.addEventListener('blur', () => mark(null));
}
