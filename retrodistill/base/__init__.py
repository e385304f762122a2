"""What everything rests on: types, errors, registry, manifests, settings, files, the command line.

Nothing here imports torch or another large library when it is imported.
"""
