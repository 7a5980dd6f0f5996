"""The game on GOT-10k, one patch, R3D-18: Table 1, 80.4 / 49.4 on UCF / HMDB.

As `configs/got10k_preset3_r3d.py`.
"""

from configs import got10k_preset3_r3d


def get_config(arg=None):
    config = got10k_preset3_r3d.get_config(arg)
    config.game.num_trajectories = 1
    return config
