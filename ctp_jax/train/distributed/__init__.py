"""Several processes as one run.

Read `coordination` first: how processes exchange values and how they end together.
`cluster` finds out which processes are one run, `preemption` makes all of them stop after
the same step.
"""
