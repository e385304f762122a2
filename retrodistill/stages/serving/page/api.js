/* Requests to the server that serves this page, with the key of this tab if it asks for one. */

import { byId, shellQuoted } from './dom.js';

const KEY = 'retrodistill-key';
let memory = '';

/* Why a request failed: the server's message, or what to do. `status` is 0 without an answer. */
export class Failure extends Error {
  constructor(message, { status = 0, param = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, param, retryAfter });
  }
}

export const base = () => new URL('.', document.baseURI).href.replace(/#.*/, '');

function readKey() {
  try { return sessionStorage.getItem(KEY) ?? memory; } catch { return memory; }
}

function writeKey(key) {
  memory = key;
  try { sessionStorage.setItem(KEY, key); } catch { /* storage is off: this page remembers it */ }
}

/* Return the answer to a request as JSON; a body makes it a POST. */
export async function ask(path, { body, signal } = {}) {
  const headers = { Accept: 'application/json' };
  if (readKey()) headers.Authorization = `Bearer ${readKey()}`;
  if (body) headers['Content-Type'] = 'application/json';
  const request = { headers, signal, method: body ? 'POST' : 'GET' };
  if (body) request.body = JSON.stringify(body);
  let response, text;
  try {
    response = await fetch(path, request);
    text = await response.text();
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    if (error instanceof TypeError && /header|ByteString|ISO-8859-1/i.test(error.message)) {
      throw new Failure('This key holds characters that no key can have.', { status: 401 });
    }
    throw new Failure('The server does not answer. Is it still running?');
  }
  if (response.ok) {
    try { return JSON.parse(text); } catch {
      throw new Failure('The answer is not JSON. Does another program listen at this address?');
    }
  }
  throw failure(response, text);
}

function failure(response, text) {
  let error = {};
  try { error = JSON.parse(text).error ?? {}; } catch { /* a proxy's page */ }
  const { status } = response;
  const retryAfter = Number(response.headers.get('Retry-After')) || null;
  const fallback = {
    401: 'This server asks for a key.',
    429: 'The server is busy.',
    503: 'The server is not ready.',
  }[status] ?? `The server answered with status ${status} ${response.statusText}`.trim();
  return new Failure(error.message || fallback, { status, param: error.param ?? null, retryAfter });
}

/* Ask for the key in a dialog; resolves when a key was entered, and never if it was not. */
export function askForKey() {
  const dialog = byId('key-dialog');
  byId('key-problem').textContent = readKey() ? 'The server does not accept this key.' : '';
  byId('key').value = '';
  if (!dialog.open) dialog.showModal();
  return new Promise(resolve => {
    byId('key-form').onsubmit = event => {
      event.preventDefault();
      writeKey(byId('key').value.trim());
      dialog.close();
      resolve();
    };
    byId('key-cancel').onclick = () => dialog.close();
  });
}

/* Return a request as a command line. */
export function curl(path, { method = 'GET', body = null, key = false } = {}) {
  const parts = [`curl ${shellQuoted(new URL(path, base()).href)}`];
  if (method !== 'GET' && !(method === 'POST' && body != null)) parts[0] += ` -X ${method}`;
  if (key) parts.push('-H "Authorization: Bearer $RETRODISTILL_API_KEY"');
  if (body != null) {
    parts.push("-H 'Content-Type: application/json'", `-d ${shellQuoted(body)}`);
  }
  return parts.join(' \\\n  ');
}
