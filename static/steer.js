// steer.js: the same prompt continued twice, plainly and with features pushed, side by side as it is written.
// The setup lives in the address behind '#', which never reaches the server: it can be kept and passed on.

import { card, copyButton, count, crumbs, during, empty, failure, field, freshId, h, load, num, say, select, setTitle, show, tabs } from './dom.js';
import { events, explanationOf, featurePath, findModel, firstSource, keptVectors, models, pointPlace, post } from './api.js';
import { output, whereParted, writeText } from './outputs.js';
import { picker } from './search.js';
import { sameCall } from './snippet.js';

const METHODS = [
  ['SIMPLE_ADDITIVE', 'Add', 'Strength is the length added along the feature at every token; negative pushes away.', 60],
  ['ORTHOGONAL_DECOMP', 'Scale', 'Strength is a factor on what lies along the feature: 0 removes it, 1 changes nothing, 2 doubles it.', 10],
  ['PROJECTION_CAP', 'Cap', 'Strength is the most that may lie along the feature; more is cut off.', 60],
];
const NUMBERS = { temperature: 0.5, n_tokens: 48, seed: 42, strength_multiplier: 1, freq_penalty: 0 };
const PROMPT = 'Once upon a time';
const REACH_OF_LABELS = 4;

const reach = (method) => METHODS.find(([id]) => id === method)[3];

// ---- the setup ------------------------------------------------------------------------------------------

/** {model, prompt, features: [{source, index, strength}], method, ...NUMBERS} from the address. */
function readHash() {
  const hash = new URLSearchParams(location.hash.slice(1));
  const setup = { model: hash.get('model'), prompt: hash.get('prompt') ?? PROMPT, method: METHODS.some(([id]) => id === hash.get('method')) ? hash.get('method') : METHODS[0][0], features: [] };
  for (const [name, usual] of Object.entries(NUMBERS)) setup[name] = hash.has(name) && Number.isFinite(Number(hash.get(name))) ? Number(hash.get(name)) : usual;
  for (const word of hash.getAll('feature')) {
    const match = /^(.+)\/(\d+)(?:@(-?[\d.]+(?:e-?\d+)?))?$/.exec(word);
    if (match) setup.features.push({ source: match[1], index: Number(match[2]), strength: match[3] === undefined ? null : Number(match[3]) });
  }
  for (const word of hash.getAll('label')) {
    const [, label, strength] = /^(.*?)(?:@(-?[\d.]+(?:e-?\d+)?))?$/s.exec(word);
    setup.features.push({ label, strength: strength === undefined ? null : Number(strength) });
  }
  return setup;
}

function hashOf(setup) {
  const hash = new URLSearchParams({ model: setup.model, prompt: setup.prompt });
  for (const f of setup.features) hash.append(...(f.label === undefined ? ['feature', `${f.source}/${f.index}@${f.strength}`] : ['label', `${f.label}@${f.strength}`]));
  if (setup.method !== METHODS[0][0]) hash.set('method', setup.method);
  for (const [name, usual] of Object.entries(NUMBERS)) if (setup[name] !== usual) hash.set(name, setup[name]);
  return `#${hash}`;
}

function bodyOf(setup) {
  return { modelId: setup.model, prompt: setup.prompt,
    features: setup.features.flatMap((f) => (f.vectors ?? [f]).map(({ source, index }) => ({ modelId: setup.model, layer: source, index, strength: f.strength }))),
    steer_method: setup.method, ...Object.fromEntries(Object.keys(NUMBERS).map((name) => [name, setup[name]])) };
}

function setupOf(saved) {
  const setup = { ...readHash(), ...Object.fromEntries(Object.keys(NUMBERS).filter((name) => Number.isFinite(saved[name])).map((name) => [name, saved[name]])) };
  setup.model = saved.modelId ?? setup.model;
  setup.prompt = saved.prompt ?? saved.inputText ?? '';
  setup.method = saved.steer_method ?? saved.steerMethod ?? setup.method;
  setup.includesPrompt = saved.outputTextIncludesPrompt !== false;
  setup.features = (saved.features ?? []).map((f) => ({ source: f.layer ?? f.source, index: Number(f.index), strength: f.strength }));
  return setup;
}

// ---- the same for a shell and for Python ----------------------------------------------------------------

function codeCard(setup) {
  const call = sameCall('/api/steer', '["STEERED"]');
  return { refresh: () => call.refresh(bodyOf(setup)),
    node: h('section', { class: 'card' }, h('div', { class: 'row' }, h('h2', {}, 'The same call'), call.bar), call.texts) };
}

// ---- one feature with its slider ------------------------------------------------------------------------

function slider(label, value, { min, max, step, wide = true }, changed) {
  const range = h('input', { type: 'range', min, max, step, value, 'aria-label': label });
  const box = h('input', { type: 'number', step: 'any', value, 'aria-label': `${label}, exactly`, ...(wide ? {} : { min, max }) });
  const set = (number) => {
    if (!Number.isFinite(number)) return;
    range.value = number;
    changed(number);
  };
  range.value = box.value = value;
  range.addEventListener('input', () => { box.value = range.value; changed(Number(range.value)); });
  box.addEventListener('input', () => set(box.valueAsNumber));
  return h('div', { class: 'slide' }, range, box);
}

function featureBox(setup, feature, changed, removed) {
  const labelled = feature.label !== undefined; // kept vectors of one label: strength 1 is usually their own length
  const most = Math.max(labelled && setup.method === METHODS[0][0] ? REACH_OF_LABELS : reach(setup.method), Math.abs(feature.strength));
  const name = h('span', {}, feature.description ?? '');
  const title = labelled ? feature.label : `${feature.source}/${feature.index}`;
  const first = labelled ? feature.vectors[0] : feature;
  if (labelled) show(name, feature.vectors.length > 1 ? `${count(feature.vectors.length)} kept vectors` : `kept, ${pointPlace(first.point)}`);
  else if (!feature.description)
    explanationOf(setup.model, feature.source, feature.index).then((told) => { if (told) { feature.description = told; show(name, told); } });
  return h('li', { class: 'feature' },
    h('div', { class: 'row' }, h('div', {}, h('a', { href: featurePath(setup.model, first.source, first.index) }, title), ' ', h('small', { class: 'soft' }, name)),
      h('button', { type: 'button', class: 'quiet', 'aria-label': `Remove ${title}`, onclick: removed }, '✕')),
    slider(`Strength of ${title}`, feature.strength, { min: -most, max: most, step: most > 20 ? 1 : 0.1 }, (value) => { feature.strength = value; changed(); }));
}

// ---- the two texts --------------------------------------------------------------------------------------

/** Reads the growing text to a screen reader in sentences, not in tokens. */
function reader(log) {
  let told = 0;
  return (text, complete) => {
    const rest = text.slice(told);
    const cut = complete ? rest.length : Math.max(rest.lastIndexOf('. '), rest.lastIndexOf(', '), rest.lastIndexOf('\n')) + 1;
    if (cut <= 0) return;
    log.append(h('p', {}, rest.slice(0, cut)));
    told += cut;
  };
}

// ---- the page -------------------------------------------------------------------------------------------

function controls(setup, state, all, changed, rebuild) {
  const list = h('ul', { class: 'stack tight' });
  const model = select(all.map((one) => [one.id, one.id]), setup.model);
  model.addEventListener('change', () => { setup.model = model.value; setup.features = []; rebuild(); });
  const prompt = h('textarea', { rows: 3, required: true, spellcheck: 'false' });
  prompt.value = setup.prompt;
  prompt.addEventListener('input', () => { setup.prompt = prompt.value; changed(); });
  const hint = h('p', { class: 'hint' });
  const drawFeatures = () => {
    hint.textContent = METHODS.find(([id]) => id === setup.method)[2];
    show(list, setup.features.length ? setup.features.map((f, i) => featureBox(setup, f, changed, () => { setup.features.splice(i, 1); drawFeatures(); changed(); }))
      : h('li', {}, empty('No feature is chosen yet.', 'Choose one below; without any, both texts are the same.')));
  };
  const add = (row) => {
    if (setup.features.some((f) => f.source === row.source && f.index === row.index)) return;
    setup.features.push({ source: row.source, index: row.index, description: row.description, strength: usualStrength(setup.method, row.peak) });
    drawFeatures();
    changed();
    say(`added ${row.source} ${row.index}`);
  };
  const addKept = (group) => {
    if (group.label === null) return add({ ...group.vectors[0], peak: group.strength });
    if (setup.features.some((f) => f.label === group.label)) return undefined;
    setup.features.push({ label: group.label, vectors: group.vectors, strength: setup.method === METHODS[0][0] ? group.strength : usualStrength(setup.method) });
    drawFeatures();
    changed();
    return say(`added ${group.label}`);
  };
  const number = (name, label, props, note) => {
    const input = h('input', { type: 'number', value: setup[name], ...props });
    input.addEventListener('input', () => { if (Number.isFinite(input.valueAsNumber)) { setup[name] = input.valueAsNumber; changed(); } });
    return field(label, input, note);
  };
  drawFeatures();
  return h('div', { class: 'card fields' },
    all.length > 1 && field('Model', model),
    field('Prompt', prompt),
    h('div', {}, h('h3', { class: 'label' }, 'Features'), list),
    h('div', {}, h('h3', { class: 'label' }, 'Add a feature'), picker(state, () => setup.prompt, add, { eager: setup.features.length === 0 })),
    state.kept.length > 0 && h('div', {}, h('h3', { class: 'label' }, 'Add kept vectors'), h('div', { class: 'found' }, state.kept.map((group) => h('button', { type: 'button', onclick: () => addKept(group) },
      h('span', {}, group.label ?? `Vector ${group.vectors[0].index}`), h('small', { class: 'soft' }, group.vectors.length > 1 ? `${count(group.vectors.length)} layers` : pointPlace(group.vectors[0].point)))))),
    h('div', {}, h('h3', { class: 'label' }, 'Method'), tabs('Method', METHODS.map(([id, text]) => [id, text]), setup.method, (id) => {
      setup.method = id;
      for (const f of setup.features) if (Math.abs(f.strength) > reach(id)) f.strength = usualStrength(id);
      drawFeatures();
      changed();
    }), hint),
    h('div', {}, h('h3', { class: 'label' }, 'Temperature'), slider('Temperature', setup.temperature, { min: 0, max: 2, step: 0.05, wide: false }, (value) => { setup.temperature = value; changed(); })),
    h('div', { class: 'pair' }, number('n_tokens', 'New tokens', { min: 1, max: 1024, step: 1 }), number('seed', 'Seed', { step: 1 })),
    h('details', {}, h('summary', {}, 'More'), h('div', { class: 'pair' },
      number('strength_multiplier', 'Strength times', { min: 0, max: 10, step: 'any' }), number('freq_penalty', 'Frequency penalty', { min: -2, max: 2, step: 'any' }))));
}

const usualStrength = (method, peak) => (method === 'ORTHOGONAL_DECOMP' ? 2 : method === 'PROJECTION_CAP' ? 0 : Math.round(Math.min(60, peak ?? 20)));

/** Labels become the vectors that they stand for; what is not kept any more is told and left out. */
function findKept(setup, kept) {
  const lost = [];
  setup.features = setup.features.filter((f) => {
    if (f.label === undefined) return true;
    const group = kept.find((one) => one.label === f.label);
    if (!group) lost.push(f.label);
    if (!group) return false;
    f.vectors = group.vectors;
    f.strength ??= group.strength;
    return true;
  });
  return lost;
}

async function build(main, all, setup, given) {
  const model = all.find((one) => one.id === setup.model) ?? all[0];
  setup.model = model.id;
  const kept = await keptVectors(model.id).catch(() => []); // steering goes on without
  const lost = findKept(setup, kept);
  for (const f of setup.features) f.strength ??= usualStrength(setup.method);
  const state = { model, kept, source: model.every.find((one) => one.id === setup.features[0]?.source) ?? firstSource(model) };
  const plain = output('Default', 'plain', 'nothing is pushed');
  const steered = output('Steered', 'steered', 'with the features');
  const log = h('div', { class: 'unseen', role: 'log', 'aria-live': 'polite', 'aria-label': 'Steered text as it is written' });
  const notes = h('div', { 'aria-live': 'polite' });
  const status = h('span', { class: 'soft number', role: 'status' });
  const run = h('button', { type: 'button', class: 'main', onclick: () => steer() }, 'Steer');
  const stop = h('button', { type: 'button', disabled: true, onclick: () => running?.abort() }, 'Stop');
  const code = codeCard(setup);
  const shared = h('div', { 'aria-live': 'polite' });
  let running = null;

  const changed = () => {
    history.replaceState(null, '', (given ? '/steer' : location.pathname) + hashOf(setup));
    code.refresh();
  };
  const idle = (words) => {
    running = null;
    run.disabled = false;
    stop.disabled = true;
    status.textContent = words;
    say(words);
    for (const one of [plain, steered]) { one.text.classList.remove('caret'); one.text.removeAttribute('aria-busy'); }
  };
  const invite = () => [plain, steered].forEach((one) => show(one.text, h('span', { class: 'given' }, 'Press Steer, or Ctrl and Enter.')));
  const write = (reply, prompt, complete) => {
    const a = (reply.DEFAULT ?? '').slice(prompt.length), b = (reply.STEERED ?? '').slice(prompt.length);
    const parted = whereParted(a, b, complete);
    writeText(plain.text, reply.DEFAULT ?? prompt, prompt, parted);
    writeText(steered.text, reply.STEERED ?? prompt, prompt, parted);
    return b;
  };

  async function steer() {
    if (running || !main.querySelector('textarea').reportValidity()) return;
    changed();
    const control = (running = new AbortController());
    const { prompt } = setup;
    const tell = reader(log);
    run.disabled = true;
    stop.disabled = false;
    show(notes); show(log); show(shared);
    for (const one of [plain, steered]) { show(one.text, h('span', { class: 'given' }, prompt)); one.text.classList.add('caret'); one.text.setAttribute('aria-busy', 'true'); }
    status.textContent = 'Writing…';
    const began = performance.now();
    let frames = 0;
    plain.node.scrollIntoView({ block: 'nearest' });
    try {
      for await (const reply of events('POST', '/api/steer', { ...bodyOf(setup), stream: true }, control.signal)) {
        frames++;
        tell(write(reply, prompt, reply.id !== null), reply.id !== null);
        status.textContent = `${frames} steps`;
      }
      idle(`Done in ${num((performance.now() - began) / 1000, 2)} s`);
    } catch (error) {
      if (error.name === 'AbortError') return idle(`Stopped after ${count(frames)} steps`);
      show(notes, failure(error, steer));
      idle('');
      if (!frames) invite();
    }
  }

  async function share(event) {
    await during(event.target, shared, async () => {
      const reply = await post('/api/steer', { ...bodyOf(setup), share: true });
      write(reply, setup.prompt, true);
      if (!reply.shareUrl) return show(shared, empty('This server kept nothing.', 'Shared results need a store: start the daemon with --store FILE. The address of this page already holds the setup.'));
      const url = new URL(reply.shareUrl, location.origin);
      const link = h('a', { href: url.pathname }, url.href);
      show(shared, h('div', { class: 'notice' }, h('p', {}, 'Prompt and both texts are kept at ', link), h('div', { class: 'row' }, copyButton(() => url.href, 'Copy link'))));
    });
  }

  code.refresh();
  show(main, h('div', { class: 'head' }, given && crumbs(['Steer', '/steer']), h('h1', {}, given ? 'A shared result' : 'Push a feature, watch the text change')),
    h('div', { class: 'columns controls' },
      controls(setup, state, all, changed, () => build(main, all, setup)),
      h('div', { class: 'stack' },
        h('div', { class: 'row' }, run, stop, status),
        notes,
        h('div', { class: 'outputs' }, plain.node, steered.node),
        log,
        h('div', { class: 'row' }, h('button', { type: 'button', onclick: share }, 'Share this result'), copyButton(() => location.href, 'Copy link to the setup')),
        shared,
        code.node)));
  if (given) write(setup.includesPrompt ? given : { DEFAULT: setup.prompt + given.DEFAULT, STEERED: setup.prompt + given.STEERED }, setup.prompt, true);
  else invite();
  if (lost.length) show(notes, empty(`No vectors are kept under ${lost.map((label) => `\u201c${label}\u201d`).join(', ')}.`, 'They may have been deleted, or are another model\u2019s.'));
  document.onkeydown = (event) => { if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); steer(); } };
}

export async function draw(main, [shareId]) {
  setTitle('Steer');
  const host = h('div', { id: freshId('steer') });
  const saved = shareId ? await post('/api/steer-load', { steerOutputId: shareId }) : null; // one that is not there makes no page
  show(main, host);
  await load(host, async () => {
    const all = await models();
    if (!all.length) return empty('No model is loaded.', 'Start the daemon with --model ID=PATH.');
    const setup = saved ? setupOf(saved) : readHash();
    if (setup.model) setup.model = (await findModel(setup.model)).id;
    const page = h('div', {});
    await build(page, all, setup, saved);
    return page;
  });
}
