r"""Your own videos on a few CPU cores: the paper's game, half the size.

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
    # The paper's game in half the pixels and every second frame: sizes are halved, moves
    # in pixels per frame stay, changes per frame double.
    config.game.scales = tuple(scale / 2 for scale in config.game.scales)
    config.game.size_change *= 2
    tracking(config)
    config.truth.update(MIXTURES[arg.truth])
    schedule(config)
    return common.finish(config, arg)


def tracking(config):
    """Features and a head that learn to track in a thousand steps."""
    # On stride 4, patches cover as many cells as the paper's do on stride 8.
    config.model.spatial_strides = (1, 2, 1, 1)
    config.head.channels = 128
    # With the paper's 0.8 and 0.04 the targets are in the tens, and dense layers that
    # start near zero make for a slow start. Here the targets are about 1.
    config.head.target_scale = (4.0, 4.0, 0.1, 0.1)
    config.head.init_std = (0.02, 0.02)


def schedule(config):
    """Minutes on two cores."""
    config.batch_size = 16
    config.steps = 1250
    adamw(config, warmup_steps=50)
    config.log_every = 50
    config.eval_every = 10.0
    config.checkpoint_every = 10.0


def adamw(config, warmup_steps):
    """The optimiser of everything small. SGD takes longer to find the patches."""
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.01
    config.optimizer.exclude_norms_and_biases = True
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = warmup_steps


def contrast(config):
    """A queue of less than an epoch of a few hundred videos, and a key encoder that keeps
    up with one that learns for 1250 steps."""
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
    """Half the frames and pixels, ten layers instead of 18, an eighth of the channels."""
    config.model.name = "r3d10"
    config.clip.num_frames = 8
    config.clip.size = 56
    config.model.width = 0.125
    config.probe.scales = ((86, 64),)
