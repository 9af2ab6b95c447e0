// feature.js: everything known of one feature: what people and rules say it means, how often and how strongly it fires,
// what it promotes, where it fired, and a box to try it. The embedded form of it stands in notebooks' frames.

import { card, copyButton, count, crumbs, during, empty, facts, failure, field, h, known, load, noStore, num, percent, say, select, setTitle, show, tabs, waiting } from './dom.js';
import { ApiError, areNeurons, boundOf, explanationOf, featurePath, findSource, get, nounOf, path, post, server } from './api.js';
import { histogram } from './chart.js';
import { listCard } from './list.js';
import { logitList, tokenLine } from './tokens.js';

// ---- the parts ------------------------------------------------------------------------------------------

const authorOf = (told) => [told.typeName, told.explanationModelName].filter(Boolean).join(', ');

/** The explanations with a form to write a better one. `at` = {model, source, index}. */
function explanationCard(at, feature, changed) {
  const notes = h('div', { 'aria-live': 'polite' });
  const told = feature.explanations ?? [];
  const forget = (one) => (event) => during(event.target, notes, async () => { await post(`/api/explanation/${encodeURIComponent(one.id)}/delete`, {}); await changed(); });
  const area = h('textarea', { rows: 3, maxlength: 2000, required: true });
  area.value = told[0]?.description ?? '';
  const save = h('button', { class: 'main' }, 'Save');
  const form = h('form', { hidden: true, class: 'stack tight', onsubmit: (event) => {
    event.preventDefault();
    during(save, notes, async () => {
      await post('/api/explanation/new', { modelId: at.model.id, layer: at.source.id, index: String(at.index), description: area.value.trim() });
      await changed();
      say('explanation saved');
    });
  } }, field(`What this ${nounOf(at)} means`, area, 'Yours is shown before imported and automatic ones.'),
  h('div', { class: 'row' }, save, h('button', { type: 'button', onclick: () => open(false) }, 'Cancel')));
  const edit = h('button', { type: 'button', class: 'quiet', 'aria-expanded': 'false', onclick: () => open(form.hidden) }, told.length ? 'Write a better one' : 'Write one');
  const open = (wanted) => { form.hidden = !wanted; edit.setAttribute('aria-expanded', String(wanted)); (wanted ? area : edit).focus(); };
  return h('section', { class: 'card' }, h('div', { class: 'row apart' }, h('h2', {}, told.length > 1 ? 'Explanations' : 'Explanation'), edit),
    told.length ? h('ul', { class: 'list' }, told.map((one) => h('li', {}, h('div', { class: 'row apart item' },
      h('div', {}, one.description, ' ', h('span', { class: 'chip' }, authorOf(one) || 'by hand')),
      one.origin === 'manual' && h('button', { type: 'button', class: 'quiet', 'aria-label': `Delete the explanation ${one.description}`, onclick: forget(one) }, 'Delete')))))
      : h('p', { class: 'state' }, `Nobody has said yet what this ${nounOf(at)} means.`),
    form, notes);
}

function figures(feature) {
  const fires = feature.frac_nonzero;
  return facts([['Fires on', known(fires) ? `${percent(fires)} of tokens` : null], ['Strongest', known(feature.maxActApprox) ? num(feature.maxActApprox, 4) : null],
    ['Mean when firing', known(feature.mean) ? num(feature.mean) : null],
    ['Tokens counted', known(feature.n_tokens) && feature.n_tokens > 0 ? count(feature.n_tokens) : null]]);
}

export function plots(feature, height) {
  const bars = (what) => ({ heights: feature[`${what}_data_bar_heights`] ?? [], values: feature[`${what}_data_bar_values`] ?? [] });
  const activity = bars('freq_hist'), logits = bars('logits_hist');
  return [
    activity.heights.length > 0 && histogram({ ...activity, label: 'Activations above zero', warm: true, log: true, height, caption: 'Strength where it fires (log scale)' }),
    logits.heights.length > 0 && histogram({ ...logits, label: 'Effect on the logits of all tokens', height, caption: 'Added to the logits of all tokens' }),
  ].filter(Boolean);
}

const clip = (list, n) => (list ?? []).slice(0, n);

export function logits(feature, most = 10) {
  if (!feature.pos_str?.length && !feature.neg_str?.length) return null;
  return h('div', { class: 'logits' }, logitList('Pushes up', clip(feature.pos_str, most), clip(feature.pos_values, most)),
    logitList('Pushes down', clip(feature.neg_str, most), clip(feature.neg_values, most)));
}

export const LOGITS = 'What one unit of it adds to the logit of a token, straight from its place to the output.';

/** One of the source's features as a line: its address, its meaning when it comes, a bar. */
function neighbourLine(at, index, cosine) {
  const meaning = h('span', { class: 'soft' });
  explanationOf(at.model.id, at.source.id, index).then((told) => { show(meaning, told ?? ''); });
  return h('li', {}, h('a', { href: featurePath(at.model.id, at.source.id, index) }, h('div', { class: 'row line' },
    h('span', {}, h('span', { class: 'name' }, index), ' ', meaning), h('span', { class: 'number soft' }, cosine.toFixed(2)))));
}

const COSINES = 'By the cosine of what the two write: 1 is the same direction, 0 has nothing in common.';

/** Nearest decoder rows: from the feature itself where they are stored, else asked for. */
function neighbours(at, feature) {
  const title = `Nearest ${nounOf(at)}s`, hint = h('p', { class: 'hint' }, COSINES, ' ', h('a', { href: `${featurePath(at.model.id, at.source.id, 'map')}#${at.index}` }, 'Where it is on the map'));
  const list = (indices, values) => (indices.length ? h('ul', { class: 'list' }, indices.map((index, i) => neighbourLine(at, index, values[i]))) : empty('No neighbours.'));
  if (feature.topkCosSimIndices?.length) {
    const pairs = feature.topkCosSimIndices.map((index, i) => [index, feature.topkCosSimValues[i]]).filter(([index]) => index !== at.index);
    return card(title, hint, list(pairs.map(([i]) => i), pairs.map(([, v]) => v)));
  }
  if (at.source.stored) return null;
  const out = h('div', {});
  load(out, async () => {
    const reply = await post('/api/cossim', { modelId: at.model.id, source: at.source.id, index: String(at.index), targetModelId: at.model.id, targetSourceId: at.source.id });
    const rows = (reply.topkDecoderCossimFeatures ?? []).filter((row) => Number(row.feature.index) !== at.index);
    return list(rows.map((row) => Number(row.feature.index)), rows.map((row) => row.cosineSimilarity));
  });
  return card(title, hint, out);
}

// ---- examples -------------------------------------------------------------------------------------------

/** Examples by the interval they were sampled from, strongest interval first; the top group leads. */
function groupsOf(activations) {
  const groups = new Map();
  for (const row of activations) {
    const top = row.binMin === -1 || row.binMin === null || row.binMin === undefined || (row.binMin === 0 && row.binMax === 0);
    const key = top ? 'top' : `${row.binMin}`;
    if (!groups.has(key))
      groups.set(key, { key, low: top ? Infinity : row.binMin, rows: [], name: top ? 'Strongest' : `${num(row.binMin)} to ${num(row.binMax)}`, share: top ? null : row.binContains });
    groups.get(key).rows.push(row);
  }
  return [...groups.values()].sort((a, b) => b.low - a.low);
}

function exampleLine(row, max, view) {
  const focus = row.qualifyingTokenIndex >= 0 && known(row.qualifyingTokenIndex) ? row.qualifyingTokenIndex : row.maxValueTokenIndex;
  return h('li', { class: 'example' }, tokenLine(row.tokens, row.values, { max, view, focus }), h('span', { class: 'number soft', title: 'activation at the marked token' }, num(row.values[focus])));
}

function examples(feature, { view = 'compact', most = 12 } = {}) {
  const groups = groupsOf(feature.activations ?? []);
  if (!groups.length)
    return card('Examples', !server.keeps ? noStore('No examples') : empty('No examples are stored.', 'Statistics over a text make them: ', h('a', { href: '/jobs' }, 'start a job'), ' or run ', h('code', {}, 'steerd stats'), '. The test box works without.'));
  const max = feature.maxActApprox || Math.max(...feature.activations.map((row) => row.maxValue));
  const state = { view, group: groups[0].key, all: false };
  const out = h('div', {});
  const fill = () => {
    const chosen = state.group === 'all' ? groups : groups.filter((group) => group.key === state.group);
    const limit = state.all ? Infinity : most;
    show(out, chosen.map((group) => h('section', {},
      (chosen.length > 1 || group.share !== null) && h('h3', { class: 'soft' }, group.name, group.share !== null && known(group.share) ? ` · ${percent(group.share)} of tokens` : ''),
      h('ul', {}, group.rows.slice(0, limit).map((row) => exampleLine(row, max, state.view))),
      group.rows.length > limit && h('button', { type: 'button', class: 'quiet', onclick: () => { state.all = true; fill(); } }, `Show all ${group.rows.length}`))));
  };
  const interval = groups.length > 1 && select([...groups.map((group) => [group.key, group.key === 'top' ? 'Strongest' : `${group.name}`]), ['all', 'Every interval']], state.group, { 'aria-label': 'Interval of activations' });
  if (interval) interval.addEventListener('change', () => { state.group = interval.value; fill(); });
  fill();
  return h('section', { class: 'card' }, h('div', { class: 'row' }, h('h2', {}, 'Examples'),
    interval && h('div', {}, interval), tabs('View', [['compact', 'Compact'], ['expanded', 'Expanded'], ['stacked', 'Stacked']], view, (to) => { state.view = to; fill(); })), out);
}

// ---- the test box ---------------------------------------------------------------------------------------

function testBox(at, feature, { text = '', run = false } = {}) {
  const input = h('input', { placeholder: 'Try a text…', 'aria-label': `Text to try this ${nounOf(at)} on`, spellcheck: 'false' });
  const out = h('div', { 'aria-live': 'polite' });
  input.value = text;
  const attempt = () => {
    if (!input.value) return show(out);
    return load(out, async () => {
      const reply = await post('/api/activation/new', { feature: { modelId: at.model.id, source: at.source.id, index: String(at.index) }, customText: input.value });
      const max = Math.max(feature?.maxActApprox || 0, reply.maxValue);
      return h('div', {}, tokenLine(reply.tokens, reply.values, { max, every: true, focus: reply.maxValue > 0 ? reply.maxValueTokenIndex : -1 }),
        h('p', { class: 'hint' }, reply.maxValue > 0 ? `Strongest: ${num(reply.maxValue, 4)} at “${reply.tokens[reply.maxValueTokenIndex]}”` : 'It does not fire on this text.'));
    }, 'Reading…');
  };
  // While somebody types, the last text counts; a moment's rest asks.
  let timer;
  input.addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(attempt, 350); });
  const form = h('form', { class: 'ask', onsubmit: (event) => { event.preventDefault(); clearTimeout(timer); attempt(); } }, input, h('button', {}, 'Test'));
  if (run) attempt();
  return card('Test', form, out);
}

// ---- the page and its embedded form ---------------------------------------------------------------------

const usual = (at) => (areNeurons(at.source) ? 5 : 20); // how strongly, where nobody has counted
const steerLink = (at, feature) => `/steer#${new URLSearchParams({ model: at.model.id, feature: `${at.source.id}/${at.index}@${Math.max(1, Math.round(Math.min(100, feature?.maxActApprox || usual(at))))}` })}`;

const capital = (word) => word[0].toUpperCase() + word.slice(1);
const nameOf = (at) => `${capital(nounOf(at))} ${at.index}`;
const placeOf = (at) => (areNeurons(at.source) ? `layer ${at.source.layer}` : at.source.id);

function heading(at, feature) {
  return feature?.explanations?.[0]?.description ?? nameOf(at);
}

function stepLinks(at) {
  if (at.source.features < boundOf(at.source)) return []; // uploaded with gaps: the next number need not be there
  const to = (index, text, label) => (index >= 0 && index < boundOf(at.source) ? h('a', { class: 'button', href: featurePath(at.model.id, at.source.id, index), 'aria-label': label }, text) : null);
  return [to(at.index - 1, '←', `${capital(nounOf(at))} before`), to(at.index + 1, '→', `Next ${nounOf(at)}`)];
}

/** `told`: the feature as it was asked for when the page began, before anything else was known. */
function drawWhole(main, at, told) {
  const top = h('div', { class: 'head' });
  const left = h('div', { class: 'stack' });
  const right = h('div', { class: 'stack' });
  const headline = (feature) => show(top,
    crumbs(['Home', '/'], [at.model.id, path(at.model.id)], [at.source.id, `/${encodeURIComponent(at.model.id)}/${encodeURIComponent(at.source.id)}`]),
    h('div', { class: 'row apart' }, h('h1', {}, heading(at, feature)),
      h('div', { class: 'row' }, stepLinks(at), !at.source.stored && h('a', { class: 'button main', href: steerLink(at, feature) }, 'Steer with it'))),
    h('p', { class: 'lead' }, `${nameOf(at)} of ${placeOf(at)}${at.source.stored ? '' : `, at ${at.source.point}`}`));
  const box = h('div', {}, !at.source.stored && testBox(at, null));
  const rest = h('div', { class: 'stack' });
  const refresh = async () => {
    const feature = await (told ?? get('/api/feature' + featurePath(at.model.id, at.source.id, at.index)));
    told = null;
    headline(feature);
    setTitle(heading(at, feature), `${at.source.id}/${at.index}`);
    if (!at.source.stored) show(box, testBox(at, feature, { text: box.querySelector('input').value, run: true }));
    show(rest, examples(feature), listCard(at, feature.lists), embedCard(at));
    const stored = plots(feature), sizes = figures(feature);
    show(left, explanationCard(at, feature, refresh),
      card('How it fires', sizes.childElementCount ? sizes : null, stored.length ? h('div', { class: 'plots' }, stored) : sizes.childElementCount ? null : h('p', { class: 'state' }, `No statistics are stored for this ${nounOf(at)}.`)),
      card('What it promotes', feature.pos_str?.length ? h('p', { class: 'hint' }, LOGITS) : null, logits(feature) ?? h('p', { class: 'state' }, at.source.promotes === false ? 'Nothing by itself: its rows are queries, keys or values, which only say what attention looks at or carries.' : 'Not known.')),
      neighbours(at, feature));
  };
  headline(null);
  show(right, at.source.stored ? null : box, rest);
  show(main, top, h('div', { class: 'columns even' }, left, right));
  show(left, waiting());
  return refresh().catch((error) => show(left, failure(error, () => drawWhole(main, at))));
}

function embedCard(at) {
  const address = `${location.origin}${featurePath(at.model.id, at.source.id, at.index)}?embed=true&embedexplanation=true&embedplots=true&embedtest=true&height=300`;
  const code = `from IPython.display import IFrame\nIFrame("${address}", width=1200, height=300)`;
  return card(null, h('details', {}, h('summary', {}, 'In a notebook'), h('pre', { class: 'wrap' }, code), h('div', { class: 'row' }, copyButton(() => code))));
}

async function drawEmbedded(main, at, told, query) {
  const wants = (name) => query.get(name) !== 'false';
  const own = featurePath(at.model.id, at.source.id, at.index);
  const narrow = innerWidth < 640 || innerHeight < 400 || Number(query.get('height')) < 400;
  const tests = wants('embedtest') && wants('embedtestfield') && !at.source.stored;
  const text = query.get('defaulttesttext') ?? '';
  const feature = await told;
  const side = [
    wants('embedplots') && h('div', { class: 'plots' }, plots(feature, narrow ? 44 : 80)),
    wants('embedplots') && logits(feature, narrow ? 5 : 10),
  ];
  const rest = [
    (tests || (text && !at.source.stored)) && testBox(at, feature, { text, run: text !== '' }),
    wants('embedactivations') && examples(feature, { most: narrow ? 6 : 14 }),
  ];
  show(main,
    h('div', { class: 'head' }, h('h1', {}, wants('embedexplanation') ? heading(at, feature) : nameOf(at)),
      wants('embedlink') && h('a', { href: own, target: '_blank', rel: 'noopener' }, `${at.source.id}/${at.index}`),
      wants('embedsteer') && !at.source.stored && h('a', { href: steerLink(at, feature), target: '_blank', rel: 'noopener' }, 'Steer')),
    figures(feature),
    h('div', { class: 'columns' }, h('div', { class: 'stack' }, side), h('div', { class: 'stack' }, rest)));
}

export async function draw(main, [modelId, sourceId, index], query) {
  setTitle(`${sourceId}/${index}`);
  const told = /^\d+$/.test(index) ? get('/api/feature' + featurePath(modelId, sourceId, index)) : null;
  told?.catch(() => {}); // waited for below, once the source is known
  const source = await findSource(modelId, sourceId).catch(async (error) => {
    const vector = error.status === 404 ? await told?.catch(() => null) : null; // a kept vector is named as a feature is, and has no source
    if (!vector?.hasVector) throw error;
    return { vector };
  });
  if (source.vector) return (await import('./vector.js')).drawVector(main, source.vector);
  const at = { ...source, index: Number(index) };
  if (!told || at.index >= boundOf(at.source))
    throw new ApiError(404, { message: `${sourceId} has no ${nounOf(at)} ${index}: they go from 0 to ${boundOf(at.source) - 1}` });
  if (query.get('embed') === 'true') return drawEmbedded(main, at, told, query);
  return drawWhole(main, at, told);
}
