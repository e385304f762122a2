/* Which words of a text match a query, and the excerpt that shows most of them. */

import { element } from './dom.js';

const WORD = /[\p{L}\p{N}][\p{L}\p{M}\p{N}]*/gu;
const UNSPACED = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]/u;
const STOPWORDS = new Set((
  'a about after all also an and any are as at be because before between both but by can could did ' +
  'do does during each for from had has have how i if in into is it its me more most my no not of on ' +
  'or other our out over same should so some such than that the their then there these they this ' +
  'through to under was we were what when where which who why will with would you your').split(' '));
const EXCERPT = 300;
const LONGEST = 50_000;  // characters of a text that are looked through for an excerpt

/* Return a word's stem, roughly: English endings go, accents and case do not count. */
export function stem(word) {
  const plain = word.normalize('NFKD').replace(/[\u0300-\u036f\u064b-\u0652]/g, '')
    .normalize('NFC').toLowerCase();
  if (!/^[a-z]{4,}$/.test(plain)) return plain;
  const short = plain.replace(/(ings?|ied|ies|ed|es|[sey])$/, '');
  const stemmed = short.length >= 3 ? short : plain;
  return stemmed.replace(/([b-df-hj-np-tv-z])\1$/, '$1');
}

/* Return the words of a query that are worth marking; of a set expression, those without NOT. */
export function wordsOf(query, sets = false) {
  const text = sets
    ? query.replace(/\bNOT\s+("[^"]*"|\([^)]*\)|\S+)/g, ' ').replace(/\b(AND|OR|NOT)\b/g, ' ') : query;
  const all = (text.match(WORD) ?? []).flatMap(word => UNSPACED.test(word) ? segments(word) : [word]);
  const content = all.filter(word => !STOPWORDS.has(word.toLowerCase()));
  const words = content.length ? content : all;
  return {
    stems: new Set(words.filter(word => !UNSPACED.test(word)).map(stem)),
    pieces: words.filter(word => UNSPACED.test(word)),
  };
}

/* Return the words of a run of Chinese, Japanese or Thai, which are written without spaces. */
function segments(run) {
  if (!Intl.Segmenter) return [run];
  const segmenter = new Intl.Segmenter(undefined, { granularity: 'word' });
  return [...segmenter.segment(run)].map(piece => piece.segment);
}

/* Return [start, end, stem] of each word of a text that matches, in order. */
export function matches(text, words) {
  const spans = [];
  if (words.stems.size) {
    for (const match of text.matchAll(WORD)) {
      const key = stem(match[0]);
      if (words.stems.has(key)) spans.push([match.index, match.index + match[0].length, key]);
    }
  }
  for (const piece of words.pieces) {
    for (let at = text.indexOf(piece); at >= 0; at = text.indexOf(piece, at + piece.length)) {
      spans.push([at, at + piece.length, piece]);
    }
  }
  return spans.sort((one, other) => one[0] - other[0]);
}

/* Return text nodes and <mark>s of text[start:end]. */
function marked(text, spans, start = 0, end = text.length) {
  const nodes = [];
  let position = start;
  for (const [from, to] of spans) {
    if (from < position || to > end) continue;
    nodes.push(text.slice(position, from), element('mark', {}, text.slice(from, to)));
    position = to;
  }
  nodes.push(text.slice(position, end));
  return nodes;
}

/* Return a whole text with its matches marked. */
export const whole = (text, words) => marked(text, matches(text, words));

/* Return about 300 characters of a text around most of the query's words, marked. */
export function excerpt(text, words) {
  if (text.length <= EXCERPT) return whole(text, words);
  const spans = matches(text.slice(0, LONGEST), words);
  const [start, end] = stretch(text, spans);
  const nodes = marked(text, spans, start, end);
  return [start > 0 ? '… ' : null, ...nodes, end < text.length ? ' …' : null];
}

/* Return the bounds of the stretch with most distinct matches (then most), cut between words. */
function stretch(text, spans) {
  let best = { distinct: 0, total: 0, start: 0 };
  for (let first = 0; first < Math.min(spans.length, 500); first++) {
    const start = spans[first][0], seen = new Set();
    let total = 0;
    for (let i = first; i < spans.length && spans[i][1] <= start + EXCERPT * 0.75; i++) {
      seen.add(spans[i][2]);
      total++;
    }
    if (seen.size > best.distinct || (seen.size === best.distinct && total > best.total)) {
      best = { distinct: seen.size, total, start };
    }
  }
  const wish = Math.min(best.start - EXCERPT / 4, text.length - EXCERPT);
  const start = wish <= 20 ? 0 : boundary(text, wish);
  const end = start + EXCERPT >= text.length - 20 ? text.length : boundary(text, start + EXCERPT);
  return [start, end];
}

/* Return a position near another that splits neither a word nor a surrogate pair. */
function boundary(text, position) {
  const at = Math.max(0, Math.floor(position));
  const space = text.slice(at, at + 30).search(/\s/);
  if (space >= 0) return at + space;
  return /[\udc00-\udfff]/.test(text[at] ?? '') ? at + 1 : at;
}
