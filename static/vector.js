// vector.js: a vector that somebody keeps: what it is, what it promotes, what texts have of it; and how it is steered with and deleted.

import { card, count, crumbs, during, facts, h, load, num, setTitle, show } from './dom.js';
import { featurePath, findModel, keptVectors, path, pointPlace, post, queryOf } from './api.js';
import { logits, LOGITS, plots } from './feature.js';
import { sameCallBelow } from './snippet.js';
import { tokenLine } from './tokens.js';

const steerLink = (row) => `/steer#${new URLSearchParams({ model: row.modelId, feature: `${row.layer}/${row.index}@${row.vectorDefaultSteerStrength}` })}`;
const labelLink = (model, group) => `/steer#${new URLSearchParams({ model, label: `${group.label}@${group.strength}` })}`;
const nameOf = (row) => row.vectorLabel || `Vector ${row.index}`;

function factsCard(row) {
  const made = new Date(row.createdAt);
  return card('What it is', facts([['Label', row.vectorLabel], ['Added', pointPlace(row.hookName)], ['Point', row.hookName], ['Numbers', count(row.vector.length)], ['Length', num(row.decoder_norm, 4)],
    ['Usual strength', num(row.vectorDefaultSteerStrength, 4)], ['Kept since', Number.isNaN(made.valueOf()) ? null : made.toLocaleString()]]),
  sameCallBelow('/steer', { modelId: row.modelId, prompt: 'Once upon a time', features: [{ layer: row.layer, index: row.index, strength: row.vectorDefaultSteerStrength }] }));
}

function promotesCard(row, loaded) {
  const told = logits(row);
  return card('What it promotes', told ? [h('p', { class: 'hint' }, LOGITS), told, h('div', { class: 'plots' }, plots(row))]
    : h('p', { class: 'state' }, loaded ? 'The model that is loaded now has another width.' : 'The model is not loaded.'));
}

/** The text's rows along the vector. BOS is left out: its row is far longer than the others. */
function testCard(row) {
  const input = h('input', { placeholder: 'Try a text…', 'aria-label': 'Text to try this vector on', required: true, spellcheck: 'false' });
  const out = h('div', { 'aria-live': 'polite' });
  const run = () => load(out, async () => {
    const reply = await post('/api/activation/new', { feature: { modelId: row.modelId, source: row.layer, index: row.index }, customText: input.value, ignoreBos: true });
    const lowest = reply.values.indexOf(reply.minValue);
    const end = (word, value, at) => [word, `${num(value, 4)} at “${reply.tokens[at]}”`];
    return h('div', { class: 'stack tight' }, tokenLine(reply.tokens, reply.values, { every: true, focus: reply.maxValue > 0 ? reply.maxValueTokenIndex : -1 }),
      facts([end('Most', reply.maxValue, reply.maxValueTokenIndex), end('Least', reply.minValue, lowest)]));
  }, 'Reading…');
  return card('What a text has of it', h('p', { class: 'hint' }, `The dot product of the vector with the stream ${pointPlace(row.hookName)}, at every token.`),
    h('form', { class: 'ask', onsubmit: (event) => { event.preventDefault(); run(); } }, input, h('button', {}, 'Test')), out);
}

function others(row, group) {
  return h('ul', { class: 'list' }, group.vectors.map((one) => h('li', {}, h('a', { href: featurePath(row.modelId, one.source, one.index), 'aria-current': String(one.index) === row.index && one.source === row.layer ? 'page' : null },
    h('span', { class: 'name' }, pointPlace(one.point)), ' ', h('small', { class: 'soft' }, `${one.source}/${one.index}`)))));
}

/** All that is kept under its label, and the ways to be rid of it. */
function keptCard(row, group) {
  const notes = h('div', { 'aria-live': 'polite' });
  const forget = (text, body) => h('button', { type: 'button', onclick: (event) => during(event.target, notes, async () => {
    await post('/api/vector/delete', { modelId: row.modelId, ...body });
    location.href = path(row.modelId);
  }) }, text);
  const several = group && group.vectors.length > 1;
  const file = group?.label && `/api/vector/download${queryOf({ modelId: row.modelId, vectorLabel: group.label })}`;
  return card(several ? `All of “${group.label}”` : 'Kept',
    several && [h('p', { class: 'hint' }, 'Vectors of one label are steered with together, each at its own place.'), others(row, group)],
    h('div', { class: 'stack tight' },
      h('div', { class: 'row' }, several && h('a', { class: 'button', href: labelLink(row.modelId, group) }, 'Steer with all'),
        file && h('a', { class: 'button', href: file, download: `${group.label}.gguf` }, 'As a file')),
      h('div', { class: 'row' }, forget('Delete this vector', { source: row.layer, index: row.index }), several && forget(`Delete all ${group.vectors.length}`, { vectorLabel: group.label })), notes));
}

/** `row`: what /api/feature tells of it. */
export async function drawVector(main, row) {
  setTitle(nameOf(row), row.layer);
  const model = await findModel(row.modelId);
  const groups = await keptVectors(row.modelId).catch(() => []);
  const group = groups.find((one) => one.label === (row.vectorLabel || null) && one.vectors.some((other) => other.source === row.layer && String(other.index) === row.index));
  show(main, h('div', { class: 'head' }, crumbs(['Home', '/'], [row.modelId, path(row.modelId)]),
    h('div', { class: 'row apart' }, h('h1', {}, nameOf(row)), !model.stored && h('a', { class: 'button main', href: steerLink(row) }, 'Steer with it')),
    h('p', { class: 'lead' }, `A kept vector, ${row.layer}/${row.index}, added to the stream ${pointPlace(row.hookName)}.`)),
  h('div', { class: 'columns even' }, h('div', { class: 'stack' }, factsCard(row), promotesCard(row, !model.stored)),
    h('div', { class: 'stack' }, !model.stored && testCard(row), keptCard(row, group))));
}

/** The kept vectors of a model, each label once; nothing where there are none. */
export function keptList(model) {
  const out = h('div', {});
  keptVectors(model.id).then((groups) => {
    if (groups.length) show(out, card('Kept vectors', h('ul', { class: 'list' }, groups.map((group) => h('li', {}, h('a', { href: featurePath(model.id, group.vectors[0].source, group.vectors[0].index) },
      h('span', { class: 'name' }, group.label ?? `Vector ${group.vectors[0].index}`), ' ',
      h('small', { class: 'soft' }, group.vectors.length > 1 ? `${count(group.vectors.length)} layers` : pointPlace(group.vectors[0].point))))))));
  }).catch(() => {}); // an ornament of the page
  return out;
}
