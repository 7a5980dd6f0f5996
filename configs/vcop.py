r"""VCOP, `ctp_jax/tasks/vcop.py`: Table 4, 73.3 / 41.4 on UCF / HMDB (K400).

    python -m ctp_jax.main --config=configs/vcop.py:data=kinetics400 --workdir=DIR
    python -m ctp_jax.main --config=configs/vcop.py:data=mine,small --workdir=DIR

Arguments: see `configs/common.py:parse_pretext`.
"""

from configs import common, small


def get_config(arg=None):
    arg = common.parse_pretext(arg)
    config = common.pretext("vcop", arg)
    config.clip.strides, config.clip.jitter = (1,), False
    config.clip.gap = 8  # frames between clips; fewer in short videos
    config.clip.scales, config.clip.flip = ((171, 128),), 0.0
    del config.colour
    config.head.hidden = 512
    config.optimizer.learning_rate = 0.001
    return small.finish_pretext(config, arg)
