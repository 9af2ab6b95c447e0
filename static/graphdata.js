// graphdata.js: an attribution graph as it is replied, made ready to be drawn: nodes that know their links, names, places. Pure:
// it asks nothing and draws nothing.

import { num, percent, visible } from './dom.js';

const KINDS = { 'cross layer transcoder': 'feature', 'mlp reconstruction error': 'error', embedding: 'embedding', logit: 'logit' };

/** Of a logit: the token that its name quotes. */
const outputOf = (clerp) => /^Output "([\s\S]*)" \(p=[^)]*\)$/.exec(clerp)?.[1] ?? clerp;

/** Of a feature of a graph that was made elsewhere, which says no more than its name, LAYER_INDEX_POSITION. */
function featureOf(raw, set) {
  const index = Number(/^\d+_(\d+)_\d+$/.exec(raw.node_id)?.[1] ?? raw.feature);
  return { source: raw.source ?? (set ? `${raw.layer}-${String(set).split('/').pop()}` : `layer ${raw.layer}`), index: raw.index ?? index, elsewhere: !raw.source };
}

function nodeOf(raw, tokens, set) {
  const kind = KINDS[raw.feature_type];
  return { id: raw.node_id, kind, position: raw.ctx_idx, token: kind === 'logit' ? outputOf(raw.clerp) : tokens[raw.ctx_idx] ?? '', at: tokens[raw.ctx_idx] ?? '',
    row: kind === 'embedding' ? 0 : Number(raw.layer) + (kind === 'logit' ? 0 : 1), share: raw.influence ?? 0, activation: raw.activation ?? null, probability: raw.token_prob ?? 0,
    ...(kind === 'feature' ? featureOf(raw, set) : {}), name: kind === 'feature' && raw.clerp ? raw.clerp : null, likeliest: raw.is_target_logit, inputs: [], outputs: [] };
}

/** {nodes, byId, tokens, rows, links, reply}. Rows count from the bottom: 0 the tokens, layer + 1, the outputs. The links of a node are
 * {node, weight}, largest first, whatever their sign. */
export function readGraph(reply) {
  const tokens = reply.metadata.prompt_tokens;
  const set = reply.metadata.feature_details?.neuronpedia_source_set ?? reply.metadata.info?.neuronpedia_source_set;
  const nodes = reply.nodes.map((raw) => nodeOf(raw, tokens, set)).filter((node) => node.kind);
  const byId = new Map(nodes.map((node) => [node.id, node]));
  for (const { source, target, weight } of reply.links) {
    const from = byId.get(source), to = byId.get(target);
    if (!from || !to) continue;
    from.outputs.push({ node: to, weight });
    to.inputs.push({ node: from, weight });
  }
  const bySize = (a, b) => Math.abs(b.weight) - Math.abs(a.weight);
  for (const node of nodes) { node.inputs.sort(bySize); node.outputs.sort(bySize); }
  return { reply, nodes, byId, tokens, rows: nodes.reduce((most, node) => Math.max(most, node.row + 1), 0) };
}

export const rowName = (graph, row) => (row === 0 ? 'Tokens' : row === graph.rows - 1 ? 'Output' : `Layer ${row - 1}`);

const quoted = (token) => `“${visible(token).replace(/\n/g, '↵')}”`;
export const placeOf = (node) => `token ${node.position}, ${quoted(node.at)}`;

/** What a node is called where there is no room for more. */
export function titleOf(node) {
  if (node.kind === 'feature') return `Feature ${node.index} of ${node.source}`;
  if (node.kind === 'error') return `Error of layer ${node.row - 1}`;
  return `${node.kind === 'logit' ? 'Output' : 'Token'} ${quoted(node.token)}`;
}

export function tipOf(node) {
  const more = node.kind === 'logit' ? `probability ${percent(node.probability)}`
    : `${placeOf(node)}${node.kind === 'feature' ? `\nactivation ${num(node.activation, 4)}` : ''}\namong the first ${percent(Math.min(1, node.share))} of influence`;
  return `${titleOf(node)}${node.name ? `\n${shorten(node.name, 90)}` : ''}\n${more}`;
}

/** With a sign in front, for both; the minus is as wide as the plus. */
export const signed = (weight) => (weight < 0 ? `−${num(-weight)}` : `+${num(weight)}`);

/** Nodes within the share of influence; tokens and outputs stay, and what is held. */
export const within = (graph, share, held) => graph.nodes.filter((node) => node.kind === 'embedding' || node.kind === 'logit' || node.share <= share + 1e-9 || held.has(node.id));

/** Links between nodes of a set, largest first. */
export function linksAmong(graph, ids) {
  const found = [...ids].flatMap((id) => (graph.byId.get(id)?.outputs ?? []).filter((link) => ids.has(link.node.id)).map((link) => ({ from: graph.byId.get(id), to: link.node, weight: link.weight })));
  return found.sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
}

// ---- places ---------------------------------------------------------------------------------------------

const STEP = 17, PAD = 12, LEAST = 30;   // pixels: from mark to mark, around a place, a row
const PILL = { width: 104, height: 20, step: 26, gap: 6 }; // outputs, in lines that end where the last token does
const LETTER = 6.7;

export const shorten = (text, most) => {
  const shown = visible(text).replace(/\n/g, '↵').replace(/^ /, '·') || '∅';
  return [...shown].length > most ? `${[...shown].slice(0, most - 1).join('')}…` : shown;
};

/** Marks of a place in lines: about twice as wide as high. */
const acrossOf = (n) => (n <= 3 ? n : Math.ceil(Math.sqrt(2 * n)));

function groupsOf(nodes) {
  const groups = new Map();
  for (const node of nodes) {
    const key = `${node.row} ${node.position}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(node);
  }
  for (const group of groups.values()) // errors last, the most influential first; outputs by probability
    group.sort((a, b) => (a.kind === 'error') - (b.kind === 'error') || (a.kind === 'logit' ? b.probability - a.probability : a.share - b.share));
  return [...groups.values()];
}

function sizeOf(group) {
  const { kind, token } = group[0];
  if (kind === 'logit') return [PILL.width + PAD, LEAST];
  if (kind === 'embedding') return [[...shorten(token, 10)].length * LETTER + 20, LEAST + 4];
  const across = acrossOf(group.length);
  return [across * STEP + PAD, Math.ceil(group.length / across) * STEP + PAD];
}

/** Outputs in a line, when `room` is to be seen at once: all lines about equally long. */
function outputsAcross(n, room) {
  const most = Math.max(1, Math.floor((room - PAD) / (PILL.width + PILL.gap)));
  return Math.ceil(n / Math.ceil(n / most));
}

/** The likeliest stands above the last token, where most of what makes it is; the others follow to the left. */
function putOutputs(group, column, row, across) {
  return group.map((node, i) => ({ node, x: column.end - PAD / 2 - PILL.width / 2 - (i % across) * (PILL.width + PILL.gap), y: row.top + 5 + (Math.floor(i / across) + 0.5) * PILL.step,
    width: PILL.width, height: PILL.height }));
}

function put(group, column, row, outputs) {
  const { kind } = group[0];
  if (kind === 'logit') return putOutputs(group, column, row, outputs);
  const across = acrossOf(group.length), lines = Math.ceil(group.length / across);
  return group.map((node, i) => {
    if (kind === 'embedding') return { node, x: column.middle, y: row.middle, width: column.width - 6, height: PILL.height };
    const line = Math.floor(i / across), here = line === lines - 1 ? group.length - line * across : across;
    return { node, x: column.middle + (i % across - (here - 1) / 2) * STEP, y: row.middle + (line - (lines - 1) / 2) * STEP };
  });
}

function stretch(sizes, room) {
  const free = Math.max(0, room - sizes.reduce((sum, size) => sum + size, 0)) / sizes.length;
  let end = 0;
  return sizes.map((size) => { const top = end; end += size + free; return { top, width: size + free, middle: (top + end) / 2, end }; });
}

/** Where each of the nodes stands: {marks [{node, x, y, width?, height?}] row by row from the top, columns, rows (from the bottom), width, height}. `room`
 * is the width to be filled, where less is needed. */
export function layOut(graph, nodes, room) {
  const groups = groupsOf(nodes);
  const widths = graph.tokens.map(() => LEAST), heights = Array.from({ length: graph.rows }, () => LEAST);
  for (const group of groups) {
    const [width, height] = sizeOf(group), { position, row } = group[0];
    widths[position] = Math.max(widths[position], width);
    heights[row] = Math.max(heights[row], height);
  }
  const columns = stretch(widths, room), outputs = groups.find((group) => group[0].kind === 'logit')?.length ?? 0;
  const across = outputsAcross(outputs, Math.min(room, columns.at(-1).end));
  if (outputs) heights[graph.rows - 1] = Math.ceil(outputs / across) * PILL.step + 10;
  const rows = stretch(heights.slice().reverse(), 0).reverse();
  const marks = groups.flatMap((group) => put(group, columns[group[0].position], rows[group[0].row], across));
  marks.sort((a, b) => a.y - b.y || a.x - b.x);
  return { marks, columns, rows, width: columns.at(-1).end, height: rows[0].end };
}
