// model.js: one model: its shape, its sources, search in their explanations.

import { card, crumbs, h, setTitle, show } from './dom.js';
import { findModel, transcoderSets } from './api.js';
import { modelFacts, neuronLinks, sourceList } from './home.js';
import { explanationSearch } from './search.js';
import { keptList } from './vector.js';

export async function draw(main, [id]) {
  const model = await findModel(id);
  setTitle(model.id);
  const hash = new URLSearchParams({ model: model.id });
  show(main, h('div', { class: 'head' }, crumbs(['Home', '/']), h('h1', {}, model.id)),
    h('div', { class: 'columns side' },
      h('div', { class: 'stack' },
        card('Sources', sourceList(model), neuronLinks(model)),
        model.every.length > 0 && card('Search by explanation', explanationSearch({ model: model.id }))),
      h('div', { class: 'stack' }, card('Shape', modelFacts(model)), keptList(model),
        !model.stored && h('div', { class: 'row' }, h('a', { class: 'button main', href: `/steer#${hash}` }, 'Steer it'), h('a', { class: 'button', href: `/inspect#${hash}` }, 'Inspect a text'),
          transcoderSets(model).length > 0 && h('a', { class: 'button', href: `/graph#${hash}` }, 'Attribution graph')))));
}
