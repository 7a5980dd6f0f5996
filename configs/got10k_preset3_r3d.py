"""The game on GOT-10k, three patches, R3D-18: Table 1, 85.9 / 55.7 on UCF / HMDB.

The paper gives no schedule for GOT-10k. This is UCF-101's: GOT-10k has as many videos for
training, 9,335, as split 1 of UCF-101, 9,537.
"""

from configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg, data="got10k")
    config = common.pretrain(
        arg.data, split="train", eval_split="val", epochs=300, milestones=(100, 200)
    )
    config.checkpoint_every = 10.0
    return common.finish(config, arg)
