// lab.js: experiments on one text: what comes next with and without changes, what each layer would say, where heads look;
// and, on a pair of texts, which place of the model carries the difference.

import { card, empty, field, h, load, num, percent, select, setTitle, show } from './dom.js';
import { firstSource, models, post, sourceName } from './api.js';
import { grid } from './grid.js';
import { sameCallBelow } from './snippet.js';
import { meter, tokenChip } from './tokens.js';

const NEXT = 10, LENS = 5;

const submits = (work) => (event) => { event.preventDefault(); work(); };
const numbers = (n) => [...Array(n).keys()].map((i) => [String(i), String(i)]);
const position = (token, i) => `${token}  ${i}`;

// ---- changes --------------------------------------------------------------------------------------------

/** What a reader can change, as the edit objects of the API. `ask` names the inputs that a change needs. */
const CHANGES = {
  add: ['Push a feature', ['source', 'index', 'amount'], ({ source, index, amount }) => ({ op: 'add', source, index, strength: amount }), 'by length', 10],
  clamp: ['Hold a feature', ['source', 'index', 'amount'], ({ source, index, amount }) => ({ op: 'clamp', source, index, value: amount }), 'at activation', 5],
  ablate: ['Remove a feature', ['source', 'index'], ({ source, index }) => ({ op: 'ablate', source, index })],
  head: ['Silence a head', ['layer', 'head'], ({ layer, head }) => ({ op: 'zero', point: `blocks.${layer}.attn.hook_z`, heads: [head] })],
  mlp: ['Silence an MLP', ['layer'], ({ layer }) => ({ op: 'zero', point: `blocks.${layer}.hook_mlp_out` })],
};

const wordsOf = ({ op, source, index, strength, value, point, heads }) =>
  op === 'zero' ? `silence ${heads ? `head ${heads.join(', ')} at ` : ''}${point}`
    : op === 'add' ? `push ${source}/${index} by ${num(strength)}`
      : op === 'clamp' ? `hold ${source}/${index} at ${num(value)}` : `remove ${source}/${index}`;

function changeForm(model, edits, changed) {
  const kinds = Object.entries(CHANGES).filter(([, [, ask]]) => !ask.includes('source') || model.every.length);
  const kind = select(kinds.map(([id, [title]]) => [id, title]), kinds[0][0]);
  const inputs = { source: select(model.every.map((one) => [one.id, sourceName(one)]), firstSource(model)?.id), index: h('input', { type: 'number', min: 0, step: 1, value: '0', required: true }),
    amount: h('input', { type: 'number', step: 'any', required: true }), layer: select(numbers(model.layers), '0'), head: select(numbers(model.heads), '0') };
  const names = { source: 'Dictionary', index: 'Feature', amount: 'Amount', layer: 'Layer', head: 'Head' };
  const fields = h('div', { class: 'pair' });
  const list = h('ul', { class: 'list' });
  const refresh = () => show(list, edits.map((edit, i) => h('li', {}, h('div', { class: 'item row line' }, h('span', {}, wordsOf(edit)),
    h('button', { type: 'button', class: 'quiet', 'aria-label': `Take back: ${wordsOf(edit)}`, onclick: () => { edits.splice(i, 1); refresh(); changed(); } }, '✕')))));
  const choose = () => {
    const [, ask, , unit, usual] = CHANGES[kind.value];
    inputs.amount.value = usual ?? '';
    inputs.index.max = (model.every.find((one) => one.id === inputs.source.value)?.features ?? 1) - 1;
    show(fields, ask.map((name) => field(name === 'amount' ? `Amount, ${unit}` : names[name], inputs[name])));
  };
  const add = () => {
    const told = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, name === 'source' ? input.value : Number(input.value)]));
    edits.push(CHANGES[kind.value][2](told));
    refresh();
    changed();
  };
  kind.addEventListener('change', choose);
  inputs.source.addEventListener('change', choose);
  choose();
  refresh();
  return h('div', { class: 'stack tight' }, h('form', { class: 'stack tight', onsubmit: submits(add) }, field('Change', kind), fields, h('div', { class: 'row' }, h('button', {}, 'Add this change'))), list);
}

// ---- what comes next ------------------------------------------------------------------------------------

function nextTable(reply) {
  const most = Math.max(...[reply.before, reply.after].flatMap((side) => side?.top.map((row) => row.probability) ?? []));
  const side = (row, cool) => h('td', {}, h('div', { class: 'row line' }, h('span', {}, tokenChip(row.token)), h('span', { class: 'number soft' }, percent(row.probability))), meter(row.probability, most, cool));
  const titles = ['Rank', 'As it is', ...(reply.after ? ['With the changes'] : [])];
  return h('div', { class: 'scroll' }, h('table', {}, h('caption', { class: 'unseen' }, 'Likeliest next tokens'),
    h('thead', {}, h('tr', {}, titles.map((title) => h('th', { scope: 'col' }, title)))),
    h('tbody', {}, reply.before.top.map((row, i) => h('tr', {}, h('td', { class: 'number soft' }, row.rank), side(row, true), reply.after && side(reply.after.top[i]))))));
}

// ---- what each layer would say --------------------------------------------------------------------------

function lensGrid(reply, layers) {
  const rows = reply.layers.slice().reverse();
  const cell = (r, c) => rows[r].positions[c].top;
  return grid({ label: 'Likeliest next token by layer and position', corner: 'Layers run', max: 1,
    rows: rows.map((row) => (row.layer === layers ? `${row.layer}: the model` : row.layer === 0 ? '0: embedding' : String(row.layer))),
    columns: reply.tokens.map(position), value: (r, c) => cell(r, c)[0].probability, text: (r, c) => cell(r, c)[0].token,
    tip: (r, c) => cell(r, c).map((one) => `${one.token.replace(/\n/g, '↵')}  ${percent(one.probability)}`).join('\n') });
}

// ---- where heads look -----------------------------------------------------------------------------------

function attentionCard(state) {
  const layer = select(numbers(state.model.layers), '0'), head = select(numbers(state.model.heads), '0');
  const out = h('div', { 'aria-live': 'polite' });
  const run = () => load(out, async () => {
    const point = `blocks.${layer.value}.attn.hook_pattern`;
    const body = { ...state.body(), points: [point], heads: [Number(head.value)] };
    const reply = await post('/v1/lab/run', body);
    const pattern = reply.activations[point].map((row) => row[0]);
    const labels = reply.tokens.map(position);
    return h('div', { class: 'stack tight' },
      grid({ label: `Attention of head ${head.value} in layer ${layer.value}`, corner: 'from \\ to', rows: labels, columns: labels, max: 1, value: (r, c) => (c > r ? null : pattern[r][c]) }),
      h('p', { class: 'hint' }, 'Each row is a token and shows where it looks; a row adds up to 1.'), sameCallBelow('/v1/lab/run', body));
  }, 'Running…');
  layer.addEventListener('change', run);
  head.addEventListener('change', run);
  return { run, node: card('Where a head looks', h('div', { class: 'pair' }, field('Layer', layer), field('Head', head)), out) };
}

// ---- which place carries the difference -----------------------------------------------------------------

const POINTS = [['resid_pre', 'Residual stream'], ['attn_out', 'Attention output'], ['mlp_out', 'MLP output'], ['z', 'Heads']];
const PAIR = ['The little girl was very happy because', 'The little boy was very happy because', 'she', 'he'];

function patchGrid(reply) {
  const heads = reply.axes === 'layer-head';
  const rows = reply.layers.slice().reverse(), matrix = reply.matrix.slice().reverse(), values = reply.values.slice().reverse();
  return grid({ label: 'How much of the clean answer each place brings back', corner: 'Layer', max: 1, rows: rows.map(String),
    columns: heads ? reply.heads.map((head) => `head ${head}`) : reply.positions.map((at) => position(reply.corrupted.tokens[at], at)),
    value: (r, c) => matrix[r][c], tip: (r, c) => `${num(matrix[r][c], 3)} of the way; the metric is ${num(values[r][c], 3)}` });
}

/** The same matrix from one gradient: position by position, or head by head over all positions. */
function estimateGrid(reply, point) {
  const rows = Object.values(reply.normalized).reverse(), layers = [...rows.keys()].reverse();
  const heads = point === 'z';
  const matrix = heads ? rows.map((row) => row[0].map((_, head) => row.reduce((sum, at) => sum + at[head], 0))) : rows;
  return grid({ label: 'How much of the clean answer each place would bring back, by one gradient', corner: 'Layer', max: 1, rows: layers.map(String),
    columns: heads ? rows[0][0].map((_, head) => `head ${head}`) : reply.positions.map((at) => position(reply.tokens[at], at)), value: (r, c) => matrix[r][c],
    tip: (r, c) => `${num(matrix[r][c], 3)} of the way, by the slope` });
}

function patchCard(model) {
  const [clean, corrupted, right, wrong] = PAIR.map((value) => h('input', { value, required: true, spellcheck: 'false' }));
  const point = select(POINTS, 'resid_pre');
  const out = h('div', { 'aria-live': 'polite' });
  const run = () => load(out, async () => {
    const body = { modelId: model.id, clean: { text: clean.value }, corrupted: { text: corrupted.value }, answers: [right.value, wrong.value],
      point: point.value, axes: point.value === 'z' ? 'layer-head' : 'layer-position' };
    const reply = await post('/v1/lab/patch', body);
    return h('div', { class: 'stack tight' }, patchGrid(reply),
      h('p', { class: 'hint' }, `1: this place alone brings the answer of the clean text back; 0: it changes nothing; below 0 (blue): it makes matters worse. Logit of “${reply.answers[0].token.trim()}” less that of “${reply.answers[1].token.trim()}”: ${num(reply.clean.value)} on the clean text, ${num(reply.corrupted.value)} on the corrupted one.`),
      sameCallBelow('/v1/lab/patch', body));
  }, 'Patching…');
  const estimate = () => load(out, async () => {
    const body = { modelId: model.id, text: corrupted.value, against: { text: clean.value }, answers: [right.value, wrong.value],
      points: [`blocks.*.${point.value === 'z' ? 'attn.' : ''}hook_${point.value}`] };
    const reply = await post('/v1/lab/attribute', body);
    return h('div', { class: 'stack tight' }, estimateGrid(reply, point.value),
      h('p', { class: 'hint' }, 'Attribution patching: the gradient of the corrupted run times what the clean one has otherwise. One pass there and back in place of a run for each place; exact where the model is straight.'),
      sameCallBelow('/v1/lab/attribute', body));
  }, 'Running there and back…');
  return card('Which place carries the difference?', h('form', { class: 'stack tight', onsubmit: submits(run) },
    h('p', { class: 'hint' }, 'Two texts of the same number of tokens. The second one is run again and again, each time with one place filled from the first.'),
    h('div', { class: 'pair wide' }, field('Clean text', clean), field('Corrupted text', corrupted)),
    h('div', { class: 'pair' }, field('Right answer', right), field('Wrong answer', wrong), field('What is patched', point)),
    h('div', { class: 'row' }, h('button', { class: 'main' }, 'Patch'), h('button', { type: 'button', onclick: estimate }, 'Estimate by one gradient'))), out);
}

// ---- the page -------------------------------------------------------------------------------------------

/** Every card asks for itself, so that one that fails leaves the others standing. */
function textCards(state) {
  const next = h('div', { 'aria-live': 'polite' }), lens = h('div', { 'aria-live': 'polite' });
  const attention = attentionCard(state);
  const ask = (out, path, more, draw) => load(out, async () => {
    const body = { ...state.body(), ...more };
    const reply = await post(path, body);
    return h('div', { class: 'stack tight' }, draw(reply), sameCallBelow(path, body));
  }, 'Running…');
  const run = () => {
    ask(next, '/v1/lab/next', { topK: NEXT }, nextTable);
    ask(lens, '/v1/lab/lens', { topK: LENS }, (reply) => lensGrid(reply, state.model.layers));
    attention.run();
  };
  return { run, next: card('What comes next', next), attention: attention.node,
    lens: card('What each layer would say', h('p', { class: 'hint' }, 'The residual stream after each layer, read as if the model ended there; the warmer, the likelier.'), lens) };
}

/** The changes that an address holds; one that no form here could have written is left out, and the server judges the rest. */
function editsOf(text) {
  try {
    return [JSON.parse(text ?? '[]')].flat().filter((one) => (one?.op === 'zero' ? one.point : ['add', 'clamp', 'ablate'].includes(one?.op) && one.source));
  } catch {
    return [];
  }
}

function build(main, all, hash) {
  const model = all.find((one) => one.id === hash.get('model')) ?? all[0];
  const prompt = h('textarea', { rows: 3, spellcheck: 'false', required: true });
  prompt.value = hash.get('prompt') ?? (model.family === 'workshop' ? 'saint-jean' : model.vocabulary > 1000 ? 'Once upon a time, there was a little girl named' : 'Once upon a time');
  const edits = editsOf(hash.get('edits'));
  const state = { model, body: () => ({ modelId: model.id, text: prompt.value, ...(edits.length ? { edits } : {}) }) };
  const cards = textCards(state);
  const run = () => {
    history.replaceState(null, '', `#${new URLSearchParams({ model: model.id, prompt: prompt.value, ...(edits.length ? { edits: JSON.stringify(edits) } : {}) })}`);
    cards.run();
  };
  const choice = select(all.map((one) => [one.id, one.id]), model.id);
  choice.addEventListener('change', () => build(main, all, new URLSearchParams({ model: choice.value })));
  show(main, h('div', { class: 'head' }, h('h1', {}, 'The laboratory'), h('p', { class: 'lead' }, 'Change something inside the model and watch what comes of it. Every card is one request, and shows it. ', h('a', { href: `/direction?model=${encodeURIComponent(model.id)}` }, 'A direction from texts of your own'), ' has a page of its own.')),
    h('div', { class: 'columns controls' },
      h('div', { class: 'stack' },
        h('form', { class: 'card fields', onsubmit: submits(run) }, all.length > 1 && field('Model', choice), field('Text', prompt), h('div', { class: 'row' }, h('button', { class: 'main' }, 'Run'))),
        card('Changes', changeForm(model, edits, run)), cards.next),
      h('div', { class: 'stack' }, cards.lens, cards.attention, patchCard(model))));
  run();
}

export async function draw(main) {
  setTitle('Lab');
  const host = h('div', {});
  show(main, host);
  await load(host, async () => {
    const all = await models();
    if (!all.length) return empty('No model is loaded.');
    const page = h('div', {});
    build(page, all, new URLSearchParams(location.hash.slice(1)));
    return page;
  });
}
