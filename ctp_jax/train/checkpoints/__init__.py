"""Checkpoints of a run, and encoders for other runs to start from.

Read `manager` first: it saves a step in the background and restores the newest that is
what was saved. The rest of a step, from the outside in: `layout` (folders), `manifest`
(a list of files and their SHA-256), `digests` (of the arrays), `pytrees` (the arrays, by
Orbax). `retention` says which steps stay. `export` writes encoders, `init_from` and
`restore` read them and the checkpoints of other runs.
"""
