"""Catch-the-Patch, R3D-18 on Kinetics-400: Table 4, 86.2 / 57.0 on UCF / HMDB."""

from configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg)
    config = common.pretrain(
        "kinetics400", split="train", eval_split="val", epochs=90, milestones=(30, 60)
    )
    config.data.eval_videos = 2000  # 18k would take longer than they tell
    config.eval_every = 5.0
    return common.finish(config, arg)
