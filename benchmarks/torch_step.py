"""The pretraining step in plain PyTorch: the peer of benchmarks/train_step.py.

Encoder, head with RoIAlign, smooth L1, clipping, SGD with momentum, as people write it.
It does less than ours: the clip is there already, drawn, normalised and on the device;
no check for NaN, no IoU; and with autocast its head computes in bfloat16, ours does not.
"""

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading

import numpy as np
import torch
import torch._dynamo
from torch import nn
from torch.nn import functional

from ctp_jax import models
from tests.models import torch_networks

FORMATS = {
    "contiguous": torch.contiguous_format,
    "channels_last_3d": torch.channels_last_3d,
}
COMPILED = {"eager": None, "compile": "default", "max-autotune": "max-autotune"}


@dataclasses.dataclass(frozen=True)
class Variant:
    """A way to run it.

    Attributes:
        peer: one of COMPILED.
        layout: one of FORMATS.
        bfloat16: under autocast.
        tf32: let float32 products be TF32, which GPUs alone have.
    """

    peer: str
    layout: str
    bfloat16: bool = False
    tf32: bool = False

    @property
    def name(self) -> str:
        return f"torch {self.peer} {self.layout}" + " TF32" * self.tf32


def begin():
    """Forgets what was compiled before and gives its memory back."""
    torch.compiler.reset()
    # All variants compile the same function, and past a limit would run eagerly.
    for name in ("recompile_limit", "cache_size_limit"):
        if hasattr(torch._dynamo.config, name):
            setattr(torch._dynamo.config, name, 100)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_beside(backend: str) -> bool:
    """Whether PyTorch would run on the device that JAX runs on."""
    return torch.cuda.is_available() == (backend == "gpu")


def variants(dtype: str, peers: list[str], layouts: list[str]) -> list[Variant]:
    """All of a dtype; on GPUs float32 twice, without TF32 and with it."""
    found = []
    for peer in peers:
        for layout in layouts:
            found.append(Variant(peer, layout, dtype == "bfloat16"))
            if dtype == "float32" and torch.cuda.is_available():
                found.append(Variant(peer, layout, tf32=True))
    return found


class Network(nn.Module):
    """Encoder, head and loss."""

    def __init__(self, config, params):
        super().__init__()
        model = config.model
        ours = models.create(model)
        self.encoder = torch_networks.residual(
            model.name,
            ours.channels(),
            model.spatial_strides,
            model.temporal_strides,
            ours.stem_mid,
        )
        self.roi, self.points = config.head.roi_size, config.head.sampling_ratio
        self.stride = ours.total_stride()[1]
        scale = torch.tensor(config.head.target_scale)
        self.register_buffer("scale", scale)
        steps, _, _, channels, hidden = params["head"]["temporal"]["kernel"].shape
        self.temporal = nn.Conv3d(channels, hidden, (steps, 1, 1))
        self.dense1 = nn.Linear(hidden * self.roi**2, hidden)
        self.dense2 = nn.Linear(hidden, config.clip.num_frames * 4)

    def forward(self, clip, boxes):
        """Loss of normalised clips (b, 3, t, s, s) and boxes (b, n, t, 4)."""
        maps = torch.relu(self.temporal(self.encoder(clip)).squeeze(2))
        pooled = roi_align(maps, boxes[:, :, 0], self.roi, self.stride, self.points)
        hidden = torch.relu(self.dense1(pooled.flatten(2)))
        deltas = self.dense2(hidden).float().unflatten(2, (-1, 4))
        error = deltas - self.targets(boxes)
        loss = functional.smooth_l1_loss(
            error, torch.zeros_like(error), reduction="sum"
        )
        return loss / error[..., 0].numel()

    def targets(self, boxes):
        low, high = boxes[..., :2], boxes[..., 2:]
        centre, size = (low + high) / 2, (high - low).clamp(min=1).log()
        boxes = torch.cat([centre, size], dim=-1)
        return (boxes - boxes[:, :, :1]) / self.scale


def roi_align(maps, boxes, bins, stride, samples):
    """RoIAlign of boxes that lie in the clip, by `grid_sample`.

    Args:
        maps: features, (b, c, h, w).
        boxes: (b, n, 4), pixels of the clip.
        bins: along each axis.
        stride: pixels per feature.
        samples: along each axis of a bin.

    Returns:
        (b, n, c, bins, bins).
    """
    (height, width), count = maps.shape[2:], boxes.shape[1]
    points = bins * samples
    low, high = (boxes / stride - 0.5).split(2, dim=-1)
    steps = (torch.arange(points, device=boxes.device) + 0.5) / points
    places = low[..., None] + (high - low)[..., None] * steps
    # In grid_sample's units: -1 and 1 are the centres of the outer pixels.
    x = 2 * places[..., 0, :] / (width - 1) - 1
    y = 2 * places[..., 1, :] / (height - 1) - 1
    shape = (*x.shape, points)
    grid = [x[:, :, None].expand(shape), y[..., None].expand(shape)]
    grid = torch.stack(grid, dim=-1).flatten(1, 2)
    read = functional.grid_sample(maps, grid, padding_mode="border", align_corners=True)
    read = functional.avg_pool2d(read, samples)
    return read.unflatten(2, (count, bins)).transpose(1, 2)


def load(network, state):
    """Copies parameters and statistics of our training state."""
    params = state.params
    stats = state.model_state["batch_stats"]["encoder"]
    torch_networks.load(network.encoder, params["encoder"], stats)
    head = {
        name: {key: np.array(value) for key, value in layer.items()}
        for name, layer in params["head"].items()
    }
    temporal = head["temporal"]["kernel"].transpose(4, 3, 0, 1, 2)
    # torch flattens channel, row, column: its first linear layer is ours, permuted.
    side, hidden = network.roi, temporal.shape[0]
    first = head["dense1"]["kernel"].reshape(side, side, hidden, -1)
    weights = {
        "temporal": temporal,
        "dense1": first.transpose(3, 2, 0, 1).reshape(-1, side * side * hidden),
        "dense2": head["dense2"]["kernel"].T,
    }
    for name, weight in weights.items():
        layer = getattr(network, name)
        layer.weight.data.copy_(torch.tensor(weight.copy()))
        layer.bias.data.copy_(torch.tensor(head[name]["bias"]))


class Step:
    """Training step of one variant.

    Attributes:
        network: with its parameters.
    """

    def __init__(self, variant, config, state, clips, boxes):
        """Copies everything to the device.

        Args:
            variant: how to run it.
            config: of our run.
            state: our training state, whose parameters it starts from.
            clips: normalised, (b, t, s, s, 3).
            boxes: of the plan, (b, n, t, 4).
        """
        self.variant = variant
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        # Where shapes never change, the search for the fastest algorithm pays.
        torch.backends.cudnn.benchmark = True
        layout = FORMATS[variant.layout]
        network = Network(config, state.params)
        load(network, state)
        self.network = network.to(self._device).to(memory_format=layout).train()
        clip = torch_networks.channels_first(clips).to(self._device)
        self._clip = clip.contiguous(memory_format=layout)
        self._boxes = torch.tensor(np.array(boxes), device=self._device)
        mode = COMPILED[variant.peer]
        self._call = self.network
        if mode:
            # One shape, so that the code is made for it.
            self._call = torch.compile(self.network, mode=mode, dynamic=False)
        options = config.optimizer
        self._clip_norm = options.clip_norm
        self._optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            fused=True,
        )

    def _loss(self):
        autocast = (
            torch.autocast(self._device, torch.bfloat16)
            if self.variant.bfloat16
            else contextlib.nullcontext()
        )
        with autocast:
            return self._call(self._clip, self._boxes)

    def step(self, times=1):
        """Loss and norm of the gradients, of the last of so many steps."""
        with self._precision():
            for _ in range(times):
                self._optimizer.zero_grad(set_to_none=True)
                loss = self._loss()
                loss.backward()
                norm = nn.utils.clip_grad_norm_(
                    self.network.parameters(), self._clip_norm
                )
                self._optimizer.step()
            return self._wait(loss), float(norm)

    def temporary_bytes(self):
        """What a step needs beside what stays, gradients included; None on a CPU."""
        if self._device == "cpu":
            return None
        self._optimizer.zero_grad(set_to_none=True)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.step()
        return torch.cuda.max_memory_allocated() - before

    def _wait(self, loss):
        if self._device == "cuda":
            torch.cuda.synchronize()
        return float(loss.detach())

    @contextlib.contextmanager
    def _precision(self):
        """Flags of the process: other variants have others."""
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = cudnn.allow_tf32 = self.variant.tf32
        try:
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before


class Apart:
    """A `Step` in a process of its own, as users run it, for CPUs.

    In one process with JAX, each would find the memory as the other has left it: a thin
    network's step of ours took 1.4 times as long beside PyTorch's compiled ones. On GPUs,
    twelve processes would each hold what one step needs.
    """

    def __init__(self, *arguments):
        """Takes the arguments of `Step`."""
        context = multiprocessing.get_context("spawn")
        self._process = concurrent.futures.ProcessPoolExecutor(
            1, context, initializer=_end_with_parent
        )
        self._process.submit(_make, *arguments).result()

    def step(self, times=1):
        """See `Step`."""
        return self._process.submit(_call, "step", times).result()

    def temporary_bytes(self):
        """See `Step`."""
        return self._process.submit(_call, "temporary_bytes").result()


def _end_with_parent():
    """Ends this process when its parent ends, however that is, and not by Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


_here: list[Step] = []
"""In the process of an `Apart`: its step."""


def _make(*arguments):
    _here.append(Step(*arguments))


def _call(name, *arguments):
    return getattr(_here[0], name)(*arguments)
