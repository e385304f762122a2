/* The first visit: what is served, queries to try, a command line. */

import { curl } from './api.js';
import { NUMBER, copy, count, element } from './dom.js';
import { write } from './state.js';
import { lacking, named, shown } from './systems.js';

/* Return what a page without a query shows. */
export function welcome(served, index, state) {
  const examples = index.examples ?? [];
  const line = curl('search', {
    method: 'POST', key: served.key_needed,
    body: JSON.stringify({ query: examples[0] ?? 'your question', index: index.name, k: 5 }),
  });
  const copyButton = element('button', { type: 'button', onclick: () => copy(line, copyButton) }, 'Copy');
  return element('div', { class: 'welcome' },
    element('h1', {}, `Search ${count(index.documents, 'document')}`),
    element('p', { class: 'lead' }, compared(index, state)),
    examples.length > 0 && element('section', { 'aria-labelledby': 'examples' },
      element('h2', { id: 'examples' }, 'Try'),
      element('ul', { class: 'examples' }, examples.map(query => element('li', {},
        element('a', { href: write({ ...state, query }), dir: 'auto' }, query))))),
    served.indexes.length > 1 && indexTable(served, state),
    element('section', { 'aria-labelledby': 'shell' },
      element('h2', { id: 'shell' }, 'From a shell'),
      element('div', { class: 'code' }, element('pre', { tabindex: '0' }, element('code', {}, line)), copyButton)),
    notes(index));
}

/* Return a sentence that says which systems a query is put to. */
function compared(index, state) {
  const names = shown({ ...state, systems: null }, index).map(system => named(system, index).the);
  if (names.length === 1) return `A query is answered by ${names[0]}.`;
  return `A query is put to ${names.slice(0, -1).join(', ')} and ${names.at(-1)} at the same time, and their hits are shown side by side.`;
}

/* Return a table of the indexes, each with a link to it. */
function indexTable(served, state) {
  const rows = served.indexes.map(entry => element('tr', {},
    element('th', { scope: 'row' }, element('a', { href: write({ ...state, index: entry.name }) }, entry.name)),
    element('td', { class: 'number' }, NUMBER.format(entry.documents)),
    element('td', {}, entry.kind), element('td', { class: 'number' }, entry.dimension ?? '–'),
    element('td', {}, element('bdi', {}, entry.model ?? '–'))));
  const heads = ['Index', 'Documents', 'Kind', 'Dimensions', 'Model'];
  return element('section', { 'aria-labelledby': 'indexes' },
    element('h2', { id: 'indexes' }, 'Indexes'),
    element('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-labelledby': 'indexes' },
      element('table', {}, element('thead', {}, element('tr', {},
        heads.map(head => element('th', { scope: 'col' }, head)))), element('tbody', {}, rows))));
}

/* Return sentences about what an index lacks. */
export const notes = index => element('div', { class: 'notes quiet' },
  lacking(index).map(([before, code, after]) => element('p', {}, before, element('code', {}, code), after)));
