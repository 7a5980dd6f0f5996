"""The built-in run: a small R3D on generated videos, minutes on a laptop's CPU.

`make demo` runs it. Everything is the real thing, a third to a quarter of the size.
"""

from configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg)
    config = common.pretrain(
        "moving_shapes",
        split="train",
        eval_split="test",
        epochs=1,
        milestones=(),
    )
    config.clip.size = 48
    config.clip.scales = (48, 56, 64)
    config.clip.strides = (1, 2)  # the videos are short
    # The game's lengths shrink with the frame: 48 / 112.
    config.game.scales = (8.0, 10.0, 12.0, 14.0, 20.0, 28.0)
    config.game.speed = 1.3
    config.head.target_scale = (0.35, 0.35, 0.04, 0.04)

    config.model.width = 0.25
    config.head.channels = 128
    config.batch_size = 16
    config.steps = 600
    config.optimizer.learning_rate = 0.05
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50

    config.log_every = 20
    config.eval_every = 4.0
    config.checkpoint_every = 4.0
    return common.runlocal(config) if arg.runlocal else config
