/* What is searched for, as the part of the address behind #, which no server logs. */

/* Return the state that an address's hash holds. */
export function read(hash) {
  const fields = new URLSearchParams(hash.replace(/^#/, ''));
  const k = Number(fields.get('k'));
  const filters = {};
  for (const [field, value] of fields) {
    const match = /^(is|from|to)\.(.+)$/s.exec(field);
    if (!match || value === '') continue;
    const filter = filters[match[2]] ??= { values: [], from: '', to: '' };
    if (match[1] !== 'is') filter[match[1]] = value;
    else if (!filter.values.includes(value)) filter.values.push(value);
  }
  return {
    query: fields.get('q') ?? '',
    index: fields.get('index') ?? '',
    k: Number.isInteger(k) && k >= 1 && k <= 1000 ? k : 10,
    where: fields.get('where') ?? '',
    filters,
    sets: fields.get('sets') === '1',
    systems: fields.has('systems') ? fields.get('systems').split(',') : null,
    like: fields.get('like') ?? '',
  };
}

/* Return the hash of a state, without what is at its default. */
export function write(state) {
  const fields = new URLSearchParams();
  if (state.query) fields.set('q', state.query);
  if (state.like) fields.set('like', state.like);
  if (state.index) fields.set('index', state.index);
  if (state.k !== 10) fields.set('k', state.k);
  if (state.sets) fields.set('sets', '1');
  if (state.systems) fields.set('systems', state.systems.join(','));
  if (state.where) fields.set('where', state.where);
  for (const [name, filter] of Object.entries(state.filters)) {
    for (const value of filter.values) fields.append(`is.${name}`, value);
    if (filter.from) fields.set(`from.${name}`, filter.from);
    if (filter.to) fields.set(`to.${name}`, filter.to);
  }
  return `#${fields}`;
}

/* Return the filters that hold something, as [name, kind, value] each. */
export function active(state) {
  return Object.entries(state.filters).flatMap(([name, filter]) => [
    ...filter.values.map(value => [name, 'is', value]),
    ...['from', 'to'].filter(side => filter[side]).map(side => [name, side, filter[side]]),
  ]);
}
