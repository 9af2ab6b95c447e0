// list.js: lists of features: all of them, one with what its features are, and the form on a feature's page that puts it into one.

import { card, count, crumbs, during, empty, field, h, known, load, noStore, num, pager, percent, say, select, setTitle, show } from './dom.js';
import { featurePath, post, server } from './api.js';
import { tokenChip, tokenLine } from './tokens.js';

const LOGITS_SHOWN = 5, PAGE = 50;
export const listPath = (id) => `/list/${encodeURIComponent(id)}`;

// ---- one feature of a list ------------------------------------------------------------------------------

/** What it is called here: as the list says, else as somebody has explained it. */
const labelOf = (row) => row.description || row.explanations[0]?.description || `${/^\d+$/.test(row.layer) ? 'Neuron' : 'Feature'} ${row.index}`;

/** Where it fired hardest, and what it promotes, where that is stored. */
function evidence(row) {
  const [best] = row.activations;
  return [
    best && tokenLine(best.tokens, best.values, { max: row.maxActApprox || best.maxValue, view: 'compact', focus: best.maxValueTokenIndex }),
    row.pos_str.length > 0 && h('p', { class: 'hint' }, 'Pushes up ', row.pos_str.slice(0, LOGITS_SHOWN).map((token) => [tokenChip(token), ' '])),
    !best && !row.pos_str.length && h('p', { class: 'hint' }, 'Nothing is stored of it.'),
  ];
}

/** `list` null: it is in none, and cannot be taken out. */
export function featureItem(list, row, changed) {
  const notes = h('div', { 'aria-live': 'polite' });
  const place = { modelId: row.modelId, layer: row.layer, index: row.index };
  const label = labelOf(row), told = row.explanations[0]?.description;
  const drop = (event) => during(event.target, notes, async () => { await post('/api/list/remove', { listId: list.id, ...place }); say('taken out'); await changed(); });
  return h('li', {}, h('div', { class: 'item' }, h('div', { class: 'row apart' },
    h('div', {}, h('a', { href: featurePath(row.modelId, row.layer, row.index) }, label), ' ', h('small', { class: 'soft' }, `${row.modelId} / ${row.layer} / ${row.index}`)),
    h('span', { class: 'row' }, known(row.frac_nonzero) && h('span', { class: 'number soft', title: 'share of tokens it fires on' }, percent(row.frac_nonzero)),
      known(row.maxActApprox) && h('span', { class: 'number soft', title: 'largest activation' }, num(row.maxActApprox)),
      list && h('button', { type: 'button', class: 'quiet', 'aria-label': `Take out ${label}`, onclick: drop }, 'Take out'))),
  told && told !== label && h('p', { class: 'hint' }, told), evidence(row), notes));
}

// ---- a list ---------------------------------------------------------------------------------------------

/** The form behind a list's heading that changes what it says of itself. */
function headForm(list, changed) {
  const notes = h('div', { 'aria-live': 'polite' });
  const name = h('input', { required: true, maxlength: 256, value: list.name });
  const about = h('textarea', { rows: 2, maxlength: 4096, value: list.description ?? '' });
  const save = h('button', { class: 'main' }, 'Save');
  const drop = (event) => during(event.target, notes, async () => { await post('/api/list/delete', { listId: list.id }); location.href = '/list'; });
  return h('details', {}, h('summary', {}, 'Change or delete'), h('form', { class: 'stack tight', onsubmit: (event) => {
    event.preventDefault();
    during(save, notes, async () => {
      await post('/api/list/update', { listId: list.id, name: name.value, description: about.value, defaultTestText: list.defaultTestText });
      say('saved');
      await changed();
    });
  } }, field('Name', name), field('What it is about', about),
  h('div', { class: 'row' }, save, h('button', { type: 'button', onclick: drop }, 'Delete the list'))), notes);
}

/** The features from `offset` on, and the way to the others. */
async function drawList(main, id, offset = 0) {
  const list = await post('/api/list/get', { listId: id, offset, limit: PAGE });
  if (!list.neurons.length && offset) return drawList(main, id, Math.max(0, offset - PAGE)); // the last of a page was taken out
  const changed = () => drawList(main, id, offset);
  const turn = (to) => drawList(main, id, to).then(() => scrollTo(0, 0));
  setTitle(list.name, 'Lists');
  return show(main, h('div', { class: 'head' }, crumbs(['Home', '/'], ['Lists', '/list']), h('h1', {}, list.name), list.description && h('p', { class: 'lead' }, list.description)),
    h('div', { class: 'stack' }, card(list.count === 1 ? '1 feature' : `${count(list.count)} features`,
      list.neurons.length ? h('ul', { class: 'list' }, list.neurons.map((row) => featureItem(list, row, changed)))
        : empty('Nothing is in this list yet.', 'The page of a feature has a form that puts it here; POST /api/list/add-features adds many.'),
      list.count > PAGE && pager({ offset, size: PAGE, shown: list.neurons.length, total: list.count }, turn)),
    card(null, headForm(list, changed))));
}

// ---- all lists ------------------------------------------------------------------------------------------

function newForm() {
  const notes = h('div', { 'aria-live': 'polite' });
  const name = h('input', { required: true, maxlength: 256, placeholder: 'Features about…' });
  const about = h('textarea', { rows: 2, maxlength: 4096 });
  const make = h('button', { class: 'main' }, 'Make it');
  return card('A new list', h('form', { class: 'stack tight', onsubmit: (event) => {
    event.preventDefault();
    during(make, notes, async () => { location.href = listPath((await post('/api/list/new', { name: name.value, description: about.value })).id); });
  } }, field('Name', name), field('What it is about', about), h('div', { class: 'row' }, make)), notes);
}

const line = (list) => h('li', {}, h('a', { href: listPath(list.id) }, h('span', {}, list.name), ' ',
  h('small', { class: 'soft' }, [list.count === 1 ? '1 feature' : `${count(list.count)} features`, list.updatedAt.slice(0, 10), list.description].filter(Boolean).join(' · '))));

function drawAll(main) {
  setTitle('Lists');
  const out = h('div', {}), side = h('div', {}, newForm());
  show(main, h('div', { class: 'head' }, h('h1', {}, 'Lists of features'), h('p', { class: 'lead' }, 'Features that belong together, from any source. Everybody who uses this server sees and changes them.')),
    h('div', { class: 'columns side' }, card(null, out), side));
  return load(out, async () => {
    const lists = await post('/api/list/list', {});
    if (!server.keeps) show(side);
    if (!lists.length) return server.keeps ? empty('There are no lists yet.') : noStore('No lists');
    return h('ul', { class: 'list' }, lists.reverse().map(line));
  });
}

export function draw(main, [id]) {
  return id === undefined ? drawAll(main) : drawList(main, id);
}

// ---- on a feature's page --------------------------------------------------------------------------------

/** The lists there are, and the way into one or into a new one. `at` = {model, source, index}. */
function addForm(at, lists) {
  const notes = h('div', { 'aria-live': 'polite' });
  const which = select([...lists.map((list) => [list.id, list.name]), ['', 'A new list…']], lists.at(-1)?.id ?? '');
  const name = h('input', { maxlength: 256 }), why = h('input', { maxlength: 4096 });
  const named = field('Name of the new list', name);
  const toggle = () => { named.hidden = which.value !== ''; name.required = !named.hidden; };
  which.addEventListener('change', toggle);
  toggle();
  const add = h('button', { class: 'main' }, 'Add');
  return h('form', { class: 'stack tight', onsubmit: (event) => {
    event.preventDefault();
    during(add, notes, async () => {
      const feature = { modelId: at.model.id, layer: at.source.id, index: String(at.index), description: why.value };
      const id = which.value || (await post('/api/list/new', { name: name.value })).id;
      await post('/api/list/add-features', { listId: id, featuresToAdd: [feature] });
      say('added');
      show(notes, h('p', { class: 'hint' }, 'It is in ', h('a', { href: listPath(id) }, which.value ? which.selectedOptions[0].textContent : name.value), ' now.'));
    });
  } }, field('List', which), named, field('Why', why, 'Shown in the list instead of the explanation.'), h('div', { class: 'row' }, add), notes);
}

export function listCard(at, lists = []) {
  if (!server.keeps) return null;
  const out = h('div', {});
  const open = (event) => { if (event.target.open && !out.childElementCount) load(out, async () => addForm(at, await post('/api/list/list', {}))); };
  const within = lists.map(({ list }, i) => [i ? ', ' : '', h('a', { href: listPath(list.id) }, list.name)]);
  return card(null, within.length > 0 && h('p', { class: 'hint' }, lists.length === 1 ? 'In the list ' : 'In the lists ', within, '.'), h('details', { ontoggle: open }, h('summary', {}, 'Add to a list'), out));
}
