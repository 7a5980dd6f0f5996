"""The training step of configs/ucf_r3d.py, as the benchmarks that count or time it use it.

Needs neither data nor TensorFlow: a batch is made up, in the shapes of the pipeline's.
"""

import contextlib
import functools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from configs import ucf_r3d
from ctp_jax.ops import colour
from ctp_jax.tasks import ctp
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import optimizer, state, step
from ctp_jax.train.epochs import Epochs

CANVAS = (144, 148)
"""Height and width to which windows of 192x144 frames (UCF-101) are padded."""

DRAWN_FROM = ("frames", "extent", "window", "flip")
"""What of a batch only the drawing reads."""


def make_config(
    model: str,
    batch: int,
    dtype: str = "auto",
    width: float = 1.0,
    conv: str = "auto",
    size: int = 112,
    frames: int = 16,
) -> ConfigDict:
    """configs/ucf_r3d.py with another network.

    Args:
        model: `config.model.name`.
        batch: clips of a global batch.
        dtype: `config.model.dtype`.
        width: of the encoder, and of its head in proportion.
        conv: `config.model.conv`.
        size: side of the clips.
        frames: of a clip.
    """
    config = ucf_r3d.get_config()
    config.model.name, config.model.width = model, width
    config.model.dtype, config.model.conv = dtype, conv
    config.head.channels = max(8, int(512 * width))
    config.clip.size, config.clip.num_frames = size, frames
    config.batch_size = batch
    return config


class Given(ctp.Task):
    """The game without its drawing: clips are given, grey levels, as `clips`."""

    def draw(self, batch):
        return batch["clips"]


def batch_spec(config, canvas=CANVAS, given=False):
    """Shapes and types of a global batch with its stop votes, as the pipeline has it.

    Args:
        config: from `make_config`.
        canvas: height and width of the windows.
        given: what `Given` reads.
    """
    rows, frames, size = config.batch_size, config.clip.num_frames, config.clip.size
    patches = config.game.num_trajectories

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct((rows, *shape), dtype)

    real, whole, truth = jnp.float32, jnp.int32, jnp.bool_
    plan = {
        "boxes": array(real, patches, frames, 4),
        "opacity": array(real, patches, frames),
        "visible": array(truth, patches, frames),
        "edge": array(real, patches),
        **{name: array(whole, patches) for name in ("source", "shape", "order")},
        **{name: array(real, frames) for name in ("brightness", "contrast")},
        **{name: array(real) for name in ("hue", "saturation")},
        "hue_saturation": array(truth),
    }
    spec = {
        "frames": array(jnp.uint8, 1, frames, *canvas, 3),
        "extent": array(real, 1, 2),
        "window": array(real, 1, 4),
        "flip": array(truth, 1),
        "times": array(whole, 1, frames),
        **{name: array(whole) for name in ("label", "index")},
        **{name: array(real) for name in ("mask", "replaced")},
        "plan": plan,
    }
    if given:
        spec = {name: spec[name] for name in spec if name not in DRAWN_FROM}
        spec["clips"] = array(real, frames, size, size, 3)
    return spec


def make_batch(config, canvas=CANVAS, seed=0):
    """A made-up batch of `batch_spec`: noise, and patches that move in straight lines."""
    rng = np.random.default_rng(seed)
    rows, frames, size = config.batch_size, config.clip.num_frames, config.clip.size
    patches = config.game.num_trajectories
    side = rng.integers(size // 7, size // 2, (rows, patches, 1, 2))
    ends = [rng.uniform(0, size - side) for _ in range(2)]
    share = np.linspace(0, 1, frames)[:, None]
    low = np.floor(ends[0] * (1 - share) + ends[1] * share)
    batch = {
        "frames": rng.integers(0, 256, (rows, 1, frames, *canvas, 3)),
        "extent": np.tile(canvas, (rows, 1, 1)),
        "window": np.tile([0, 0, canvas[0], canvas[0]], (rows, 1, 1)),
        "flip": rng.random((rows, 1)) < config.clip.flip,
        "times": np.tile(np.arange(frames), (rows, 1, 1)),
        "label": np.zeros(rows),
        "index": np.arange(rows),
        "mask": np.ones(rows),
        "replaced": np.zeros(rows),
        "plan": {
            "boxes": np.concatenate([low, low + side], axis=-1),
            "opacity": rng.uniform(*config.game.opacity, (rows, patches, frames)),
            "visible": rng.random((rows, patches, frames)) < config.game.visible,
            "edge": rng.uniform(0.3, 0.7, (rows, patches)),
            "source": rng.integers(0, frames, (rows, patches)),
            "shape": rng.integers(0, 3, (rows, patches)),
            "order": rng.permuted(np.tile(np.arange(patches), (rows, 1)), axis=1),
            "brightness": rng.uniform(-30, 30, (rows, frames)),
            "contrast": rng.uniform(0.9, 1.1, (rows, frames)),
            "hue": rng.uniform(-24, 24, rows),
            "saturation": rng.uniform(0.9, 1.1, rows),
            "hue_saturation": rng.random(rows) < config.colour.hue_saturation,
        },
    }
    spec = batch_spec(config, canvas)
    return jax.tree.map(lambda x, like: np.asarray(x, like.dtype), batch, spec)


def without_drawing(batch, clips):
    """The batch that `Given` reads: these clips instead of what they are drawn from."""
    rest = {name: value for name, value in batch.items() if name not in DRAWN_FROM}
    return rest | {"clips": clips}


class Step:
    """The training step, not compiled yet.

    Attributes:
        task: of the config; `Given` if the clips are given.
        batch: shapes of a global batch.
        state: shapes of the training state.
        train_step: from `ctp_jax.train.step`.
        forward: (state, batch) -> loss and statistics of the batch, no gradient.
        draw: batch -> normalised clips in the encoder's dtype.
    """

    def __init__(
        self,
        config: ConfigDict,
        mesh: Mesh,
        canvas: tuple[int, int] = CANVAS,
        given: bool = False,
        traced_as: str = "",
    ):
        """Builds the programs.

        Args:
            config: from `make_config`.
            mesh: what they run on.
            canvas: height and width of the windows.
            given: leave the drawing out.
            traced_as: choose the formulations for this backend, 'gpu' or 'tpu',
                whatever the programs are compiled for; empty: for the default one.
        """
        self._traced_as = traced_as
        with self.tracing():
            self.task = (Given if given else ctp.Task)(config)
        schedule = optimizer.make_schedule(
            config.optimizer, Epochs(1000, config.batch_size), 1000
        )
        transformation = optimizer.make_optimizer(config.optimizer, schedule)
        self.batch = batch_spec(config, canvas, given)
        self._initial = functools.partial(
            state.initial, self.task, transformation, batch=self.batch
        )
        with self.tracing():
            self.state = jax.eval_shape(self._initial, jax.random.key(0))
        self.train_step = step.make_train_step(
            self.task, transformation, schedule, config.seed, mesh
        )
        split, whole = mesh_lib.over_batch(mesh), mesh_lib.replicated(mesh)
        self.forward = jax.jit(
            self._forward, in_shardings=(whole, split), out_shardings=whole
        )
        self.draw = jax.jit(self._draw, in_shardings=split, out_shardings=split)
        self._make = jax.jit(self._initial, out_shardings=whole)

    def _forward(self, parts, batch):
        rng = step.stream_key(0, "loss")
        loss, out = self.task.loss(parts.params, parts.model_state, batch, rng)
        return loss, out.model_state

    def _draw(self, batch):
        clips = colour.normalize(self.task.draw(batch))
        return clips.astype(self.task._encoder.dtype)

    def make_state(self, seed: int = 0) -> Any:
        """The state before the first step, on the devices."""
        with self.tracing():
            return self._make(jax.random.key(seed))

    def tracing(self):
        """Within this, what is traced is traced as it was asked for."""
        if not self._traced_as:
            return contextlib.nullcontext()
        return mock.patch.object(jax, "default_backend", return_value=self._traced_as)

    def lower(self):
        """The training step, lowered."""
        with self.tracing():
            return self.train_step.lower(self.state, self.batch)


class Running:
    """Forward pass and training step on one device.

    Attributes:
        program: a `Step`.
        state: of the training; every step replaces it.
        batch: on the device.
    """

    def __init__(self, config: ConfigDict, batch: Any, state: Any = None):
        """Makes the state; nothing else is compiled yet.

        Args:
            config: from `make_config`.
            batch: NumPy arrays; with `clips` the drawing is left out.
            state: instead of a fresh one.
        """
        mesh = mesh_lib.one_device()
        self.program = Step(config, mesh, given="clips" in batch)
        self.state = self.program.make_state() if state is None else state
        self.batch = mesh_lib.put(batch, mesh)
        self._compiled = {}

    def forward(self, times: int = 1) -> tuple[float]:
        """The loss, training mode, no gradient; computed so many times."""
        call = self.compile("forward")
        for _ in range(times):
            loss, _ = call(self.state, self.batch)
        return (float(loss),)

    def step(self, times: int = 1) -> tuple[float, float]:
        """Loss and norm of the gradients, of the last of so many steps."""
        call = self.compile("step")
        for _ in range(times):
            self.state, metrics = call(self.state, self.batch)
        jax.block_until_ready(self.state)
        return float(metrics["loss"]), float(metrics["grad_norm"])

    def draw(self, times: int = 1) -> jax.Array:
        """The clips, drawn so many times."""
        call = self.compile("draw")
        for _ in range(times):
            clips = call(self.batch)
        return jax.block_until_ready(clips)

    def compile(self, phase: str) -> Any:
        """The compiled program of a phase, 'forward', 'step' or 'draw'."""
        if phase not in self._compiled:
            program = self.program
            lowered = {
                "forward": lambda: program.forward.lower(self.state, self.batch),
                "step": lambda: program.train_step.lower(self.state, self.batch),
                "draw": lambda: program.draw.lower(self.batch),
            }[phase]()
            self._compiled[phase] = lowered.compile()
        return self._compiled[phase]

    def memory(self, phase: str) -> int:
        """Bytes by the compiler's plan: arguments, temporaries, results."""
        return planned_memory(self.compile(phase))["total"]

    def size(self) -> int:
        """Bytes of state and batch."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves((self.state, self.batch)))


def planned_memory(compiled: Any) -> dict[str, int]:
    """Bytes of the compiler's plan for a program, per device."""
    plan = compiled.memory_analysis()
    own = plan.output_size_in_bytes - plan.alias_size_in_bytes
    return {
        "arguments": plan.argument_size_in_bytes,
        "temporary": plan.temp_size_in_bytes,
        "donated": plan.alias_size_in_bytes,
        "total": plan.argument_size_in_bytes + plan.temp_size_in_bytes + own,
    }


def device_memory() -> tuple[int, int] | None:
    """Bytes in use and at most in use on the first device; None where not counted."""
    found = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" not in found:
        return None
    return found["bytes_in_use"], found["peak_bytes_in_use"]
