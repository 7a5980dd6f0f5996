r"""Retrieval and k-NN with a frozen encoder (Table 5); trains nothing:

    python -m ctp_jax.main --config=configs/retrieval.py:data=ucf101,split=1 \
        --config.init_from=runs/ucf_r3d --workdir=runs/ucf_r3d_retrieval

With `small`, the encoder is that of `configs/small.py`.
"""

from configs import common, small


def get_config(arg=None):
    arg = common.parse_arg(
        arg,
        backbone="r3d18",
        data="ucf101",
        train="train01",
        test="test01",
        small=False,
    )
    config = common.finetune(
        arg.data,
        split=arg.train,
        eval_split=arg.test,
        num_classes=0,
        epochs=0,
        milestones=(),
    )
    config.task = "encoder"
    config.probe.evaluators = "retrieval,knn"
    if arg.small:
        small.shrink(config)
    return common.finish(config, arg)
