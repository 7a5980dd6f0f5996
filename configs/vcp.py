r"""VCP, `ctp_jax/tasks/vcp.py`: 66.0 / 31.5 on UCF / HMDB (UCF, ten-layer R3D; Table 4).

    python -m ctp_jax.main --config=configs/vcp.py:data=ucf101 --workdir=DIR
    python -m ctp_jax.main --config=configs/vcp.py:data=mine,small --workdir=DIR

The numbers are those of a public reimplementation for UCF-101, since the authors of VCP and
of CtP released none. Kinetics-400 has the epochs of the CtP authors' other methods.
Arguments: see `configs/common.py:parse_pretext`.
"""

from ml_collections import ConfigDict

from configs import common, small


def get_config(arg=None):
    arg = common.parse_pretext(arg)
    config = common.pretext("vcp", arg)
    config.clip.strides, config.clip.jitter = (1,), False
    config.clip.gap = 8  # frames between clips; fewer in short videos
    config.clip.scales, config.clip.flip = ((171, 128),), 0.0
    del config.colour
    config.vcp = ConfigDict()
    config.vcp.distance = 16  # frames between the three clips and a remote one, or more
    # A remote clip must fit both before and after the three clips. False: on one side.
    config.vcp.both_sides = True
    config.head.dropout = 0.0
    config.head.init_std = 0.0147  # as wide as PyTorch's default for 3 * 512 inputs
    config.batch_size = 8
    if not common.is_kinetics(arg):
        config.epochs = 200.0
    config.optimizer.schedule = "constant"
    config.optimizer.weight_decay = 5e-4
    config.optimizer.clip_norm = 0.0
    config = small.finish_pretext(config, arg)
    if arg.small:
        # Clips of half the length: in 40 to 60 frames, three and a remote one fit.
        config.clip.gap, config.vcp.distance, config.vcp.both_sides = 2, 2, False
    return config
