/* Columns of hits, one for each system, and what connects them: ranks and times. */

import { NUMBER, count, duration, element } from './dom.js';
import { excerpt, whole } from './highlight.js';

/* Return the empty columns of systems ({system, name, about} each), with tabs for narrow windows. */
export function columnsOf(systems) {
  const tabs = element('div', { class: 'tabs', role: 'tablist', 'aria-label': 'Systems' },
    systems.map(({ system, name }) => element('button', {
      type: 'button', role: 'tab', id: `tab-${system}`, 'data-system': system,
      'aria-controls': `column-${system}`,
    }, element('span', { class: 'name' }, name), element('span', { class: 'time' }))));
  const columns = element('div', { class: 'columns' }, systems.map(({ system, name, about }) => element('section', {
    class: 'column', id: `column-${system}`, 'data-system': system, 'aria-labelledby': `title-${system}`,
  },
  element('header', {},
    element('h2', { id: `title-${system}` }, name),
    element('span', { class: 'time' }),
    element('p', { class: 'about', title: about }, element('bdi', {}, about)),
    element('p', { class: 'figures' })),
  element('div', { class: 'body' }))));
  columns.style.setProperty('--columns', systems.length);
  return systems.length > 1 ? [tabs, columns] : [columns];
}

/* Show that a column waits, with the seconds that it has waited. */
export function showWaiting(column, seconds) {
  const text = seconds < 2 ? 'Searching…' : `Searching… ${Math.floor(seconds)} s`;
  const line = column.querySelector('.waiting');
  column.setAttribute('aria-busy', 'true');
  if (line) line.textContent = text;
  else {
    column.querySelector('.body').replaceChildren(
      element('p', { class: 'waiting quiet' }, text),
      element('div', { class: 'skeleton', 'aria-hidden': 'true' },
        Array.from({ length: 4 }, () => element('div', {}, element('i'), element('i'), element('i')))));
  }
}

/* Empty a column whose request has just been sent. */
export function clear(column) {
  column.setAttribute('aria-busy', 'true');
  column.querySelector('.body').replaceChildren();
  column.querySelector('.figures').replaceChildren();
  for (const time of timesOf(column)) time.textContent = '';
}

const timesOf = column => [column.querySelector('.time'),
  ...document.querySelectorAll(`#tab-${column.dataset.system} .time`)];

/* Show a column's hits and its time. */
export function showHits(column, answer, context) {
  column.setAttribute('aria-busy', 'false');
  const { hits } = answer, total = answer.took_ms?.total ?? answer.elapsed;
  for (const time of timesOf(column)) time.textContent = duration(total);
  column.querySelector('.time').title =
    `${duration(total)} in the server, ${duration(answer.elapsed)} until the answer was here`;
  column.querySelector('.body').replaceChildren(hits.length
    ? element('ol', { class: 'hits' }, hits.map((hit, i) => hitOf(hit, i + 1, context)))
    : element('p', { class: 'empty' }, context.nothing.map(node => node.cloneNode?.(true) ?? node)));
  const parts = Object.entries(answer.took_ms ?? {}).filter(([step, time]) => step !== 'total' && time > 0)
    .map(([step, time]) => `${step} ${duration(time)}`);
  column.querySelector('.figures').replaceChildren(
    element('span', {}, count(hits.length, 'hit')), element('span', { class: 'shared' }),
    element('span', { class: 'parts' }, parts.length > 1 && parts.flatMap(
      (part, i) => [i ? ' · ' : '', element('span', {}, part)])));
}

/* Show why a column has no hits, and a button that tries again. */
export function showFailure(column, failure, retry) {
  column.setAttribute('aria-busy', 'false');
  column.querySelector('.body').replaceChildren(failureOf(failure, retry));
}

/* Return a message, with a button if the same request may succeed the next time. */
export function failureOf(failure, retry) {
  const lasting = failure.status >= 400 && failure.status < 500 && ![401, 408, 429].includes(failure.status);
  const when = failure.retryAfter ? ` Try again in ${count(failure.retryAfter, 'second')}.` : '';
  return element('div', { class: 'notice error' },
    element('p', { dir: 'auto' }, failure.message + when),
    !lasting && element('button', { type: 'button', onclick: retry }, 'Try again'));
}

function hitOf(hit, rank, { words, similar }) {
  const title = hit.title || hit.id, text = hit.text || '';
  const short = element('p', { class: 'excerpt', dir: 'auto' }, excerpt(text, words));
  const full = element('div', { class: 'full', hidden: true });
  const button = element('button', { type: 'button', class: 'title', 'aria-expanded': 'false', dir: 'auto' },
    whole(title, words));
  button.onclick = () => {
    const open = button.getAttribute('aria-expanded') !== 'true';
    button.setAttribute('aria-expanded', String(open));
    if (open && !full.firstChild) full.append(...details(hit, text, words));
    full.hidden = !open;
    short.hidden = open || !text;
  };
  short.hidden = !text;
  return element('li', { class: 'hit', 'data-id': hit.id },
    element('span', { class: 'rank', 'aria-hidden': 'true' }, rank),
    element('div', { class: 'content' },
      element('h3', {}, button), short, full,
      element('p', { class: 'foot' },
        element('span', { class: 'score', title: 'score' },
          element('span', { class: 'hidden' }, 'score '), scoreText(hit.score)),
        element('span', { class: 'ranks' }),
        similar && element('a', { class: 'similar', href: similar(hit.id), 'aria-label': `Documents similar to ${title}` },
          'Similar'))));
}

function details(hit, text, words) {
  const fields = Object.entries(hit.fields ?? {}).filter(([, value]) => value != null);
  return [
    element('p', { class: 'text', dir: 'auto' },
      text ? whole(text, words) : 'The server has no text of this document.'),
    element('dl', {}, [['id', hit.id], ...fields].flatMap(([name, value]) => [
      element('dt', {}, name),
      element('dd', { dir: 'auto' }, Array.isArray(value) ? value.join(', ') : String(value)),
    ])),
  ];
}

/* Return a score with four significant digits. */
function scoreText(score) {
  if (!Number.isFinite(score)) return '–';
  const digits = Math.max(0, 3 - Math.floor(Math.log10(Math.abs(score) || 1)));
  return score.toFixed(Math.min(digits, 6));
}

/* Show on each hit where the other systems rank it, and in each column how much they share.
 *
 * `answers` is a Map: system -> answer, of those that have answered this search; `nameOf` returns the
 * names of a system.
 */
export function showRanks(columns, answers, nameOf) {
  const ranks = new Map(columns.map(column => column.dataset.system).filter(system => answers.has(system))
    .map(system => [system, new Map(answers.get(system).hits.map((hit, i) => [hit.id, i + 1]))]));
  for (const column of columns) {
    const own = column.dataset.system;
    if (!answers.has(own)) continue;
    const others = [...ranks].filter(([system]) => system !== own);
    column.querySelectorAll('.hit').forEach((hit, i) => {
      hit.querySelector('.ranks').replaceChildren(...others.map(
        ([system, rank]) => marker({ system, ...nameOf(system) }, i + 1, rank.get(hit.dataset.id), rank.size)));
    });
    showShared(column, answers.get(own).hits, others);
  }
}

function marker({ system, name, the }, own, rank, size) {
  const gain = own - rank;
  const sentence = rank == null ? `not among ${the}’s ${size}`
    : `${the}’s rank ${rank}${gain ? `, ${Math.abs(gain)} ${gain > 0 ? 'higher' : 'lower'}` : ', the same'}`;
  const arrow = rank == null ? '' : gain > 0 ? `▲${gain}` : gain < 0 ? `▼${-gain}` : '=';
  const change = rank == null ? 'absent' : gain > 0 ? 'up' : gain < 0 ? 'down' : 'same';
  return element('span', { class: `marker ${change}`, 'data-system': system, title: sentence },
    element('span', { class: 'hidden' }, `${sentence}; `),
    element('span', { 'aria-hidden': 'true' }, `${name} ${rank ?? '–'}`),
    arrow && element('span', { class: 'arrow', 'aria-hidden': 'true' }, arrow));
}

function showShared(column, hits, others) {
  const teacher = others.find(([system]) => system === 'teacher');
  if (!teacher || !hits.length) return;
  const shared = hits.filter(hit => teacher[1].has(hit.id)).length;
  column.querySelector('.shared').textContent =
    `, ${NUMBER.format(shared)} of them in the teacher’s ${NUMBER.format(teacher[1].size)}`;
}
