// source.js: one dictionary: how often its features fire, all of them in a table, and what a text turns on.

import { bytes, card, column, count, crumbs, empty, facts, field, h, known, load, noStore, num, pager, percent, setTitle, show } from './dom.js';
import { areNeurons, boundOf, explanationOf, featurePath, findSource, get, knowNames, path, post, queryOf, server } from './api.js';
import { densityChart } from './chart.js';
import { promoters, skewed } from './logits.js';
import { explanationSearch } from './search.js';
import { meter, tokenLine } from './tokens.js';
import { randomFeature } from './home.js';

const PAGE = 25;
const COLUMNS = [['index', 'Feature', true], ['rate', 'Density', false], ['max', 'Max', false], ['mean', 'Mean', false]];

const UNITS = { folded: 'Folded: an activation is told times the length of its decoder row, so that it means as much in every feature.',
  raw: 'Raw: activations are told as the dictionary makes them.',
  neurons: 'The activations of the MLP as they are, below zero too. A neuron fires where it is above zero.' };
const WELL = 'L0: how many features fire at once. Explained variance: 1 is a perfect copy of the rows, 0 no better than their mean.';
const KEPT = ' Cross-entropy: how badly the next token is foreseen, in nats; 100 % is kept where the copy does no harm.';

/** Which positions of a context its statistics are of, as Python writes it; null: all that it counts. */
function counted({ seqposSlice: slice, excludedTokens: tokens }) {
  const [start, stop, step] = slice ?? [];
  const words = [slice && `positions [${start ?? ''}:${stop ?? ''}${step !== 1 ? `:${step}` : ''}] of a text`, tokens?.length && `without ${count(tokens.length)} tokens`];
  return words.filter(Boolean).join(', ') || null;
}

const labOf = (at) => '/v1/lab/dictionaries' + path(at.model.id, at.source.id);

function dictionaryFacts(at) {
  const { source } = at;
  const units = source.folded ? 'folded' : 'raw';
  if (source.stored) return [facts([['Features', count(source.features)], ['Layer', source.layer >= 0 ? source.layer : null], ['Units', source.folded === null ? null : units]]),
    h('p', { class: 'hint' }, 'There is no dictionary behind this name: what was uploaded or imported can be read, and nothing is computed with it.')];
  if (areNeurons(source)) return [facts([['Neurons', count(source.features)], ['Read at', source.point]]), h('p', { class: 'hint' }, UNITS.neurons)];
  return [facts([['Features', count(source.features)], ['Kind', source.kind], ['Reads', source.point], ['Writes', source.pointOut !== source.point ? source.pointOut : null],
    ['Width', count(source.width)], ['Units', units], ['Statistics over', counted(source)], ['Memory', bytes(source.bytes)]]), h('p', { class: 'hint' }, UNITS[units])];
}

/** What was measured of it, where the server knows: statistics' conventions and reconstruction quality. */
function measured(told) {
  const s = told.statistics ?? {}, how = s.conventions ?? {};
  const shown = facts([['Tokens counted', s.nTokens > 0 ? count(s.nTokens) : null], ['Documents', how.documents > 0 ? count(how.documents) : null],
    ['Text', how.corpus], ['Made', how.madeAt?.slice(0, 10)], ['Never fire', s.nTokens > 0 ? count(s.dead) : null]]);
  return shown.childElementCount ? h('div', {}, h('hr'), shown) : null;
}

/** How well it does: the newest evaluation, else what the short text at its loading said, and the warning of that. */
function quality(told) {
  const [e] = told.evaluations ?? [], test = told.selfTest, ce = e?.crossEntropy;
  const shown = e
    ? facts([['Over', `${e.corpus}, ${count(e.tokens)} positions`], ['Features a position (L0)', num(e.l0)], ['Explained variance', num(e.explainedVariance)],
      ['Squared error', num(e.mse)], ['Cosine', known(e.cosine) ? num(e.cosine) : null], ['Ratio of lengths', known(e.l2Ratio) ? num(e.l2Ratio) : null], ['Never fire', count(e.dead)], ['Model’s cross-entropy', num(ce.raw)], ['Through the dictionary', num(ce.spliced)],
      ['Its error put back', num(ce.withError)], ['Zeros in its place', num(ce.zero)], ['Share kept', percent(ce.kept)], ['Divergence (KL)', known(e.klDivergence?.spliced) ? num(e.klDivergence.spliced) : null]])
    : test ? facts([['Over', `a built-in text, ${count(test.tokens)} tokens`], ['Features a token (L0)', num(test.l0)], ['By its configuration', known(test.promisedL0) ? num(test.promisedL0) : null],
      ['Explained variance', num(test.explainedVariance)]]) : null;
  if (!shown && !test?.warning) return null;
  return card('How well it explains', test?.warning ? h('div', { class: 'notice bad', role: 'alert' }, h('p', {}, test.warning)) : null, shown, shown && h('p', { class: 'hint' }, e ? WELL + KEPT : WELL));
}

function density(at) {
  const out = h('div', {});
  load(out, async () => {
    const reply = await get(`${labOf(at)}/density`);
    const chart = densityChart((reply.rates ?? reply.density ?? []).filter((rate) => known(rate)));
    if (!chart && at.source.stored) return empty('Nobody has told how often they fire.');
    return chart ?? (server.keeps ? null : noStore('No statistics')) ?? empty('No statistics yet.', 'A job over a text counts how often each feature fires: ', h('a', { href: '/jobs' }, 'start one'), '.');
  });
  return card('How often features fire', out);
}

/** The table; a click on a column's head sorts by it, a second one turns the order. */
function featureTable(at) {
  const state = { order: 'index', descending: false, offset: 0 };
  const out = h('div', { class: 'scroll' });
  const go = (change) => { Object.assign(state, change); fill(); };
  const head = ([key, title, left]) => h('th', { scope: 'col', class: left ? null : 'right', 'aria-sort': state.order === key ? (state.descending ? 'descending' : 'ascending') : null },
    h('button', { type: 'button', onclick: () => go({ order: key, descending: state.order === key ? !state.descending : key !== 'index', offset: 0 }) }, title));
  const line = (most, means) => (row, i) => h('tr', {}, h('td', {}, h('a', { href: featurePath(at.model.id, at.source.id, row.index) }, row.index)),
    h('td', { class: 'right' }, percent(row.rate)), h('td', { class: 'right' }, most[i]), h('td', { class: 'right' }, means[i]), h('td', { class: 'wide' }, row.description ?? h('span', { class: 'soft' }, '–')));
  const fill = () => load(out, async () => {
    const reply = await get(`${labOf(at)}/features` + queryOf({ order: state.order, descending: state.descending, offset: state.offset, limit: PAGE }));
    const rows = reply.features ?? [];
    if (!rows.length && at.source.stored) return empty('No features were uploaded yet.', 'POST /api/feature/upload-batch brings them.');
    if (!rows.length) return empty('No feature has statistics yet.', 'Each has its own page all the same: ', h('a', { href: featurePath(at.model.id, at.source.id, 0) }, 'feature 0'), '.');
    const [most, means] = ['max', 'mean'].map((name) => column(rows.map((row) => row[name])));
    return [h('table', {}, h('caption', { class: 'unseen' }, `Features of ${at.source.id}`), h('thead', {}, h('tr', {}, COLUMNS.map(head), h('th', { scope: 'col' }, 'Explanation'))), h('tbody', {}, rows.map(line(most, means)))),
      pager({ offset: state.offset, size: PAGE, shown: rows.length, total: reply.total ?? reply.totalCount ?? at.source.features }, (offset) => go({ offset }))];
  });
  fill();
  return card('Features', out);
}

function byNumber(at) {
  const input = h('input', { type: 'number', min: 0, max: boundOf(at.source) - 1, step: 1, required: true, placeholder: `0 to ${boundOf(at.source) - 1}`, 'aria-label': 'Number of a feature' });
  return h('form', { class: 'ask', onsubmit: (event) => { event.preventDefault(); location.href = featurePath(at.model.id, at.source.id, input.valueAsNumber); } }, input, h('button', {}, 'Go'));
}

/** The strongest features over a typed text, each with its strength at every token. */
export function strongest(at) {
  const input = h('textarea', { rows: 2, spellcheck: 'false', required: true, placeholder: 'Type a text…' });
  const out = h('div', { 'aria-live': 'polite' });
  const run = () => load(out, async () => {
    const reply = await post('/api/search-all', { modelId: at.model.id, sourceSet: at.source.set, selectedLayers: [at.source.id], text: input.value, sortIndexes: [], numResults: 12 });
    if (!reply.result.length) return empty('Nothing fires on this text.');
    knowNames(reply.result);
    const max = reply.result[0].maxValue;
    return h('ul', { class: 'list' }, reply.result.map((row) => {
      const meaning = h('span', { class: 'soft' });
      explanationOf(at.model.id, at.source.id, row.index).then((told) => { show(meaning, told ?? ''); });
      return h('li', {}, h('div', { class: 'item' }, h('div', { class: 'row line' }, h('span', {}, h('a', { class: 'name', href: featurePath(at.model.id, at.source.id, row.index) }, row.index), ' ', meaning),
        h('span', { class: 'number soft' }, num(row.maxValue))), meter(row.maxValue, max), tokenLine(reply.tokens, row.values, { max: row.maxValue, focus: row.maxValueIndex, view: 'compact' })));
    }));
  }, 'Reading…');
  input.addEventListener('keydown', (event) => { if (event.key === 'Enter' && !event.shiftKey) { event.preventDefault(); if (input.value) run(); } });
  return card('What a text turns on', h('form', { class: 'stack tight', onsubmit: (event) => { event.preventDefault(); run(); } },
    field('Text', input), h('div', { class: 'row' }, h('button', { class: 'main' }, 'Show the strongest features'))), out);
}

export async function draw(main, [modelId, sourceId]) {
  const at = await findSource(modelId, sourceId);
  setTitle(at.source.id, at.model.id);
  const told = h('div', {}), well = h('div', {}), computes = !at.source.stored;
  const moves = computes && at.source.promotes !== false; // queries, keys and values reach no logit
  get(labOf(at)).then((reply) => { show(told, measured(reply)); show(well, quality(reply)); }).catch(() => {}); // the facts above stand alone
  show(main, h('div', { class: 'head' }, crumbs(['Home', '/'], [at.model.id, path(at.model.id)]), h('h1', {}, areNeurons(at.source) ? `Neurons of layer ${at.source.layer}` : at.source.id)),
    h('div', { class: 'columns side' },
      h('div', { class: 'stack' }, card(areNeurons(at.source) ? 'Neurons' : computes ? 'Dictionary' : 'Source', dictionaryFacts(at), told), well, density(at), featureTable(at), moves && skewed(at)),
      h('div', { class: 'stack' },
        card('Find a feature', h('div', { class: 'stack tight' }, explanationSearch({ model: at.model.id, source: at.source.id }, 'words of an explanation'), at.source.features > 0 && byNumber(at),
          at.source.features > 0 && h('div', { class: 'row' }, h('button', { type: 'button', onclick: () => randomFeature(at.model, at.source) }, 'A random feature'),
          h('a', { class: 'button', href: path(at.model.id, at.source.id, 'map') }, 'The map')))),
        computes && strongest(at), moves && promoters(at))));
}
