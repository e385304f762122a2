"""An index that is searched while its documents change, and the log that makes changes durable.

Nothing of HTTP or batches.
"""
