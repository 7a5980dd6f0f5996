r"""SpeedNet, `ctp_jax/tasks/speednet.py`: Table 4, 83.5 / 50.6 on UCF / HMDB (K400).

    python -m ctp_jax.main --config=configs/speednet.py:data=kinetics400 --workdir=DIR
    python -m ctp_jax.main --config=configs/speednet.py:data=mine,small --workdir=DIR

Arguments: see `configs/common.py:parse_pretext`. Videos of fewer than 61 frames have fast
clips that end in a still frame; `--config.data.min_frames=61` refuses data with such videos.
"""

from configs import common, small


def get_config(arg=None):
    arg = common.parse_pretext(arg)
    config = common.pretext("speednet", arg)
    config.clip.strides = (-4, -2, -1, 0, 1, 2, 4)  # the classes
    config.clip.jitter = False
    config.clip.scales = (112, 128, 144)
    config = small.finish_pretext(config, arg)
    if arg.small:
        # With SGD and dropout, the loss stayed above chance for 200 steps at least.
        config.head.dropout = 0.0
    return config
