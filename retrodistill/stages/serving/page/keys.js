/* The keyboard: / query, j k and arrows through hits, h l between systems, ? help. */

import { byId } from './dom.js';

const shownColumns = () => [...document.querySelectorAll('.column')];
const isVisible = node => node.getClientRects().length > 0;
const titlesOf = column => [...column.querySelectorAll('.title')];

export function listenToKeys({ selectTab, toggleFilters }) {
  byId('show-keys').onclick = () => byId('keys-dialog').showModal();
  document.addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (document.querySelector('dialog[open]')) return;
    const action = event.target.matches('input, select, textarea')
      ? inField(event) : actionOf(event, { selectTab, toggleFilters });
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/* In a field, keys are text; only the query hands over to the hits. */
function inField(event) {
  if (event.target.id === 'query' && event.key === 'ArrowDown' && titlesIn()[0]) return () => move(1);
  if (event.key === 'Escape') return () => event.target.blur();
  return null;
}

function actionOf(event, { selectTab, toggleFilters }) {
  if (event.target.matches('[role=tab]') && /^Arrow(Left|Right)$/.test(event.key)) {
    return () => nextTab(event.key === 'ArrowRight' ? 1 : -1, selectTab);
  }
  const hit = document.activeElement.closest('.hit');
  switch (event.key) {
    case '/': return () => { byId('query').focus(); byId('query').select(); };
    case '?': return () => byId('keys-dialog').showModal();
    case 'f': return () => openFilters(toggleFilters);
    case 'j': case 'ArrowDown': return titlesIn()[0] && (() => move(1));
    case 'k': case 'ArrowUp': return hit && (() => move(-1));
    case 'l': case 'ArrowRight': return hit && (() => beside(hit, 1, selectTab));
    case 'h': case 'ArrowLeft': return hit && (() => beside(hit, -1, selectTab));
    case 's': return hit?.querySelector('.similar') && (() => hit.querySelector('.similar').click());
    default: return null;
  }
}

/* Return the hits of the column with the focus, else of the first that shows some. */
function titlesIn() {
  const current = document.activeElement.closest('.column');
  const column = current ?? shownColumns().find(node => isVisible(node) && titlesOf(node).length);
  return column ? titlesOf(column) : [];
}

function move(step) {
  const titles = titlesIn();
  const hit = document.activeElement.closest('.hit');
  const position = titles.findIndex(title => title.closest('.hit') === hit);
  if (position === 0 && step < 0) byId('query').focus();
  else focus(titles[Math.min(position + step, titles.length - 1)]);
}

/* Focus the same document in the column beside, or the hit of the same rank. */
function beside(hit, step, selectTab) {
  const columns = shownColumns().filter(column => titlesOf(column).length);
  const column = hit.closest('.column');
  const next = columns[columns.indexOf(column) + step];
  if (!next) return;
  selectTab(next.dataset.system);
  const rank = [...column.querySelectorAll('.hit')].indexOf(hit), titles = titlesOf(next);
  const twin = next.querySelector(`.hit[data-id="${CSS.escape(hit.dataset.id)}"] .title`);
  focus(twin ?? titles[Math.min(rank, titles.length - 1)]);
}

function nextTab(step, selectTab) {
  const tabs = [...document.querySelectorAll('[role=tab]')];
  const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
  selectTab(next.dataset.system);
  next.focus();
}

function openFilters(toggleFilters) {
  toggleFilters(true);
  byId('filters').querySelector('input')?.focus();
}

function focus(title) {
  title.focus({ preventScroll: true });
  title.closest('.hit').scrollIntoView({ block: 'nearest' });
}
