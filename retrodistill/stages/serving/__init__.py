"""The server: vectors, search and reranking over HTTP, and indexes whose documents change.

What answers requests is in `app`; `live_index` holds an index that is searched while it changes.
"""
