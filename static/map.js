// map.js: the map of a source: every feature a point, near those whose decoder rows point the same way. mapview.js draws the
// points; a list of what a search finds reaches what the pointer reaches. `#1890` behind the address is a feature to begin at.

import { card, count, crumbs, empty, facts, failure, field, h, known, load, num, select, sentence, setTitle, show, visible } from './dom.js';
import { ApiError, areNeurons, featurePath, findSource, nounOf, path, post } from './api.js';
import { mapView } from './mapview.js';

const HUES = [192, 32, 265, 95, 340, 215, 55, 300, 150, 10, 240, 75]; // of groups, the largest first; then again from the first
const RARE = [[-1, 'more than 1 in 10'], [-2, '1 in 10 to 1 in 100'], [-3, '1 in 100 to 1 in 1,000'], [-4, '1 in 1,000 to 1 in 10,000'], [-Infinity, 'less often']];
const FOUND = 20; // links below the search

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
  const dot = (hue, words) => { const mark = h('i', { class: 'dot', 'aria-hidden': 'true' }); mark.style.background = paint(hue, dark); return h('li', {}, mark, words); };
  if (kind === 'rate') return h('ul', { class: 'legend' }, RARE.map(([, words], step) => points.some((p) => rarity(p) === step) && dot(rarityHue(step), words)), points.some((p) => rarity(p) < 0) && dot(null, 'not known'));
  const sizes = new Map();
  for (const p of points) sizes.set(p.group, (sizes.get(p.group) ?? 0) + 1);
  const groups = [...sizes].filter(([group]) => known(group) && group >= 0).sort((a, b) => a[0] - b[0]);
  const rest = points.length - groups.reduce((sum, [, n]) => sum + n, 0);
  return [h('p', { class: 'hint' }, 'Groups of features that have more to do with each other than with the rest, and how many each has:'),
    h('ul', { class: 'legend' }, groups.slice(0, HUES.length).map(([group, n]) => dot(HUES[group % HUES.length], `${group}: ${count(n)}`)),
      groups.length > HUES.length && h('li', {}, `and ${count(groups.length - HUES.length)} smaller groups in the same colours`), rest > 0 && dot(null, `in none: ${count(rest)}`))];
}

/* ---- the page ---- */

function wordsOf(at, point) {
  const rate = known(point.sparsity) ? (point.sparsity <= -10 ? 'never fires' : `fires at ${num(100 * 10 ** point.sparsity)} %`) : null;
  return `${nounOf(at)} ${point.index}${point.said.length ? `\n${visible(point.said[0])}` : ''}${rate ? `\n${rate}` : ''}`;
}

/** Points whose explanations have every word. */
function search(points, words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  if (!wanted.length) return null;
  return points.filter((p) => { p.lower ??= p.said.join('\n').toLowerCase(); return wanted.every((word) => p.lower.includes(word)); });
}

const links = (at, found) => found && h('div', {}, h('p', { class: 'hint' }, found.length ? `${count(found.length)} found${found.length > FOUND ? `, the first ${FOUND}` : ''}:` : 'No explanation has these words.'),
  h('ul', { class: 'list' }, found.slice(0, FOUND).map((p) => h('li', {}, h('a', { class: 'name', href: featurePath(at.model.id, at.source.id, p.index) }, p.index), ' ', visible(p.said[0])))));

function drawMap(at, rows) {
  const all = pointsOf(rows), points = all.filter((p) => known(p.x) && known(p.y));
  if (!points.length) return empty('Nothing has a place here.', 'No decoder row of this source has a direction.');
  const state = { colour: 'group', found: null };
  const view = mapView(points, { label: `Map of ${count(points.length)} ${nounOf(at)}s`, wordsOf: (p) => wordsOf(at, p), open: (p) => { location.href = featurePath(at.model.id, at.source.id, p.index); } });
  const names = h('div', {}), hits = h('div', { 'aria-live': 'polite' });
  const repaint = () => { const dark = isDark(), hue = COLOURS[state.colour]; view.repaint({ colour: (p) => paint(hue(p), dark), found: state.found }); };
  const changed = () => { repaint(); show(names, legend(state.colour, points)); };
  const rated = points.some((p) => rarity(p) >= 0);
  const colour = rated && select([['group', 'group'], ['rate', 'how often they fire']], 'group', { onchange: (event) => { state.colour = event.target.value; changed(); } });
  const words = h('input', { type: 'search', placeholder: 'words of an explanation', oninput: () => { state.found = search(points, words.value); show(hits, links(at, state.found)); repaint(); } });
  new MutationObserver(changed).observe(document.documentElement, { attributes: true, attributeFilter: ['data-theme'] });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed);
  changed();
  const first = points.find((p) => p.index === location.hash.slice(1));
  if (first) view.goTo(first);
  return h('div', { class: 'columns side' }, h('div', { class: 'stack' }, view.node,
    h('p', { class: 'hint' }, `Each point is a ${nounOf(at)}. Neighbours write in similar directions; the axes, and how far apart distant points are, mean nothing. `,
      'Wheel, pinch or + and − zoom, dragging moves, a press opens what is there.')),
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
