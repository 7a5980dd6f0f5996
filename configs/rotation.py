r"""3DRotNet, `ctp_jax/tasks/rotation.py`: Table 4, 77.5 / 41.4 on UCF / HMDB (K400).

    python -m ctp_jax.main --config=configs/rotation.py:data=kinetics400 --workdir=DIR
    python -m ctp_jax.main --config=configs/rotation.py:data=mine,small --workdir=DIR

Arguments: see `configs/common.py:parse_pretext`.
"""

from ml_collections import ConfigDict

from configs import common, small


def get_config(arg=None):
    arg = common.parse_pretext(arg)
    config = common.pretext("rotation", arg)
    config.rotation = ConfigDict()
    # Rotate as the authors' release does, whose border gives the answer away.
    config.rotation.leaking_border = False
    # All four rotations of each clip in a batch, as in the paper: four times the work.
    config.rotation.all_four = False
    return small.finish_pretext(config, arg)
