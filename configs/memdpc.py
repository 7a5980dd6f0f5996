r"""MemDPC, `ctp_jax/tasks/memdpc.py`: Table 4, 75.3 / 41.2 on UCF / HMDB (K400).

    python -m ctp_jax.main --config=configs/memdpc.py:data=kinetics400 --workdir=DIR
    python -m ctp_jax.main --config=configs/memdpc.py:data=mine,small --workdir=DIR

Arguments: see `configs/common.py:parse_pretext`. Data sets differ in length and milestones
alone. Videos of fewer than 121 frames are left out.
"""

from ml_collections import ConfigDict

from configs import common, small


def get_config(arg=None):
    arg = common.parse_pretext(arg)
    config = common.pretext("memdpc", arg)
    blocks(config)
    config.head.memory = 1024  # entries that predictions are mixed from
    config.head.init_gain = 0.1
    config.negatives_of = 4  # videos that are negatives of each other: of one GPU
    return finish(config, arg)


def blocks(config):
    """A run of frames cut into blocks, and what predicts the last of them."""
    config.blocks = ConfigDict()
    config.blocks.count = 8
    config.blocks.predicted = 3  # the last ones
    config.clip.num_frames = 5  # of a block
    config.clip.strides, config.clip.jitter = (3,), False
    config.model.temporal_strides = (1, 1, 2, 2)
    config.head = ConfigDict()
    config.head.project = True  # False: take the features of the encoder as they are
    config.head.channels = 256  # that they are projected to
    config.head.dropout = 0.1  # of the state of the recurrent unit
    config.data.skip_short = True
    config.evaluators = common.evaluators("means")


def finish(config, arg):
    """As `small.finish_pretext`; with `small`, fewer and shorter blocks."""
    config = small.finish_pretext(config, arg)
    if arg.small:
        # They need 37 frames: the shortest videos of the built-in data have 40.
        config.blocks.count, config.blocks.predicted = 6, 2
        config.clip.num_frames, config.clip.strides = 3, (2,)
        config.head.channels = 64
        # With SGD and a gain of 0.1 the loss did not move in 150 steps.
        config.head.init_gain = 1.0
    config.negatives_of = min(config.negatives_of, config.batch_size)
    return config
