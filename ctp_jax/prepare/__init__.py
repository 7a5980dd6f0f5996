"""Prepares data sets: raw videos in, TFRecord shards of JPEG frames and an index out.

Run once per data set, as `python -m ctp_jax.prepare NAME ...`. Read `__main__.py` first
(the command), then `shards.py` (how shards are written and resumed) and
`builders/base.py` (what a data set has to define).
"""
