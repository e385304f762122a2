/* Elements made of text alone: nothing here parses HTML. */

export const NUMBER = new Intl.NumberFormat('en');
export const byId = id => document.getElementById(id);

/* Return an element; `onclick` and its like are listeners, false and null omit an attribute. */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, '');
    else if (value !== false && value != null) node.setAttribute(name, String(value));
  }
  node.append(...children.flat().filter(child => child != null && child !== false));
  return node;
}

/* Return "1 hit" or "2 hits". */
export const count = (number, noun) => `${NUMBER.format(number)} ${noun}${number === 1 ? '' : 's'}`;

/* Return milliseconds with about three significant digits, as "0.42 ms", "12.3 ms" or "1.24 s". */
export function duration(milliseconds) {
  if (!Number.isFinite(milliseconds)) return '';
  if (milliseconds >= 999.5) return `${(milliseconds / 1000).toFixed(milliseconds < 9995 ? 2 : 1)} s`;
  return `${milliseconds.toFixed(milliseconds < 1 ? 2 : milliseconds < 99.95 ? 1 : 0)} ms`;
}

/* Copy a text and say so on the button for a moment. */
export async function copy(text, button) {
  const label = button.textContent;
  button.textContent = await toClipboard(text) ? 'Copied' : 'Press Ctrl+C';
  setTimeout(() => { button.textContent = label; }, 1600);
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {  // pages over plain HTTP have no clipboard: select the text of a field instead
    const field = element('textarea', { readonly: true, class: 'hidden', 'aria-hidden': 'true' });
    field.value = text;
    document.body.append(field);
    field.select();
    const copied = document.execCommand('copy');
    field.remove();
    return copied;
  }
}

/* Return a text as one argument of a POSIX shell. */
export const shellQuoted = text => `'${text.replaceAll("'", `'\\''`)}'`;
