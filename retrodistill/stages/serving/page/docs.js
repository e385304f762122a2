/* The API's page: /openapi.json as text, tables and command lines. */

import { ask, askForKey, curl } from './api.js';
import { byId, copy, element } from './dom.js';
import { failureOf } from './results.js';

const METHODS = ['get', 'post', 'put', 'patch', 'delete', 'head', 'options'];
const DEEPEST = 4;
const JSON_TYPE = 'application/json';

let spec = {};

/* Return a schema with its reference followed. */
function resolved(node) {
  let target = node ?? {};
  for (let hops = 0; target.$ref && hops < 10; hops++) {
    const path = target.$ref.replace(/^#\//, '').split('/')
      .map(step => decodeURIComponent(step).replaceAll('~1', '/').replaceAll('~0', '~'));
    const { $ref: _, ...beside } = target;
    target = { ...path.reduce((value, step) => value?.[step], spec), ...beside };
  }
  return target;
}

const alternatives = schema => schema.anyOf ?? schema.oneOf ?? null;

/* Return a type's name, as "string", "list of numbers or null", "Hit". */
function typeOf(node) {
  const schema = resolved(node);
  const several = alternatives(schema);
  if (several) return [...new Set(several.map(typeOf))].join(' or ');
  if (schema.allOf?.length === 1) return typeOf(schema.allOf[0]);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map(value => JSON.stringify(value)).join(' or ');
  if (Array.isArray(schema.type)) return schema.type.join(' or ');
  if (schema.type === 'array') {
    const inner = typeOf(schema.items);
    return `list of ${inner.includes(' or ') ? `(${inner})` : inner}`;
  }
  if (schema.type === 'string' && schema.format) return `string (${schema.format})`;
  return schema.properties && schema.title ? schema.title : schema.type ?? 'any';
}

/* Return the schema that holds properties behind lists and alternatives, if any does. */
function objectIn(node) {
  const schema = resolved(node);
  if (schema.properties) return schema;
  const inner = schema.type === 'array' ? [schema.items] : alternatives(schema) ?? schema.allOf ?? [];
  return inner.map(objectIn).find(Boolean) ?? null;
}

/* Return an example of a schema: its own, its default, or one made of its types. */
function exampleOf(node, depth = 0) {
  const schema = resolved(node);
  if (schema.example !== undefined) return schema.example;
  if (schema.examples?.length) return schema.examples[0];
  if (schema.default != null) return schema.default;
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum[0];
  const several = alternatives(schema) ?? schema.allOf;
  if (several) return exampleOf(several[0], depth);
  if (schema.properties && depth < DEEPEST) {
    const required = new Set(schema.required ?? []);
    const told = Object.entries(schema.properties).filter(([name, property]) =>
      required.has(name) || resolved(property).examples || resolved(property).example !== undefined);
    return Object.fromEntries(told.map(([name, property]) => [name, exampleOf(property, depth + 1)]));
  }
  if (schema.type === 'array') return schema.items && depth < DEEPEST ? [exampleOf(schema.items, depth + 1)] : [];
  return { string: 'text', integer: 1, number: 1, boolean: false, object: {} }[schema.type] ?? null;
}

/* Return paragraphs of a description; words in backticks become code. */
function prose(text) {
  return (text ?? '').trim().split(/\n\s*\n/).filter(Boolean)
    .map(paragraph => element('p', {}, inline(paragraph.replace(/\s*\n\s*/g, ' '))));
}

const inline = text => text.split(/`([^`]+)`/)
  .map((piece, i) => (i % 2 ? element('code', {}, piece) : piece));

function limits(schema) {
  const notes = [];
  if (schema.default != null) notes.push(`default ${JSON.stringify(schema.default)}`);
  const bounds = [...(alternatives(schema)?.map(resolved) ?? []), schema];
  const bound = name => bounds.map(entry => entry[name]).find(value => value != null);
  for (const [name, words] of [['minimum', 'at least'], ['exclusiveMinimum', 'above'], ['maximum', 'at most'],
    ['exclusiveMaximum', 'below'], ['minItems', 'items at least'], ['maxItems', 'items at most'],
    ['minLength', 'characters at least'], ['maxLength', 'characters at most']]) {
    if (bound(name) != null) notes.push(`${words} ${bound(name)}`);
  }
  return notes.length ? element('span', { class: 'quiet' }, ` ${notes.join(', ')}`) : null;
}

function row(name, schema, { required, depth = 0, place = '' }) {
  const label = element('th', { scope: 'row' }, element('code', { class: 'nested' }, name),
    required && element('span', { class: 'required' }, ' required'));
  label.firstChild.style.setProperty('--depth', depth);
  return element('tr', {}, label, element('td', {}, typeOf(schema), place && ` in the ${place}`),
    element('td', {}, inline(resolved(schema).description ?? schema.description ?? ''), limits(resolved(schema))));
}

/* Return rows for the properties of an object and of the objects in it. */
function rows(node, { answer = false, depth = 0, above = [] } = {}) {
  const schema = objectIn(node);
  if (!schema || depth > DEEPEST || above.includes(schema.title)) return [];
  const required = new Set(answer ? [] : schema.required);
  return Object.entries(schema.properties).flatMap(([name, property]) => [
    row(name, property, { required: required.has(name), depth }),
    ...rows(property, { answer, depth: depth + 1, above: [...above, schema.title].filter(Boolean) }),
  ]);
}

function table(label, body) {
  return element('div', { class: 'scroll', role: 'region', tabindex: '0', 'aria-label': label },
    element('table', {}, element('thead', {}, element('tr', {},
      ['Name', 'Type', 'Meaning'].map(head => element('th', { scope: 'col' }, head)))),
    element('tbody', {}, body)));
}

function code(text, label) {
  const button = element('button', { type: 'button', onclick: () => copy(text, button) }, label);
  return element('div', { class: 'code' }, element('pre', { tabindex: '0' }, element('code', {}, text)), button);
}

const asText = value => JSON.stringify(value, null, 2);

/* Return the example that a media type brings along, else one made from its schema. */
function exampleIn(media) {
  if (media.example !== undefined) return media.example;
  const named = Object.values(media.examples ?? {})[0];
  return named ? resolved(named).value : exampleOf(media.schema);
}

function bodyPart(content) {
  const media = content?.[JSON_TYPE];
  if (!media) return null;
  const found = rows(media.schema);
  return [element('h3', {}, 'Body ', element('span', { class: 'quiet' }, 'JSON')),
    found.length ? table('Body', found) : element('p', {}, typeOf(media.schema))];
}

function answersPart(responses) {
  return [element('h3', {}, 'Answers'), ...Object.entries(responses ?? {}).map(([status, node]) => {
    const response = resolved(node), media = response.content?.[JSON_TYPE];
    const found = media ? rows(media.schema, { answer: true }) : [];
    const example = media && (media.example !== undefined || media.examples) ? exampleIn(media) : undefined;
    const title = [element('span', { class: 'status' }, status), ...inline(response.description ?? '')];
    if (!found.length && example === undefined) return element('p', {}, title);
    return element('details', { open: status.startsWith('2') && found.length < 14 },
      element('summary', {}, title), found.length ? table(`Answer ${status}`, found) : null,
      example !== undefined && code(asText(example), 'Copy'));
  })];
}

/* Return the command line of an endpoint, with examples for what it requires. */
function commandOf(path, method, operation, parameters) {
  let address = path;
  const query = new URLSearchParams();
  for (const parameter of parameters) {
    const own = parameter.example ?? Object.values(parameter.examples ?? {})[0]?.value;
    const example = own ?? exampleOf(parameter.schema);
    const value = example === 'text' ? parameter.name.toUpperCase() : example;
    if (parameter.in === 'path') address = address.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (parameter.in === 'query' && parameter.required) query.set(parameter.name, value);
  }
  address = address.replace(/^\//, '') + (String(query) && `?${query}`);
  const media = resolved(operation.requestBody).content?.[JSON_TYPE];
  const security = operation.security ?? spec.security ?? [];
  return curl(address, {
    method: method.toUpperCase(), body: media ? JSON.stringify(exampleIn(media)) : null,
    key: security.some(entry => Object.keys(entry).length > 0),
  });
}

const anchorOf = (path, method) => `${method}${path.replace(/[^A-Za-z0-9]+/g, '-')}`.replace(/-$/, '');

function endpoint({ path, method, operation, shared }) {
  const parameters = [...shared, ...(operation.parameters ?? [])].map(resolved);
  const anchor = anchorOf(path, method);
  return element('section', { class: 'endpoint', id: anchor, 'aria-labelledby': `${anchor}-title` },
    element('h2', { id: `${anchor}-title` }, element('span', { class: `method ${method}` }, method.toUpperCase()),
      element('a', { href: `#${anchor}` }, element('code', {}, path)),
      operation.deprecated && element('span', { class: 'required' }, 'deprecated')),
    operation.summary && element('p', { class: 'summary-line' }, operation.summary),
    element('div', { class: 'prose' }, prose(operation.description)),
    parameters.length > 0 && [element('h3', {}, 'Parameters'), table('Parameters', parameters.map(parameter =>
      row(parameter.name, { ...resolved(parameter.schema), description: parameter.description },
        { required: parameter.required, place: parameter.in })))],
    bodyPart(resolved(operation.requestBody).content),
    element('h3', {}, 'From a shell'),
    code(commandOf(path, method, operation, parameters), 'Copy as curl'),
    answersPart(operation.responses));
}

function show() {
  const endpoints = Object.entries(spec.paths ?? {}).flatMap(([path, item]) => METHODS
    .filter(method => item[method])
    .map(method => ({ path, method, operation: item[method], shared: item.parameters ?? [] })));
  const groups = new Map();
  for (const entry of endpoints) {
    const tag = entry.operation.tags?.[0] ?? '';
    groups.set(tag, [...(groups.get(tag) ?? []), entry]);
  }
  byId('contents').replaceChildren(...[...groups].flatMap(([tag, entries]) => [
    tag ? element('h2', {}, tag) : '',
    element('ul', {}, entries.map(({ path, method }) => element('li', {},
      element('a', { href: `#${anchorOf(path, method)}` },
        element('span', { class: `method ${method}` }, method.toUpperCase()), element('span', {}, path))))),
  ]));
  const title = spec.info?.title ?? 'API';
  byId('view').replaceChildren(element('h1', {}, `${title} ${spec.info?.version ?? ''}`.trim()),
    ...prose(spec.info?.description), ...[...groups.values()].flat().map(endpoint));
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

async function start() {
  byId('notice').replaceChildren();
  try {
    spec = await ask('openapi.json');
  } catch (failure) {
    byId('notice').replaceChildren(failureOf(failure, start));
    if (failure.status === 401) askForKey().then(start);
    return;
  }
  show();
}

start();
