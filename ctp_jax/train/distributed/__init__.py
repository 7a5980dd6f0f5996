"""Several processes as one run.

Read `coordination` first: how processes talk, and how they end together. `cluster` finds
out where they meet, `preemption` has all of them stop after the same step.
"""
