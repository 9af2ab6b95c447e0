// train.js: the form that starts a training. What the server refuses stands beside the field that it names.

import { card, during, failure, field, freshId, h, say, select, sentence, show } from './dom.js';
import { post } from './api.js';

const POINTS = [['hook_resid_pre', 'The residual stream before the layer'], ['hook_resid_mid', 'The stream between attention and MLP'], ['hook_resid_post', 'The stream after the layer'],
  ['hook_attn_out', 'What attention adds'], ['hook_mlp_out', 'What the MLP adds'], ['attn.hook_z', 'The heads, side by side'], ['mlp.hook_post', 'The neurons of the MLP']];

/** Of each: its name, what it keeps, and the field that says how much. */
const KINDS = {
  topk: { text: 'TopK', hint: 'Of each token, the k largest activations are kept.', by: 'k' },
  batchtopk: { text: 'BatchTopK', hint: 'k a token on average: some tokens take more, others less.', by: 'k' },
  relu: { text: 'ReLU with L1', hint: 'What is above 0 is kept; a penalty keeps that to few.', by: 'l1' },
};

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
    mark(error.field, sentence(error.message));
    place.control.focus();
    return true;
  };
  return { add, clear, refuse, at: (name) => places.get(name) };
}

const number = (props) => h('input', { type: 'number', step: 1, min: 1, ...props });

/** All loaded models can be trained on; `begun` is told the new job. */
export function trainingForm(models, begun) {
  const fields = makeFields();
  const model = select(models.map(({ id }) => [id, id]), models[0].id), layer = h('select', {});
  const point = select(POINTS, POINTS[0][0]), kind = select(Object.entries(KINDS).map(([name, { text }]) => [name, text]), 'topk');
  const features = number({ placeholder: '8 times the width' }), k = number({ placeholder: '32' }), l1 = number({ placeholder: '5', min: 0, step: 'any' });
  const corpus = h('input', { required: true, placeholder: '/data/stories.txt', spellcheck: 'false' }), lines = h('input', { type: 'checkbox', name: 'lines' });
  const tokens = number({ placeholder: 'as many as the text has' }), out = h('input', { required: true, placeholder: 'my-dictionary', spellcheck: 'false', autocomplete: 'off' });
  const hint = h('span', {}), notes = h('div', { 'aria-live': 'polite' }), start = h('button', { class: 'main' }, 'Start training');
  const nodes = [h('div', { class: 'pair' }, fields.add('modelId', 'Model', model), field('Layer', layer)), fields.add('point', 'Activations of', point),
    fields.add('architecture', 'Architecture', kind, hint),
    h('div', { class: 'pair' }, fields.add('features', 'Number of features', features), fields.add('k', 'k: features a token', k), fields.add('l1', 'l1: the penalty', l1)),
    fields.add('corpus', 'Text file on the server', corpus, 'A UTF-8 text.'), h('label', { class: 'row' }, lines, 'Each line is a document of its own'),
    fields.add('tokens', 'Tokens to train on', tokens, 'More than the text has: it is read again. Left out: the text once, at least 500 steps of 1,024 tokens.'),
    fields.add('out', 'Name of the dictionary', out, 'Its folder on the server: letters, digits, “.”, “_” and “-”.')];
  const layers = () => {
    const { layers: n } = models.find(({ id }) => id === model.value);
    show(layer, Array.from({ length: n }, (_, i) => h('option', { value: i, selected: i === n >> 1 }, i)));
  };
  const uses = () => {
    show(hint, KINDS[kind.value].hint);
    for (const name of ['k', 'l1']) fields.at(name).node.hidden = KINDS[kind.value].by !== name;
  };
  const bodyOf = () => {
    const body = { kind: 'train', modelId: model.value, point: `blocks.${layer.value}.${point.value}`, architecture: kind.value, corpus: corpus.value.trim(), lines: lines.checked, out: out.value.trim() };
    for (const [name, control] of Object.entries({ features, tokens, [KINDS[kind.value].by]: { k, l1 }[KINDS[kind.value].by] })) if (control.value) body[name] = control.valueAsNumber;
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
  model.addEventListener('change', layers);
  kind.addEventListener('change', uses);
  layers();
  uses();
  return card('Train a dictionary', h('form', { class: 'fields', onsubmit: submit }, nodes, h('div', { class: 'row' }, start), notes));
}
