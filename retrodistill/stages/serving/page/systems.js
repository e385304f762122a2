/* The systems that are compared: what each asks of the server, and what an index must have for it.
 *
 * `student` is the index's first method: dense for vectors, else the retriever of the index.
 */

const SYSTEMS = {
  student: { name: 'Student', the: 'the student' },
  bm25: { name: 'BM25', the: 'BM25' },
  hybrid: { name: 'Hybrid', the: 'the hybrid' },
  teacher: { name: 'Teacher', the: 'the teacher' },
};

/* Return a system's name, and its name in a sentence; an index without vectors names its retriever. */
export function named(system, index) {
  const [first] = index.methods;
  return system === 'student' && first !== 'dense' ? { name: first, the: first } : SYSTEMS[system];
}

/* Return the systems that an index has, in the order of the columns. */
export function available(index) {
  const methods = ['bm25', 'hybrid'].filter(method => index.methods.indexOf(method) > 0);
  return ['student', ...methods, ...index.reranker ? ['teacher'] : []];
}

/* Return the systems to show. Hybrid is shown on request, and a teacher reads no operators. */
export function shown(state, index) {
  if (state.like) return ['student'];
  const all = available(index).filter(system => system !== 'teacher' || !state.sets);
  const chosen = all.filter(system => state.systems?.includes(system));
  return chosen.length ? chosen : all.filter(system => system !== 'hybrid');
}

/* Return the body of a system's request. The teacher orders the first hits of student and BM25. */
export function request(system, state, index, where) {
  const candidates = index.methods.includes('hybrid') ? 'hybrid' : index.methods[0];
  const method = { student: index.methods[0], teacher: candidates }[system] ?? system;
  const body = { query: state.query, index: index.name, k: state.k, method };
  if (system === 'teacher') body.rerank = true;
  if (where) body.where = where;
  if (state.sets) body.sets = true;
  const fields = fieldsOf(index);
  if (fields.length) body.fields = fields;
  return body;
}

/* Return the attributes to ask for with each hit; a request may name 256. */
export const fieldsOf = index => Object.keys(index.attributes ?? {}).slice(0, 256);

/* Return a line that says what a system does. */
export function about(system, index, reranker) {
  const both = index.methods.includes('hybrid');
  return {
    student: index.model ?? 'the retriever of this index',
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
