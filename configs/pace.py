r"""Pace, `ctp_jax/tasks/pace.py`: Table 4, 75.9 / 35.9 (UCF), 77.1 / 36.6 (K400), R(2+1)D-10.

    python -m ctp_jax.main --config=configs/pace.py:data=kinetics400 --workdir=DIR
    python -m ctp_jax.main --config=configs/pace.py:data=mine,small --workdir=DIR

Arguments: see `configs/common.py:parse_pretext`. The numbers are those of the authors of
Pace, whose epoch is ten passes over the videos; on Kinetics-400 it is one.
A batch has 30 videos; for 4 or 8 devices, `--config.batch_size=32`.
`--config.pace.contrast=0.1` adds the contrastive term of the paper.
"""

from ml_collections import ConfigDict

from configs import common, small


def get_config(arg=None):
    arg = common.parse_pretext(arg)
    config = common.pretext("pace", arg)
    config.clip.strides, config.clip.jitter = (1, 2, 3, 4), False  # the classes
    config.clip.scales = ((171, 128),)
    del config.colour
    config.jitter = common.jitter(0.8, 0.8, 0.8, 0.2, probability=0.8, per_frame=True)
    config.pace = ConfigDict()
    # After the last frame of the video comes its first one, and a clip may start
    # anywhere. False: a clip starts where it fits.
    config.pace.wrap = True
    config.pace.contrast = 0.0  # weight of the contrastive term
    config.pace.temperature = 0.1  # ours, as the next one: neither was published
    config.pace.dim = 128  # of the embedding that it compares
    config.head.dropout = 0.0
    passes = 1 if common.is_kinetics(arg) else 10
    config.batch_size, config.epochs = 30, 18.0 * passes
    config.optimizer.milestones = (6 * passes, 12 * passes)
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.001, 0.005
    config.optimizer.clip_norm = 0.0
    config = small.finish_pretext(config, arg)
    if arg.small:
        # With it, the loss stays at chance for 600 steps; without, it falls in the first 100.
        config.jitter.probability = 0.0
    return config
