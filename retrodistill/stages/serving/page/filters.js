/* The panel of filters, built from the attributes of an index, and the chips of those in use. */

import { NUMBER, byId, element } from './dom.js';
import { active } from './state.js';
import { compose, kindOf } from './where.js';

const SHORT = 6;    // choices that show without a click

/* Show a field set for each attribute and the free condition.
 *
 * `changed` is called on each change with the filters, and whether they must be shown anew: a value
 * that was typed becomes a choice.
 */
export function showFilters(attributes, state, changed) {
  const filled = Object.keys(attributes).filter(name => attributes[name].type !== 'null');
  const names = new Set([...filled, ...Object.keys(state.filters)]);
  const sets = [...names].map(name => fieldset(name, attributes[name], state.filters[name]));
  byId('filters').replaceChildren(...names.size
    ? [element('div', { class: 'fieldsets' }, sets), freeCondition(state.where)]
    : [element('p', { class: 'quiet' },
      'The documents of this index have no attributes to filter by. Give them some with ',
      element('code', {}, 'embed --attributes'), '.')]);
  byId('filters').onchange = event => {
    const typed = event.target.matches('.another');
    const { name } = event.target.closest('fieldset')?.dataset ?? {};
    changed(readFilters(), typed);
    if (typed) byId('filters').querySelector(`[data-name="${CSS.escape(name)}"] .another`)?.focus();
  };
}

function fieldset(name, attribute, filter = { values: [], from: '', to: '' }) {
  const kind = kindOf(attribute);
  const body = kind === 'choice' ? choices(name, attribute, filter) : range(kind, attribute, filter);
  return element('fieldset', { 'data-name': name }, element('legend', {}, name), body);
}

function choices(name, attribute, filter) {
  const listed = attribute?.type === 'bool' && !attribute.values
    ? [{ value: true }, { value: false }] : attribute?.values ?? [];
  const rows = listed.map(({ value, documents }) => choice(String(value), documents, filter));
  for (const value of filter.values) {
    if (!listed.some(entry => String(entry.value) === value)) rows.push(choice(value, null, filter));
  }
  const open = rows.slice(SHORT).some(row => row.querySelector('input').checked);
  return [
    element('div', { class: 'choices' }, rows.slice(0, SHORT)),
    rows.length > SHORT && element('details', { open },
      element('summary', {}, `${rows.length - SHORT} more`),
      element('div', { class: 'choices' }, rows.slice(SHORT))),
    attribute?.type !== 'bool' && (attribute?.distinct ?? Infinity) > listed.length && element('input', {
      type: 'text', class: 'another', placeholder: 'another value', 'aria-label': `${name}: another value`,
    }),
  ];
}

function choice(value, documents, filter) {
  const box = element('input', { type: 'checkbox', 'data-value': value });
  box.checked = filter.values.includes(value);
  return element('label', {}, box, element('bdi', {}, value === '' ? '(empty)' : value),
    documents != null && element('span', { class: 'count' }, NUMBER.format(documents)));
}

function range(kind, attribute, filter) {
  const bound = value => (value == null ? null : kind === 'date' ? String(value).slice(0, 10) : value);
  const side = (label, value, limit) => {
    const field = element('input', {
      type: kind, step: kind === 'number' ? 'any' : null, placeholder: bound(limit), 'data-side': label,
      min: kind === 'date' ? bound(attribute.least) : null,
      max: kind === 'date' ? bound(attribute.greatest) : null,
    });
    field.value = value;
    return element('label', {}, label, field);
  };
  const extent = attribute.least != null && attribute.greatest != null && element('p',
    { class: 'quiet' }, `${bound(attribute.least)} to ${bound(attribute.greatest)}`);
  return [element('div', { class: 'range' }, side('from', filter.from, attribute.least),
    side('to', filter.to, attribute.greatest)), extent];
}

function freeCondition(where) {
  const field = element('input', {
    id: 'where', type: 'text', spellcheck: 'false', autocapitalize: 'off', autocomplete: 'off',
    placeholder: 'year >= 2020 and not (lang = "de" or stars < 3.5)', 'aria-describedby': 'notice',
  });
  field.value = where;
  return element('div', { class: 'free' },
    element('label', { for: 'where' }, 'Condition, for experts'), field,
    element('p', { id: 'composed', class: 'quiet' }));
}

function readFilters() {
  const filters = {};
  for (const set of byId('filters').querySelectorAll('fieldset')) {
    const values = [...set.querySelectorAll(':checked')].map(box => box.dataset.value);
    const another = set.querySelector('.another')?.value.trim();
    if (another && !values.includes(another)) values.push(another);
    const side = name => set.querySelector(`[data-side=${name}]`)?.value ?? '';
    const filter = { values, from: side('from'), to: side('to') };
    if (values.length || filter.from || filter.to) filters[set.dataset.name] = filter;
  }
  return { filters, where: byId('where')?.value.trim() ?? '' };
}

const WORDS = { is: '', from: 'from ', to: 'up to ' };

/* Show the filters in use, each with a button that removes it, and the condition they make. */
export function showChips(state, attributes, removed) {
  const entries = active(state).map(([name, kind, value]) => chip(
    `${name}: ${WORDS[kind]}${value || '(empty)'}`, () => removed(without(state, name, kind, value))));
  if (state.where) entries.push(chip(state.where, () => removed({ ...state, where: '' })));
  if (entries.length > 1) {
    const all = element('button', {
      type: 'button', class: 'plain', onclick: () => removed({ ...state, filters: {}, where: '' }),
    }, 'Remove all');
    entries.push(element('li', {}, all));
  }
  byId('chips').replaceChildren(...entries);
  byId('chips').hidden = entries.length === 0;
  const total = active(state).length + (state.where ? 1 : 0);
  byId('show-filters').textContent = total ? `Filters (${total})` : 'Filters';
  const where = compose(state.filters, attributes, state.where);
  byId('composed')?.replaceChildren(...(where ? ['Sent as ', element('code', {}, where)] : []));
}

function chip(text, remove) {
  return element('li', {}, element('button', {
    type: 'button', class: 'chip', 'aria-label': `Remove the filter ${text}`, onclick: remove,
  }, element('bdi', {}, text), element('span', { 'aria-hidden': 'true' }, '×')));
}

function without(state, name, kind, value) {
  const filter = { ...state.filters[name] };
  if (kind === 'is') filter.values = filter.values.filter(entry => entry !== value);
  else filter[kind] = '';
  return { ...state, filters: { ...state.filters, [name]: filter } };
}
