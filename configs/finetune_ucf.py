"""Recognition on UCF-101 (Table 4): `configs/finetune_ucf.py:split=1`.

With `,linear`, a linear probe.
"""

from configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg, split=1, linear=False)
    config = common.finetune(
        "ucf101",
        split=f"train{arg.split:02}",
        eval_split=f"test{arg.split:02}",
        num_classes=101,
        epochs=150,
        milestones=(60, 120),
    )
    return common.finish(config, arg)
