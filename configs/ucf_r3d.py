"""Catch-the-Patch, R3D-18 on UCF-101 split 1: Table 4, 83.9 / 53.6 on UCF / HMDB."""

from configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg)
    config = common.pretrain(
        "ucf101",
        split="train01",
        eval_split="test01",
        epochs=300,
        milestones=(100, 200),
    )
    config.checkpoint_every = 10.0
    return common.finish(config, arg)
