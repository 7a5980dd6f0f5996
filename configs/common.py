"""What the configs share. Every default is the authors' release unless said."""

from ml_collections import ConfigDict


def parse_arg(arg: str | None, **defaults) -> ConfigDict:
    """Parses the part after the colon of `--config=configs/x.py:runlocal,batch=8`.

    Args:
        arg: comma-separated `name` (means True) or `name=value`.
        **defaults: the accepted names with their defaults, which also give the types.

    Returns:
        ConfigDict of the values. `runlocal` is always accepted.

    Raises:
        ValueError: for a name that is not accepted or a value of another type.
    """
    values = {"runlocal": False, **defaults}
    for item in filter(None, (arg or "").split(",")):
        name, has_value, text = item.partition("=")
        if name not in values:
            raise ValueError(
                f"config argument {name!r}: not one of {', '.join(sorted(values))}"
            )
        kind = type(values[name])
        if kind is bool:
            if has_value and text.lower() not in ("true", "false", "1", "0"):
                raise ValueError(f"config argument {item!r}: needs true or false")
            values[name] = text.lower() in ("true", "1") if has_value else True
            continue
        try:
            values[name] = kind(text)
        except ValueError:
            raise ValueError(
                f"config argument {item!r}: needs a value of type {kind.__name__}"
            ) from None
    return ConfigDict(values)


def pretrain(
    name: str, *, split: str, eval_split: str, epochs: int, milestones: tuple[int, ...]
) -> ConfigDict:
    """Catch-the-Patch pretraining of R3D-18 on the data set `name`."""
    config = ConfigDict()
    config.task = "ctp"
    config.seed = 0

    config.data = ConfigDict()
    config.data.name = name  # as prepared by `python -m ctp_jax.prepare NAME`
    config.data.data_dir = ""  # empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets
    config.data.split = split
    config.data.eval_split = eval_split  # empty: no evaluation
    config.data.eval_videos = 0  # evaluate on so many; 0: all of them
    config.data.min_frames = 1  # refuse shorter videos; 1: repeat their last frame
    config.data.workers = 0  # threads that read and decode; 0: one per core
    config.data.prefetch = 4  # batches held ready on the host

    config.clip = ConfigDict()
    config.clip.num_frames = 16
    config.clip.strides = (1, 2, 3, 4, 5)
    config.clip.jitter = True
    config.clip.size = 112
    config.clip.scales = (112, 128, 144)
    config.clip.flip = 0.5

    config.game = game()
    config.colour = colour()

    config.model = ConfigDict()
    config.model.name = "r3d18"  # or r2plus1d18
    config.model.width = 1.0  # channel multiplier, for small runs
    config.model.spatial_strides = (1, 2, 2, 1)  # Table 7: (1, 2, 2, 2) is stride 16
    config.model.temporal_strides = (1, 2, 2, 2)
    config.model.dtype = "auto"  # bfloat16 on GPU and TPU, float32 on CPU
    config.model.conv = "auto"  # how convolutions are computed, see models/conv3d.py

    config.head = ConfigDict()
    config.head.channels = 512
    config.head.roi_size = 5
    config.head.sampling_ratio = 2
    # Of the two dense layers. So small that a short run never gets off the ground.
    config.head.init_std = (0.001, 0.001)
    config.head.squeeze = True  # Table 8: False predicts from per-time features
    config.head.target_scale = (0.8, 0.8, 0.04, 0.04)  # Table 9

    config.batch_size = 32  # over all devices
    config.epochs = float(epochs)
    config.steps = 0  # 0: what `epochs` come to

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 0.01
    config.optimizer.base_batch_size = 0  # scale the rate by batch_size / this; 0: no
    config.optimizer.schedule = "step"  # or cosine, constant
    config.optimizer.milestones = milestones  # epochs at which the rate falls
    config.optimizer.decay = 0.1
    config.optimizer.warmup_steps = 0
    config.optimizer.warmup_factor = 0.1  # rate at step 0, as a share of the full one
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-4  # coupled, on every parameter
    config.optimizer.clip_norm = 40.0  # global norm; 0: no clipping

    config.init_from = ""  # an exported encoder to start from (not resuming)
    config.log_every = 50  # steps
    config.eval_every = 10.0  # epochs; 0: only at the end
    config.checkpoint_every = 1.0  # epochs
    config.keep_checkpoints = 2
    return config


def game() -> ConfigDict:
    """The Catch-the-Patch game: paper section 3.3 and appendix G."""
    config = ConfigDict()
    config.num_trajectories = 3  # Table 2a
    config.scales = (16.0, 24.0, 28.0, 32.0, 48.0, 64.0)  # pixels, sqrt(area)
    config.ratios = (0.5, 0.67, 0.75, 1.0, 1.33, 1.5, 2.0)  # width / height
    config.box_jitter = 0.18  # sides times exp(U(+-this))
    config.key_frames = (0.5, 0.3, 0.2)  # probability of 0, 1, 2 inner key frames
    config.speed = 3.0  # pixels per frame and axis, Table 10
    config.size_change = 0.025  # log-size per frame, Table 10
    # Probability of linear, accelerated, decelerated motion between key frames.
    config.interpolation = (0.7, 0.15, 0.15)  # the paper: (1, 0, 0)
    config.shapes = (0.5, 0.35, 0.15)  # rectangle, ellipse, rhombus
    config.soft_edge = 0.5  # probability
    config.soft_edge_start = (0.30, 0.45)  # distance from the centre where it starts
    config.opacity = (0.8, 1.0)
    config.visible = 0.8  # MRM: a patch is shown in a frame with this probability
    return config


def colour() -> ConfigDict:
    """Colour augmentation after pasting."""
    config = ConfigDict()
    config.hue_saturation = 0.25  # probability
    config.hue = 24.0  # degrees, either way
    config.saturation = 0.1  # times exp(U(+-this))
    config.brightness = 0.5  # probability
    config.brightness_delta = 30.0  # grey levels, either way
    config.contrast = 0.5  # probability
    config.contrast_delta = 0.12  # times exp(U(+-this))
    config.key_frames = (0.7, 0.3)  # probability of 0, 1 inner key frames
    config.interpolation = (0.7, 0.15, 0.15)  # as in game()
    return config


def runlocal(config: ConfigDict) -> ConfigDict:
    """Shrinks a config so that it runs anywhere in a minute: same code, tiny sizes."""
    config.model.width = 0.125
    config.head.channels = 64
    config.batch_size = 4
    config.steps = 8
    config.log_every = 1
    config.data.eval_videos = 8
    return config
