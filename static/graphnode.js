// graphnode.js: beside the drawing of an attribution graph: what the chosen node is and what goes into it and out of it, and the pinned ones.

import { card, empty, facts, h, load, num, percent, show } from './dom.js';
import { explanationOf, featurePath, get, post } from './api.js';
import { linksAmong, placeOf, signed, tipOf, titleOf } from './graphdata.js';
import { logitList, meter, tokenChip, tokenLine } from './tokens.js';

const ROWS = 12, TEXTS = 4;

const WORDS = {
  error: 'What the MLP of this layer writes at this token beyond what its transcoder says. No feature accounts for it, and nothing goes into it. Without a transcoder, this is all that the MLP writes.',
  embedding: 'The token where the model begins. Everything comes from tokens and from errors.',
  logit: 'A next token: its logit, less the mean of all. Only ways that end in one of the outputs are in the graph.',
};

/** Shown at once; a feature's meaning follows when it is known. */
function nameOf(model, node) {
  if (node.kind === 'embedding' || node.kind === 'logit') return h('span', {}, node.kind === 'logit' ? 'output ' : 'token ', tokenChip(node.token));
  if (node.kind === 'error') return h('span', {}, `error of layer ${node.row - 1}`);
  const meaning = h('span', {}, node.name ?? '');
  if (!node.name) explanationOf(model, node.source, node.index).then((told) => show(meaning, told ?? ''));
  return h('span', { class: 'few' }, h('span', { class: 'name' }, `${node.source}/${node.index}`), ' ', meaning);
}

/** A node that can be gone to; under the pointer, the drawing shows where it is. */
const chooser = (model, node, act) => h('button', { type: 'button', class: 'quiet node', 'data-v': tipOf(node), onclick: () => act.choose(node.id, true),
  onpointerenter: (event) => event.pointerType === 'mouse' && act.point(node.id), onpointerleave: () => act.point(null) }, nameOf(model, node));
const weightCell = (weight, most) => h('td', { class: 'right' }, h('span', { class: 'number' }, signed(weight)), meter(weight, most, weight < 0));

const brief = (token) => ([...token].length > 9 ? `${[...token].slice(0, 8).join('')}…` : token);

/** Links as a table, the largest first; the rest at a press. */
function linkTable(model, title, links, act, none) {
  const host = h('div', {});
  const most = Math.abs(links[0]?.weight ?? 0);
  const fill = (n) => show(host, h('table', {}, h('caption', { class: 'unseen' }, title),
    h('thead', {}, h('tr', {}, ['Node', 'At'].map((text) => h('th', { scope: 'col' }, text)), h('th', { scope: 'col', class: 'right' }, 'Weight'))),
    h('tbody', {}, links.slice(0, n).map(({ node, weight }) => h('tr', {}, h('td', { class: 'wide' }, chooser(model, node, act)), h('td', { class: 'number' }, node.kind !== 'embedding' && [tokenChip(brief(node.at)), ' '], h('small', { class: 'soft' }, node.position)),
      weightCell(weight, most))))),
    links.length > n && h('button', { type: 'button', class: 'quiet', onclick: () => fill(Infinity) }, `Show all ${links.length}`));
  if (links.length) fill(ROWS);
  else show(host, h('p', { class: 'state' }, none));
  return h('section', {}, h('h3', {}, `${title} (${links.length})`), host);
}

/** The few tokens about the strongest one: the card is narrow. */
function around(row, max) {
  const from = Math.max(0, row.maxValueTokenIndex - 5), end = row.maxValueTokenIndex + 4;
  return tokenLine(row.tokens.slice(from, end), row.values.slice(from, end), { max, view: 'compact', focus: row.maxValueTokenIndex - from });
}

/** What is stored of a feature of which nobody knows whether it is one of this server's, or null. */
const storedOf = async (model, node) => (await post('/api/features', [{ modelId: model, layer: node.source, index: String(node.index), maxActsToReturn: TEXTS }]))[0] ?? null;

/** What is stored of a feature, in short. */
function glance(model, node) {
  const out = h('div', {});
  load(out, async () => {
    const feature = node.elsewhere ? await storedOf(model, node) : await get('/api/feature' + featurePath(model, node.source, node.index));
    if (!feature) return empty('Nothing is known of this feature here.', 'The graph was made elsewhere, and no transcoder of this name is loaded or stored.');
    const told = feature.explanations?.[0]?.description, texts = (feature.activations ?? []).slice(0, TEXTS);
    if (!told && !texts.length && !feature.pos_str?.length) return empty('Nothing is stored of this feature.', 'Statistics over a text make examples: ', h('a', { href: '/jobs' }, 'start a job'), '.');
    return h('div', { class: 'stack tight' }, told && h('p', {}, told),
      texts.length > 0 && h('div', {}, h('h3', {}, 'Fires most on'), h('ul', {}, texts.map((row) => h('li', { class: 'example' },
        around(row, feature.maxActApprox), h('span', { class: 'number soft' }, num(row.maxValue)))))),
      feature.pos_str?.length > 0 && h('div', { class: 'logits' }, logitList('Pushes up', feature.pos_str.slice(0, 5), feature.pos_values.slice(0, 5)), logitList('Pushes down', feature.neg_str.slice(0, 5), feature.neg_values.slice(0, 5))));
  });
  return out;
}

/** The card of a node. `act`: {choose(id, fromHere), pin(id), point(id or null)}. */
export function nodeCard(model, node, pinned, act) {
  if (!node) return card('No node is chosen', h('p', { class: 'hint' }, 'Choose a mark of the drawing to see what goes into it and where it goes.'));
  const feature = node.kind === 'feature';
  const held = pinned.has(node.id);
  return h('section', { class: 'card', 'aria-label': 'The chosen node' },
    h('div', { class: 'row apart' }, h('h2', { tabindex: -1 }, titleOf(node)), h('button', { type: 'button', 'aria-pressed': String(held), onclick: () => act.pin(node.id) }, held ? 'Unpin' : 'Pin')),
    h('div', { class: 'stack tight' },
      facts([['At', placeOf(node)], ['Layer', feature ? node.row - 1 : null], ['Activation', feature && node.activation !== null ? num(node.activation, 4) : null], ['Probability', node.kind === 'logit' ? percent(node.probability) : null]]),
      node.kind !== 'logit' && h('p', { class: 'hint' }, `With all that are more influential, it has ${percent(Math.min(1, node.share))} of the influence on the outputs.`),
      WORDS[node.kind] && h('p', { class: 'hint' }, WORDS[node.kind]),
      feature && glance(model, node),
      feature && !node.elsewhere && h('div', { class: 'row' }, h('a', { class: 'button', href: featurePath(model, node.source, node.index) }, 'The page of this feature')),
      node.kind !== 'embedding' && node.kind !== 'error' && linkTable(model, 'Inputs', node.inputs, act, 'What goes into it was too little to be kept.'),
      node.kind !== 'logit' && linkTable(model, 'Outputs', node.outputs, act, 'Nothing that was kept comes from it.')));
}

/** The pinned nodes, and what goes from one to another. */
export function pinnedCard(model, graph, pinned, act) {
  const nodes = [...pinned].map((id) => graph.byId.get(id));
  if (!nodes.length) return card('Pinned nodes', h('p', { class: 'hint' }, 'Pin the nodes of a story: the links between them stay drawn, and the address of this page keeps them.'));
  const links = linksAmong(graph, pinned), most = Math.abs(links[0]?.weight ?? 0);
  return card(`Pinned nodes (${nodes.length})`,
    h('ul', { class: 'list' }, nodes.map((node) => h('li', {}, h('div', { class: 'item' }, h('div', { class: 'row line stay' }, h('span', {}, chooser(model, node, act), ' ', h('small', { class: 'soft' }, placeOf(node))),
      h('button', { type: 'button', class: 'quiet', 'aria-label': `Unpin ${titleOf(node)}, ${placeOf(node)}`, onclick: () => act.pin(node.id) }, '✕')))))),
    links.length ? h('div', { class: 'scroll' }, h('table', {}, h('caption', { class: 'unseen' }, 'Links between pinned nodes'), h('thead', {}, h('tr', {}, ['From', 'To'].map((text) => h('th', { scope: 'col' }, text)), h('th', { scope: 'col', class: 'right' }, 'Weight'))),
      h('tbody', {}, links.map(({ from, to, weight }) => h('tr', {}, h('td', {}, chooser(model, from, act)), h('td', {}, chooser(model, to, act)), weightCell(weight, most))))))
      : h('p', { class: 'hint' }, nodes.length > 1 ? 'No link that was kept goes directly from one of them to another.' : 'Links are shown when there are two.'));
}
