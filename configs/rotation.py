r"""3DRotNet, `ctp_jax/tasks/rotation.py`: Table 4, 77.5 / 41.4 on UCF / HMDB (K400).

    python -m ctp_jax.main --config=configs/rotation.py:data=kinetics400 --workdir=DIR
    python -m ctp_jax.main --config=configs/rotation.py:data=mine,small --workdir=DIR

Arguments: see `configs/common.py:parse_pretext`.
"""

from configs import common, small


def get_config(arg=None):
    arg = common.parse_pretext(arg)
    return small.finish_pretext(common.pretext("rotation", arg), arg)
