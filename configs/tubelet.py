r"""Tubelet contrast, `ctp_jax/tasks/tubelet.py`: fine-tuned on UCF, 91.0 (R(2+1)D, K400).

    python -m ctp_jax.main --config=configs/tubelet.py:data=kinetics400 --workdir=DIR
    python -m ctp_jax.main --config=configs/tubelet.py:data=mine,small --workdir=DIR

Arguments: see `configs/common.py:parse_pretext`. No data set has numbers of its own: what
tells keys apart are tubelets, new in every step, so that a queue longer than an epoch has no
false negatives. The rate falls over 200 epochs, and the release stops at the 100th, whose
checkpoint is kept. The published number is of 32 frames and torchvision's R(2+1)D-18
(`backbone=r2plus1d18 --config.model.mid_per_block`); CtP has 90.1 there.
"""

from configs import common, small


def get_config(arg=None):
    arg = common.parse_pretext(arg)
    config = common.pretext("tubelet", arg)
    del config.head
    config.clip.strides = (1, 2, 3, 4)
    config.game = game()
    config.contrast = common.contrast(16384, momentum=0.999, temperature=0.2)
    config.epochs, config.keep_every = 200.0, 100.0
    config.optimizer.schedule = "cosine"
    config.evaluators = common.evaluators("pairs")
    config = small.finish_pretext(config, arg)
    if arg.small:
        small.contrast(config)
        # Half the paper's sizes would be lost in cells of 16 pixels.
        config.game.scales = (14.0, 18.0, 22.0, 26.0, 32.0)
        config.game.rotation = 12.0  # in half the frames
    return config


def game():
    """Two patches that are always visible, on smooth paths, and rotate."""
    config = common.game()
    del config.speed
    config.num_trajectories = 2
    config.size_change = 0.0001
    config.visible = 1.0
    config.points = 48  # random points that a path is made of
    config.smoothness = 8.0  # of their Gaussian filter: standard deviation, in points
    # What a path covers along both axes, share of the side: 20 to 89 of 112 pixels.
    config.reach = (20 / 112, 90 / 112)
    config.rotation = 6.0  # degrees per frame, either way
    config.shear = 0.0  # per frame, either way; the release's other variant: 0.066
    return config
