/* Filters as a condition in the server's language: `year >= 2020 and lang in ("de", "en")`. */

const KEYWORDS = /^(and|or|not|in|between|is|missing|true|false)$/i;
const NUMERAL = /^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i;
const DAY = /^\d{4}-\d\d-\d\d$/;

/* Return how an attribute is filtered: by "choice", "number" or "date".
 *
 * Strings that are all dates of ISO 8601 are dates too: they compare in the order of time.
 */
export function kindOf(attribute) {
  const { type, values = [] } = attribute ?? {};
  if (type === 'int' || type === 'float') return 'number';
  if (type === 'date') return 'date';
  const dated = values.length > 0 && values.every(({ value }) => /^\d{4}-\d\d-\d\d(T|$)/.test(value));
  return type === 'str' && dated ? 'date' : 'choice';
}

/* Return a column's name; one that is not plain is written in backticks. */
export function named(name) {
  if (/^[A-Za-z_][\w.]*$/.test(name) && !KEYWORDS.test(name)) return name;
  return `\`${name.replaceAll('`', '``')}\``;
}

/* Return a value: strings with JSON's quotes and escapes, which the server's language shares. */
function literal(value, type) {
  if (type === 'bool' && /^(true|false)$/.test(value)) return value;
  if ((type === 'int' || type === 'float') && NUMERAL.test(value)) return value;
  return JSON.stringify(value);
}

/* Return the day after, as YYYY-MM-DD: a date compares as its midnight. */
function dayAfter(day) {
  const date = new Date(`${day}T00:00:00Z`);
  date.setUTCDate(date.getUTCDate() + 1);
  return date.toISOString().slice(0, 10);
}

function condition(name, filter, attribute) {
  const column = named(name), type = attribute?.type, terms = [];
  const values = (filter.values ?? []).map(value => literal(value, type));
  if (values.length === 1) terms.push(`${column} = ${values[0]}`);
  if (values.length > 1) terms.push(`${column} in (${values.join(', ')})`);
  if (filter.from) terms.push(`${column} >= ${literal(filter.from, type)}`);
  if (filter.to && DAY.test(filter.to) && kindOf(attribute) === 'date') {
    terms.push(`${column} < ${JSON.stringify(dayAfter(filter.to))}`);
  } else if (filter.to) terms.push(`${column} <= ${literal(filter.to, type)}`);
  return terms;
}

/* Return the condition of all filters (name -> {values, from, to}) and of a free condition.
 *
 * The free condition comes first, and in parentheses only beside others, so that the columns of
 * the server's messages are those of the text that was typed.
 */
export function compose(filters, attributes, free = '') {
  const terms = Object.entries(filters).flatMap(
    ([name, filter]) => condition(name, filter, attributes[name]));
  if (!free.trim()) return terms.join(' and ');
  return terms.length ? [`(${free.trim()})`, ...terms].join(' and ') : free.trim();
}
