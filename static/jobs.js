// jobs.js: long work: what runs, how far it is, and stopping it. Progress comes as a stream for the job that runs and
// by looking again for the others.

import { card, count, during, duration, empty, facts, failure, field, h, known, load, noStore, num, percent, say, select, setTitle, show, waiting } from './dom.js';
import { events, get, models, path, post, remove, server, sourceName } from './api.js';
import { trainedPlace, trainingForm } from './train.js';

const ACTIVE = ['queued', 'running'], ENDED_EARLY = ['failed', 'cancelled'];
const LOOK_MS = 4000;
const TONES = { running: 'good', queued: 'warm', failed: 'bad', cancelled: 'warm', done: '' };

const listOf = (reply) => (Array.isArray(reply) ? reply : reply.jobs ?? []);
const stateOf = (job) => job.state ?? job.status;

function progressWords(job) {
  const unit = job.unit ?? 'steps';
  return [job.total > 0 ? `${count(job.done)} of ${count(job.total)} ${unit}` : `${count(job.done ?? 0)} ${unit}`, job.rate > 0 && `${num(job.rate)} ${unit}/s`,
    known(job.secondsLeft) && job.secondsLeft >= 0 && stateOf(job) === 'running' && `${duration(job.secondsLeft)} left`,
    ...trainingWords(job.training)].filter(Boolean).join(' · ');
}

/** How the last step of a training did. */
const trainingWords = (now) => now ? [`loss ${num(now.loss)}`, `L0 ${num(now.l0)}`, known(now.explainedVariance) && `explained ${percent(now.explainedVariance)}`,
  `dead ${percent(now.dead / now.features)}`, `${count(now.tokens)} tokens`] : [];

/** A bar that moves in place: news comes several times a second. */
function progressBar(id) {
  const bar = h('progress', { max: 1, value: 0, 'aria-label': `Progress of job ${id}` }), words = h('p', { class: 'hint' });
  const update = (job) => {
    bar.value = job.total > 0 ? job.done / job.total : stateOf(job) === 'done' ? 1 : 0;
    words.textContent = progressWords(job);
  };
  return { node: h('div', {}, bar, words), update };
}

/** What a job is about, as a way to its page; what is still to be trained has none. */
function subject(job) {
  const p = job.parameters ?? {};
  if (job.kind === 'train') return h('span', { class: 'soft' }, `${p.modelId} ${p.point}${p.to ? ` to ${p.to}` : ''} → ${p.out}`);
  const at = [p.modelId, p.sourceId ?? p.source].filter(Boolean);
  return at.length === 2 ? h('a', { class: 'soft', href: path(...at) }, at.join('/')) : h('span', { class: 'soft' }, at.join('/'));
}

/** What a training came to, over text that was held out. */
const trained = (job, r) => [facts([['Features', count(r.features)], ['Features a token (L0)', known(r.l0) ? num(r.l0) : null], ['Explained variance', known(r.explainedVariance) ? num(r.explainedVariance) : null],
  ['Features that never fired', known(r.dead) ? count(r.dead) : null], ['Folder', h('code', {}, r.path)]]), trainedPlace(job)];

/** What an evaluation found, in a line; all of it stands on the page of the dictionary. A map is looked at on a page of its own. */
function found(job) {
  const r = job.result;
  if (job.kind === 'train' && r) return trained(job, r);
  if (job.kind === 'map' && stateOf(job) === 'done') return h('p', {}, h('a', { href: path(job.parameters.modelId, job.parameters.source, 'map') }, 'Look at the map'));
  if (job.kind !== 'eval' || !r) return null;
  return facts([['Features a position (L0)', num(r.l0)], ['Explained variance', num(r.explainedVariance)], ['Cross-entropy', `${num(r.raw)}, through the dictionary ${num(r.spliced)}`],
    ['Share kept', known(r.kept) ? percent(r.kept) : null]]);
}

/** One job; `update` takes a newer state. Only what changed is drawn again: a button under the pointer, the focus and
 * an open list of parameters outlive the news. */
function jobItem(first, changed) {
  const node = h('li', { id: `job-${first.id}`, tabindex: -1 });
  const notes = h('div', { 'aria-live': 'polite' });
  const address = '/v1/jobs' + path(first.id);
  const progress = progressBar(first.id);
  let drawn;
  const act = (work, said) => (event) => during(event.target, notes, async () => { await work(); say(said); await changed(); });
  const update = (job) => {
    progress.update(job);
    const state = stateOf(job), looks = JSON.stringify([state, job.cancelling, job.message, job.error, job.notResumable, job.parameters, job.result]);
    if (looks === drawn) return;
    drawn = looks;
    show(node, h('div', { class: 'item' },
      h('div', { class: 'row apart' }, h('div', {}, h('strong', {}, `${job.kind} ${job.id}`), ' ', subject(job)), h('span', { class: 'row' }, h('span', { class: `chip ${TONES[state] ?? ''}` }, state),
        ACTIVE.includes(state) && h('button', { type: 'button', class: 'quiet', disabled: job.cancelling, 'aria-label': `Cancel job ${job.id}`, onclick: act(() => remove(address), 'cancelled') }, job.cancelling ? 'Stopping…' : 'Cancel'),
        ENDED_EARLY.includes(state) && job.resumable && h('button', { type: 'button', class: 'quiet', 'aria-label': `Resume job ${job.id}`, onclick: act(() => post(`${address}/resume`, {}), 'resumed') }, 'Resume'))),
      progress.node, found(job), ACTIVE.includes(state) && job.message && h('p', { class: 'small soft' }, job.message), job.error && h('p', { class: 'notice bad' }, typeof job.error === 'string' ? job.error : job.error.message),
      ENDED_EARLY.includes(state) && job.notResumable && h('p', { class: 'small soft' }, `It cannot be resumed: ${job.notResumable}.`),
      job.parameters && h('details', {}, h('summary', { class: 'small' }, 'Parameters'), h('pre', { class: 'wrap' }, JSON.stringify(job.parameters, null, 1))), notes));
  };
  update(first);
  return { node, update };
}

const KINDS = [['stats', 'Count its features'], ['eval', 'Evaluate it']];
const KIND_HINTS = { stats: 'The counts, examples and explanations go into the store.', eval: 'How much it explains, and what the model still predicts through it; the figures go into the store.' };

/** Statistics and evaluations, which need a dictionary; trainings do not. */
function starter(all, changed) {
  const pairs = all.flatMap((model) => model.every.map((source) => [`${model.id} ${source.id}`, `${model.id} / ${sourceName(source)}`]));
  if (!pairs.length) return null;
  const kind = select(KINDS, 'stats'), what = select(pairs, pairs[0][0]);
  const corpus = h('input', { required: true, placeholder: '/data/stories.txt', spellcheck: 'false' });
  const most = h('input', { type: 'number', min: 0, step: 1, placeholder: 'the whole text' });
  const lines = h('input', { type: 'checkbox' }), ends = h('input', { type: 'checkbox' });
  const onlyEval = h('label', { class: 'row', hidden: true }, ends, 'The end of each document is predicted too');
  const hint = h('p', { class: 'hint' }, KIND_HINTS.stats);
  const notes = h('div', { 'aria-live': 'polite' });
  const start = h('button', { class: 'main' }, 'Start');
  kind.addEventListener('change', () => { onlyEval.hidden = kind.value !== 'eval'; show(hint, KIND_HINTS[kind.value]); });
  const submit = (event) => {
    event.preventDefault();
    const [modelId, source] = what.value.split(' ');
    const body = { kind: kind.value, modelId, source, corpus: corpus.value.trim(), lines: lines.checked };
    if (most.value) body.maxTokens = most.valueAsNumber;
    if (kind.value === 'eval') body.ends = ends.checked;
    during(start, notes, async () => { await post('/v1/jobs', body); say('started'); await changed(); });
  };
  return card('Run a dictionary over a text', h('form', { class: 'fields', onsubmit: submit }, field('Job', kind), hint, field('Dictionary', what), field('Text file on the server', corpus, 'A UTF-8 text.'),
    field('Tokens', most, 'It stops with the document that reaches so many.'), h('label', { class: 'row' }, lines, 'Each line is a document of its own'), onlyEval, h('div', { class: 'row' }, start), notes));
}

/** The list, kept up to date for as long as the page stands. */
function jobList() {
  const out = h('div', {}, waiting());
  const items = new Map();
  let timer, stream, drawn = '';
  const follow = async (id) => {
    if (stream?.id === id) return;
    stream?.control.abort();
    stream = { id, control: new AbortController() };
    try {
      for await (const job of events('GET', '/v1/jobs' + path(id) + '/events', undefined, stream.control.signal)) items.get(id)?.update({ ...job, id });
    } catch { /* looking again goes on */ }
    if (stream?.id === id) stream = null;
  };
  const look = async () => {
    clearTimeout(timer);
    try {
      const jobs = listOf(await get('/v1/jobs'));
      const ids = jobs.map((job) => job.id).join();
      if (ids !== drawn || !drawn) {
        items.clear();
        for (const job of jobs) items.set(job.id, jobItem(job, look));
        show(out, jobs.length ? h('ul', { class: 'list' }, [...items.values()].map((item) => item.node)) : !server.keeps ? noStore('No jobs') : empty('No job has run yet.', 'Long work such as counting a dictionary over a text appears here.'));
        drawn = ids;
      } else for (const job of jobs) items.get(job.id).update(job);
      const running = jobs.find((job) => stateOf(job) === 'running');
      if (running) follow(running.id);
      timer = setTimeout(look, LOOK_MS);
    } catch (error) {
      drawn = '';
      show(out, failure(error, look));
      if (error.status !== 501) timer = setTimeout(look, 4 * LOOK_MS);
    }
  };
  addEventListener('pagehide', () => { clearTimeout(timer); stream?.control.abort(); });
  /** Looks again, and shows where a new job stands. */
  const lead = async (job) => {
    await look();
    const item = document.getElementById(`job-${job.id}`);
    item?.scrollIntoView({ block: 'nearest' });
    item?.focus({ preventScroll: true });
  };
  return { node: card('Jobs', out), look, lead };
}

export async function draw(main) {
  setTitle('Jobs');
  const list = jobList();
  const side = h('div', {});
  show(main, h('div', { class: 'head' }, h('h1', {}, 'Long work'), h('p', { class: 'lead' }, 'Jobs run one after the other while the server goes on answering requests. They survive a restart, and can be stopped.')),
    h('div', { class: 'columns side' }, list.node, side));
  await load(side, async () => {
    await list.look();
    const [all, allowed] = await Promise.all([models(), get('/v1/lab/training')]);
    return server.keeps && all.length ? h('div', { class: 'stack' }, starter(all, list.look), await trainingForm(all, allowed, list.lead)) : null;
  });
}
