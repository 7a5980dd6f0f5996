r"""DPC, `ctp_jax/tasks/dpc.py`: its own paper has 60.6 on UCF (UCF), 68.2 / 34.5 (K400).

    python -m ctp_jax.main --config=configs/dpc.py:data=kinetics400 --workdir=DIR
    python -m ctp_jax.main --config=configs/dpc.py:data=mine,small --workdir=DIR

Arguments: see `configs/common.py:parse_pretext`. The numbers are those of DPC's own code,
which takes every fifth frame of Kinetics-400 and every third of UCF-101. So videos of fewer
than 201 and 121 frames are left out.
"""

from configs import common, memdpc


def get_config(arg=None):
    arg = common.parse_pretext(arg)
    config = common.pretext("dpc", arg)
    memdpc.blocks(config)
    config.head.init_gain = 1.0
    config.negatives_of = 64  # videos that are negatives of each other: of one GPU
    del config.colour
    config.jitter = common.jitter(0.5, 0.5, 0.5, 0.25, grey=0.5, per_frame=True)
    config.batch_size = 128
    kinetics = common.is_kinetics(arg)
    if kinetics:
        config.clip.strides = (5,)
    config.epochs = 300.0 if kinetics else 500.0
    config.optimizer.milestones = () if kinetics else (300, 400)
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.001
    config.optimizer.weight_decay, config.optimizer.clip_norm = 1e-5, 0.0
    return memdpc.finish(config, arg)
