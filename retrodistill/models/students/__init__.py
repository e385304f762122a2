"""Students: loading, encoding, making them smaller, and in `kinds` how each kind is trained.

Nothing here knows a stage, a teacher or an index.
"""
