"""What the verbs call: each reads artifact folders and writes one, and is usable from Python.

Stages meet on disk and do not import each other; `pipelines` chains them.
"""
