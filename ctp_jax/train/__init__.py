"""Training: one loop for every task, from a config to an exported encoder.

Read `loop` first: `Run._steps` is the training loop, in the order in which things happen
in a step. `setup` opens the data, network and checkpoints of a config and finds the step
to start from; `finished`, what the workdir holds already. `step` has the two compiled
programs, `state` what they carry from step to step. `evaluation` runs the evaluators on
held-out videos. `metrics` writes the numbers of a run, `console` prints them.
`checkpoints/` saves and restores a run, `distributed/` makes several processes one run.
"""
