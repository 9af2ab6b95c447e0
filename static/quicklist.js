// quicklist.js: features that the address names, as SAELens' get_neuronpedia_quick_list writes it: ?name=...&features=[{modelId, layer,
// index, description}, ...]. Nothing is stored until somebody keeps them as a list.

import { card, count, crumbs, during, empty, failure, h, load, setTitle, show } from './dom.js';
import { post, server } from './api.js';
import { featureItem, listPath } from './list.js';

const MOST = 100; // that /api/features takes

/** What the address names; null where it is not what it should be. */
function readFeatures(text) {
  try {
    const rows = JSON.parse(text ?? '[]');
    return Array.isArray(rows) && rows.every((row) => row?.modelId && row.layer !== undefined && row.index !== undefined) ? rows : null;
  } catch {
    return null;
  }
}

function keepButton(name, rows) {
  const notes = h('div', { 'aria-live': 'polite' });
  const features = rows.map(({ modelId, layer, index, description }) => ({ modelId, layer, index, description }));
  const keep = (event) => during(event.target, notes, async () => { location.href = listPath((await post('/api/list/new-with-features', { name, features })).id); });
  return h('div', {}, h('button', { type: 'button', onclick: keep }, 'Keep them as a list'), notes);
}

/** What the address says of a feature. Its model may be named by an alias there. */
function saidOf(row, wanted) {
  const same = wanted.filter(({ layer, index }) => `${layer}` === row.layer && `${index}` === row.index);
  return (same.find(({ modelId }) => modelId === row.modelId) ?? same[0])?.description;
}

async function drawRows(name, wanted) {
  const rows = await post('/api/features', wanted.slice(0, MOST).map(({ modelId, layer, index }) => ({ modelId, layer: `${layer}`, index: `${index}`, maxActsToReturn: 1 })));
  for (const row of rows) row.description = saidOf(row, wanted);
  if (!rows.length) return empty('None of these features is here.', 'Their model and source must be loaded, or known from the store.');
  return h('div', { class: 'stack' }, card(rows.length === 1 ? '1 feature' : `${count(rows.length)} features`,
    rows.length < wanted.length && h('p', { class: 'hint' }, wanted.length > MOST ? `The first ${MOST} of ${count(wanted.length)} are looked at.` : `${count(wanted.length - rows.length)} more are named, and are not here.`),
    h('ul', { class: 'list' }, rows.map((row) => featureItem(null, row)))), server.keeps && keepButton(name, rows));
}

export function draw(main, parts, query) {
  const name = query.get('name') || 'Features', wanted = readFeatures(query.get('features')), out = h('div', {});
  setTitle(name);
  show(main, h('div', { class: 'head' }, crumbs(['Home', '/'], ['Lists', '/list']), h('h1', {}, name)), out);
  if (!wanted) return show(out, failure(new Error("'features' of the address must be a JSON array of {modelId, layer, index}")));
  if (!wanted.length) return show(out, empty('The address names no features.', 'It ends in ?features=[{"modelId": "demo", "layer": "2-res-demo", "index": "1890"}]'));
  return load(out, () => drawRows(name, wanted));
}
