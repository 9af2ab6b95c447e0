// direction.js: what leads from some texts to others: found behind every layer, steered with at once, kept under a label.

import { card, during, empty, field, h, load, num, percent, say, select, setTitle, show } from './dom.js';
import { featurePath, models, post, queryOf } from './api.js';
import { sameCallBelow } from './snippet.js';
import { meter } from './tokens.js';

const HAPPY = ['The happy girl smiled and', 'Tom was so happy that', 'Mom laughed with joy and', 'They had fun and'];
const SAD = ['The sad girl cried and', 'Tom was so sad that', 'Mom wept with pain and', 'They had tears and'];
const STRONGEST = 4, TOKENS = 40;

const submits = (work) => (event) => { event.preventDefault(); work(event.submitter); };
const linesOf = (area) => area.value.split('\n').filter((line) => line.trim());
const layerOf = (point) => Number(point.split('.')[1]);

/** A model reads from its first layers and writes with its last; what a text is about stands between. */
const isMiddle = (layer, layers) => layer >= Math.floor(layers / 4) && layer < Math.ceil((3 * layers) / 4);

// ---- what was found -------------------------------------------------------------------------------------

function foundTable(state) {
  const titles = ['Steer', 'Behind layer', 'Tells apart', 'Length', 'Of a row\u2019s'];
  const row = (one) => {
    const layer = layerOf(one.point);
    const box = h('input', { type: 'checkbox', checked: state.chosen.has(one.point), 'aria-label': `Steer behind layer ${layer}`,
      onchange: () => { if (box.checked) state.chosen.add(one.point); else state.chosen.delete(one.point); } });
    return h('tr', {}, h('td', {}, box), h('td', { class: 'number' }, layer),
      h('td', {}, h('div', { class: 'row line' }, h('span', { class: 'number' }, percent(one.separation))), meter(one.separation, 1, one.separation < 0.75)),
      h('td', { class: 'number' }, num(one.length)), h('td', { class: 'number soft' }, percent(one.length / one.rowLength)));
  };
  return h('div', { class: 'scroll' }, h('table', {}, h('caption', { class: 'unseen' }, 'The direction behind each layer'),
    h('thead', {}, h('tr', {}, titles.map((title) => h('th', { scope: 'col' }, title)))), h('tbody', {}, state.found.directions.map(row))));
}

function foundCard(state) {
  return h('div', { class: 'stack tight' }, foundTable(state),
    h('p', { class: 'hint' }, `Tells apart: of all pairs of a text of each kind, the share that the direction puts in the right order (50 % is chance). It is measured on the ${state.found.positive + state.found.negative} texts that made the direction, so with few of them it flatters.`),
    sameCallBelow('/v1/lab/direction', { ...state.asked, vectors: false }));
}

// ---- steering -------------------------------------------------------------------------------------------

function steeringOf(state, strength) {
  const used = state.found.directions.filter((one) => state.chosen.has(one.point));
  return { vectors: used.map((one) => ({ point: one.point, vector: one.vector, strength })) };
}

async function complete(state, prompt, steering) {
  const body = { model: state.model.id, prompt, max_tokens: TOKENS, temperature: 0, ...(steering ? { steering } : {}) };
  return (await post('/v1/completions', body)).choices[0].text;
}

function texts(prompt, sides) {
  return h('div', { class: 'outputs' }, sides.map(([title, text]) => h('div', { class: 'output' }, h('h3', {}, title),
    h('p', { class: 'text' }, h('span', { class: 'soft' }, prompt), text))));
}

/** One number, by a slider or by hand. */
function strengthField() {
  const exact = h('input', { type: 'number', value: '1', step: 'any', required: true });
  const slider = h('input', { type: 'range', min: -STRONGEST, max: STRONGEST, step: 0.25, value: '1', 'aria-label': 'Strength' });
  slider.addEventListener('input', () => { exact.value = slider.value; });
  exact.addEventListener('input', () => { slider.value = exact.value; });
  return { value: () => Number(exact.value), node: h('div', {}, field('Strength', exact, '1 adds what lies between the two kinds; below 0 goes the other way.'), slider) };
}

function steerCard(state) {
  const prompt = h('input', { value: state.story ? 'One day, the little girl' : '', required: true, spellcheck: 'false' });
  const strength = strengthField();
  const out = h('div', { 'aria-live': 'polite' });
  const run = () => load(out, async () => {
    if (!state.chosen.size) return empty('No layer is chosen.', 'Tick one of the table above.');
    const plain = complete(state, prompt.value);
    const steered = await complete(state, prompt.value, steeringOf(state, strength.value()));
    return texts(prompt.value, [['As it is', await plain], [`With the direction, ${num(strength.value())} times`, steered]]);
  }, 'Writing…');
  return card('Steer with it', h('form', { class: 'stack tight', onsubmit: submits(run) }, field('Prompt', prompt), strength.node,
    h('div', { class: 'row' }, h('button', { class: 'main' }, 'Write'))), out);
}

// ---- keeping --------------------------------------------------------------------------------------------

function keptNote(state, label, reply) {
  const file = `/api/vector/download${queryOf({ modelId: state.model.id, vectorLabel: label })}`;
  const steering = { vectors: [{ label, strength: 1 }] }, [first] = reply.kept.features;
  return h('div', { class: 'stack tight' },
    h('p', {}, `Kept: ${reply.kept.features.length} vectors under “`, h('a', { href: featurePath(first.modelId, first.layer, first.index) }, label), '”. ', !state.chosen.has('blocks.0.hook_resid_post') && [h('a', { href: file, download: `${label}.gguf` }, 'The same as a file'), ' for llama.cpp.']),
    sameCallBelow('/v1/completions', { model: state.model.id, prompt: 'Once upon a time', max_tokens: TOKENS, temperature: 0, steering }));
}

function keepCard(state) {
  const label = h('input', { required: true, maxlength: 256, spellcheck: 'false' });
  const out = h('div', { 'aria-live': 'polite' });
  const keep = (button) => during(button, out, async () => {
    const body = { ...state.asked, points: [...state.chosen], vectorLabel: label.value, vectors: false };
    if (!state.chosen.size) return show(out, empty('No layer is chosen.'));
    const reply = await post('/v1/lab/direction', body);
    show(out, keptNote(state, label.value, reply));
    return say('The vectors are kept');
  });
  return card('Keep it', h('form', { class: 'stack tight', onsubmit: submits(keep) },
    field('Label', label, 'A name for the vectors of the chosen layers; any client steers with it.'), h('div', { class: 'row' }, h('button', {}, 'Keep'))), out);
}

// ---- the page -------------------------------------------------------------------------------------------

function build(main, all, id) {
  const model = all.find((one) => one.id === id) ?? all[0];
  const state = { model, story: model.vocabulary > 1000, chosen: new Set() };
  const area = (lines) => { const node = h('textarea', { rows: 6, spellcheck: 'false', required: true }); node.value = lines.join('\n'); return node; };
  const positive = area(HAPPY), negative = area(SAD);
  const method = select([['mean', 'Means'], ['pca', 'Pairs (PCA)']], 'mean');
  const row = select([['last', 'Last token'], ['mean', 'Mean over tokens']], 'last');
  const found = h('div', { 'aria-live': 'polite' }), more = h('div', { class: 'stack' });
  const find = () => load(found, async () => {
    show(more);
    state.asked = { modelId: model.id, positive: linesOf(positive), negative: linesOf(negative), method: method.value, row: row.value };
    state.found = await post('/v1/lab/direction', state.asked);
    state.chosen = new Set(state.found.directions.map((one) => one.point).filter((point) => isMiddle(layerOf(point), model.layers)));
    show(more, steerCard(state), keepCard(state));
    return foundCard(state);
  }, 'Reading the texts…');
  const choice = select(all.map((one) => [one.id, one.id]), model.id);
  choice.addEventListener('change', () => build(main, all, choice.value));
  show(main, h('div', { class: 'head' }, h('h1', {}, 'A direction from texts'),
    h('p', { class: 'lead' }, 'Write texts that have something and texts that lack it. What the model does differently with them is a direction, and adding it makes other texts more so.')),
    h('div', { class: 'columns controls' },
      h('div', { class: 'stack' }, h('form', { class: 'card fields', onsubmit: submits(find) }, all.length > 1 && field('Model', choice),
        field('Texts that have it', positive, 'One a line.'), field('Texts that lack it', negative, 'One a line. Of pairs, line by line the other half.'),
        h('div', { class: 'pair' }, field('Method', method), field('Of each text', row)), h('div', { class: 'row' }, h('button', { class: 'main' }, 'Find the direction')))),
      h('div', { class: 'stack' }, card('Behind each layer', found), more)));
  find();
}

export function draw(main, _parts, query) {
  setTitle('Direction');
  return load(main, async () => {
    const all = await models(), page = h('div', {});
    if (!all.length) return empty('No model is loaded.', 'Start the daemon with --model ID=PATH.');
    build(page, all, query.get('model'));
    return page;
  });
}
