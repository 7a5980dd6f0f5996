r"""Retrieval and k-NN with a frozen encoder (Table 5); trains nothing:

    python -m ctp_jax.main --config=configs/retrieval.py:data=ucf101 \
        --config.init_from=runs/ucf_r3d --workdir=runs/ucf_r3d_retrieval

With `small`, the encoder is that of `configs/small.py`, and the splits are `train` and
`test`: `configs/retrieval.py:small,data=mine`.
"""

from configs import common, small


def get_config(arg=None):
    arg = common.parse_arg(
        arg,
        data="",
        train="",
        test="",
        small=False,
    )
    config = common.finetune(
        arg.data or ("moving_shapes" if arg.small else "ucf101"),
        split=arg.train or ("train" if arg.small else "train01"),
        eval_split=arg.test or ("test" if arg.small else "test01"),
        num_classes=0,
        epochs=0,
        milestones=(),
    )
    config.task = "encoder"
    config.evaluators = common.evaluators("retrieval", "knn")
    if arg.small:
        small.shrink(config)
    return common.finish(config, arg)
