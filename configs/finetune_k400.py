"""Recognition on Kinetics-400. Not in the paper: the schedule of its pretraining."""

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
