// map.js: the map of a source: every feature a point, near those whose decoder rows point the same way. Points are drawn on a
// canvas, so that tens of thousands are quick; the keyboard and a list of what a search finds reach what the pointer reaches.

import { card, count, crumbs, empty, facts, failure, field, h, known, load, num, say, select, sentence, setTitle, show, tipAt, visible } from './dom.js';
import { ApiError, areNeurons, featurePath, findSource, nounOf, path, post } from './api.js';

const MARGIN = 16, REACH = 14; // CSS pixels around the points; from which a point is pointed at
const HUES = [192, 32, 265, 95, 340, 215, 55, 300, 150, 10, 240, 75]; // of groups, the largest first; then again from the first
const RARE = [[-1, 'more than 1 in 10'], [-2, '1 in 10 to 1 in 100'], [-3, '1 in 100 to 1 in 1,000'], [-4, '1 in 1,000 to 1 in 10,000'], [-Infinity, 'less often']];
const FOUND = 20; // links below the search
const STEPS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

/** One point for each feature, with the words of all its explanations. */
function pointsOf(rows) {
  const points = new Map();
  for (const row of rows) {
    const point = points.get(row.index) ?? { index: row.index, x: row.umap_x, y: row.umap_y, group: row.umap_cluster, sparsity: row.umap_log_feature_sparsity, said: [] };
    if (row.description) point.said.push(row.description);
    points.set(row.index, point);
  }
  return [...points.values()];
}

/* ---- colours ---- */

const isDark = () => {
  const theme = document.documentElement.dataset.theme;
  return theme ? theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
};

const rarity = (point) => (known(point.sparsity) ? RARE.findIndex(([least]) => point.sparsity >= least) : -1);
const rarityHue = (step) => 20 + step * 50;
const paint = (hue, dark) => (hue === null ? (dark ? '#7b848d' : '#9a948a') : `hsl(${hue} ${dark ? '60% 62%' : '62% 42%'})`);

const COLOURS = {
  group: (point) => (known(point.group) && point.group >= 0 ? HUES[point.group % HUES.length] : null),
  rate: (point) => { const step = rarity(point); return step < 0 ? null : rarityHue(step); },
};

/** What colours mean, in words: a dot and a name each. */
function legend(kind, points) {
  const dark = isDark();
  const dot = (hue, words) => { const mark = h('span', { class: 'dot', 'aria-hidden': 'true' }); mark.style.background = paint(hue, dark); return h('li', {}, mark, words); };
  if (kind === 'rate') return h('ul', { class: 'legend' }, RARE.map(([, words], step) => points.some((p) => rarity(p) === step) && dot(rarityHue(step), words)), points.some((p) => rarity(p) < 0) && dot(null, 'not known'));
  const sizes = new Map();
  for (const p of points) sizes.set(p.group, (sizes.get(p.group) ?? 0) + 1);
  const groups = [...sizes].filter(([group]) => known(group) && group >= 0).sort((a, b) => a[0] - b[0]);
  const rest = points.length - groups.reduce((sum, [, n]) => sum + n, 0);
  return h('ul', { class: 'legend' }, groups.slice(0, HUES.length).map(([group, n]) => dot(HUES[group % HUES.length], `${group}: ${count(n)}`)),
    groups.length > HUES.length && h('li', {}, `and ${count(groups.length - HUES.length)} smaller groups in the same colours`), rest > 0 && dot(null, `in none: ${count(rest)}`));
}

/* ---- the canvas ---- */

/** Places in CSS pixels, both axes with the same scale. */
function fit(points, width, height) {
  const bounds = (name) => points.reduce(([low, high], p) => [Math.min(low, p[name]), Math.max(high, p[name])], [Infinity, -Infinity]);
  const [left, right] = bounds('x'), [top, bottom] = bounds('y');
  const scale = Math.min((width - 2 * MARGIN) / Math.max(right - left, 1e-9), (height - 2 * MARGIN) / Math.max(bottom - top, 1e-9));
  for (const p of points) {
    p.px = width / 2 + (p.x - (left + right) / 2) * scale;
    p.py = height / 2 + (p.y - (top + bottom) / 2) * scale;
  }
}

const sizeOf = (n) => (n > 20000 ? 1 : n > 5000 ? 1.5 : n > 1000 ? 2.2 : 3.2);

function drawPoints(context, points, colour, found) {
  const dark = isDark(), radius = sizeOf(points.length);
  const dots = (some, size, alpha) => {
    context.globalAlpha = alpha;
    for (const p of some) {
      context.fillStyle = paint(colour(p), dark);
      context.beginPath();
      context.arc(p.px, p.py, size, 0, 7);
      context.fill();
    }
    context.globalAlpha = 1;
  };
  dots(points, radius, found ? 0.18 : 0.85);
  if (found) dots(found, radius + 1.6, 1);
}

const nearest = (points, x, y, most) => {
  let best = null, least = most * most;
  for (const p of points) {
    const far = (p.px - x) ** 2 + (p.py - y) ** 2;
    if (far < least) [best, least] = [p, far];
  }
  return best;
};

/** The next point in a direction: near, and not much to the side. */
function beside(points, from, [dx, dy]) {
  let best = null, least = Infinity;
  for (const p of points) {
    const along = (p.px - from.px) * dx + (p.py - from.py) * dy, aside = Math.abs((p.px - from.px) * dy) + Math.abs((p.py - from.py) * dx);
    if (along > 0.5 && aside <= along * 1.5 && along + 2 * aside < least) [best, least] = [p, along + 2 * aside];
  }
  return best;
}

function wordsOf(at, point) {
  const rate = known(point.sparsity) ? (point.sparsity <= -10 ? 'never fires' : `fires at ${num(100 * 10 ** point.sparsity)} %`) : null;
  return `${nounOf(at)} ${point.index}${point.said.length ? `\n${visible(point.said[0])}` : ''}${rate ? `\n${rate}` : ''}`;
}

function picture(at, points, state) {
  const canvas = h('canvas', { 'aria-hidden': 'true' }), mark = h('span', { class: 'here', hidden: true, 'aria-hidden': 'true' });
  const host = h('div', { class: 'map', tabindex: 0, role: 'application', 'aria-label': `Map of ${count(points.length)} ${nounOf(at)}s; arrow keys go from point to point, Enter opens one` }, canvas, mark);
  let chosen = null;
  const choose = (point, aloud) => {
    chosen = point;
    mark.hidden = !point;
    if (point) {
      mark.style.left = `${point.px}px`;
      mark.style.top = `${point.py}px`;
      mark.dataset.v = wordsOf(at, point);
    }
    tipAt(point ? mark : null);
    host.classList.toggle('pointed', !!point);
    if (point && aloud) say(mark.dataset.v.replaceAll('\n', ': '));
  };
  const redraw = () => {
    const box = host.getBoundingClientRect(), dense = devicePixelRatio || 1;
    if (!box.width) return;
    canvas.width = Math.round(box.width * dense);
    canvas.height = Math.round(box.height * dense);
    fit(points, box.width, box.height);
    const context = canvas.getContext('2d');
    context.scale(dense, dense);
    drawPoints(context, points, COLOURS[state.colour], state.found);
    choose(null);
  };
  const pointed = (event) => { const box = host.getBoundingClientRect(); return nearest(state.found?.length ? state.found : points, event.clientX - box.left, event.clientY - box.top, REACH); };
  const open = (point) => { if (point) location.href = featurePath(at.model.id, at.source.id, point.index); };
  host.addEventListener('pointermove', (event) => { const point = pointed(event); if (point !== chosen) choose(point); });
  host.addEventListener('pointerleave', () => choose(null));
  host.addEventListener('blur', () => choose(null));
  host.addEventListener('click', (event) => open(pointed(event)));
  host.addEventListener('keydown', (event) => {
    if (event.key === 'Enter') open(chosen);
    if (event.key === 'Escape') choose(null);
    if (!STEPS[event.key]) return;
    event.preventDefault();
    const among = state.found?.length ? state.found : points;
    choose(chosen ? beside(among, chosen, STEPS[event.key]) ?? chosen : among[0], true);
  });
  new ResizeObserver(redraw).observe(host);
  new MutationObserver(() => state.changed()).observe(document.documentElement, { attributes: true, attributeFilter: ['data-theme'] });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => state.changed());
  return { host, redraw };
}

/* ---- beside it ---- */

/** Points whose explanations have every word. */
function search(points, words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  if (!wanted.length) return null;
  return points.filter((p) => { const said = p.said.join('\n').toLowerCase(); return wanted.every((word) => said.includes(word)); });
}

const links = (at, found) => found && h('div', {}, h('p', { class: 'hint' }, found.length ? `${count(found.length)} found${found.length > FOUND ? `, the first ${FOUND}` : ''}:` : 'No explanation has these words.'),
  h('ul', { class: 'list' }, found.slice(0, FOUND).map((p) => h('li', {}, h('a', { class: 'name', href: featurePath(at.model.id, at.source.id, p.index) }, p.index), ' ', visible(p.said[0])))));

function drawMap(at, rows) {
  const all = pointsOf(rows), points = all.filter((p) => known(p.x) && known(p.y));
  if (!points.length) return empty('Nothing has a place here.', 'No decoder row of this source has a direction.');
  const state = { colour: 'group', found: null };
  const { host, redraw } = picture(at, points, state);
  const names = h('div', {}), hits = h('div', { 'aria-live': 'polite' });
  state.changed = () => { redraw(); show(names, legend(state.colour, points)); };
  const colour = points.some((p) => rarity(p) >= 0) && select([['group', 'Groups of like ones'], ['rate', 'How often they fire']], 'group', { onchange: (event) => { state.colour = event.target.value; state.changed(); } });
  const words = h('input', { type: 'search', placeholder: 'words of an explanation', oninput: () => { state.found = search(points, words.value); show(hits, links(at, state.found)); redraw(); } });
  show(names, legend('group', points));
  return h('div', { class: 'columns side' }, h('div', { class: 'stack' }, host, h('p', { class: 'hint' }, 'Points that are near each other write in like directions. Distances between far ones, and the axes, say nothing.')),
    h('div', { class: 'stack' }, points.some((p) => p.said.length) && card('Find', field('Explanations with', words), hits), card('Colours', colour && field('By', colour), names),
      card('About', facts([['Shown', count(points.length)], ['Without a direction', all.length > points.length ? count(all.length - points.length) : null]]))));
}

/** Too large to be made while somebody waits: a job makes it. */
function offer(at, error) {
  const out = h('p', {}, at.source.stored ? sentence(error.message) : `With ${count(at.source.features)} ${nounOf(at)}s it takes a while: a job makes it, and the map is kept.`);
  const start = async () => {
    try {
      await post('/v1/jobs', { kind: 'map', modelId: at.model.id, source: at.source.id });
      location.href = '/jobs';
    } catch (refused) {
      show(out, failure(refused));
    }
  };
  return h('div', { class: 'stack' }, empty('There is no map of this source yet.'), out, !at.source.stored && h('div', {}, h('button', { type: 'button', class: 'main', onclick: start }, 'Make it')));
}

export async function draw(main, [modelId, sourceId]) {
  const at = await findSource(modelId, sourceId);
  const out = h('div', {});
  setTitle('Map', at.source.id, at.model.id);
  show(main, h('div', { class: 'head' }, crumbs(['Home', '/'], [at.model.id, path(at.model.id)], [at.source.id, path(at.model.id, at.source.id)]),
    h('h1', {}, areNeurons(at.source) ? `Map of the neurons of layer ${at.source.layer}` : `Map of ${at.source.id}`)), out);
  load(out, async () => {
    try {
      const reply = await post('/api/umap', { modelId: at.model.id, layers: [at.source.id] });
      return drawMap(at, reply[at.source.id] ?? []);
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return offer(at, error);
      throw error;
    }
  }, 'Making the map…');
}
