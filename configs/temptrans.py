r"""TempTrans, `ctp_jax/tasks/temptrans.py`: 77.3 / 47.5 on UCF / HMDB (UCF; Table 4).

    python -m ctp_jax.main --config=configs/temptrans.py:data=ucf101 --workdir=DIR
    python -m ctp_jax.main --config=configs/temptrans.py:data=mine,small --workdir=DIR

79.3 / 49.8 from K400, both with an R3D of its own (docs/methods.md). The numbers are those of
the authors' release for UCF-101; Kinetics-400 has the epochs of the CtP authors' other
methods. Arguments: see `configs/common.py:parse_pretext`.
"""

from configs import common, small


def get_config(arg=None):
    arg = common.parse_pretext(arg)
    config = common.pretext("temptrans", arg)
    config.clip.strides, config.clip.jitter = (1, 2, 4, 8), False  # the speeds
    config.clip.scales = ((171, 128),)
    del config.colour
    config.jitter = common.jitter(saturation=0.5, grey=0.2, per_frame=True)
    config.jitter.offset = 32.0
    config.head.dropout = 0.0
    config.batch_size = 16
    if not common.is_kinetics(arg):
        config.epochs = 200.0
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 3e-4
    config.optimizer.schedule = "cosine"
    config.optimizer.beta2 = 0.99
    # Of the release: 1e-4 a step, not times the learning rate, and falling with it.
    config.optimizer.weight_decay = 1e-4 / 3e-4
    config.optimizer.exclude_norms_and_biases = True
    config.optimizer.clip_norm = 0.0
    config = small.finish_pretext(config, arg)
    if arg.small:
        # Colours that jump from frame to frame outshine the motion in a short run.
        config.jitter.per_frame = False
        # Speeds that clips of 8 frames may have in videos of 40 to 60.
        config.clip.strides = (1, 2, 4)
    return config
