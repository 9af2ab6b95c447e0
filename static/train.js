// train.js: the form that starts a training, and where what was trained is served. What can be asked for is what the server
// tells; what it refuses stands beside the field that it names.

import { card, during, empty, field, freshId, h, say, select, sentence, show } from './dom.js';
import { get, path, post, queryOf } from './api.js';

/** Points, what they are, and what a transcoder makes of their rows. */
const POINTS = [['hook_resid_pre', 'The residual stream before the layer'], ['hook_resid_mid', 'The stream between attention and MLP'], ['hook_resid_post', 'The stream after the layer'],
  ['hook_attn_out', 'What attention adds'], ['hook_mlp_out', 'What the MLP adds'], ['attn.hook_z', 'The heads, side by side'], ['mlp.hook_post', 'The neurons of the MLP'],
  ['ln2.hook_normalized', 'The MLP, from what it reads to what it adds: a transcoder', 'hook_mlp_out']];

/** Names of kinds for readers, and what each keeps; others are called as the server calls them. */
const KINDS = {
  topk: ['TopK', 'Of each token, the k largest activations are kept.'],
  batchtopk: ['BatchTopK', 'k a token on average: some tokens take more, others less.'],
  relu: ['ReLU with L1', 'What is above 0 is kept; a penalty keeps that to few.'],
  jumprelu: ['JumpReLU', 'What is above a threshold of its own is kept, for each feature; a penalty keeps that to few.'],
};

/** Options that stand in the form itself, with what is taken where they are left out; the others are among more settings. */
const FIRST = { features: ['Number of features', '8 times the width'], k: ['k: features a token', '32'], l1: ['l1: the penalty', '5'], tokens: ['Tokens to train on', 'as many as the text has'] };
const TOKENS_HINT = 'More than the text has: it is read again. Left out: the text once, at least 500 steps of 1,024 tokens.';

/** Controls by the names that the API has for them, each with a place for what is wrong with it. */
function makeFields() {
  const places = new Map();
  const add = (name, label, control, hint) => {
    const node = field(label, control, hint), wrong = h('p', { class: 'refusal', id: freshId('refusal'), 'aria-live': 'polite' });
    control.name = name;
    node.append(wrong);
    places.set(name, { node, control, wrong, described: control.getAttribute('aria-describedby') });
    control.addEventListener('input', () => mark(name, ''));
    return node;
  };
  const mark = (name, text) => {
    const { control, wrong, described } = places.get(name);
    show(wrong, text);
    control.setAttribute('aria-invalid', String(text !== ''));
    const by = [text && wrong.id, described].filter(Boolean).join(' ');
    if (by) control.setAttribute('aria-describedby', by); else control.removeAttribute('aria-describedby');
  };
  const clear = () => [...places.keys()].forEach((name) => mark(name, ''));
  /** Says a refusal beside its field: false where the form has none, or does not show it now. */
  const refuse = (error) => {
    const place = places.get(error.field);
    if (!place || place.node.hidden) return false;
    const around = place.node.closest('details');
    if (around) around.open = true;
    mark(error.field, sentence(error.message));
    place.control.focus();
    return true;
  };
  return { add, clear, refuse, at: (name) => places.get(name) };
}

/** "warmUp" -> "Warm up" */
const spaced = (name) => name[0].toUpperCase() + name.slice(1).replace(/[A-Z]/g, (c) => ` ${c.toLowerCase()}`);

/** The controls of the options, each with those that it is for. */
function makeOptions(options, fields) {
  return options.map(({ name, type, minimum, maximum, architectures, text }) => {
    const [label, placeholder] = FIRST[name] ?? [spaced(name)];
    const control = h('input', { type: 'number', min: minimum, max: maximum, step: type === 'integer' ? 1 : 'any', placeholder });
    const node = fields.add(name, label, control, name === 'tokens' ? TOKENS_HINT : FIRST[name] ? null : sentence(text));
    return { name, control, node, architectures, first: name in FIRST };
  });
}

/** Model, layer and point: the points that the model has. */
function makePlace(models, fields) {
  const model = select(models.map(({ id }) => [id, id]), models[0].id), layer = h('select', {}), point = h('select', {});
  const choose = async () => {
    const { layers: n } = models.find(({ id }) => id === model.value);
    show(layer, Array.from({ length: n }, (_, i) => h('option', { value: i, selected: i === n >> 1 }, i)));
    const { missing } = await get('/v1/lab/points' + queryOf({ modelId: model.value })).catch(() => ({ missing: [] })); // it is refused by its name then
    const lacks = new Set(missing.map(({ name }) => name)), has = (name) => !lacks.has(`blocks.N.${name}`);
    show(point, POINTS.filter(([name, , to]) => has(name) && (!to || has(to))).map(([value, text]) => h('option', { value }, text)));
  };
  model.addEventListener('change', choose);
  const nodes = [h('div', { class: 'pair' }, fields.add('modelId', 'Model', model), field('Layer', layer)), fields.add('point', 'Activations of', point)];
  const read = () => {
    const to = POINTS.find(([name]) => name === point.value)?.[2], at = (name) => `blocks.${layer.value}.${name}`;
    return { modelId: model.value, point: at(point.value), ...(to && { to: at(to) }) };
  };
  return { nodes, ready: choose(), read };
}

/** All loaded models can be trained on, where the server lets anything be trained (`allowed` is what it tells of that); `begun` is told the new job. */
export async function trainingForm(models, allowed, begun) {
  if (allowed.refused) return card('Train a dictionary', empty('Nothing can be trained yet.', sentence(allowed.refused)));
  const fields = makeFields(), place = makePlace(models, fields), options = makeOptions(allowed.options, fields);
  const { architectures } = allowed;
  const kind = select(architectures.map((name) => [name, KINDS[name]?.[0] ?? name]), architectures.includes('topk') ? 'topk' : architectures[0]);
  const corpus = h('input', { required: true, placeholder: '/data/stories.txt', spellcheck: 'false' }), lines = h('input', { type: 'checkbox', name: 'lines' });
  const out = h('input', { required: true, placeholder: 'my-dictionary', spellcheck: 'false', autocomplete: 'off' });
  const hint = h('span', {}), notes = h('div', { 'aria-live': 'polite' }), start = h('button', { class: 'main' }, 'Start training');
  const first = (...names) => options.filter(({ name }) => names.includes(name)).map(({ node }) => node);
  const nodes = [place.nodes, fields.add('architecture', 'Architecture', kind, hint), h('div', { class: 'pair' }, first('features', 'k', 'l1')),
    fields.add('corpus', 'Text file on the server', corpus, 'A UTF-8 text.'), h('label', { class: 'row' }, lines, 'Each line is a document of its own'), first('tokens'),
    fields.add('out', 'Name of the dictionary', out, 'Its folder on the server: letters, digits, “.”, “_” and “-”.'),
    h('details', {}, h('summary', {}, 'More settings'), h('div', { class: 'fields' }, options.filter((option) => !option.first).map(({ node }) => node)))];
  const uses = () => {
    show(hint, KINDS[kind.value]?.[1] ?? '');
    for (const { node, architectures: those } of options) node.hidden = !those.includes(kind.value);
  };
  const bodyOf = () => {
    const body = { kind: 'train', ...place.read(), architecture: kind.value, corpus: corpus.value.trim(), lines: lines.checked, out: out.value.trim() };
    for (const { name, control, node } of options) if (!node.hidden && control.value) body[name] = control.valueAsNumber;
    return body;
  };
  const submit = (event) => {
    event.preventDefault();
    fields.clear();
    during(start, notes, async () => {
      try {
        const job = await post('/v1/jobs', bodyOf());
        say(`Job ${job.id} has begun`);
        await begun(job);
      } catch (error) {
        if (error.name === 'AbortError' || !fields.refuse(error)) throw error;
      }
    });
  };
  kind.addEventListener('change', uses);
  uses();
  await place.ready;
  return card('Train a dictionary', h('form', { class: 'fields', onsubmit: submit }, nodes, h('div', { class: 'row' }, start), notes));
}

// ---- what came of it ------------------------------------------------------------------------------------

let asked;
const served = () => (asked ??= get('/v1/sources').finally(() => { asked = undefined; })); // one question for all jobs of a list

/** The way to the page of what a job has trained; the button that loads it, where it is not served yet. */
export function trainedPlace({ id, parameters: { modelId, out }, result: { layer, features, path: folder } }) {
  const name = out.startsWith(`${layer}-`) ? out : `${layer}-${out}`;
  const place = h('div', { class: 'row' }), notes = h('div', { 'aria-live': 'polite' });
  const open = (source) => show(place, h('a', { href: path(modelId, source) }, `Open ${modelId}/${source}`));
  const bring = (event) => during(event.target, notes, async () => {
    const { source } = await post('/v1/sources', { modelId, source: name, path: folder });
    say(`${source} is loaded`);
    open(source);
    place.firstChild.focus();
  });
  const offer = () => show(place, h('button', { type: 'button', 'aria-label': `Load what job ${id} has trained`, onclick: bring }, `Load it as ${name}`));
  served().then(({ sources }) => {
    const there = sources.find((one) => one.modelId === modelId && one.state === 'ready' && one.path?.endsWith(`/${folder}`) && one.layer === layer && one.features === features);
    if (there) open(there.source); else offer();
  }, offer);
  return [place, notes];
}
