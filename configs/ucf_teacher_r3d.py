"""A tracker's boxes in place of the game's, R3D-18 on UCF-101 split 1: Table 1's row of a
KCF teacher, 70.6 / 44.4 on UCF / HMDB.

Make the tracks first, with `python -m ctp_jax.prepare tracks` (docs/truth.md).
"""

from configs import common, ucf_r3d


def get_config(arg=None):
    arg = common.parse_arg(arg, data="ucf101_tracks")
    config = ucf_r3d.get_config()
    config.data.name = arg.data
    config.truth.preset, config.truth.teacher = 0, 1
    return common.finish(config, arg)
