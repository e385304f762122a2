"""Data at rest: runs, scores, triples and judgements."""
