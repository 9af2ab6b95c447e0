// search.js: finding features by words of their explanations, by number, or by what a text turns on. Used by every
// page that needs one.

import { empty, failure, h, load, num, select, show, waiting } from './dom.js';
import { boundOf, explanationOf, explanations, featurePath, knowNames, post, sourceName } from './api.js';

/** The words that matched are marked, as the server found them (between U+0002 and U+0003), else by their beginnings. */
function marked({ snippet, description }, words) {
  if (snippet?.includes('\u0002'))
    return snippet.split(/[\u0002\u0003]/).map((piece, i) => (i % 2 ? h('mark', {}, piece) : piece));
  const wanted = words.toLowerCase().split(/\s+/).filter((word) => word.length > 1);
  return description.split(/(\p{L}+)/u).map((piece) =>
    wanted.some((word) => piece.toLowerCase().startsWith(word)) ? h('mark', {}, piece) : piece);
}

export function hitList(rows, words) {
  return h('ul', { class: 'list' }, rows.map((row) => h('li', {},
    h('a', { href: featurePath(row.modelId, row.layer, row.index) },
      h('span', {}, marked(row, words)), ' ',
      h('small', { class: 'soft' }, `${row.modelId} / ${row.layer} / ${row.index}`)))));
}

/** A search field with its results below. `scope` is {model, source?} or a function that gives it. */
export function explanationSearch(scope, placeholder = 'animals, quotation marks, the end of a story…') {
  const input = h('input', { type: 'search', placeholder, 'aria-label': 'Words of an explanation', required: true, maxlength: 200 });
  const out = h('div', { 'aria-live': 'polite' });
  const search = (event) => {
    event.preventDefault();
    const words = input.value.trim();
    if (!words) return;
    load(out, async () => {
      const rows = await explanations({ ...(typeof scope === 'function' ? scope() : scope), words });
      return rows.length ? hitList(rows, words)
        : empty('No explanation holds these words.', 'Fewer or other words may find some; a text can be looked into at ', h('a', { href: '/inspect' }, 'Inspect'), '.');
    }, 'Searching…');
  };
  return h('div', {}, h('form', { class: 'ask', role: 'search', onsubmit: search }, input, h('button', {}, 'Search')), out);
}

/** What a row says of its feature; where it says nothing, the number until the server has told. */
function meaning(state, row) {
  const node = h('span', {}, row.description ?? `Feature ${row.index}`);
  if (!row.description) explanationOf(state.model.id, row.source, row.index).then((told) => { if (told) show(node, row.description = told); });
  return node;
}

/** Chooses features for steering and inspecting. `state` = {model, source} (live); `text()` the present prompt, or
 * null where there is none; `chosen({source, index, description, peak})` is told each choice. */
export function picker(state, text, chosen, { verb = 'Add', eager = false } = {}) {
  const source = select(state.model.every.map((one) => [one.id, sourceName(one)]), state.source?.id, { 'aria-label': 'Source' });
  source.addEventListener('change', () => { state.source = state.model.every.find((one) => one.id === source.value); });
  const input = h('input', { type: 'search', placeholder: 'number, or words', 'aria-label': 'Feature number, or words of an explanation' });
  const found = h('div', { 'aria-live': 'polite' });
  const offer = (rows) => show(found, rows.length ? h('div', { class: 'found' }, rows.map((row) =>
    h('button', { type: 'button', onclick: () => { show(found); chosen(row); } },
      h('span', {}, meaning(state, row), ' ', h('small', { class: 'soft' }, `${row.source}/${row.index}`)),
      row.peak !== undefined && h('span', { class: 'number soft' }, num(row.peak))))) : empty('Nothing found.'));
  const attempt = async (work) => {
    show(found, waiting());
    try { offer(await work()); } catch (error) { show(found, failure(error)); }
  };
  const byWords = async (words) => (await explanations({ model: state.model.id, source: state.source?.id, words, limit: 30 }))
    .map((row) => ({ source: row.layer, index: Number(row.index), description: row.description }));
  const byNumber = (number) => {
    if (number >= boundOf(state.source))
      throw new Error(`${state.source.id} has ${state.source.features} features, from 0 to ${boundOf(state.source) - 1}`);
    show(found);
    chosen({ source: state.source.id, index: number });
    input.value = '';
    return null;
  };
  const submit = (event) => {
    event.preventDefault();
    const words = input.value.trim();
    if (!words) return;
    if (!/^\d+$/.test(words)) return void attempt(() => byWords(words));
    try { byNumber(Number(words)); } catch (error) { show(found, failure(error)); }
  };
  const inText = () => attempt(async () => {
    const reply = await post('/api/search-all', { modelId: state.model.id, sourceSet: state.source.set, selectedLayers: [state.source.id], text: text(), sortIndexes: [], numResults: 20 });
    knowNames(reply.result);
    return reply.result.map((row) => ({ source: row.layer, index: Number(row.index), peak: row.maxValue }));
  });
  if (!state.source) return empty('This model has no dictionary.', 'Start the daemon with --source MODEL/SOURCE=PATH to look inside it.');
  if (eager) inText();
  return h('div', { class: 'stack tight' },
    state.model.every.length > 1 && source,
    h('form', { class: 'ask', onsubmit: submit }, input, h('button', {}, verb)),
    text && h('div', {}, h('button', { type: 'button', class: 'quiet', onclick: inText }, 'What does the prompt turn on?')),
    found);
}
