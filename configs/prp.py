r"""PRP, `ctp_jax/tasks/prp.py`: Table 4, 66.5 / 29.7 and 72.1 / 35.0, with ten layers.

    python -m ctp_jax.main --config=configs/prp.py:data=kinetics400 --workdir=DIR
    python -m ctp_jax.main --config=configs/prp.py:data=mine,small --workdir=DIR

Arguments: see `configs/common.py:parse_pretext`. The release's learning rate falls when a
validation loss stands still for 50 epochs; ours falls at the epochs of the other tasks.
"""

from ml_collections import ConfigDict

from configs import common, small


def get_config(arg=None):
    arg = common.parse_pretext(arg)
    config = common.pretext("prp", arg)
    # The rates; a video is shown at those for which it is long enough.
    config.clip.strides, config.clip.jitter = (1, 2, 4, 8), False
    config.clip.scales, config.clip.flip = ((171, 128),), 0.0
    del config.colour
    del config.head.dropout
    config.head.channels = 512
    config.head.init_std = 0.025  # that of PyTorch's default for 512 channels
    config.prp = ConfigDict()
    config.prp.classification = 0.1  # weight of the cross-entropy
    # The last linear layer's gradient is multiplied by it: with SGD, its learning rate.
    config.prp.classifier_rate = 10.0
    config.prp.mask = (0.8, 2.0)  # of the pixels with least and with most motion
    config.batch_size = 8
    config.optimizer.weight_decay = 5e-4
    config.optimizer.clip_norm = 0.0
    config = small.finish_pretext(config, arg)
    if arg.small:
        config.clip.strides = (1, 2, 4)  # videos of 33 frames
        config.head.channels = 64
    return config
