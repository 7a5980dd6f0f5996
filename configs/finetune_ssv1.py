"""Recognition on Something-Something V1 (Table 3)."""

from configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg, linear=False)
    config = common.finetune(
        "something_something_v1",
        split="train",
        eval_split="val",
        num_classes=174,
        epochs=90,
        milestones=(40, 60, 80),
    )
    config.clip.num_frames = 32
    config.clip.strides = (1,)
    config.clip.scales = (112, 128, 144)
    config.clip.flip = 0.0  # left and right are what many classes are about
    config.test.num_clips = 1
    config.test.stride = 1
    config.test.scales = (128,)  # the paper's appendix: ((171, 128),)
    config.optimizer.warmup_steps = 1000
    return common.finish(config, arg)
