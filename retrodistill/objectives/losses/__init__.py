"""Loss functions for distillation and contrastive learning, as pure functions of a batch's signals.

A loss never sees a model. It names the signals that it needs as its parameters
(`retrodistill.objectives.objective.Signals` lists them), takes its settings as keywords, and
returns one number in float32 or better, whatever the number type of its signals and of autocast.

A batch may hold nothing for a loss to learn: no query has a label, or the teacher gives all
candidates of a list the same score. The loss is 0 then, with a gradient of 0, and training
continues. `train` counts such steps, and refuses an objective that no query of the whole data
can train. Padding may hold any value, -inf and NaN too.

Shapes: B queries, N candidates of each, M distinct documents of the whole batch; D dimensions of
the student's vectors, T of the teacher's, Q vectors of the teacher's queue.
"""
