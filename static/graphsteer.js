// graphsteer.js: pinned nodes of an attribution graph, turned: how the text goes on then, and which next token it makes likelier. What the graph
// claims is tried out on the model itself.

import { card, count, during, h, percent, say, select, show } from './dom.js';
import { post, transcoderSets } from './api.js';
import { placeOf, titleOf } from './graphdata.js';
import { output, writeText, whereParted } from './outputs.js';
import { sameCallBelow } from './snippet.js';
import { meter, tokenChip } from './tokens.js';

const TOKENS = 20, LIKELIEST = 8;
const TURNS = [['0', 'switched off'], ['0.5', 'half as strong'], ['1', 'left as it is'], ['2', 'twice as strong'], ['5', '5 times as strong']];

const HELD = 'The tokens of the prompt look at each other as they do without steering, as the graph has it. Without this, what is turned may also change where they look.';

/** The nodes that can be turned: features that fire, of transcoders that are loaded. */
const turnable = (graph, pinned) => [...pinned].map((id) => graph.byId.get(id)).filter((node) => node.kind === 'feature' && !node.elsewhere && node.activation !== null);

/** Whether the prompt had a BOS in front that is no part of its text. */
const hasBos = ({ reply, tokens }) => !reply.metadata.prompt.trimStart().startsWith(tokens[0].trim());

function bodyOf(request, graph, turned) {
  const features = turned.nodes.filter((node) => turned.factor(node) !== 1).map((node) => ({ layer: node.row - 1, index: node.index, token_active_position: node.position, steer_position: node.position,
    ...(turned.factor(node) === 0 ? { ablate: true } : { delta: (turned.factor(node) - 1) * node.activation }) }));
  return { modelId: request.modelId, sourceSetName: request.sourceSet, prompt: graph.reply.metadata.prompt, prependBos: hasBos(graph), features, freezeAttention: turned.held.checked, nTokens: TOKENS, temperature: 0, topK: LIKELIEST };
}

// ---- what comes of it -----------------------------------------------------------------------------------

/** [{token, plain, steered}] of what was expected behind the prompt; null where one is not among the likeliest there. */
function expected(graph, reply) {
  const [plain, steered] = ['DEFAULT', 'STEERED'].map((which) => new Map(reply[`${which}_LOGITS_BY_TOKEN`][graph.tokens.length - 1].top_logits.map(({ token, prob }) => [token, prob])));
  const least = (list) => Math.min(...list.values());
  const rows = [...new Set([...plain.keys(), ...steered.keys()])].map((token) => ({ token, plain: plain.get(token) ?? null, steered: steered.get(token) ?? null }));
  return { rows: rows.sort((a, b) => (b.plain ?? 0) - (a.plain ?? 0) || b.steered - a.steered), less: { plain: least(plain), steered: least(steered) } };
}

function nextTable({ rows, less }) {
  const most = Math.max(...rows.flatMap((row) => [row.plain ?? 0, row.steered ?? 0]));
  const cell = (row, which) => h('td', { class: 'right' }, h('span', { class: 'number' }, row[which] === null ? `< ${percent(less[which])}` : percent(row[which])), meter(row[which] ?? 0, most));
  return h('table', { class: 'next' }, h('caption', { class: 'unseen' }, 'The next token without and with the nodes turned'),
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Next token'), ['As it is', 'Turned'].map((text) => h('th', { scope: 'col', class: 'right' }, text)))),
    h('tbody', {}, rows.map((row) => h('tr', {}, h('td', {}, tokenChip(row.token)), cell(row, 'plain'), cell(row, 'steered')))));
}

function result(graph, reply) {
  const { prompt } = graph.reply.metadata;
  const plain = output('Default', 'plain', 'nothing is turned'), steered = output('Steered', 'steered', 'with the nodes turned');
  const parted = whereParted(reply.DEFAULT_GENERATION.slice(prompt.length), reply.STEERED_GENERATION.slice(prompt.length), true);
  writeText(plain.text, reply.DEFAULT_GENERATION, prompt, parted);
  writeText(steered.text, reply.STEERED_GENERATION, prompt, parted);
  return [nextTable(expected(graph, reply)), h('div', { class: 'outputs' }, plain.node, steered.node), parted === null && h('p', { class: 'hint' }, 'Both texts are the same.')];
}

// ---- the card -------------------------------------------------------------------------------------------

function controls(nodes, factors) {
  const line = (node) => {
    const turn = select(TURNS, String(factors.get(node.id) ?? 0), { 'aria-label': `${titleOf(node)}, ${placeOf(node)}`, onchange: (event) => factors.set(node.id, Number(event.target.value)) });
    return h('li', {}, h('div', { class: 'item' }, h('div', { class: 'row line stay' },
      h('span', {}, h('span', { class: 'name' }, `${node.source}/${node.index}`), ' ', node.name ?? '', ' ', h('small', { class: 'soft' }, placeOf(node))), turn)));
  };
  return h('ul', { class: 'list' }, nodes.map(line));
}

/** The card of what is pinned, or null where no node of the graph can be turned. `factors`: Map of node to factor, kept by the page. */
export function steerCard(model, request, graph, pinned, factors) {
  if (!transcoderSets(model).some((set) => set.id === request.sourceSet)) return null;
  const nodes = turnable(graph, pinned);
  if (!nodes.length) return card('Turn nodes', h('p', { class: 'hint' }, 'Pin features to switch them off or turn them up, and see how the text goes on without them.'));
  const out = h('div', { class: 'stack', 'aria-live': 'polite' }), held = h('input', { type: 'checkbox', checked: true });
  const turned = { nodes, held, factor: (node) => factors.get(node.id) ?? 0 };
  const run = (event) => during(event.target, out, async () => {
    const body = bodyOf(request, graph, turned), reply = await post('/api/steer-logits', body);
    show(out, result(graph, reply), sameCallBelow('/api/steer-logits', body));
    say('The text went on twice');
  });
  return card(`Turn nodes (${count(nodes.length)})`, h('div', { class: 'stack tight' }, controls(nodes, factors),
    h('div', {}, h('label', { class: 'row' }, held, 'Hold attention'), h('p', { class: 'hint' }, HELD)),
    h('div', { class: 'row' }, h('button', { type: 'button', class: 'main', onclick: run }, 'Continue the text')), out));
}
