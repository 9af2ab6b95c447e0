// inspect.js: into a text: its tokens, the strongest features at each, one feature over all of it, and one text
// against another.

import { card, count, empty, field, h, load, num, select, setTitle, show } from './dom.js';
import { explanationOf, featurePath, firstSource, knowName, models, post, sourceName } from './api.js';
import { overText } from './chart.js';
import { meter, tokenLine } from './tokens.js';
import { picker } from './search.js';

const AT_TOKEN = 10, COMPARED = 100, SHOWN = 15;

function named(state, index) {
  const meaning = h('span', { class: 'soft' });
  explanationOf(state.model.id, state.source.id, index).then((told) => { show(meaning, told ?? ''); });
  return h('span', {}, h('a', { href: featurePath(state.model.id, state.source.id, index) }, index), ' ', meaning);
}

function featureBars(state, features, overview) {
  const max = Math.max(...features.map((one) => one.activationValue), 0);
  return features.length ? h('ul', { class: 'list' }, features.map((one) => h('li', {}, h('div', { class: 'item' },
    h('div', { class: 'row line' }, named(state, one.featureIndex),
      h('span', { class: 'row line' }, h('span', { class: 'number soft' }, num(one.activationValue)), h('button', { type: 'button', class: 'quiet', onclick: () => overview(one.featureIndex), 'aria-label': `Feature ${one.featureIndex} over the text` }, 'Over the text'))),
    meter(one.activationValue, max))))) : empty('No feature fires here.');
}

/** Tokens to choose from; the chosen one tells its strongest features. */
function tokenPicker(state, rows, overview) {
  const out = h('div', { 'aria-live': 'polite' });
  const strongest = Math.max(...rows.map((row) => row.topFeatures[0]?.activationValue ?? 0), 1e-9);
  const buttons = rows.map((row, i) => {
    const value = row.topFeatures[0]?.activationValue ?? 0;
    const step = value > 0 ? Math.max(1, Math.min(10, Math.ceil((value / strongest) * 10))) : 0;
    return h('button', { type: 'button', class: `tok${step ? ` h${step}` : ''}`, 'aria-pressed': 'false', 'data-v': `${row.token}\nposition ${row.position}`, onclick: () => choose(i) }, row.token.replace(/\n/g, '↵'));
  });
  const choose = (i) => {
    buttons.forEach((button, k) => button.setAttribute('aria-pressed', String(k === i)));
    show(out, h('h3', {}, `Strongest at “${rows[i].token}”, position ${rows[i].position}`), featureBars(state, rows[i].topFeatures, overview));
  };
  choose(rows.length - 1);
  return h('div', { class: 'stack tight' }, h('p', { class: 'hint' }, `${count(rows.length)} tokens; the warmer one is, the stronger its strongest feature. Choose one.`),
    h('div', { class: 'tokens pick' }, buttons), out);
}

function overTextCard(state) {
  const out = h('div', { 'aria-live': 'polite' }, h('p', { class: 'state' }, 'Choose a feature by number, by words, or from a token of the text.'));
  const own = { model: state.model, source: state.source }; // the picker's choice is not that of the page
  const run = (index, source = state.source.id) => load(out, async () => {
    const reply = await post('/api/activation/new', { feature: { modelId: state.model.id, source, index: String(index) }, customText: state.text() });
    return h('div', { class: 'stack tight' }, h('h3', {}, named({ model: state.model, source: { id: source } }, index)), overText(reply.tokens, reply.values, `Feature ${index} over the text`),
      tokenLine(reply.tokens, reply.values, { every: true, focus: reply.maxValue > 0 ? reply.maxValueTokenIndex : -1 }));
  }, 'Reading…');
  const node = card('One feature over the text', picker(own, null, (row) => run(row.index, row.source), { verb: 'Show' }), out);
  return { node, run: (index) => { run(index); node.scrollIntoView({ block: 'nearest', behavior: 'smooth' }); } };
}

// ---- one text against another ---------------------------------------------------------------------------

/** Features whose maxima differ most, exact for those shown: a feature that one list lacks is asked for. */
async function differences(state, a, b) {
  const reply = await post('/api/search-all', { modelId: state.model.id, sourceSet: state.source.set, selectedLayers: [state.source.id], text: [a, b], sortIndexes: [], numResults: COMPARED });
  const maxima = reply.results.map((one) => new Map(one.result.map((row) => [Number(row.index), row.maxValue])));
  const all = [...new Set([...maxima[0].keys(), ...maxima[1].keys()])];
  const gap = (index) => Math.abs((maxima[0].get(index) ?? 0) - (maxima[1].get(index) ?? 0));
  const top = all.sort((x, y) => gap(y) - gap(x)).slice(0, SHOWN);
  const lacking = top.filter((index) => !maxima[0].has(index) || !maxima[1].has(index));
  await Promise.all(lacking.map(async (index) => {
    const both = await post('/activations', { modelId: state.model.id, source: state.source.id, index, text: [a, b] });
    both.forEach((one, side) => maxima[side].set(index, one.maxValue));
  }));
  return top.map((index) => ({ index, a: maxima[0].get(index), b: maxima[1].get(index) })).sort((x, y) => Math.abs(y.a - y.b) - Math.abs(x.a - x.b));
}

function compareCard(state) {
  const other = h('textarea', { rows: 2, spellcheck: 'false', required: true });
  const out = h('div', { 'aria-live': 'polite' });
  const line = (max) => (row) => h('tr', {}, h('td', { class: 'wide' }, named(state, row.index)),
    h('td', {}, h('span', { class: 'number' }, num(row.a)), meter(row.a, max)), h('td', {}, h('span', { class: 'number' }, num(row.b)), meter(row.b, max, true)));
  const run = () => load(out, async () => {
    const rows = await differences(state, state.text(), other.value);
    if (!rows.length) return empty('Nothing fires on either text.');
    const max = Math.max(...rows.map((row) => Math.max(row.a, row.b)));
    return h('div', { class: 'scroll' }, h('p', { class: 'hint' }, 'By how far their strongest values in the two texts are apart.'), h('table', {}, h('caption', { class: 'unseen' }, 'Features whose strongest values differ most'),
      h('thead', {}, h('tr', {}, ['Feature', 'This text', 'Other text'].map((title) => h('th', { scope: 'col' }, title)))), h('tbody', {}, rows.map(line(max)))));
  }, 'Comparing…');
  return card('Against another text', h('form', { class: 'stack tight', onsubmit: (event) => { event.preventDefault(); run(); } },
    field('Other text', other), h('div', { class: 'row' }, h('button', {}, 'Compare'))), out);
}

// ---- the page -------------------------------------------------------------------------------------------

const head = () => h('div', { class: 'head' }, h('h1', {}, 'What does the model see in a text?'), h('p', { class: 'lead' }, 'Each token turns on a few features. Follow one over the text, or set two texts against each other.'));

function build(main, all, hash) {
  const state = { model: all.find((one) => one.id === hash.get('model')) ?? all[0] };
  state.source = state.model.every.find((one) => one.id === hash.get('source')) ?? firstSource(state.model);
  const prompt = h('textarea', { rows: 3, spellcheck: 'false', required: true });
  prompt.value = hash.get('prompt') ?? (state.model.family === 'workshop' ? 'saint-jean' : state.model.vocabulary > 1000 ? 'Once upon a time there was a rabbit who lived in the garden.' : 'Once upon a time');
  state.text = () => prompt.value;
  const options = all.flatMap((model) => model.every.map((source) => [`${model.id} ${source.id}`, `${model.id} / ${sourceName(source)}`]));
  const choice = select(options, `${state.model.id} ${state.source?.id}`);
  const again = (model, source) => build(main, all, new URLSearchParams({ model, source, ...(model === state.model.id ? { prompt: prompt.value } : {}) }));
  choice.addEventListener('change', () => again(...choice.value.split(' ')));
  const out = h('div', {}, h('p', { class: 'state' }, 'The tokens will stand here.'));
  const over = overTextCard(state);
  const run = () => load(out, async () => {
    const next = new URLSearchParams({ model: state.model.id, source: state.source.id, prompt: prompt.value });
    history.replaceState(null, '', `#${next}`);
    const reply = await post('/api/search-topk-by-token', { modelId: state.model.id, source: state.source.id, text: prompt.value, numResults: AT_TOKEN, ignoreBos: !state.source.bosCounts });
    for (const row of reply.results) for (const one of row.topFeatures) knowName(state.model.id, state.source.id, one.featureIndex, one.feature);
    return reply.results.length ? tokenPicker(state, reply.results, over.run) : empty('No token is left to show.');
  }, 'Reading…');
  show(main, head(),
    h('div', { class: 'columns even' },
      h('div', { class: 'stack' },
        h('form', { class: 'card fields', onsubmit: (event) => { event.preventDefault(); run(); } }, options.length > 1 && field('Dictionary', choice), field('Text', prompt), h('div', { class: 'row' }, h('button', { class: 'main' }, 'Look inside'))),
        card('Tokens', out)),
      h('div', { class: 'stack' }, over.node, compareCard(state))));
  run();
}

export async function draw(main) {
  setTitle('Inspect');
  const host = h('div', {});
  show(main, host);
  await load(host, async () => {
    const all = (await models()).filter((model) => model.every.length);
    if (!all.length) return [head(), empty('No dictionary is loaded.', 'Start the daemon with ', h('code', {}, '--source MODEL/SOURCE=PATH'), ' to see features. ', h('a', { href: '/lab' }, 'The laboratory'), ' works without.')];
    const page = h('div', {});
    build(page, all, new URLSearchParams(location.hash.slice(1)));
    return page;
  });
}
