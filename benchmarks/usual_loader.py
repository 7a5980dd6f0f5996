"""A loader as one would write it with OpenCV, NumPy and PyTorch's DataLoader.

Everything on the host, one clip after the other: read the record, decode and resize
whole frames, crop, paste, colour, normalise. It reads the records of ctp_jax, and pastes
and colours by plans of ctp_jax that were made before: it is charged for neither.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from ctp_jax.data.records import Records
from ctp_jax.ops.colour import MEAN, STD
from tests import opencv_drawing

# Frames are too small to be shared out; each process has a core.
cv2.setNumThreads(0)


class Usual:
    """Clips of one split: what PyTorch calls a map-style data set.

    Item i is random but for its seed, i; normalised, float32 (t, s, s, 3), with its
    boxes, float32 (n, t, 4).
    """

    def __init__(self, config: ConfigDict, opened: Records, plans: list[dict]):
        """Takes `config.clip`, an opened split and plans, see `plans_of`."""
        self._config, self._opened, self._plans = config, opened, plans

    def __len__(self):
        return 1 << 40

    def __getitem__(self, number):
        rng = np.random.default_rng(number)
        clip = self._cut(self.frames(number), rng)
        plan = self._plans[number % len(self._plans)]
        clip = opencv_drawing.paste(clip.astype(np.float32), plan)
        clip = opencv_drawing.change_colours(clip, plan)
        return ((clip / 255 - MEAN) / STD).astype(np.float32), plan["boxes"]

    def frames(self, number):
        """Whole frames at random times, uint8 (h, w, 3), RGB."""
        rng = np.random.default_rng([number, 1])
        encoded = self._read(rng.integers(len(self._opened)))
        config = self._config
        stride = rng.choice(config.strides)
        span = stride * (config.num_frames - 1) + 1
        start = rng.integers(max(len(encoded) - span, 0) + 1)
        times = start + stride * np.arange(config.num_frames)
        times += rng.integers(stride, size=len(times))
        return [_decode(encoded[t]) for t in np.minimum(times, len(encoded) - 1)]

    def _read(self, number):
        opened = self._opened
        with open(opened.files[opened.file_index[number]], "rb") as file:
            file.seek(opened.offset[number])
            payload = file.read(opened.length[number])
        feature = tf.train.Example.FromString(payload).features.feature
        return feature[opened.features.frames].bytes_list.value

    def _cut(self, frames, rng):
        """Frames resized and cropped, uint8 (t, s, s, 3)."""
        config = self._config
        height, width = frames[0].shape[:2]
        scale = rng.choice(config.scales) / min(height, width)
        size = round(width * scale), round(height * scale)
        x = rng.integers(size[0] - config.size + 1)
        y = rng.integers(size[1] - config.size + 1)
        crop = np.s_[y : y + config.size, x : x + config.size]
        clip = np.stack([cv2.resize(frame, size)[crop] for frame in frames])
        return clip[:, :, ::-1] if rng.random() < config.flip else clip


def _decode(data):
    frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def plans_of(batches: Iterable[dict[str, Any]]) -> list[dict[str, np.ndarray]]:
    """The plans of all clips of these batches of `ctp_jax.data.pipeline`."""
    return [
        {name: value[row] for name, value in batch["plan"].items()}
        for batch in batches
        for row in range(len(batch["mask"]))
    ]


def loop(usual: Usual, batch: int) -> Iterator[list[np.ndarray]]:
    """Batches without end, made in this process."""
    number = 0
    while True:
        items = [usual[number + i] for i in range(batch)]
        number += batch
        yield [np.stack(part) for part in zip(*items, strict=True)]


def decoding_alone(usual: Usual, batch: int) -> Iterator[None]:
    """Reads and decodes the frames of batches without end, and drops them."""
    number = 0
    while True:
        for i in range(batch):
            usual.frames(number + i)
        number += batch
        yield None


def data_loader(usual: Usual, batch: int, workers: int) -> Iterable:
    """Batches without end, made by so many processes of PyTorch."""
    import torch

    return torch.utils.data.DataLoader(
        usual,
        batch_size=batch,
        sampler=range(len(usual)),
        num_workers=workers,
        worker_init_fn=_one_thread,
        # Not forked: this process has run TensorFlow, whose locks a fork would copy.
        multiprocessing_context="spawn",
    )


def _one_thread(worker):
    import torch

    torch.set_num_threads(1)
