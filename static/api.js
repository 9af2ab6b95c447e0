// api.js: the public API, as any other client would call it: JSON in, JSON or server-sent events out.

export class ApiError extends Error {
  constructor(status, body) {
    super(body.message || `the server answered ${status}`);
    this.status = status;
    this.code = body.code;
    this.field = body.field;
  }
}

/** Where a path's parts come from outside: each is one segment. */
export const path = (...parts) => '/' + parts.map((part) => encodeURIComponent(part)).join('/');

export function queryOf(values) {
  const kept = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== '');
  return kept.length ? '?' + new URLSearchParams(kept) : '';
}

function savedKey() {
  try {
    return sessionStorage.getItem('steerd-key');
  } catch {
    return null; // a frame without storage
  }
}

/** What replies have told of the server on the way: whether it has a store. */
export const server = { keeps: true };

async function send(method, address, body, signal) {
  const headers = {};
  const key = savedKey();
  if (key) headers['X-Api-Key'] = key;
  if (body !== undefined || method !== 'GET') headers['Content-Type'] = 'application/json';
  let reply;
  try {
    reply = await fetch(address, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(0, { message: 'the server does not answer; is it still running?' });
  }
  if (reply.headers.has('X-Store')) server.keeps = false;
  if (reply.ok) return reply;
  const told = await reply.json().catch(() => ({}));
  const wait = reply.headers.get('Retry-After');
  if (reply.status === 503 && wait) told.message = `${told.message} (about ${wait} s)`;
  throw new ApiError(reply.status, told);
}

export async function call(method, address, body, signal) {
  const reply = await send(method, address, body, signal);
  const text = await reply.text();
  const value = text ? JSON.parse(text) : {};
  const total = reply.headers.get('X-Total-Count');
  if (total !== null && value && typeof value === 'object') Object.defineProperty(value, 'totalCount', { value: Number(total) });
  return value;
}

export const get = (address, signal) => call('GET', address, undefined, signal);
export const post = (address, body, signal) => call('POST', address, body, signal);
export const remove = (address, signal) => call('DELETE', address, undefined, signal);

export async function text(address, signal) {
  return (await send('GET', address, undefined, signal)).text();
}

/** Browsers call it a network error, which tells a reader nothing. */
function brokenOff(error) {
  if (error.name === 'AbortError') throw error;
  throw new ApiError(0, { message: 'the answer broke off: the server does not answer any more' });
}

/** Server-sent events, each parsed: their data, or a throw where the server reports an error on the way. */
export async function* events(method, address, body, signal) {
  const reply = await send(method, address, body, signal);
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = '';
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(brokenOff);
      if (done) return;
      const parts = (waiting + value).split('\n\n');
      waiting = parts.pop();
      for (const part of parts) {
        const event = parseEvent(part);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parseEvent(part) {
  const lines = part.split('\n');
  const data = lines.filter((line) => line.startsWith('data:')).map((line) => line.slice(5)).join('\n');
  if (!data) return null;
  const value = JSON.parse(data);
  if (lines.some((line) => /^event: *error/.test(line))) throw new ApiError(500, value);
  return value;
}

// ---- what several pages ask -----------------------------------------------------------------------------

/** The neurons of each layer: sources that every model with an MLP has, and no list of what is loaded. */
function neuronsOf({ neurons }) {
  return Array.from({ length: neurons?.layers ?? 0 }, (_, layer) => ({ id: `${layer}`, set: neurons.set, kind: 'neurons', layer, point: `blocks.${layer}.mlp.hook_post`,
    features: neurons.perLayer, width: neurons.perLayer, folded: false, promotes: true, bosCounts: false }));
}

export const areNeurons = (source) => source.kind === 'neurons';
/** Behind its last feature: what was uploaded need not have all in between. */
export const boundOf = (source) => source.indices ?? source.features;
export const nounOf = (at) => (areNeurons(at.source) ? 'neuron' : 'feature');
export const sourceName = (source) => (areNeurons(source) ? `${source.id}: neurons` : source.id);

/** The sets that hold transcoders which are loaded: [{id, sources}]. They can stand for MLPs in a graph. */
export function transcoderSets(model) {
  const sets = new Map();
  for (const source of model.sources) {
    if (source.stored || !source.kind?.includes('transcoder')) continue;
    if (!sets.has(source.set)) sets.set(source.set, []);
    sets.get(source.set).push(source);
  }
  return [...sets].map(([id, sources]) => ({ id, sources }));
}

/** `every`: what can be chosen, its sources and the neurons of each layer. */
const withNeurons = (model) => ({ ...model, every: [...model.sources, ...neuronsOf(model)] });

/** Which of them a page begins with: a dictionary of the stream if there is one, whose features say most by themselves. */
export const firstSource = (model) => model.every.find((one) => !areNeurons(one) && !one.kind?.includes('transcoder')) ?? model.every[0];

let asked;
const allModels = () => (asked ??= get('/models').then((reply) => ({ ...reply, models: reply.models.map(withNeurons) }),
  (error) => { asked = undefined; throw error; })); // to be asked again

/** The loaded models with their sources; asked once a page. */
export const models = () => allModels().then((reply) => reply.models);

/** Those, and behind them the models that the store alone knows; sources of which it alone knows stand behind the loaded ones. Either
 * is told by `stored`: nothing is computed with it. */
export async function knownModels() {
  const { models: loaded, stored = [] } = await allModels();
  const named = (model) => model.sources.map((source) => ({ ...source, stored: true }));
  return [...loaded.map((model) => ({ ...model, sources: [...model.sources, ...stored.filter((one) => one.id === model.id).flatMap(named)] })),
    ...stored.filter((model) => !model.loaded).map((model) => ({ ...model, stored: true, sources: named(model) }))].map(withNeurons);
}

/** A model by its id or an alias of it, loaded or stored. */
export async function findModel(id) {
  const all = await knownModels();
  const found = all.find((model) => model.id === id);
  if (found) return found;
  const { id: own } = await post('/api/model/get', { id });
  return all.find((model) => model.id === own) ?? { id: own, stored: true, sources: [] };
}

export async function findSource(modelId, sourceId) {
  const model = await findModel(modelId);
  const source = model.every.find((one) => one.id === sourceId);
  if (!source)
    throw new ApiError(404, { message: `model '${model.id}' has no source '${sourceId}'; it has ${model.sources.map((one) => one.id).join(', ') || 'none'}` });
  return { model, source };
}

export const featurePath = (model, source, index) => path(model, source, index);

/** Explanations that hold the words, or all of a source: rows, with totalCount where the server tells it. */
export function explanations({ model, source, words, limit = 20, offset = 0 }, signal) {
  return get('/explanations' + queryOf({ modelId: model, saeId: source, q: words, limit, offset }), signal);
}

const named = new Map();
let wanted = [];

/** Asks for all that were wanted in this moment with one call. */
async function askNames() {
  const asked = wanted;
  wanted = [];
  const told = new Map();
  try {
    const body = asked.map(({ model, source, index }) => ({ modelId: model, layer: source, index: String(index), maxActsToReturn: 0 }));
    for (const feature of await post('/api/features', body)) told.set(featurePath(feature.modelId, feature.layer, feature.index), feature.explanations?.[0]?.description ?? feature.vectorLabel);
  } catch { /* a name is an ornament: the number stands without it */ }
  for (const one of asked) one.tell(told.get(featurePath(one.model, one.source, one.index)) ?? null);
}

/** What a search has told of a feature already, or that nobody said anything: it need not be asked for. */
export const knowName = (model, source, index, label) => named.set(featurePath(model, source, index), Promise.resolve(label?.explanations[0]?.description ?? null));
/** The same of the rows of /api/search-all over one text. */
export const knowNames = (rows) => rows.forEach((row) => knowName(row.modelId, row.layer, row.index, row.neuron));

/** The best explanation of a feature, or null; asked once. */
export function explanationOf(model, source, index) {
  const key = featurePath(model, source, index);
  if (!named.has(key)) named.set(key, new Promise((tell) => {
    if (wanted.push({ model, source, index, tell }) === 1) setTimeout(askNames);
    else if (wanted.length === 100) askNames();
  }));
  return named.get(key);
}

/** Kept vectors of a model by their labels, oldest first: [{label, strength, vectors: [{source, index, point}]}]; one without a label stands alone. */
export async function keptVectors(model) {
  const groups = new Map();
  for (const row of (await post('/api/vector/list-owned', { modelId: model, values: false })).vectors) {
    const key = row.vectorLabel ? `l${row.vectorLabel}` : `n${featurePath(model, row.layer, row.index)}`;
    if (!groups.has(key)) groups.set(key, { label: row.vectorLabel || null, strength: row.vectorDefaultSteerStrength, vectors: [] });
    groups.get(key).vectors.push({ source: row.layer, index: Number(row.index), point: row.hookName });
  }
  return [...groups.values()];
}

/** "behind layer 3": where a kept vector is added. */
export function pointPlace(point) {
  const [, layer, side] = /^blocks\.(\d+)\.hook_resid_(pre|post)$/.exec(point) ?? [];
  return layer === undefined ? `at ${point}` : `${side === 'pre' ? 'before' : 'behind'} layer ${layer}`;
}
