"""GOT-10k's own boxes in place of the game's, R3D-18: Table 1, 77.0 / 51.4 on UCF / HMDB.

As `configs/got10k_preset3_r3d.py`, but for the boxes and the frames: one object, as GOT-10k
has it, in 16 consecutive frames of 10 per second. The paper does not say which it took.
"""

from configs import got10k_preset3_r3d


def get_config(arg=None):
    config = got10k_preset3_r3d.get_config(arg)
    config.truth.preset, config.truth.real = 0, 1
    config.game.num_trajectories = 1
    config.clip.strides, config.clip.jitter = (1,), False
    return config
