// graph.js: attribution graphs: which features of transcoders made which others, from the tokens of a text to its next token. This is the form and
// the frame; graphdata.js reads a reply, graphview.js draws it, graphnode.js tells of a node, graphsteer.js turns some, graphkept.js has those that are kept.

import { card, count, empty, facts, field, h, load, num, say, select, setTitle, show } from './dom.js';
import { explanationOf, findModel, get, models, path, post, transcoderSets } from './api.js';
import { readGraph, within } from './graphdata.js';
import { graphView, legend } from './graphview.js';
import { nodeCard, pinnedCard } from './graphnode.js';
import { steerCard } from './graphsteer.js';
import { keepCard, keptCard, keptPath } from './graphkept.js';
import { sameCallBelow } from './snippet.js';

/** Fields of the request that are folded away: name, label, what the server takes without it, a word. */
const LIMITS = [
  ['maxLogits', 'Outputs at most', 10, 'Next tokens, the likeliest first.'],
  ['logitProbability', 'Their probability', 0.95, 'No more of them than have this together.'],
  ['maxFeatures', 'Features at most', 5000, 'Whose inputs are computed, the most influential ones.'],
  ['nodeThreshold', 'Share of nodes', 0.8, 'Nodes are kept until they have this share of all influence.'],
  ['edgeThreshold', 'Share of links', 0.98, 'Links between them likewise.'],
];
const NAMED = 300; // features whose explanations the tooltips tell, the most influential ones

const REPLACEMENT = 'Replacement: of what tokens and errors send to the outputs, the share that tokens send. At 1 the transcoders explain everything; the lower, the more hangs on errors.';
const COMPLETENESS = 'Completeness: of what goes into the nodes, weighed by their influence, the share that is no error. High where the steps that are drawn are explained, even if errors begin some of them.';

const head = () => h('div', { class: 'head' }, h('h1', {}, 'What made the next token?'),
  h('p', { class: 'lead' }, 'An attribution graph follows a prediction back to the tokens: transcoders stand in for the MLPs, every feature that fires is a node, and each link says how much of it comes from another. Whatever the transcoders leave out is shown as an error, so that nothing is hidden.'));

// ---- the form -------------------------------------------------------------------------------------------

/** A name, of the first words of the text. */
const slugOf = (text) => text.toLowerCase().match(/[a-z0-9]+/g)?.slice(0, 8).join('-').slice(0, 60) || 'graph';

const madeHere = ({ info }) => info?.generator?.name === 'steerd';

/** The request that a kept graph came of; of one that was made elsewhere what is told of it. */
function requestOf({ scan, prompt, slug, generation_settings, pruning_settings, feature_details: of }) {
  const made = generation_settings ?? {}, pruned = pruning_settings ?? {};
  const used = { maxLogits: made.max_n_logits, logitProbability: made.desired_logit_prob, maxFeatures: made.max_feature_nodes, nodeThreshold: pruned.node_threshold, edgeThreshold: pruned.edge_threshold };
  const limits = LIMITS.filter(([name, , usual]) => Number.isFinite(used[name]) && used[name] !== usual).map(([name]) => [name, used[name]]);
  return { modelId: scan, text: prompt, sourceSet: of?.neuronpedia_source_set ?? '', slug, ...Object.fromEntries(limits) };
}

/** Controls by the name that the server's errors have for them, with a place for such an error under each. */
function controlsOf(all, model, hash) {
  const sets = transcoderSets(model);
  const text = h('textarea', { rows: 2, spellcheck: 'false' });
  text.value = hash.get('prompt') ?? (model.family === 'workshop' ? 'saint-jean' : model.vocabulary > 1000 ? 'Once upon a time, there was a little girl named' : 'Once upon a time');
  const chosen = sets.find((set) => set.id === hash.get('set')) ?? sets[0];
  const controls = { modelId: select(all.map((one) => [one.id, one.id]), model.id), sourceSet: select(sets.map((set) => [set.id, `${set.id}: ${set.sources.length} of ${model.layers} layers`]), chosen.id), text };
  for (const [name, , usual] of LIMITS) {
    controls[name] = h('input', { type: 'number', step: 'any', placeholder: String(usual) });
    controls[name].value = hash.get(name) ?? '';
  }
  return controls;
}

const ALIASES = { prompt: 'text', tokens: 'text', sources: 'sourceSet', model: 'modelId' };

/** What the server says of a field stands beneath it, and the field is gone to. False: it named none of these. */
function blame(controls, error) {
  const name = (error.field ?? '').replace(/\[.*/, '');
  const control = controls[ALIASES[name] ?? name];
  if (!control) return false;
  control.closest('details')?.setAttribute('open', '');
  const note = h('p', { class: 'hint wrong', role: 'alert', id: `${control.id}-wrong` }, error.message);
  control.after(note);
  control.setAttribute('aria-invalid', 'true');
  control.setAttribute('aria-errormessage', note.id);
  control.focus();
  return true;
}

function forgive(controls) {
  for (const control of Object.values(controls)) {
    if (!control.hasAttribute('aria-invalid')) continue;
    control.removeAttribute('aria-invalid');
    control.removeAttribute('aria-errormessage');
    control.nextElementSibling.remove();
  }
}

function bodyOf(controls) {
  const body = { modelId: controls.modelId.value, text: controls.text.value, sourceSet: controls.sourceSet.value, slug: slugOf(controls.text.value) };
  for (const [name] of LIMITS) if (controls[name].value !== '') body[name] = controls[name].valueAsNumber;
  return body;
}

/** A request into the form, as far as the form can hold it. */
function refill(controls, request) {
  if (controls.modelId.value !== request.modelId) return;
  controls.text.value = request.text;
  if ([...controls.sourceSet.options].some((option) => option.value === request.sourceSet)) controls.sourceSet.value = request.sourceSet;
  for (const [name] of LIMITS) controls[name].value = request[name] ?? '';
  controls[LIMITS[0][0]].dispatchEvent(new Event('input', { bubbles: true })); // for the form's own words of them
}

function form(controls, run, stop) {
  const summary = h('summary', {});
  const tell = () => { const changed = LIMITS.filter(([name]) => controls[name].value !== '').length; summary.textContent = changed ? `Limits (${changed} changed)` : 'Limits'; };
  const more = h('details', { oninput: tell }, summary, h('div', { class: 'pair wide' }, LIMITS.map(([name, label, , word]) => field(label, controls[name], word))));
  tell();
  return h('form', { class: 'card fields', novalidate: true, onsubmit: (event) => { event.preventDefault(); run(); } },
    h('div', { class: 'pair wide' }, field('Model', controls.modelId), field('Transcoders', controls.sourceSet)), field('Text', controls.text, 'The token behind its last one is explained.'), more,
    h('div', { class: 'row' }, h('button', { class: 'main' }, 'Draw the graph'), stop));
}

// ---- the graph ------------------------------------------------------------------------------------------

/** The JSON as a file, with the nodes that are pinned here. */
function download(graph, state) {
  const { reply } = graph;
  const text = JSON.stringify({ ...reply, qParams: { ...reply.qParams, pinnedIds: [...state.pinned], clickedId: state.chosen ?? '' } });
  const link = h('a', { href: URL.createObjectURL(new Blob([text], { type: 'application/json' })), download: `${reply.metadata.slug}.json` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** Layers whose MLPs no transcoder of the graph stands for; none where a source is not known any more. */
function bareLayers(model, { reply, rows }) {
  if (!madeHere(reply.metadata)) return [];
  const layers = reply.metadata.transcoder_list.map((id) => model.sources.find((source) => source.id === id)?.layer ?? Number(/^(\d+)-/.exec(id)?.[1] ?? NaN));
  return layers.some(Number.isNaN) ? [] : Array.from({ length: model.layers ?? rows - 2 }, (_, layer) => layer).filter((layer) => !layers.includes(layer));
}

const listed = (layers) => (layers.length === 1 ? `layer ${layers[0]}` : `layers ${layers.slice(0, -1).join(', ')} and ${layers.at(-1)}`);

function scoreCard(model, graph) {
  const { scores, counts, info } = graph.reply.metadata;
  const sizes = [['Nodes', count(graph.nodes.length)], ['Links', count(graph.reply.links.length)]];
  if (!scores) return card('Made elsewhere', facts([['By', info?.generator?.name ?? null], ...sizes]), h('p', { class: 'hint' }, 'It was brought as a file, which does not say how far it can be believed.'));
  const bare = bareLayers(model, graph);
  const cut = counts && counts.looked_at < counts.active;
  return card('How far it can be believed',
    facts([['Replacement', num(scores.replacement)], ['Completeness', num(scores.completeness)], ...sizes, ['Features that fired', counts ? count(counts.active) : null]]),
    h('p', { class: 'hint' }, REPLACEMENT), h('p', { class: 'hint' }, COMPLETENESS),
    bare.length > 0 && h('p', { class: 'hint' }, `No transcoder of this set stands for the MLP of ${listed(bare)}: all that is written there is error.`),
    cut && h('p', { class: 'hint' }, `Inputs were computed of ${count(counts.looked_at)} of the features that fired, the most influential ones.`));
}

function shareSlider(graph, state, changed) {
  const told = h('output', { class: 'soft number' });
  const range = h('input', { type: 'range', min: 0, max: 1, step: 0.01, value: String(state.share) });
  const tell = () => { told.textContent = `first ${Math.round(state.share * 100)} %: ${within(graph, state.share, new Set([state.chosen, ...state.pinned])).length} of ${graph.nodes.length} nodes`; };
  range.addEventListener('input', () => { state.share = Number(range.value); tell(); changed(); });
  tell();
  return h('div', {}, field('Influence shown', range), told);
}

/** Explanations of the most influential features, for the tooltips. */
function nameFeatures(model, graph) {
  const features = graph.nodes.filter((node) => node.kind === 'feature' && !node.name).sort((a, b) => a.share - b.share).slice(0, NAMED);
  for (const node of features) explanationOf(model.id, node.source, node.index).then((told) => { node.name = told; });
}

/** What is asked for by the address, of what there is. */
function stateOf(graph, hash) {
  const there = (id) => graph.byId.has(id);
  const share = Number(hash.get('share') ?? 1);
  return { chosen: there(hash.get('node')) ? hash.get('node') : graph.nodes.find((node) => node.likeliest)?.id,
    pinned: new Set((hash.get('pinned') ?? '').split(',').filter(there)), share: share >= 0 && share <= 1 ? share : 1 };
}

/** The drawing and all that is said of it. `keep(state)` is told of each change; `below`: more cards. */
function graphPart(model, request, graph, state, keep, below) {
  const node = h('div', {}), pinned = h('div', {}), turned = h('div', {}), factors = new Map();
  const fill = () => { show(node, nodeCard(model.id, graph.byId.get(state.chosen), state.pinned, act)); show(pinned, pinnedCard(model.id, graph, state.pinned, act)); };
  const turn = () => show(turned, steerCard(model, request, graph, state.pinned, factors));
  const changed = () => { view.refresh(); keep(state); };
  const act = {
    point: (id) => view.point(id),
    choose: (id, fromHere) => {
      state.chosen = id;
      fill();
      if (fromHere) view.point(null); // the button under the pointer is gone
      changed();
      if (fromHere) node.querySelector('h2').focus();
    },
    pin: (id) => {
      if (!state.pinned.delete(id)) state.pinned.add(id);
      const again = node.contains(document.activeElement);
      fill();
      turn();
      changed();
      if (again) node.querySelector('button').focus();
      say(state.pinned.has(id) ? 'pinned' : 'unpinned');
    },
  };
  const view = graphView(graph, state, act);
  fill();
  turn();
  keep(state);
  nameFeatures(model, graph);
  return h('div', { class: 'columns side graphs' }, // in one column, a node stands right below the drawing
    card('The graph', view.node, legend(graph), shareSlider(graph, state, changed)), h('div', { class: 'beside' }, node), h('div', { class: 'stack' }, pinned, turned, scoreCard(model, graph), below));
}

// ---- the page -------------------------------------------------------------------------------------------

function viewOf({ chosen, pinned, share }, graph) {
  return { ...(graph.byId.get(chosen)?.likeliest ? {} : { node: chosen }), ...(pinned.size ? { pinned: [...pinned].join(',') } : {}), ...(share < 1 ? { share } : {}) };
}

/** Of a graph that is kept, its name; else all that it is made of, where no server reads it. And what is looked at. */
function addressOf({ modelId, sourceSet, text, slug, ...limits }, kept, view) {
  const behind = new URLSearchParams(kept ? view : { model: modelId, set: sourceSet, prompt: text, ...limits, ...view });
  return `${kept ? keptPath(kept) : '/graph'}${behind.size ? `#${behind}` : ''}`;
}

/** A reply with everything about it. `page`: {kept, list, signal}; what is kept of it or not any more is told to it. */
async function drawn(page, request, reply, asked) {
  const model = await findModel(reply.metadata.scan);
  const graph = readGraph(reply), state = stateOf(graph, asked);
  const keep = () => history.replaceState(null, '', addressOf(request, page.kept, viewOf(state, graph)));
  const keeping = h('div', {});
  page.changed = (kept) => {
    page.kept = kept;
    show(keeping, kept || madeHere(reply.metadata) ? keepCard(request, kept, page, () => download(graph, state)) : null); // what is kept anew is made anew
    keep();
  };
  const part = graphPart(model, request, graph, state, keep, keeping);
  page.changed(page.kept);
  say(`The graph is drawn: ${graph.nodes.length} nodes`);
  return h('div', { class: 'stack' }, part, madeHere(reply.metadata) && sameCallBelow('/v1/lab/graph', request));
}

/** Down to the graph, where the window is too low for it to be seen below the form. */
function reveal({ out }) {
  if (out.querySelector('.graphs') && out.getBoundingClientRect().top > innerHeight * 0.6) out.scrollIntoView();
}

/** Fills `out` with the graph that the form asks for. */
function ask(page, controls, asked) {
  page.running?.abort();
  page.running = new AbortController();
  const { signal } = page.running, request = bodyOf(controls);
  forgive(controls);
  page.stop.hidden = false;
  page.kept = null;
  page.changed = () => {};
  page.list.refresh();
  if (!asked.has('prompt')) history.replaceState(null, '', addressOf(request, null, {}));
  return load(page.out, async () => {
    const reply = await post('/v1/lab/graph', request, signal).catch((error) => {
      if (error.name !== 'AbortError' && !signal.aborted && blame(controls, error)) return null;
      throw error;
    });
    return reply ? drawn(page, request, reply, asked) : h('p', { class: 'state' }, 'Nothing is drawn: see what stands beneath the field.');
  }, 'Running the text there and back…').then(() => { if (!signal.aborted) { page.stop.hidden = true; reveal(page); } });
}

/** Fills `out` with a graph that is kept, and the form with how it was made. */
const open = (page, controls, at, asked) => load(page.out, async () => {
  const row = await get('/api/graph' + path(at.modelId, at.slug));
  const reply = await get('/v1/graphs' + path(row.modelId, row.slug));
  const request = requestOf(reply.metadata);
  page.kept = row;
  page.list.refresh();
  if (controls && madeHere(reply.metadata)) refill(controls, request);
  setTitle(row.slug, 'Graph');
  return drawn(page, request, reply, asked);
}, 'Opening the graph…').then(() => reveal(page));

const noTranscoders = () => card(null, empty('No transcoders are loaded.', 'A graph needs a model with transcoders, best one for the MLP of each layer: start the daemon with ', h('code', {}, '--source MODEL/LAYER-SET=PATH'),
  ' for each of them, or train some with ', h('code', {}, 'steerd train'), '. ', h('a', { href: '/lab' }, 'The laboratory'), ' attributes a text without them.'));

function build(main, all, hash, at) {
  const model = all.find((one) => one.id === (hash.get('model') ?? at?.modelId)) ?? all[0];
  const out = h('div', {}, all.length > 0 && empty('No graph is drawn yet.', 'It takes a moment on a small model, longer with many layers and long texts.'));
  const page = { out, kept: null, changed: () => {} };
  page.stop = h('button', { type: 'button', hidden: true, onclick: () => { page.running.abort(); page.stop.hidden = true; show(out, empty('Stopped.')); } }, 'Stop');
  const controls = model && controlsOf(all, model, hash);
  page.list = keptCard(page);
  controls?.modelId.addEventListener('change', () => { page.running?.abort(); build(main, all, new URLSearchParams({ model: controls.modelId.value })); });
  const run = () => { setTitle('Graph'); return ask(page, controls, new URLSearchParams()); };
  show(main, head(), h('div', { class: 'stack' }, h('div', { class: 'columns side' }, model ? form(controls, run, page.stop) : noTranscoders(), page.list.node), out));
  if (at) open(page, controls, at, hash);
  else if (model && hash.has('prompt')) ask(page, controls, hash);
}

export async function draw(main) {
  setTitle('Graph');
  const host = h('div', {}), query = new URLSearchParams(location.search);
  show(main, host);
  await load(host, async () => {
    const all = (await models()).filter((model) => transcoderSets(model).length), hash = new URLSearchParams(location.hash.slice(1));
    const page = h('div', {});
    build(page, all, hash, query.has('slug') ? { modelId: query.get('model') ?? '', slug: query.get('slug') } : null);
    return page;
  });
}
