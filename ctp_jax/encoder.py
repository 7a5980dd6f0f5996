"""A pretrained encoder in three lines, for features of one's own videos.

    import ctp_jax

    encoder = ctp_jax.load_encoder("runs/ucf_r3d")
    clips = ctp_jax.read_clips("video.mp4", encoder.spec)
    features = encoder(clips)  # (10, 9216): a vector for each of ten clips

The mean over the clips is the feature of the video with which the evaluators `retrieval`
and `knn` search. Nothing here needs TensorFlow. Symbols: b or c clips, t frames, s side of
a clip in pixels, d numbers in a vector.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ctp_jax import config as config_lib
from ctp_jax import models
from ctp_jax.data import evenly_spread
from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.interop import clip_fields
from ctp_jax.models.base import OPTIONAL, apply
from ctp_jax.ops import colour
from ctp_jax.storage import files
from ctp_jax.tasks import probe, render
from ctp_jax.train.checkpoints import export, init_from

_NORMALISED = 20.0  # no normalised grey level is so far from 0


@dataclasses.dataclass(frozen=True)
class Spec:
    """The clips that an encoder was trained on, and what is measured of its features.

    Attributes:
        frames: t, per clip.
        stride: frames of the video from one of the clip to the next.
        size: s, pixels.
        scale: what frames are scaled to before the middle of s x s pixels is cut out: the
            short side, or (width, height), swapped for portrait videos.
        num_clips: per video, evenly spread.
        pool: bins of the feature map: time, height, width.
        pooling: average or max, in each bin.
        mean: of red, green and blue in [0, 1], subtracted from the pixels.
        deviation: by which they are then divided.
    """

    frames: int = 16
    stride: int = 2
    size: int = 112
    scale: int | tuple[int, int] = (171, 128)
    num_clips: int = 10
    pool: tuple[int, int, int] = (2, 3, 3)
    pooling: str = "average"
    mean: tuple[float, float, float] = colour.MEAN
    deviation: tuple[float, float, float] = colour.STD

    @classmethod
    def of(cls, config: ConfigDict) -> "Spec":
        """That of a run's `config.clip` and `config.probe`."""
        scale = config.probe.scales[0]
        return cls(
            frames=config.clip.num_frames,
            stride=config.probe.stride,
            size=config.clip.size,
            scale=scale if isinstance(scale, int) else (scale[0], scale[1]),
            num_clips=config.probe.num_clips,
            pool=tuple(config.probe.pool),
            pooling=config.probe.pooling,
        )

    def clip_spec(self) -> ClipSpec:
        """The same in the words of the pipeline."""
        return ClipSpec(
            num_clips=self.num_clips,
            num_frames=self.frames,
            size=self.size,
            strides=(self.stride,),
            sampling="uniform",
            scales=(self.scale,),
            crop="center",
        )


class Encoder:
    """A network with its weights, called with clips.

    Attributes:
        spec: see `Spec`.
        module: the Flax module, `ctp_jax.models.base.Encoder`:
            `module.apply(variables, clips, train=False)` gives its last feature map.
        variables: {'params': ..., 'batch_stats': ...}, on the default device.
        provenance: where it comes from: task, config, steps, metrics.
        config: of its run; of a converted file, one that fits it.
        path: where it was read from.
    """

    def __init__(self, stored: export.Encoder):
        """Builds the network; raises `UserError` if the weights are not its own."""
        self.config = config_of(stored)
        self.spec = Spec.of(self.config)
        self.provenance, self.path = stored.provenance, stored.path
        model = ConfigDict(self.config.model)
        model.spatial_strides = tuple(self.config.probe.spatial_strides)
        self.module = models.create(model)
        self.module.check_same_weights(stored.architecture)
        self.variables: Mapping[str, Any] = jax.device_put(
            {"params": stored.params, "batch_stats": stored.batch_stats}
        )
        self._vectors = jax.jit(functools.partial(self._compute, self.module))
        self._maps = jax.jit(self._stages)
        self._described = jax.jit(self._describe)

    def __call__(self, clips: Any) -> Float[Array, "b d"]:
        """A vector for each clip: its feature map, pooled to `spec.pool`, float32.

        Args:
            clips: (b, t, h, w, 3), of the spec's frames and size or others: uint8 RGB, or
                floats that are normalised with `spec.mean` and `spec.deviation`.

        Raises:
            UserError: for anything else.

        >>> import numpy as np, ctp_jax
        >>> encoder = ctp_jax.load_encoder(run)  # the folder of a run
        >>> spec = encoder.spec
        >>> clips = np.zeros((2, spec.frames, spec.size, spec.size, 3), np.uint8)
        >>> encoder(clips).shape  # 2 x 3 x 3 bins of 8 channels; R3D-18 has 512
        (2, 144)
        """
        return self._vectors(self.variables, _checked(clips, self.module))

    def stages(self, clips: Any) -> tuple[Float[Array, "b _t _h _w _c"], ...]:
        """The outputs of the stem and of the four stages, for clips as above.

        >>> clips = np.zeros((2, spec.frames, spec.size, spec.size, 3), np.uint8)
        >>> [stage.shape for stage in encoder.stages(clips)][-1]
        (2, 1, 4, 4, 8)
        """
        return self._maps(self.variables, _checked(clips, self.module))

    def describe(self, batch: Batch) -> Float[Array, "b d"]:
        """Vectors of the first clip of each video of a batch, see `ctp_jax.data.batch`."""
        return self._described(self.variables, batch)

    def _stages(self, variables, clips):
        return self.module.apply(
            variables, normalised(clips), train=False, all_stages=True
        )

    def _describe(self, variables, batch):
        clips = render.crop_clips(batch, self.spec.size)[:, 0]
        return self._compute(self.module, variables, colour.normalize(clips))

    def _compute(self, module, variables, clips):
        features = apply(module, variables, normalised(clips), train=False)
        pooled = probe.adaptive_pool(features, self.spec.pool, self.spec.pooling)
        return pooled.reshape(*pooled.shape[:1], -1)

    def __repr__(self) -> str:
        about = self.module.architecture()
        task = self.provenance.get("task", "unknown")
        return f"<Encoder {about['name']}, width {about['width']:g}, task {task}>"

    def export(self, path: str | os.PathLike) -> None:
        """Writes the function from clips to vectors as StableHLO, with the weights.

        It takes uint8 clips (b, t, s, s, 3) of any number b and computes in float32, on
        CPUs, GPUs and TPUs. Loading it needs JAX and flatbuffers, not this package:

            exported = jax.export.deserialize(pathlib.Path("encoder.jax").read_bytes())
            features = exported.call(clips)

        Args:
            path: of the file.
        """
        spec = self.spec
        # What is chosen for the backend of today would be kept for all.
        module = self.module.clone(impl="direct", dtype=jnp.dtype(jnp.float32))
        variables = self.variables
        shape = jax_export.symbolic_shape(
            f"b, {spec.frames}, {spec.size}, {spec.size}, 3"
        )
        with _without_source_paths():
            exported = jax_export.export(
                jax.jit(functools.partial(self._compute, module, variables)),
                platforms=("cpu", "cuda", "tpu"),
            )(jax.ShapeDtypeStruct(shape, jnp.uint8))
            data = bytes(exported.serialize())
        with files.replacing(files.absolute(path)) as new:
            new.write_bytes(data)

    def fingerprint(self) -> str:
        """SHA-256 of the weights and of what the vectors depend on besides them."""
        about = {**dataclasses.asdict(self.spec), **self.module.architecture()}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.variables):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(leaf).data)
        return digest.hexdigest()


@contextlib.contextmanager
def _without_source_paths() -> Iterator[None]:
    """What is compiled does not name the files on this machine that it came from."""
    option = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, option)
    jax.config.update(option, ".*")
    try:
        yield
    finally:
        jax.config.update(option, before)


def load_encoder(path: str | os.PathLike) -> Encoder:
    """Loads a pretrained encoder.

    Args:
        path: a run's workdir, one of its checkpoints, an exported encoder, a folder that
            `python -m ctp_jax.convert` wrote, each on a disk or in a bucket (gs://,
            s3://), or hf://OWNER/NAME.

    Raises:
        UserError: there is none, or it is damaged, or its network is code outside of this
            package (see `ctp_jax.modules.allow`).
    """
    try:
        return Encoder(init_from.read(os.fspath(path)))
    except UserError as error:
        raise UserError(str(error)) from None  # one reason, not a chain of them


def read_clips(
    video: str | os.PathLike,
    spec: Spec | None = None,
    *,
    every: float = 0.0,
    fps: float = 25.0,
) -> Float[Array, "c t s s 3"]:
    """The clips of a video that the evaluation of an encoder would see, normalised.

    Frames are decoded by PyAV and brought to a constant rate; each clip is scaled and its
    middle is cut out, as an evaluation on a prepared data set does it.

    Args:
        video: a file that FFmpeg can read, or a folder of numbered images.
        spec: of the encoder; None: the defaults.
        every: seconds; not `spec.num_clips` clips, but one from the middle of every so
            many seconds.
        fps: frames per second of a folder.

    Raises:
        UserError: the video cannot be read.

    >>> ctp_jax.read_clips(video, spec).shape
    (10, 8, 56, 56, 3)
    >>> ctp_jax.read_clips(video, spec, every=0.5).shape  # of a video of one second
    (2, 8, 56, 56, 3)
    """
    from ctp_jax.own_videos import reader  # imports FFmpeg
    from ctp_jax.prepare.video import VideoError

    spec = spec or Spec()
    wanted = spec.clip_spec()
    choose = functools.partial(reader.choose, wanted, every)
    try:
        found = list(reader.read_clips(files.absolute(video), choose, fps))
    except VideoError as error:
        raise UserError(f"{video}: {error}") from None
    frames = np.stack([c.frames for c in found if c.attempt == found[-1].attempt])
    return _draw(make_batch(frames, wanted), spec.size)


def make_batch(frames: np.ndarray, spec: ClipSpec) -> Batch:
    """A batch of clips of one video, uint8 (b, t, h, w, 3), that shows their middle."""
    height, width = frames.shape[2:4]
    size = np.array([height, width], np.float32)
    window = evenly_spread.sample_window(height, width, spec)
    return {
        "frames": frames[:, None],
        "window": np.tile(window, (len(frames), 1, 1)),
        "extent": np.tile(size, (len(frames), 1, 1)),
        "flip": np.zeros((len(frames), 1), bool),
    }


@functools.partial(jax.jit, static_argnums=1)
def _draw(batch, size):
    return colour.normalize(render.crop_clips(batch, size)[:, 0])


def normalised(clips: Array) -> Float[Array, "b t h w 3"]:
    """Clips as the network takes them: uint8 is normalised, floats are."""
    if clips.dtype != jnp.uint8:
        return clips
    return colour.normalize(clips.astype(jnp.float32))


def _checked(clips: Any, module: Any) -> Any:
    """Clips as an array that `Encoder` takes; `UserError` for what it does not."""
    clips = clips if isinstance(clips, jax.Array) else np.asarray(clips)
    what = f"clips of shape {clips.shape} and type {clips.dtype}"
    stride = module.total_stride()[1]
    if clips.ndim != 5 or clips.shape[-1] != 3 or min(clips.shape) < 1:
        raise UserError(f"{what}: needs (clips, frames, height, width, 3)")
    if min(clips.shape[2:4]) < stride:
        raise UserError(f"{what}: needs at least {stride} pixels")
    if clips.dtype == np.uint8:
        return clips
    if not jnp.issubdtype(clips.dtype, jnp.floating):
        raise UserError(f"{what}: needs uint8, or floats that are normalised")
    if isinstance(clips, np.ndarray) and np.abs(clips).max() > _NORMALISED:
        raise UserError(
            f"{what}: has values up to {clips.max():g}, normalised ones are below "
            f"{_NORMALISED:g}: give grey levels as uint8"
        )
    return clips.astype(np.float32)


def config_of(encoder: export.Encoder) -> ConfigDict:
    """The config of the run of an encoder; of a converted file, one that fits it.

    Raises:
        UserError: it holds what a config cannot.
    """
    stored = encoder.provenance.get("config")
    if stored is not None:
        config = config_lib.from_json(stored)
        config_lib.validate(config)
    else:
        names = ("name", "width", "spatial_strides", "temporal_strides", "epsilon")
        about = encoder.architecture
        names += tuple(name for name in OPTIONAL if name in about)
        config = ConfigDict({"task": encoder.head_task or "encoder", "init_from": ""})
        config.model = ConfigDict({name: about[name] for name in names})
        config.model.conv = "auto"
        config.clip = ConfigDict({"num_frames": Spec.frames, "size": Spec.size})
        config.clip.strides, config.clip.scales = (Spec.stride,), (Spec.scale,)
        config.clip.jitter, config.clip.flip = False, 0.0
        config.optimizer = {"accumulate": 1}
        config.head = {"dropout": 0.5, "init_std": 0.001}
    config.model.dtype = "auto"
    clips = {
        "num_clips": Spec.num_clips,
        "stride": Spec.stride,
        "scales": (Spec.scale,),
    }
    config.test = config.get("test", clips)
    config.probe = config.get(
        "probe",
        {
            **clips,
            "spatial_strides": (1, 2, 2, 2),
            "pool": Spec.pool,
            "pooling": Spec.pooling,
        },
    )
    if stored is None:
        config.update(config_lib.from_json(clip_fields.of(encoder.provenance)))
    return config
