"""Recognition on Kinetics-400 (Table 6), with the schedule of its pretraining.

The paper gives none.
"""

from configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg, linear=False)
    config = common.finetune(
        "kinetics400",
        split="train",
        eval_split="val",
        num_classes=400,
        epochs=90,
        milestones=(30, 60),
    )
    return common.finish(config, arg)
