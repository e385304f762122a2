"""First stages: what finds the top documents of a query in a whole collection."""
