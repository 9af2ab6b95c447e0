// logits.js: what the rows of a dictionary do to the logits: features that put given words at an end of the vocabulary, and features
// whose logits lean to one side. Nothing is asked before somebody presses a button: the first answer may take a while.

import { card, column, count, empty, field, h, load, percent, select } from './dom.js';
import { explanationOf, featurePath, get, path, post, queryOf } from './api.js';
import { meter } from './tokens.js';

const MOST = 12;
const BUILTIN = [['', 'these words'], ['all_digits', 'digits'], ['is_punctuation', 'punctuation'], ['starts_with_capital', 'capitalised words'], ['all_caps', 'all capitals'],
  ['starts_with_space', 'beginnings of words'], ['contains_open_bracket', 'open brackets'], ['contains_close_bracket', 'close brackets']];
const ENDS = [['top', 'raise them'], ['bottom', 'lower them'], ['any', 'do either']];
const WHAT = 'Tokens sorted by the logit that a feature gives them: how far the words stand together at one end. 1 is as far as it goes.';
const SHAPE = 'Skewness above 0: a few tokens are raised far beyond the others. Kurtosis: how much of it is in the extremes; 3 is a normal distribution.';

const labOf = (at, verb) => `/v1/lab/dictionaries${path(at.model.id, at.source.id)}/${verb}`;
const wordsOf = (text) => text.split(',').map((word) => word.trim()).filter(Boolean);

/** A link to a feature, and its explanation once that is there. */
function named(at, index) {
  const meaning = h('span', { class: 'soft' });
  explanationOf(at.model.id, at.source.id, index).then((told) => { meaning.textContent = told ?? ''; });
  return h('span', {}, h('a', { class: 'name', href: featurePath(at.model.id, at.source.id, index) }, index), ' ', meaning);
}

function setLine(set) {
  const some = set.examples.map((token) => token.trim() || '␣').join(', ');
  return h('p', { class: 'hint' }, `${count(set.tokens)} tokens: ${some}${set.tokens > set.examples.length ? ', …' : ''}. ${WHAT}`);
}

/** Which features raise or lower some words. */
export function promoters(at) {
  const words = h('input', { type: 'text', spellcheck: 'false', placeholder: 'girl, woman, she' });
  const kind = select(BUILTIN, '', { 'aria-label': 'Which tokens' });
  const end = select(ENDS, 'top');
  const out = h('div', { 'aria-live': 'polite' });
  const body = () => (kind.value ? { builtin: [kind.value] } : { sets: [{ name: 'words', words: wordsOf(words.value) }] });
  const run = () => load(out, async () => {
    if (!kind.value && !wordsOf(words.value).length) return empty('No words yet.', 'Type some, with commas between them.');
    const [set] = (await post(labOf(at, 'enrichment'), { ...body(), topK: MOST, end: end.value })).sets;
    if (!set.top.length) return empty(set.tokens ? 'No feature does.' : 'The vocabulary has no such tokens.');
    const scores = column(set.top.map((top) => top.score));
    return [h('ul', { class: 'list' }, set.top.map((top, i) => h('li', {}, h('div', { class: 'item' }, h('div', { class: 'row line' }, named(at, top.index),
      h('span', { class: 'number soft' }, `${end.value !== 'any' ? '' : top.end === 'top' ? 'raises ' : 'lowers '}${scores[i]}`)), meter(top.score, 1))))), setLine(set)];
  }, 'Sorting the vocabulary…');
  kind.addEventListener('change', () => { words.disabled = kind.value !== ''; });
  return card('What moves words', h('form', { class: 'stack tight', onsubmit: (event) => { event.preventDefault(); run(); } },
    field('Tokens', kind), field('Words', words), field('Features that', end), h('div', { class: 'row' }, h('button', {}, 'Find features'))), out);
}

/** The features whose logits are skewed most. */
export function skewed(at) {
  const out = h('div', { class: 'scroll', 'aria-live': 'polite' });
  const run = () => load(out, async () => {
    const reply = await get(labOf(at, 'logit-stats') + queryOf({ order: 'skewness', descending: true, limit: MOST }));
    const [skew, kurt] = ['skewness', 'kurtosis'].map((name) => column(reply.rows.map((row) => row[name])));
    const line = (row, i) => h('tr', {}, h('td', { class: 'wide' }, named(at, row.index)), h('td', { class: 'right' }, skew[i]), h('td', { class: 'right' }, kurt[i]), h('td', { class: 'right' }, percent(row.rate)));
    return [h('table', {}, h('caption', { class: 'unseen' }, 'Features by the skewness of their logits'), h('thead', {}, h('tr', {}, ['Feature', 'Skewness', 'Kurtosis', 'Density'].map((title, i) =>
      h('th', { scope: 'col', class: i ? 'right' : null }, title)))), h('tbody', {}, reply.rows.map(line))), h('p', { class: 'hint' }, SHAPE)];
  }, 'Computing all logits, once…');
  return card('Which logits lean', h('button', { type: 'button', onclick: run }, 'Show the most skewed'), out);
}
