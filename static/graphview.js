// graphview.js: the drawing of an attribution graph: tokens from left to right, layers from the bottom up. Links are drawn for the chosen
// node and between pinned ones only, so that it stays readable and quick.

import { h, percent, say, show, svg, tipAt } from './dom.js';
import { layOut, linksAmong, rowName, shorten, signed, tipOf, within } from './graphdata.js';

const GUTTER = 66;  // pixels, for the names of rows
const DRAWN = 120;  // links of a node

// ---- marks ----------------------------------------------------------------------------------------------

/** 0.3 to 1: a faint mark can still be seen. Outputs by their probability, the rest by the share that is before them. */
const strengthOf = (node) => 0.3 + 0.7 * Math.max(0, Math.min(1, node.kind === 'logit' ? node.probability : 1 - node.share));

function shapeOf({ node, x, y, width, height }) {
  const strong = strengthOf(node);
  if (width) {
    const words = node.kind === 'logit' ? [svg('text', { x: x - width / 2 + 7, y: y + 4 }, shorten(node.token, 7)), svg('text', { class: 'soft', x: x + width / 2 - 7, y: y + 4, 'text-anchor': 'end' }, percent(Number(node.probability.toPrecision(2))))]
      : svg('text', { x, y: y + 4, 'text-anchor': 'middle' }, shorten(node.token, 10));
    return [svg('rect', { class: 'body', x: x - width / 2, y: y - height / 2, width, height, rx: 5 }), svg('rect', { class: 'fill', x: x - width / 2, y: y - height / 2, width, height, rx: 5, opacity: strong * 0.6 }),
      words];
  }
  const r = 3.5 + 3 * strong;
  const d = node.kind === 'error' ? `M${x} ${y - r - 1}l${r + 1} ${r + 1}l${-r - 1} ${r + 1}l${-r - 1} ${-r - 1}z` : `M${x - r} ${y}a${r} ${r} 0 1 1 ${2 * r} 0a${r} ${r} 0 1 1 ${-2 * r} 0z`;
  return [svg('path', { class: 'body', d }), svg('path', { class: 'fill', d, opacity: strong })];
}

/** What a finger can hit, and rings. */
function markOf(mark) {
  const { node, x, y, width = 16, height = 16 } = mark;
  return svg('g', { class: `mark ${node.kind}`, 'data-id': node.id }, svg('rect', { class: 'hit', x: x - width / 2, y: y - height / 2, width, height, rx: 5 }), shapeOf(mark));
}

// ---- links ----------------------------------------------------------------------------------------------

function curve(from, to) {
  const y1 = from.y - (from.height ?? 10) / 2, y2 = to.y + (to.height ?? 10) / 2;
  const bend = Math.max(12, (y1 - y2) / 2);
  const aside = Math.abs(from.x - to.x) < 24 && y1 - y2 > 40 ? Math.min(30, (y1 - y2) / 4) : 0; // around the marks between
  return `M${from.x} ${y1}C${from.x - aside} ${y1 - bend} ${to.x - aside} ${y2 + bend} ${to.x} ${y2}`;
}

function linkOf(places, { from, to, weight }, most) {
  const [a, b] = [places.get(from.id), places.get(to.id)];
  if (!a || !b) return null;
  return svg('path', { class: `link ${weight < 0 ? 'minus' : 'plus'}`, d: curve(a, b), 'stroke-width': (0.8 + 4.2 * Math.abs(weight) / most).toFixed(2), opacity: (0.35 + 0.65 * Math.abs(weight) / most).toFixed(2) });
}

/** The links that are to be seen: of a node, the strongest first, and those between pinned ones. */
function linksOf(graph, node, pinned) {
  const own = node ? [...node.inputs.slice(0, DRAWN).map((link) => ({ from: link.node, to: node, weight: link.weight })), ...node.outputs.slice(0, DRAWN).map((link) => ({ from: node, to: link.node, weight: link.weight }))] : [];
  return [...linksAmong(graph, pinned).slice(0, DRAWN).filter(({ from, to }) => from !== node && to !== node), ...own];
}

/** Weights of a node's links by the node at their other end. */
const weightsOf = (node) => new Map([...(node?.inputs ?? []), ...(node?.outputs ?? [])].map((link) => [link.node.id, link.weight]));

// ---- the drawing ----------------------------------------------------------------------------------------

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** The next mark in a direction: along the row, else the nearest one of the next row that has any. */
function nextMark(marks, at, [dx, dy]) {
  const row = (mark) => mark.node.row;
  if (dx) {
    const line = marks.filter((mark) => row(mark) === row(at)).sort((a, b) => a.node.position - b.node.position || a.y - b.y || a.x - b.x);
    return line[Math.max(0, Math.min(line.length - 1, line.indexOf(at) + dx))];
  }
  const beyond = marks.filter((mark) => (row(at) - row(mark)) * dy > 0);
  const rows = beyond.map(row);
  const next = dy > 0 ? Math.max(...rows) : Math.min(...rows);
  return beyond.filter((mark) => row(mark) === next).sort((a, b) => Math.abs(a.x - at.x) - Math.abs(b.x - at.x))[0] ?? at;
}

const gutter = (graph, layout) => svg('svg', { class: 'names', width: GUTTER, height: layout.height, 'aria-hidden': 'true' },
  layout.rows.map((row, i) => svg('text', { x: GUTTER - 8, y: row.middle + 4, 'text-anchor': 'end' }, rowName(graph, i))));

/** state: {chosen: id, pinned: Set of ids, share}. `choose(id)` and `pin(id)` are told of what the reader does; `refresh` draws the state, `point(id)` is
 * as if the pointer were there. Links are those of the node under the pointer, else of the one that the arrow keys are at, else of the chosen one. */
export function graphView(graph, state, { choose, pin }) {
  const host = h('div', { class: 'scroll graph', tabindex: 0, role: 'group', 'aria-roledescription': 'graph',
    'aria-label': `Attribution graph of ${graph.nodes.length} nodes; arrow keys go from node to node, Enter chooses one, P pins it` });
  let layout, places, marks = new Map(), lines, ringed = [], lit = [], cursor = null, hovered = null, room = 0;

  const light = () => {
    const node = graph.byId.get(hovered ?? cursor ?? state.chosen), links = linksOf(graph, node, state.pinned);
    const most = Math.max(...links.map((link) => Math.abs(link.weight)), 1e-30);
    show(lines, links.map((link) => linkOf(places, link, most)).reverse()); // the strongest above the others
    for (const mark of lit) mark.classList.remove('by-plus', 'by-minus', 'seen');
    lit = [marks.get(node?.id)].filter(Boolean);
    lit[0]?.classList.add('seen');
    for (const [id, weight] of weightsOf(node)) {
      const mark = marks.get(id);
      mark?.classList.add(weight < 0 ? 'by-minus' : 'by-plus');
      if (mark) lit.push(mark);
    }
  };
  const ring = () => {
    for (const mark of ringed) mark?.classList.remove('chosen', 'pinned', 'here');
    ringed = [state.chosen, cursor, ...state.pinned].map((id) => marks.get(id));
    marks.get(state.chosen)?.classList.add('chosen');
    marks.get(cursor)?.classList.add('here');
    for (const id of state.pinned) marks.get(id)?.classList.add('pinned');
  };
  /** What is told of a mark depends on what is chosen: it is made when it is wanted. */
  const tell = (id) => {
    const mark = marks.get(id), weight = weightsOf(graph.byId.get(state.chosen)).get(id);
    if (mark) mark.dataset.v = tipOf(graph.byId.get(id)) + (weight === undefined ? '' : `\nlink with the chosen one ${signed(weight)}`);
    return mark ?? null;
  };
  const stand = (id) => {
    cursor = id;
    const here = tell(id);
    here?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    tipAt(here);
    if (here) say(here.dataset.v.replace(/\n/g, ', '));
    if (layout) { ring(); light(); }
  };
  const point = (id) => {
    if (!layout || id === hovered) return;
    hovered = id;
    tell(id);
    light();
  };
  const build = (nodes) => {
    layout = layOut(graph, nodes, room - GUTTER);
    places = new Map(layout.marks.map((one) => [one.node.id, one]));
    marks = new Map(layout.marks.map((one) => [one.node.id, markOf(one)]));
    lines = svg('g', {});
    lit = ringed = [];
    const left = host.scrollLeft;
    show(host, gutter(graph, layout), svg('svg', { class: 'drawing', width: layout.width, height: layout.height, 'aria-hidden': 'true' },
      layout.rows.map((row, i) => svg('rect', { class: i % 2 ? 'band' : 'band odd', x: 0, y: row.top, width: layout.width, height: row.width })), lines, svg('g', {}, [...marks.values()])));
    host.scrollLeft = left;
  };
  const refresh = (resized) => {
    if (!room) return;
    const nodes = within(graph, state.share, new Set([state.chosen, ...state.pinned]));
    if (resized || nodes.length !== marks.size || !nodes.every((node) => marks.has(node.id))) build(nodes);
    ring();
    light();
  };
  host.addEventListener('click', (event) => { const id = event.target.closest('[data-id]')?.dataset.id; if (id) { cursor = id; choose(id); } });
  host.addEventListener('pointerover', (event) => event.pointerType === 'mouse' && point(event.target.closest('[data-id]')?.dataset.id ?? null)); // before the tooltip is shown
  host.addEventListener('pointerleave', () => point(null));
  host.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const at = places?.get(cursor) ?? places?.get(state.chosen) ?? layout?.marks[0];
    if (!at) return;
    if (STEPS[event.key]) stand(cursor ? nextMark(layout.marks, at, STEPS[event.key]).node.id : at.node.id);
    else if (event.key === 'Enter' || event.key === ' ') { choose(at.node.id); stand(at.node.id); }
    else if (event.key === 'p' || event.key === 'P') { pin(at.node.id); stand(at.node.id); }
    else return;
    event.preventDefault();
  });
  host.addEventListener('blur', () => stand(null));
  new ResizeObserver(() => {
    if (!host.clientWidth || host.clientWidth === room) return;
    const first = !room;
    room = host.clientWidth;
    refresh(true);
    const { node, x = 0 } = places.get(state.chosen) ?? {};
    if (first) host.scrollLeft = node?.kind === 'logit' ? layout.width : Math.max(0, x - room * 0.5);
  }).observe(host);
  return { node: host, refresh, point };
}

// ---- what the marks mean --------------------------------------------------------------------------------

const sample = (...children) => svg('svg', { width: 22, height: 14, 'aria-hidden': 'true' }, children);

/** `graph` may have nodes with more links than are drawn. */
export function legend(graph) {
  const one = (kind, d) => sample(svg('g', { class: `mark ${kind}` }, svg('path', { class: 'body', d }), svg('path', { class: 'fill', d })));
  const line = (sign) => sample(svg('path', { class: `link ${sign}`, d: 'M1 7H21', 'stroke-width': 3 }));
  const entry = (picture, words) => h('li', {}, picture, ' ', words);
  return h('ul', { class: 'legend graph' }, entry(one('feature', 'M5.5 7a5.5 5.5 0 1 1 11 0a5.5 5.5 0 1 1 -11 0z'), 'feature'), entry(one('error', 'M11 1l6 6l-6 6l-6 -6z'), 'error: what no feature accounts for'),
    entry(line('plus'), 'raises'), entry(line('minus'), 'lowers'), h('li', {}, 'The larger and fuller a mark, the more influence it has on the outputs.'),
    h('li', {}, 'Point at a mark to see its links, press it to read of it. By keys: arrows, Enter, P to pin.'),
    graph.nodes.some((node) => node.inputs.length > DRAWN || node.outputs.length > DRAWN) && h('li', {}, `Of a node's links, the ${DRAWN} strongest in and out are drawn.`));
}
