// graphkept.js: attribution graphs that are kept under a name: all of them, and the card that keeps the one that is drawn, or deletes it.

import { card, count, during, empty, field, h, load, noStore, say, show } from './dom.js';
import { post, queryOf, server } from './api.js';

const FIRST = 6; // of the list

export const keptPath = ({ modelId, slug }) => '/graph' + queryOf({ model: modelId, slug });

const same = (one, other) => one?.modelId === other?.modelId && one?.slug === other?.slug;

/** A button that asks back before it does its work. */
function dropButton(text, label, work) {
  const button = h('button', { type: 'button', class: 'quiet', 'aria-label': label, onclick: press, onblur: () => name(false) }, text);
  const name = (sure) => { button.textContent = sure ? 'Really delete' : text; button.dataset.sure = sure ? 'yes' : ''; button.setAttribute('aria-label', sure ? `Really: ${label}` : label); };
  function press() {
    if (button.dataset.sure) return work(button);
    name(true);
    return say('press again to delete it');
  }
  return button;
}

async function drop(page, { modelId, slug }) {
  await post('/api/graph/delete', { modelId, slug });
  say('deleted');
  if (same(page.kept, { modelId, slug })) page.changed(null);
  await page.list.refresh();
}

// ---- all of them ----------------------------------------------------------------------------------------

function line(page, notes, graph) {
  const here = same(page.kept, graph);
  return h('li', {}, h('div', { class: 'item' }, h('div', { class: 'row line stay' },
    h('div', {}, h('a', { href: keptPath(graph), 'aria-current': here ? 'page' : null }, graph.slug), h('p', { class: 'hint cut' }, graph.prompt),
      h('small', { class: 'soft' }, `${graph.modelId} / ${graph.sourceSetName} · ${count(graph.numNodes)} nodes · ${graph.createdAt.slice(0, 10)}`)),
    dropButton('✕', `Delete ${graph.slug} of ${graph.modelId}`, (button) => during(button, notes, () => drop(page, graph))))));
}

/** {node, refresh}. `page`: {kept, changed(kept)} is what is drawn. */
export function keptCard(page) {
  const out = h('div', {}), notes = h('div', { 'aria-live': 'polite' });
  let all = null, more = false;
  const fill = () => {
    if (!all.length) return server.keeps ? empty('No graph is kept yet.', 'One that is drawn can be kept under a name, and has an address then.') : noStore('No graphs');
    const shown = more ? all : all.filter((graph, i) => i < FIRST || same(page.kept, graph));
    const rest = all.length - shown.length;
    return [h('ul', { class: 'list' }, shown.map((graph) => line(page, notes, graph))),
      rest > 0 && h('button', { type: 'button', class: 'quiet', onclick: () => { more = true; show(out, fill()); } }, `Show ${rest} more`)];
  };
  const ask = async () => { all = (await post('/api/graph/list-owned', {})).sort((a, b) => b.createdAt.localeCompare(a.createdAt)); return fill(); };
  load(out, ask);
  const refresh = async () => { if (all) { await ask(); show(out, fill()); } };
  return { node: card('Kept graphs', out, notes), refresh };
}

// ---- the one that is drawn ------------------------------------------------------------------------------

/** The request in the words of the route that keeps. Its own default of edgeThreshold is another one. */
const keepingBody = (request, slug) => ({ modelId: request.modelId, prompt: request.text, sourceSetName: request.sourceSet, slug, maxNLogits: request.maxLogits ?? 10, desiredLogitProb: request.logitProbability ?? 0.95,
  maxFeatureNodes: request.maxFeatures ?? 5000, nodeThreshold: request.nodeThreshold ?? 0.8, edgeThreshold: request.edgeThreshold ?? 0.98 });

function keepForm(request, page) {
  const notes = h('div', { 'aria-live': 'polite' });
  const name = h('input', { required: true, maxlength: 128, spellcheck: 'false', autocapitalize: 'none', pattern: '[a-z0-9_\\-]+', title: 'lower case letters, digits, - and _', value: request.slug });
  const button = h('button', {}, 'Keep');
  return [h('form', { class: 'ask low', onsubmit: (event) => {
    event.preventDefault();
    during(button, notes, async () => {
      const { slug } = await post('/api/graph/generate', keepingBody(request, name.value));
      say('kept');
      page.changed({ modelId: request.modelId, slug });
      await page.list.refresh();
    });
  } }, field('Name', name), button), h('p', { class: 'hint' }, 'Lower case letters, digits, - and _. It is stored on the server with its text: everybody who uses this server can open and delete it.'), notes];
}

/** `take` gives the JSON as a file. */
export function keepCard(request, kept, page, take) {
  const notes = h('div', { 'aria-live': 'polite' });
  return card('Keep it', h('div', { class: 'stack tight' },
    kept ? h('div', { class: 'row apart' }, h('p', {}, 'Kept as ', h('a', { href: keptPath(kept) }, kept.slug), '.'), dropButton('Delete', `Delete ${kept.slug}`, (button) => during(button, notes, () => drop(page, kept))))
      : server.keeps && h('div', {}, keepForm(request, page)),
    notes, h('div', {}, h('button', { type: 'button', onclick: take }, 'Download the JSON'), h('p', { class: 'hint' }, 'As circuit-tracer writes its graphs, with the nodes that are pinned here.'))));
}
