"""What the configs share. Every default is the authors' release unless said.

What each field may hold is in `ctp_jax/ranges.py`, in the same order: a new field needs
an entry there.
"""

from ml_collections import ConfigDict

from ctp_jax import models
from ctp_jax.config import COLOUR_CHANGES, did_you_mean


def parse_arg(arg: str | None, **defaults) -> ConfigDict:
    """Parses the part after the colon of `--config=configs/x.py:runlocal,batch=8`.

    Args:
        arg: comma-separated `name=value`; for a flag, `name` alone means True.
        **defaults: the accepted names with their defaults, which also give the types.

    Returns:
        ConfigDict of the values. `runlocal` is always accepted, and so are `backbone`, a
        network of `ctp_jax.models.MODULES` or your own, and `evaluate`, evaluators to
        add: `evaluate=retrieval+knn`.

    Raises:
        ValueError: for a name that is not accepted or a value of another type.
    """
    values = {"runlocal": False, "backbone": "", "evaluate": "", **defaults}
    for item in filter(None, (arg or "").split(",")):
        name, has_value, text = item.partition("=")
        if name not in values:
            raise ValueError(
                f"config argument {name!r}: not one of {', '.join(sorted(values))}"
                + did_you_mean(name, values)
            )
        kind = type(values[name])
        if kind is not bool and not has_value:
            raise ValueError(f"config argument {item!r}: needs a value, as {item}=...")
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
    config.data = data(name, split, eval_split)

    config.clip = ConfigDict()
    config.clip.num_frames = 16
    config.clip.strides = (1, 2, 3, 4, 5)
    config.clip.jitter = True
    config.clip.size = 112
    config.clip.scales = (112, 128, 144)
    config.clip.flip = 0.5

    config.game = game()
    config.truth = truth()
    config.colour = colour()

    # Table 7: (1, 2, 2, 2) is stride 16.
    config.model = model(spatial_strides=(1, 2, 2, 1))

    config.head = ConfigDict()
    config.head.channels = 512
    config.head.roi_size = 5
    config.head.sampling_ratio = 2
    # Of the two dense layers. So small that a short run never gets off the ground.
    config.head.init_std = (0.001, 0.001)
    config.head.squeeze = True  # Table 8: False predicts from per-time features
    config.head.target_scale = (0.8, 0.8, 0.04, 0.04)  # Table 9

    schedule(config, epochs, milestones)
    config.optimizer.weight_decay = 1e-4
    config.evaluators = evaluators("tracking")
    config.probe = probe()
    return config


# Splits, epochs and milestones of the authors' release.
_PRETEXT_DATA = {
    "ucf101": ("train01", "test01", 300, (100, 200)),
    "kinetics400": ("train", "val", 90, (30, 60)),
}


def parse_pretext(arg: str | None) -> ConfigDict:
    """The arguments of configs of pretext tasks.

    `data=ucf101` or `kinetics400`, with their splits; any other data set is one of your own
    with the splits `train` and `test`, unless `train=` and `test=` say otherwise. `small`
    takes the network and the clips of `configs/small.py`, and the built-in data if `data=`
    names no others. `stream=flow` takes optical flow for frames, see
    `python -m ctp_jax.prepare flow`; its colours are not changed.
    """
    arg = parse_arg(arg, data="", train="", test="", small=False, stream="rgb")
    arg.data = arg.data or ("moving_shapes" if arg.small else "ucf101")
    return arg


def source_of(name: str) -> str:
    """The data set that one with flow or tracks was made from: the same videos, splits
    and classes."""
    return name.removesuffix("_flow").removesuffix("_tracks")


def is_kinetics(arg: ConfigDict) -> bool:
    """Whether the data are Kinetics-400, with flow or without."""
    return source_of(arg.data) == "kinetics400"


def pretext(task: str, arg: ConfigDict) -> ConfigDict:
    """Pretraining by a task that classifies clips, `ctp_jax/tasks/<task>.py`.

    What such tasks have in common in the authors' release; each config adds its own.

    Args:
        task: its name.
        arg: from `parse_pretext`.
    """
    own = ("train", "test", 300, (100, 200))
    known = _PRETEXT_DATA.get(source_of(arg.data), own)
    train, test, epochs, milestones = known
    config = ConfigDict()
    config.task = task
    config.seed = 0
    config.data = data(arg.data, arg.train or train, arg.test or test)

    config.clip = ConfigDict()
    config.clip.num_frames = 16
    config.clip.strides = (1, 2, 3, 4, 5)
    config.clip.jitter = True
    config.clip.size = 112
    config.clip.scales = ((149, 112), (171, 128), (192, 144))  # (width, height)
    config.clip.flip = 0.5
    config.colour = clip_colour()

    config.model = model(spatial_strides=(1, 2, 2, 2))
    config.head = classifier()

    schedule(config, epochs, milestones)
    config.optimizer.weight_decay = 1e-4
    config.evaluators = evaluators("recognition")
    config.probe = probe()
    return config


def finetune(
    name: str,
    *,
    split: str,
    eval_split: str,
    num_classes: int,
    epochs: int,
    milestones: tuple[int, ...],
) -> ConfigDict:
    """Action recognition with R3D-18: set `init_from`, or train from scratch."""
    config = ConfigDict()
    config.task = "recognition"
    config.seed = 0
    config.data = data(name, split, eval_split)
    config.num_classes = num_classes  # what the data set must have; 0: any number

    config.clip = ConfigDict()
    config.clip.num_frames = 16
    config.clip.strides = (2,)
    config.clip.jitter = False
    config.clip.size = 112
    config.clip.scales = ((149, 112), (171, 128), (192, 144))  # (width, height)
    config.clip.flip = 0.35

    config.test = ConfigDict()  # centre crops, logits averaged over the clips
    config.test.num_clips = 10
    config.test.stride = 2
    config.test.scales = ((171, 128),)

    config.colour = clip_colour()

    config.model = model(spatial_strides=(1, 2, 2, 2))
    # Parts that stay as they are, their statistics too: "", "stem", "stem+1" (the stem
    # and stage 1), ..., "stem+4": everything but the classifier, a linear probe.
    config.freeze = ""
    config.head = classifier()

    schedule(config, epochs, milestones)
    config.optimizer.weight_decay = 5e-4
    config.evaluators = evaluators("recognition")
    config.probe = probe()
    return config


def classifier() -> ConfigDict:
    """The head of what classifies clips."""
    config = ConfigDict()
    config.dropout = 0.5
    config.init_std = 0.001
    return config


def data(name: str, split: str, eval_split: str) -> ConfigDict:
    """Which videos."""
    config = ConfigDict()
    config.name = name  # as prepared by `python -m ctp_jax.prepare NAME`
    config.data_dir = ""  # empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets
    config.stream = "rgb"  # or flow, which `python -m ctp_jax.prepare flow` stores
    config.split = split  # to train on, and to search for neighbours
    config.fraction = 1.0  # of every class's videos, drawn by config.seed (Fig. 4)
    config.eval_split = eval_split  # empty: no evaluation
    config.eval_videos = 0  # evaluate on so many; 0: all of them
    config.min_frames = 1  # refuse shorter videos; 1: repeat their last frame
    # Leave videos out that are shorter than this, or than the task needs.
    config.skip_short = False
    config.workers = 0  # threads that read and decode; 0: one per core
    config.prefetch = 4  # batches held ready on the host
    config.max_bad = 0.01  # share of unreadable videos above which a run stops
    config.stall_after = 60.0  # seconds without a batch until that is said
    return config


def schedule(config: ConfigDict, epochs: int, milestones: tuple[int, ...]) -> None:
    """How long, how fast, and what is written when."""
    config.batch_size = 32  # over all devices
    config.epochs = float(epochs)
    config.steps = 0  # 0: what `epochs` come to

    config.optimizer = ConfigDict()
    # sgd, adam, adamw, lars, or a module outside this package (docs/training.md).
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.01
    config.optimizer.base_batch_size = 0  # scale the rate by batch_size / this; 0: no
    config.optimizer.schedule = "step"  # or cosine, constant
    config.optimizer.milestones = milestones  # epochs at which the rate falls
    config.optimizer.decay = 0.1
    config.optimizer.warmup_steps = 0
    config.optimizer.warmup_factor = 0.1  # rate at step 0, as a share of the full one
    config.optimizer.momentum = 0.9  # of sgd and lars
    config.optimizer.nesterov = False  # of sgd and lars
    config.optimizer.beta1 = 0.9  # of adam and adamw, as the next two
    config.optimizer.beta2 = 0.999
    config.optimizer.epsilon = 1e-8
    config.optimizer.trust_coefficient = 0.001  # of lars
    config.optimizer.weight_decay = 0.0  # decoupled with adamw, else coupled
    # True: no weight decay on scales and biases, and with lars no trust ratio.
    config.optimizer.exclude_norms_and_biases = False
    config.optimizer.clip_norm = 40.0  # global norm; 0: no clipping
    # Parts that a batch is computed in, to need less memory. BatchNorm and losses over
    # the batch see one part at a time.
    config.optimizer.accumulate = 1
    # Moving average of the parameters, what it keeps in a step, e.g. 0.999: evaluation
    # and export take it in place of the parameters. 0: none.
    config.ema = 0.0

    # An exported encoder, another run's workdir or checkpoint, a converted PyTorch file.
    config.init_from = ""  # not for resuming, which needs nothing
    config.init_head = False  # take the head from there, too
    config.log_every = 50  # steps
    # "100:5": JAX's profiler traces five steps from step 100 on (docs/training.md).
    config.profile = ""
    # A module that passes the metrics on, say to W&B (docs/training.md).
    config.metrics_to = ""
    config.eval_every = 10.0  # epochs; 0: only at the end
    config.checkpoint_every = 1.0  # epochs
    config.keep_checkpoints = 2  # the last so many, and besides them:
    config.keep_best = 0  # so many with the best config.keep_best_by
    config.keep_best_by = ""  # a number of the evaluation; "-name": lower is better
    config.keep_every = 0.0  # one every so many epochs, for good; 0: none


def evaluators(*names: str) -> ConfigDict:
    """What is measured on held-out videos.

    Args:
        *names: of modules of `ctp_jax/evaluators/`; with a dot, of modules elsewhere,
            which are called by the last part of the name.
    """
    config = ConfigDict()
    for module in names:
        name = module.rpartition(".")[2]
        config[name] = ConfigDict()
        config[name].module = module if module != name else ""  # empty: of this name
        config[name].split = ""  # empty: config.data.eval_split
        config[name].videos = 0  # 0: config.data.eval_videos
        config[name].every = 0.0  # epochs; 0: config.eval_every
    return config


def probe() -> ConfigDict:
    """Features of the encoder, for evaluators that look at these.

    Nearest neighbours of held-out videos are searched for among those trained on.
    """
    config = ConfigDict()
    config.num_clips = 10
    config.stride = 2
    config.scales = ((171, 128),)
    config.spatial_strides = (1, 2, 2, 2)  # of the encoder, for this
    config.pool = (2, 3, 3)  # bins of the feature map: time, height, width
    config.pooling = "average"  # or max, as VCOP's own code has it
    config.gallery_videos = 0  # search among so many; 0: all of them
    return config


def model(spatial_strides: tuple[int, ...]) -> ConfigDict:
    """The encoder. The strides are part of the experiment, not of the weights."""
    config = ConfigDict()
    config.name = "r3d18"  # or another of ctp_jax/models/__init__.py: MODULES
    config.width = 1.0  # channel multiplier, for small runs
    config.spatial_strides = spatial_strides  # of the four stages
    config.temporal_strides = (1, 2, 2, 2)
    config.epsilon = 1e-3  # of BatchNorm; torchvision's weights need 1e-5
    # 1: BatchNorm takes the statistics of the whole batch, over all devices. g: those of
    # each of g equal groups of the batch, as g devices would without SyncBN.
    config.batch_norm_groups = 1
    config.mid_per_block = False  # True for torchvision's r2plus1d18
    config.batch_norm = True  # False for the c3d of 2015
    config.dtype = "auto"  # bfloat16 on GPU and TPU, float32 on CPU
    config.conv = "auto"  # how convolutions are computed, see models/conv/conv3d.py
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


def truth() -> ConfigDict:
    """Where the boxes to follow come from (Table 1).

    Of preset + real + teacher + cycle consecutive clips, so many have that source.
    """
    config = ConfigDict()
    config.preset = 1  # the game
    config.real = 0  # `boxes` of the data set
    config.teacher = 0  # `tracks` of the data set: `python -m ctp_jax.prepare tracks`
    config.cycle = 0  # there and back again in the network's own predictions
    config.cycle_loss = 0.0  # weight of the classical cycle loss of these; the paper: 0
    return config


def contrast(queue: int, momentum: float, temperature: float) -> ConfigDict:
    """Query and key encoder, and the queue: see `ctp_jax/tasks/momentum.py`."""
    config = ConfigDict()
    config.queue = queue  # keys; a multiple of config.batch_size
    config.momentum = momentum  # what the key encoder keeps of itself in a step
    config.temperature = temperature
    config.dim = 128  # numbers in an embedding
    config.hidden = 0  # width of the hidden layer; 0: channels of the encoder
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


def clip_colour() -> ConfigDict:
    """Colour augmentation of recognition: the same for all frames of a clip."""
    config = ConfigDict()
    config.brightness = 0.2  # probability
    config.brightness_delta = 32.0  # grey levels, either way
    config.contrast = 0.2
    config.contrast_delta = 0.2  # times exp(U(+-this))
    config.hue_saturation = 0.2
    config.hue = 24.0  # degrees, either way
    config.saturation = 0.1  # times exp(U(+-this))
    return config


def jitter(
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    *,
    probability: float = 1.0,
    grey: float = 0.0,
    per_frame: bool = False,
) -> ConfigDict:
    """Changes of colour as torchvision's `ColorJitter`, in random order."""
    config = ConfigDict()
    config.brightness = brightness  # times U(1 +- this), from 0, as the next two
    config.contrast = contrast  # of the difference from the mean grey of the frame
    config.saturation = saturation  # of the difference from grey
    config.hue = hue  # turns of the colour circle, either way
    config.offset = 0.0  # grey levels, either way, added with the brightness
    config.probability = probability  # of all of these
    config.grey = grey  # probability of a grey picture, after them
    config.per_frame = per_frame  # drawn for each frame, not for each clip
    return config


def finish(config: ConfigDict, arg: ConfigDict) -> ConfigDict:
    """Carries out the arguments that configs have in common."""
    if arg.backbone:
        take_backbone(config, arg.backbone)
    config.evaluators.update(evaluators(*filter(None, arg.evaluate.split("+"))))
    if arg.get("linear"):
        config.freeze = "stem+4"
    if arg.get("stream", "rgb") != "rgb":
        config.data.stream = arg.stream
        for name in COLOUR_CHANGES:
            group, _, field = name.partition(".")
            if group in config:
                config[group][field] = 0.0
    return runlocal(config) if arg.runlocal else config


def take_backbone(config: ConfigDict, name: str) -> None:
    """Another network, with the temporal strides and the epsilon of its paper.

    Where the strides are those of Catch-the-Patch, the features stay 8 pixels apart, or 4
    in `configs/small.py`.
    """
    config.model.name = name
    if published := models.PUBLISHED.get(name):
        config.model.epsilon = published.epsilon
        if published.temporal_strides:
            config.model.temporal_strides = published.temporal_strides
        if published.stem_stride == 4:
            strides = config.model.spatial_strides
            finer = {(1, 2, 2, 1): (1, 2, 1, 1), (1, 2, 1, 1): (1, 1, 1, 1)}
            config.model.spatial_strides = finer.get(strides, strides)


def runlocal(config: ConfigDict) -> ConfigDict:
    """Shrinks a config so that it runs anywhere in a minute: same code, tiny sizes."""
    config.model.width = 0.125
    if "channels" in config.get("head", ()):
        config.head.channels = 64
    config.batch_size = 4
    config.steps = 8 if config.epochs else 0
    config.log_every = 1
    config.data.eval_videos = 8
    config.probe.gallery_videos = 16
    return config
