"""Training: one loop for every task, from a config to an exported encoder.

Read `loop` first: its `_steps` is the training loop, in the order in which things happen
in a step. `setup` opens what a config names and finds where the run begins; `step` and
`state` are what is compiled and what it carries; `evaluation` passes over held-out
videos. What a run survives is in `checkpoints/`, what several processes share in
`distributed/`.
"""
