"""Samples the random decisions of a clip as arrays, which the device then carries out.

Read `key_frames.py` first: the other plans use it for values that change over time.
"""

SOURCES = ("preset", "real", "teacher", "cycle")
"""Where the boxes of a clip come from, see `truth`; fields of `config.truth`."""
