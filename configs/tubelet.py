r"""Tubelet contrast, `ctp_jax/tasks/tubelet.py`.
"""

from configs import common, small


def get_config(arg=None):
    arg = common.parse_pretext(arg)
    config = common.pretext("tubelet", arg)
    config.clip.strides = (1, 2, 3, 4)
    config.game = game()
    return small.finish_pretext(config, arg)


def game():
    """Two patches that are always visible, on smooth paths, and rotate."""
    config = common.game()
    del config.speed
    config.num_trajectories = 2
    config.size_change = 0.0001
    config.visible = 1.0
    config.points = 48  # random points that a path is made of
    config.smoothness = 8.0  # of their Gaussian filter: standard deviation, in points
    config.reach = (20, 89)  # pixels that a path covers along both axes, uniform
    config.rotation = 6.0  # degrees per frame, either way
    config.shear = 0.0  # per frame, either way; the release's other variant: 0.066
    return config
