// home.js: what is loaded, finding a feature, and how busy the daemon is.

import { bytes, card, count, duration, empty, facts, failure, field, h, known, load, num, select, setTitle, show } from './dom.js';
import { areNeurons, boundOf, get, knownModels, path, text } from './api.js';
import { explanationSearch } from './search.js';

/** The unlabelled figures of Prometheus' text form. */
export function parseMetrics(body) {
  const figures = {};
  for (const line of body.split('\n')) {
    const match = /^steerd_(\w+) (\S+)$/.exec(line);
    if (match) figures[match[1]] = Number(match[2]);
  }
  return figures;
}

/** An address that somebody has typed: a link only where it leads to a page. */
const outside = (url) => (/^https?:\/\//.test(url) ? h('a', { href: url, rel: 'noopener noreferrer' }, url) : url);

const STORED = 'Registered without weights: what was uploaded or imported can be read, and nothing is computed with it.';

export function modelFacts(model) {
  if (model.stored)
    return h('div', {}, facts([['Name', model.displayName !== model.id ? model.displayName : null], ['Layers', model.layers || null], ['Page', model.url ? outside(model.url) : null]]),
      h('p', { class: 'hint' }, STORED));
  return facts([['Family', model.family], ['Layers', model.layers], ['Width', count(model.width)], ['Parameters', count(model.parameters)],
    ['Vocabulary', count(model.vocabulary)], ['Context', `${count(model.context)} tokens`], ['Weights', `${bytes(model.bytes)} ${model.kept}`]]);
}

const LISTED = 24; // sources of a model on the page of all

/** Every model with an MLP has them, whatever is loaded. */
export function neuronLinks(model) {
  if (!model.neurons) return null;
  const layers = model.every.filter(areNeurons).flatMap((source) => [' ', h('a', { href: path(model.id, source.id) }, source.id)]);
  return h('p', {}, 'Neurons of layer', layers, ' ', h('small', { class: 'soft' }, `${count(model.neurons.perLayer)} each`));
}

export function sourceList(model) {
  if (!model.sources.length && model.stored) return empty('It has no sources yet.', 'POST /api/source-set/new makes a set of them.');
  if (!model.sources.length) return empty('No dictionary is loaded for this model.', 'Start the daemon with ', h('code', {}, `--source ${model.id}/SOURCE=PATH`), '. ', h('a', { href: '/lab' }, 'The laboratory'), ' works without.');
  return h('ul', { class: 'list' }, model.sources.map((source) => h('li', {},
    h('a', { href: path(model.id, source.id) }, h('span', { class: 'name' }, source.id), ' ',
      h('small', { class: 'soft' }, source.stored ? `${count(source.features)} ${source.features === 1 ? 'feature' : 'features'}, without a dictionary` : `${count(source.features)} features, ${source.kind}, at ${source.point}`)))));
}

function modelCard(model) {
  return h('section', { class: 'card', 'aria-label': `Model ${model.id}` },
    h('div', { class: 'row apart' }, h('h2', {}, h('a', { href: path(model.id) }, model.id)),
      model.stored ? h('span', { class: 'chip' }, 'stored') : h('a', { class: 'button', href: `/steer#${new URLSearchParams({ model: model.id })}` }, 'Steer')),
    modelFacts(model), h('hr'), sourceList({ ...model, sources: model.sources.slice(0, LISTED) }),
    model.sources.length > LISTED && h('p', {}, h('a', { href: path(model.id) }, `All ${count(model.sources.length)} sources`)), neuronLinks(model));
}

/** A feature that fires, chosen by the server; where it keeps no statistics, any feature. */
export async function randomFeature(model, source) {
  try {
    const reply = await get('/v1/lab/dictionaries' + path(model.id, source.id) + '/random');
    location.href = path(model.id, source.id, reply.index);
  } catch {
    location.href = path(model.id, source.id, Math.floor(Math.random() * boundOf(source)));
  }
}

const anyOf = (list) => list[Math.floor(Math.random() * list.length)];

function finder(all) {
  const withSources = all.filter((model) => model.every.length);
  if (!withSources.length) return null;
  let model = withSources[0];
  const choice = select(withSources.map((one) => [one.id, one.id]), model.id);
  choice.addEventListener('change', () => { model = withSources.find((one) => one.id === choice.value); });
  const random = h('button', { type: 'button', onclick: () => randomFeature(model, anyOf(model.sources.length ? model.sources : model.every)) }, 'A random feature');
  return card('Find a feature', h('div', { class: 'stack tight' },
    withSources.length > 1 && field('In the model', choice),
    explanationSearch(() => ({ model: model.id })), h('div', {}, random)));
}

/** What to try first with the model that comes with steerd, whose features are known. */
function firstSteps(all) {
  if (!all.some((model) => model.id === 'demo' && model.sources.some((source) => source.id === '2-res-demo' && !source.stored))) return null;
  const at = (page, fields) => `${page}#${new URLSearchParams({ model: 'demo', ...fields })}`;
  const steps = [
    [at('/steer', { prompt: 'One day, the children went to the', feature: '2-res-demo/1890@22', temperature: 0.4, n_tokens: 30, seed: 3 }), 'Turn up “little girl”',
      'Feature 1890 fires on “little” and promotes “girl”. Press Steer: the story is written twice, plainly and with the feature turned up.'],
    [at('/inspect', { source: '2-res-demo', prompt: 'The princess walked in the dark forest' }), 'See what a sentence turns on', 'Every token, and the features that fire there.'],
    [at('/graph', { prompt: 'Once upon a time, there was a little girl named' }), 'Ask why the next word is “Lily”', 'Which features made it, and which words made those.'],
    [path('demo', '2-res-demo', 'map'), 'Walk over the map', '2,048 features, similar ones near each other.'],
  ];
  return card('Start here', h('ul', { class: 'list' }, steps.map(([href, name, text]) => h('li', {}, h('a', { href }, h('span', { class: 'name' }, name), ' ', h('small', { class: 'soft' }, text))))));
}

function loadCard() {
  const out = h('div', {});
  const state = h('span', { class: 'chip' }, '…');
  let before, timer;
  const showFigures = (f) => {
    const passed = before ? f.uptime_seconds - before.uptime_seconds : 0;
    const rate = passed > 0 ? (f.new_tokens_total - before.new_tokens_total) / passed : 0;
    const busy = passed > 0 ? Math.min(1, (f.busy_seconds_total - before.busy_seconds_total) / passed) : 0;
    before = f;
    state.textContent = !f.ready ? 'not ready' : f.queue_length > 0 ? 'queueing' : f.sessions_running > 0 ? 'working' : 'idle';
    state.className = `chip ${!f.ready ? 'bad' : f.queue_length > 0 ? 'warm' : 'good'}`;
    show(out, h('div', { class: 'stack tight' },
      h('div', {}, h('label', {}, `Queue: ${f.queue_length} of ${f.queue_limit}`, h('progress', { max: f.queue_limit || 1, value: f.queue_length }))),
      h('div', {}, h('label', {}, `Sequences running: ${f.sessions_running} of ${f.sessions_limit}`, h('progress', { max: f.sessions_limit || 1, value: f.sessions_running }))),
      h('div', {}, h('label', {}, `Memory for keys and values: ${bytes(f.kv_used_bytes)} of ${bytes(f.kv_bytes)}`, h('progress', { max: f.kv_bytes || 1, value: f.kv_used_bytes }))),
      facts([['Tokens a second', num(rate)], ['Engine busy', `${Math.round(busy * 100)} %`], ['Tokens generated', count(f.new_tokens_total)],
        ['Mean request', f.service_seconds_mean ? duration(f.service_seconds_mean) : null], ['Up', duration(f.uptime_seconds)]])));
  };
  const look = async () => {
    if (!document.hidden) {
      try { showFigures(parseMetrics(await text('/metrics'))); } catch (error) { state.textContent = 'no answer'; state.className = 'chip bad'; if (!known(before?.ready)) show(out, failure(error)); }
    }
    timer = setTimeout(look, 3000);
  };
  addEventListener('pagehide', () => clearTimeout(timer));
  look();
  return h('section', { class: 'card' }, h('div', { class: 'row apart' }, h('h2', {}, 'Load'), state), out);
}

function firstRequest(model) {
  const body = JSON.stringify({ prompt: 'Once upon a time', ...(model ? { modelId: model.id } : {}), features: [] });
  return card('The same from a shell', h('pre', { class: 'wrap' }, `curl ${location.origin}/steer -d '${body}'`),
    h('p', { class: 'hint' }, 'Everything on these pages goes through the public API: ', h('a', { href: '/docs' }, 'every call and field'), ', ',
      h('a', { href: '/openapi.json' }, 'OpenAPI'), '.'));
}

async function versionLine(host) {
  const version = await get('/version').catch(() => null);
  if (version) show(host, `steerd ${version.version} (${version.commit}), ${version.backend}, ${version.threads} threads`);
}

export async function draw(main) {
  setTitle('Home');
  const list = h('div', { class: 'stack' });
  const version = h('p', { class: 'hint' });
  const aside = h('div', { class: 'stack' });
  show(main, h('div', { class: 'head' }, h('h1', {}, 'Look inside a language model while it runs'),
    h('p', { class: 'lead' }, 'A dictionary takes what goes on inside a model apart into features, each of which stands for something: a word, a name, the end of a sentence. ',
      h('a', { href: '/steer' }, 'Turn one up'), ' and watch the text change, ', h('a', { href: '/inspect' }, 'see which features a text turns on'),
      ', or ', h('a', { href: '/lab' }, 'take the model apart'), ' yourself: patching, attention heads, edits at any point.')),
    h('div', { class: 'columns side' }, list, aside));
  show(aside, loadCard(), version);
  versionLine(version);
  await load(list, async () => {
    const all = await knownModels();
    if (!all.length) return empty('No model is loaded.', 'Start the daemon with --model ID=PATH.');
    aside.insertBefore(firstRequest(all[0]), version);
    return [firstSteps(all), finder(all), ...all.map(modelCard)];
  });
}
