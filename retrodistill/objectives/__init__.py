"""What a student minimises: losses as pure functions, recipes as YAML, `objective` that sums them.

Nothing here knows a model, a collection or a file of scores.
"""
