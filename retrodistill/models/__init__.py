"""Everything that holds a model or an index: teachers, students, retrievers, indexes, inference.

They score, encode and retrieve; they know collections and runs, but no stage and no training.
"""
