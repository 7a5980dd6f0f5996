"""The training step of configs/ucf_r3d.py on a made-up batch.

Needs neither data nor TensorFlow: the batch has the shapes of the pipeline's.
"""

import argparse
import functools
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from configs import ucf_r3d
from ctp_jax.models import resnet3d
from ctp_jax.ops import colour
from ctp_jax.tasks import base, ctp
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import optimizer, state, step
from ctp_jax.train.epochs import Epochs

CANVAS = (144, 148)
"""Height and width to which windows of 192x144 frames (UCF-101) are padded."""

DRAWING, OPTIMISER = "drawing", "optimiser"
"""What JAX calls these parts of the step, so that a profile can tell them apart."""


def add_arguments(
    parser: argparse.ArgumentParser, models: Collection[str] = resnet3d.NAMES
) -> None:
    """The flags that say which step is run: those of `make_config` but for `conv`.

    Args:
        parser: gets them.
        models: that may be chosen.
    """
    cpu = jax.default_backend() == "cpu"
    add = parser.add_argument
    add("--model", choices=[*models], default="r3d18", help="network")
    dtypes = ("float32", "bfloat16")
    add("--dtype", choices=dtypes, default=dtypes[not cpu], help="of convolutions")
    add("--batch", type=int, default=2 if cpu else 32, help="clips")
    add("--width", type=float, default=1.0, help="of the network")
    add("--size", type=int, default=112, help="of a clip, in pixels")
    add("--frames", type=int, default=16, help="of a clip")


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
        size: side of a clip, in pixels.
        frames: of a clip.
    """
    config = ucf_r3d.get_config(f"backbone={model}")
    config.model.width = width
    config.model.dtype, config.model.conv = dtype, conv
    config.head.channels = max(8, int(512 * width))
    config.clip.size, config.clip.num_frames = size, frames
    config.batch_size = batch
    return config


def make_batch(
    config: ConfigDict, canvas: tuple[int, int] = CANVAS, seed: int = 0
) -> dict[str, Any]:
    """A batch of noise; for the game, with patches that move in straight lines: NumPy.

    Args:
        config: from `make_config`, or of finetuning.
        canvas: height and width of the windows.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    rows, frames = config.batch_size, config.clip.num_frames
    plan = _make_patches(config, rng) if "game" in config else {}
    plan |= {
        "brightness": rng.uniform(-30, 30, (rows, frames)),
        "contrast": rng.uniform(0.9, 1.1, (rows, frames)),
        "hue": rng.uniform(-24, 24, rows),
        "saturation": rng.uniform(0.9, 1.1, rows),
        "hue_saturation": rng.random(rows) < config.colour.hue_saturation,
    }
    batch = {
        "frames": rng.integers(0, 256, (rows, 1, frames, *canvas, 3), np.uint8),
        "extent": np.tile(np.float32(canvas), (rows, 1, 1)),
        "window": np.tile(np.float32([0, 0, canvas[0], canvas[0]]), (rows, 1, 1)),
        "flip": rng.random((rows, 1)) < config.clip.flip,
        "times": np.tile(np.arange(frames), (rows, 1, 1)),
        "choice": np.zeros((rows, 1), np.int32),
        "annotations": {},
        "label": np.zeros(rows, np.int32),
        "index": np.arange(rows),
        "mask": np.ones(rows),
        "replaced": np.zeros(rows),
        "plan": plan,
    }
    narrow = {np.dtype("float64"): np.float32, np.dtype("int64"): np.int32}
    return jax.tree.map(lambda x: x.astype(narrow.get(x.dtype, x.dtype)), batch)


def _make_patches(config, rng):
    """The part of the plan that says where patches are, and how they look."""
    rows, frames, size = config.batch_size, config.clip.num_frames, config.clip.size
    patches = config.game.num_trajectories
    side = rng.integers(size // 7, size // 2, (rows, patches, 1, 2))
    ends = [rng.uniform(0, size - side) for _ in range(2)]
    share = np.linspace(0, 1, frames)[:, None]
    low = np.floor(ends[0] * (1 - share) + ends[1] * share)
    return {
        "boxes": np.concatenate([low, low + side], axis=-1),
        "opacity": rng.uniform(*config.game.opacity, (rows, patches, frames)),
        "visible": rng.random((rows, patches, frames)) < config.game.visible,
        "edge": rng.uniform(0.3, 0.7, (rows, patches)),
        "source": rng.integers(0, frames, (rows, patches)),
        "shape": rng.integers(0, 3, (rows, patches)),
        "order": rng.permuted(np.tile(np.arange(patches), (rows, 1)), axis=1),
    }


def batch_spec(config: ConfigDict, canvas: tuple[int, int] = CANVAS) -> dict[str, Any]:
    """Shapes and types of a global batch."""
    one = config.copy_and_resolve_references()
    one.batch_size = 1
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((config.batch_size, *x.shape[1:]), x.dtype),
        make_batch(one, canvas),
    )


class Game(ctp.Task):
    """The game; its drawing has a name in the program."""

    def draw(self, batch):
        with jax.named_scope(DRAWING):
            return super().draw(batch)


class Program:
    """The training step of a config on a mesh, not compiled yet.

    Attributes:
        task: of the config.
        batch: shapes of a global batch.
        state: shapes of the training state.
    """

    def __init__(
        self,
        config: ConfigDict,
        mesh: Mesh,
        task: base.Task | None = None,
        batch: Any = None,
    ):
        """Traces the initial state.

        Args:
            config: from `make_config`; with the next two, of any task.
            mesh: what it runs on.
            task: of the config; None: the game.
            batch: one of its batches; None: one of `make_batch`.
        """
        self.task = Game(config) if task is None else task
        self.batch = batch_spec(config) if batch is None else _shapes(batch)
        schedule = optimizer.make_schedule(
            config.optimizer, Epochs(1000, config.batch_size), 1000
        )
        transformation = optimizer.make_optimizer(config.optimizer, schedule)
        initial = functools.partial(
            state.initial, self.task, transformation, batch=self.batch
        )
        self.state = jax.eval_shape(initial, jax.random.key(0))
        # On CPUs LLVM's usual optimisation of this one takes minutes.
        cpu = jax.default_backend() == "cpu"
        self._make = jax.jit(
            initial,
            out_shardings=mesh_lib.replicated(mesh),
            compiler_options={"xla_backend_optimization_level": 1} if cpu else {},
        )
        self._step = step.make_train_step(
            self.task, _named(transformation), schedule, config.seed, mesh
        )

    def make_state(self) -> state.TrainState:
        """The state before the first step, on the devices."""
        return self._make(jax.random.key(0))

    def lower(self) -> jax.stages.Lowered:
        """The training step, lowered."""
        return self._step.lower(self.state, self.batch)


def _shapes(batch):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)


def _named(transformation):
    def update(*arguments):
        with jax.named_scope(OPTIMISER):
            return transformation.update(*arguments)

    return optax.GradientTransformation(transformation.init, update)


class Running:
    """The training step on one device.

    Attributes:
        state: of the training; every step replaces it.
        compiled: the step's program.
    """

    def __init__(
        self,
        config: ConfigDict,
        batch: Mapping[str, Any],
        task: base.Task | None = None,
    ):
        """Makes the state and compiles the step.

        Args:
            config: see `Program`.
            batch: from `make_batch`, or of the task.
            task: see `Program`.
        """
        mesh = mesh_lib.one_device()
        program = Program(config, mesh, task, batch)
        self.state = program.make_state()
        self.compiled = program.lower().compile()
        self._batch = mesh_lib.put(batch, mesh)
        self._draw = jax.jit(
            lambda batch: colour.normalize(program.task.draw(batch)[:, 0])
        )

    def step(self, times: int = 1) -> tuple[float, float]:
        """Loss and norm of the gradients, of the last of so many steps."""
        for _ in range(times):
            self.state, metrics = self.compiled(self.state, self._batch)
        jax.block_until_ready(self.state)
        return float(metrics["loss"]), float(metrics["grad_norm"])

    def draw(self, times: int = 1) -> jax.Array:
        """The normalised clips, float32 (b, t, s, s, 3), drawn so many times."""
        for _ in range(times):
            clips = self._draw(self._batch)
        return jax.block_until_ready(clips)

    def temporary_bytes(self) -> int:
        """What a step needs beside state and batch, by the compiler's plan."""
        return self.compiled.memory_analysis().temp_size_in_bytes
