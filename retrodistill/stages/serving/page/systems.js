/* The systems that are compared: what each asks of the server, and what an index must have for it. */

export const SYSTEMS = {
  dense: { name: 'Student', the: 'the student' },
  bm25: { name: 'BM25', the: 'BM25' },
  hybrid: { name: 'Hybrid', the: 'the hybrid' },
  teacher: { name: 'Teacher', the: 'the teacher' },
};

/* Return the systems that an index has, in the order of the columns. */
export function available(index) {
  const methods = ['dense', 'bm25', 'hybrid'].filter(method => index.methods.includes(method));
  return index.reranker ? [...methods, 'teacher'] : methods;
}

/* Return the systems to show. Hybrid is shown on request; a set expression is for the student. */
export function shown(state, index) {
  if (state.sets || state.like) return ['dense'];
  const all = available(index);
  const chosen = all.filter(system => state.systems?.includes(system));
  return chosen.length ? chosen : all.filter(system => system !== 'hybrid');
}

/* Return the body of a system's request. The teacher orders the first hits of student and BM25. */
export function request(system, state, index, where) {
  const first = index.methods.includes('hybrid') ? 'hybrid' : 'dense';
  const body = { query: state.query, index: index.name, k: state.k };
  body.method = system === 'teacher' ? first : system;
  if (system === 'teacher') body.rerank = true;
  if (where) body.where = where;
  if (state.sets) body.sets = true;
  const fields = Object.keys(index.attributes ?? {});
  if (fields.length) body.fields = fields;
  return body;
}

/* Return a line that says what a system does. */
export function about(system, index, reranker) {
  const both = index.methods.includes('hybrid');
  return {
    dense: index.model,
    bm25: 'counts shared words',
    hybrid: 'student and BM25, joined by rank',
    teacher: `${reranker || 'reranker'}, over the hits of ${both ? 'student and BM25' : 'the student'}`,
  }[system];
}

/* Return sentences about what an index lacks, and the option that brings it, as [text, code, text]. */
export function lacking(index) {
  const sentences = [];
  if (!index.texts) {
    sentences.push(['Hits show ids only, and there is no BM25: this index has no texts. Start the server with ',
      '--data COLLECTION', '.']);
  } else if (!index.methods.includes('bm25')) {
    sentences.push(['There is no BM25 for this index. Start the server with ', '--data COLLECTION', '.']);
  }
  if (!index.reranker) {
    sentences.push(['There is no teacher to compare with. Start the server with ', '--reranker TEACHER', '.']);
  }
  return sentences;
}
