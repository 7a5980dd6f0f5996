r"""Your own videos on a few CPU cores: half the size, an eighth of the channels.

    python -m ctp_jax.main --config=configs/small.py:data=mine,train=train,test=test \
        --workdir=runs/mine

`configs/demo.py` is this on the built-in data. `truth=cycle` takes the boxes from elsewhere,
see `MIXTURES`; `truth=real` needs data with boxes, `truth=teacher` data with tracks.
"""

from configs import common

MIXTURES = {
    "preset": {},
    "real": {"preset": 0, "real": 1},
    "teacher": {"preset": 0, "teacher": 1},
    "cycle": {"preset": 1, "cycle": 3},
    "mixed": {"preset": 1, "real": 1, "cycle": 2},
}
"""Values of the argument `truth`: clips of each source, see `common.truth`."""


def get_config(arg=None):
    arg = common.parse_arg(
        arg, data="moving_shapes", train="train", test="test", truth="preset"
    )
    if arg.truth not in MIXTURES:
        names = ", ".join(MIXTURES)
        raise ValueError(f"config argument 'truth={arg.truth}': not one of {names}")
    config = common.pretrain(
        arg.data, split=arg.train, eval_split=arg.test, epochs=1, milestones=()
    )
    shrink(config)
    config.clip.strides = (1,)
    config.clip.scales = (56, 64, 72)
    # So a patch crosses up to 0.33 of the frame; the paper's 0.40, in twice the frames.
    config.game.speed = 2.6
    # Not half of the paper's sizes: a patch must reach over two or three cells of the
    # features, 8 pixels each, or the loss stands still (docs/results.md).
    config.game.scales = (14.0, 18.0, 22.0, 26.0, 32.0)
    # An easier game: straight paths, and no masked patches, with which the loss stands
    # still for 1000 steps at least.
    config.game.key_frames = (1.0,)
    config.game.interpolation = (1.0, 0.0, 0.0)
    config.game.visible = 1.0

    short_head(config)
    config.truth.update(MIXTURES[arg.truth])
    schedule(config)
    return common.finish(config, arg)


def short_head(config):
    """A head that learns to track in a few thousand steps."""
    config.head.channels = 128
    # With the paper's 0.8 and 0.04 the targets are in the tens, and the linear part of
    # the loss and dense layers that start near zero make for a slow start. Ten times
    # that, and weights of ordinary size, suit a run of a few thousand steps.
    config.head.target_scale = (8.0, 8.0, 0.4, 0.4)
    config.head.init_std = (0.02, 0.02)


def schedule(config):
    """Minutes on two cores."""
    config.batch_size = 8
    config.steps = 2500
    config.optimizer.learning_rate = 0.015
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 100
    config.log_every = 100
    config.eval_every = 10.0
    config.checkpoint_every = 10.0


def contrast(config):
    """A queue of less than an epoch of a few hundred videos, and a key encoder that keeps
    up with one that learns for 2500 steps."""
    config.contrast.queue = 256
    config.contrast.momentum = 0.99


def finish_pretext(config, arg):
    """As `common.finish`; with `small`, of this file's size and length."""
    if arg.small:
        shrink(config)
        config.clip.scales = tuple(
            scale // 2 if isinstance(scale, int) else tuple(side // 2 for side in scale)
            for scale in config.clip.scales
        )
        schedule(config)
    return common.finish(config, arg)


def shrink(config):
    """Half the frames and pixels, an eighth of the channels."""
    config.clip.num_frames = 8
    config.clip.size = 56
    config.model.width = 0.125
    config.probe.scales = ((86, 64),)
