r"""MoCo, `ctp_jax/tasks/moco.py`: Table 4, 77.0 / 43.4 on UCF / HMDB (K400).

    python -m ctp_jax.main --config=configs/moco.py:data=kinetics400 --workdir=DIR
    python -m ctp_jax.main --config=configs/moco.py:data=mine,small --workdir=DIR

Arguments: see `configs/common.py:parse_pretext`. The queue has 65,536 keys for Kinetics-400,
as in the release, and 2,048 for other data: in UCF-101, with 9,537 videos, every key of a
longer queue would have older keys of its own video among its negatives.
`--config.model.batch_norm_groups=8` normalises groups of 4 clips, and keys in other groups
than their queries, as 8 devices without SyncBN. `evaluate=knn` if the videos have classes.
"""

from configs import common, small


def get_config(arg=None):
    arg = common.parse_pretext(arg)
    config = common.pretext("moco", arg)
    del config.head
    config.clip.strides = (1, 2, 3, 4)
    queue = 65536 if common.is_kinetics(arg) else 2048
    config.contrast = common.contrast(queue, momentum=0.999, temperature=0.2)
    # The release changes the rate once an epoch, we at every step.
    config.optimizer.schedule = "cosine"
    config.evaluators = common.evaluators("pairs")
    config = small.finish_pretext(config, arg)
    if arg.small:
        small.contrast(config)
    return config
