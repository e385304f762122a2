"""Data at rest and pure arithmetic over it: collections, stores of scores, rankings, filters.

Nothing here knows a model.
"""
