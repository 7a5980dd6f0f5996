"""Checkpoints of a run, and encoders for other runs to start from.

Read `manager` first: it saves a step in the background and restores the newest intact
one. A step is built from the outside in: `layout` (folders), `manifest` (a list of files
with their SHA-256), `digests` (of the arrays) and `pytrees` (the arrays, by Orbax).
`retention` decides which steps are kept; `bucket_layout` is the layout in a bucket. `export`
writes and reads encoders, `restore` reads checkpoints of other runs, `hub` fetches encoders
from a model hub, and `init_from` starts a run from any of these.
"""
