/* The search page: reads the state from the address, asks each system, shows what comes. */

import { ask, askForKey, curl, Failure } from './api.js';
import { byId, copy, count, duration, element } from './dom.js';
import { showChips, showFilters } from './filters.js';
import { excerpt, wordsOf } from './highlight.js';
import { listenToKeys } from './keys.js';
import * as results from './results.js';
import { read, write } from './state.js';
import { about, available, fieldsOf, named, request, shown } from './systems.js';
import { notes, welcome } from './welcome.js';
import { compose } from './where.js';

const PATIENCE = 150;  // ms before a search says that it searches
const K = [5, 10, 20, 50, 100];
const narrow = matchMedia('(max-width: 56rem)');

let served = null;        // the answer of /indexes
let reranker = '';        // the name of the teacher's model
let state = read(location.hash);
let index = null;         // the entry of /indexes that is searched
let controller = new AbortController();
let tab = 'student';      // the column that a narrow window shows
let lastSimilar = '';     // the hit whose similar documents were asked for
let filtersShown = '';    // the index, filters and condition that the panel shows

/* ---- the state and its controls ---- */

function go(next) {
  lastSimilar = '';
  const hash = write(next);
  if (hash !== write(read(location.hash))) history.pushState(null, '', hash === '#' ? './' : hash);
  if (served) show();
}

/* Return the state with the query that is typed and a change, away from similar documents. */
const changed = change => (
  { ...state, query: byId('query').value.trim() || state.query, like: '', ...change });

function show() {
  state = read(location.hash);
  const name = state.index || served.default;
  index = served.indexes.find(entry => entry.name === name) ?? null;
  controller.abort();
  controller = new AbortController();
  byId('notice').replaceChildren();
  if (!index) return showNoIndex(name);
  showControls();
  document.title = `${state.query ? `${state.query} · ` : ''}retrodistill`;
  if (state.like) showSimilar();
  else if (state.query) showResults();
  else byId('view').replaceChildren(welcome(served, index, state));
}

function showControls() {
  byId('options').hidden = false;
  byId('query').value = state.query;
  const option = (value, current) => {
    const node = element('option', { value }, value);
    node.selected = value === current;
    return node;
  };
  byId('index').replaceChildren(...served.indexes.map(entry => option(entry.name, index.name)));
  byId('index-option').hidden = served.indexes.length < 2;
  const sizes = [...new Set([...K, state.k])].sort((one, other) => one - other);
  byId('k').replaceChildren(...sizes.map(size => option(size, state.k)));
  byId('sets-option').hidden = !index.sets && !state.sets;
  byId('sets').checked = state.sets;
  byId('sets-help').hidden = !state.sets;
  showSystems();
  showFilterControls();
  byId('served').replaceChildren(element('p', {},
    [element('strong', {}, index.name), count(index.documents, 'document'), `${index.kind} index`,
      index.dimension && count(index.dimension, 'dimension'), index.model && element('bdi', {}, index.model)]
      .filter(Boolean).flatMap((item, i) => (i ? [' · ', item] : [item]))));
}

/* Show the panel and the chips; the panel is made again only if something else changed it. */
function showFilterControls() {
  const attributes = index.attributes ?? {};
  const keyOf = ({ filters, where }) => JSON.stringify([index.name, Object.entries(filters).sort(), where]);
  if (filtersShown !== keyOf(state)) {
    showFilters(attributes, state, (change, again) => {
      if (!again) filtersShown = keyOf(change);
      go(changed(change));
    });
  }
  filtersShown = keyOf(state);
  byId('where')?.removeAttribute('aria-invalid');
  showChips(state, attributes, ({ filters, where }) => {
    go(changed({ filters, where }));
    byId('show-filters').focus();
  });
}

function showSystems() {
  const all = available(index).filter(system => system !== 'teacher' || !state.sets);
  const current = shown(state, index), fields = byId('systems');
  fields.hidden = all.length < 2 || Boolean(state.like);
  const key = [index.name, ...all].join();
  if (fields.dataset.systems !== key) {
    fields.dataset.systems = key;
    fields.replaceChildren(element('legend', { class: 'hidden' }, 'Systems to compare'),
      ...all.map(system => element('label', { 'data-system': system },
        element('input', { type: 'checkbox', value: system }), named(system, index).name)));
  }
  for (const box of fields.querySelectorAll('input')) box.checked = current.includes(box.value);
}

function chooseSystems() {
  const chosen = [...byId('systems').querySelectorAll(':checked')].map(box => box.value);
  const usual = shown({ ...state, systems: null }, index);
  go(changed({ systems: chosen.length && chosen.join() !== usual.join() ? chosen : null }));
}

/* ---- what the page shows ---- */

function showNoIndex(name) {
  byId('form').hidden = served.indexes.length === 0;
  const text = served.indexes.length
    ? `There is no index named ${name} here. Served: ${served.indexes.map(entry => entry.name).join(', ')}.`
    : 'This server has no index to search. Start it with --index FOLDER.';
  const link = served.indexes.length && element('a', { href: write({ ...state, index: '' }) },
    `Search ${served.default} instead`);
  byId('view').replaceChildren(element('div', { class: 'notice error' }, element('p', {}, text), link || null));
}

function showResults() {
  const systems = shown(state, index);
  const where = compose(state.filters, index.attributes ?? {}, state.where);
  const link = element('button', { type: 'button', onclick: () => copy(location.href, link) }, 'Copy link');
  const body = JSON.stringify(request(systems[0], state, index, where));
  const line = curl('search', { method: 'POST', key: served.key_needed, body });
  const command = element('button', { type: 'button', onclick: () => copy(line, command) }, 'Copy as curl');
  byId('view').replaceChildren(
    element('div', { class: 'summary' }, element('p', { id: 'comparison' }),
      element('div', { class: 'buttons' }, link, command)),
    ...columnsOf(systems),
    notes(index));
  selectTab(systems.includes(tab) ? tab : systems[0]);
  const send = (system, signal) => ask('search', { body: request(system, state, index, where), signal });
  search(systems, send, where ? ['No document matches the query and the filters. ',
    element('a', { href: write({ ...state, filters: {}, where: '' }) }, 'Search without the filters')]
    : ['No document matches. Try other words.']);
}

const columnsOf = systems => results.columnsOf(systems.map(system => (
  { system, ...named(system, index), about: about(system, index, reranker) })));

async function showSimilar() {
  const { signal } = controller, { like } = state;
  const where = compose(state.filters, index.attributes ?? {}, state.where);
  const back = write({ ...state, like: '' });
  const source = element('div', { class: 'source' });
  const title = element('h1', { tabindex: '-1', dir: 'auto' }, like);
  byId('view').replaceChildren(
    element('div', { class: 'like' },
      element('a', { href: back, class: 'back' },
        state.query ? `← Results for “${state.query}”` : '← Search'),
      element('p', { class: 'quiet' }, 'Documents similar to'), title, source),
    ...columnsOf(['student']));
  selectTab('student');
  title.focus();
  const path = encodeURIComponent(like), name = encodeURIComponent(index.name);
  const query = new URLSearchParams({ index: index.name, k: state.k });
  if (where) query.set('where', where);
  for (const field of fieldsOf(index)) query.append('fields', field);
  search(['student'], () => ask(`similar/${path}?${query}`, { signal }), ['No similar document.']);
  if (!index.texts) return;
  const original = await ask(`documents/${path}?index=${name}`, { signal }).catch(() => null);
  if (!original || signal.aborted) return;
  title.textContent = original.title || like;
  source.replaceChildren(element('p', { dir: 'auto' }, excerpt(original.text ?? '', wordsOf(state.query, state.sets))));
}

/* ---- searching ---- */

/* Send each system's request by itself and show each answer as it comes, unless superseded. */
function search(systems, send, nothing) {
  const { signal } = controller, answers = new Map(), failures = new Map();
  const columns = systems.map(system => byId(`column-${system}`));
  const context = {
    nothing, words: wordsOf(state.query, state.sets),
    similar: index.methods[0] === 'dense' ? id => write({ ...state, like: id }) : null,
  };
  const start = async (system, column) => {
    results.clear(column);
    failures.delete(system);
    const began = performance.now();
    const waited = () => results.showWaiting(column, (performance.now() - began) / 1000);
    let timer = setTimeout(() => { waited(); timer = setInterval(waited, 1000); }, PATIENCE);
    signal.addEventListener('abort', () => clearTimeout(timer));
    try {
      const answer = await send(system, signal);
      if (signal.aborted) return;
      answers.set(system, answer);
      results.showHits(column, { ...answer, elapsed: performance.now() - began }, context);
      if (!state.like) results.showRanks(columns, answers, system => named(system, index));
      announce(system, answer, began);
      if (answers.size === systems.length) showComparison(answers);
      restoreFocus(column);
    } catch (failure) {
      if (signal.aborted) return;
      failures.set(system, failure);
      if (!(failure instanceof Failure)) console.error(failure);
      results.showFailure(column, failure, () => {
        byId('view').focus({ preventScroll: true });
        start(system, column);
      });
      showFailures(systems, failures);
    } finally {
      clearTimeout(timer);
    }
  };
  systems.forEach((system, i) => start(system, columns[i]));
}

/* Show a failure that all systems share once; ask for the key that the server asks for. */
function showFailures(systems, failures) {
  const [failure, ...others] = failures.values();
  byId('live').textContent = failure.message;
  if (failure.param === 'where') byId('where')?.setAttribute('aria-invalid', 'true');
  if (failures.size < systems.length) return;
  if (others.every(other => other.message === failure.message)) {
    for (const node of document.querySelectorAll('.summary, .tabs, .columns')) node.hidden = true;
    byId('notice').replaceChildren(results.failureOf(failure, show));
  }
  if (failure.status === 401) askForKey().then(show);
}

function announce(system, answer, began) {
  const time = answer.took_ms?.total ?? performance.now() - began;
  byId('live').textContent = `${named(system, index).name}: ${count(answer.hits.length, 'hit')} in ${duration(time)}.`;
}

/* Say how the times compare, once all are there. */
function showComparison(answers) {
  const student = answers.get('student')?.took_ms?.total, teacher = answers.get('teacher')?.took_ms?.total;
  if (!(student > 0) || !(teacher > 0) || !byId('comparison')) return;
  const [slow, fast] = teacher > student ? ['teacher', 'student'] : ['student', 'teacher'];
  const ratio = Math.max(teacher / student, student / teacher);
  byId('comparison').textContent = ratio < 1.1 ? 'Student and teacher took equally long.'
    : `The ${slow} took ${ratio < 10 ? ratio.toFixed(1) : Math.round(ratio)} times as long as the ${fast}.`;
}

/* After a way back from similar documents, return to the hit that they were asked for. */
function restoreFocus(column) {
  if (state.like) lastSimilar = state.like;
  else if (lastSimilar) {
    const hit = column.querySelector(`.hit[data-id="${CSS.escape(lastSimilar)}"] .title`);
    if (hit && column.classList.contains('current')) {
      hit.focus();
      lastSimilar = '';
    }
  }
}

/* ---- narrow windows: one column at a time ---- */

function selectTab(system) {
  tab = system;
  for (const column of document.querySelectorAll('.column')) {
    const current = column.dataset.system === system, button = byId(`tab-${column.dataset.system}`);
    column.classList.toggle('current', current);
    button?.setAttribute('aria-selected', String(current));
    button?.setAttribute('tabindex', current ? '0' : '-1');
    if (narrow.matches && button) column.setAttribute('role', 'tabpanel');
    else column.removeAttribute('role');
    column.setAttribute('aria-labelledby', narrow.matches && button ? button.id : `title-${column.dataset.system}`);
  }
}

/* Mark the same document in the other columns. */
function showTwins(event) {
  const id = event.target.closest?.('.hit')?.dataset.id;
  for (const hit of document.querySelectorAll('.hit')) {
    hit.classList.toggle('twin', id !== undefined && hit.dataset.id === id);
  }
}

/* ---- start ---- */

function listen() {
  byId('form').onsubmit = event => {
    event.preventDefault();
    go(changed({ query: byId('query').value.trim() }));
  };
  byId('index').onchange = event => go(changed({ index: event.target.value, filters: {}, where: '' }));
  byId('k').onchange = event => go(changed({ k: Number(event.target.value) }));
  byId('sets').onchange = event => go(changed({ sets: event.target.checked }));
  byId('systems').onchange = chooseSystems;
  byId('show-filters').onclick = () => toggleFilters(byId('filters').hidden);
  document.querySelector('.skip').onclick = event => {
    event.preventDefault();
    byId('view').focus();
  };
  for (const event of ['mouseover', 'focusin']) byId('view').addEventListener(event, showTwins);
  byId('view').addEventListener('click', event => {
    const button = event.target.closest('[role=tab]');
    if (button) selectTab(button.dataset.system);
  });
  narrow.addEventListener('change', () => selectTab(tab));
  window.addEventListener('popstate', () => { if (served) show(); });
  listenToKeys({ selectTab, toggleFilters });
}

function toggleFilters(open) {
  byId('filters').hidden = !open;
  byId('show-filters').setAttribute('aria-expanded', String(open));
}

async function start() {
  const timer = setTimeout(() => byId('view').replaceChildren(
    element('p', { class: 'waiting quiet' }, 'Asking the server what it serves…')), PATIENCE);
  byId('notice').replaceChildren();
  try {
    served = await ask('indexes');
    const models = await ask('v1/models').catch(() => ({ data: [] }));
    reranker = models.data?.find(model => model.kind === 'reranker')?.id ?? '';
  } catch (failure) {
    byId('view').replaceChildren();
    byId('notice').replaceChildren(results.failureOf(failure, start));
    if (failure.status === 401) askForKey().then(start);
    return;
  } finally {
    clearTimeout(timer);
  }
  const typed = byId('query').value;  // while the server was asked
  show();
  byId('query').value = typed;
  const idle = document.activeElement === document.body;
  if (idle && !state.query && !narrow.matches) byId('query').focus();
}

byId('query').value = state.query;
listen();
start();
