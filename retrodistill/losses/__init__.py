"""Objectives as pure functions of a batch's signals.

A loss never sees a model. It names the signals it needs as its parameters
(`retrodistill.objective.Signals` lists them), takes its settings as keywords, and returns one
number in float32 or better.

Shapes: B queries, N candidates of each, M distinct documents of the whole batch; D dimensions of
the student's vectors, T of the teacher's, Q vectors of the teacher's queue.
"""
