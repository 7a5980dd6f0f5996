"""A loader as one would write it with OpenCV, NumPy and PyTorch's DataLoader.

Everything on the host, one clip after the other: read the record, decode and resize
whole frames, crop, paste, colour, normalise. It reads the records of ctp_jax, and pastes
and colours by plans of ctp_jax that were made before: it is charged for neither.
"""

import cv2
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from ctp_jax.data import rng as rng_lib
from ctp_jax.ops.colour import MEAN, STD
from tests import opencv_drawing


class Usual:
    """Clips of one split: what PyTorch calls a map-style data set.

    Item i is random but for its seed, i; normalised, float32 (t, s, s, 3), with its
    boxes, float32 (n, t, 4).
    """

    def __init__(self, config: ConfigDict, opened, plans: list[dict]):
        """Takes a config, `ctp_jax.data.records.Records` and `make_plans`'s plans."""
        self._config, self._opened, self._plans = config.clip, opened, plans

    def __len__(self):
        return 1 << 40

    def __getitem__(self, number):
        rng = np.random.default_rng(number)
        encoded = self._frames(rng.integers(len(self._opened)))
        clip = self._cut(encoded, rng)
        plan = self._plans[number % len(self._plans)]
        clip = opencv_drawing.paste(clip.astype(np.float32), plan)
        clip = opencv_drawing.change_colours(clip, plan)
        return ((clip / 255 - MEAN) / STD).astype(np.float32), plan["boxes"]

    def _frames(self, number):
        opened = self._opened
        with open(opened.files[opened.file_index[number]], "rb") as file:
            file.seek(opened.offset[number])
            payload = file.read(opened.length[number])
        feature = tf.train.Example.FromString(payload).features.feature
        return feature[opened.frames_feature].bytes_list.value

    def _cut(self, encoded, rng):
        """Frames at random times, resized and cropped, uint8 (t, s, s, 3)."""
        config = self._config
        stride = rng.choice(config.strides)
        span = stride * (config.num_frames - 1) + 1
        start = rng.integers(max(len(encoded) - span, 0) + 1)
        times = start + stride * np.arange(config.num_frames)
        times += rng.integers(stride, size=len(times))
        frames = [decode(encoded[t]) for t in np.minimum(times, len(encoded) - 1)]
        height, width = frames[0].shape[:2]
        scale = rng.choice(config.scales) / min(height, width)
        size = round(width * scale), round(height * scale)
        x = rng.integers(size[0] - config.size + 1)
        y = rng.integers(size[1] - config.size + 1)
        crop = np.s_[y : y + config.size, x : x + config.size]
        clip = np.stack([cv2.resize(frame, size)[crop] for frame in frames])
        return clip[:, :, ::-1] if rng.random() < config.flip else clip


def decode(data: bytes) -> np.ndarray:
    """One whole frame, uint8 (h, w, 3), RGB."""
    frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def make_plans(task, count: int) -> list[dict]:
    """So many random plans of a task, each a dict of arrays."""
    numbers = rng_lib.count_uniforms(lambda d: task.plan(d, {}, True))
    uniforms = np.random.default_rng(0).random((count, numbers), np.float32)
    plan = tf.function(lambda u: task.plan(rng_lib.Rng(u), {}, True), autograph=False)(
        tf.constant(uniforms)
    )
    plan = {name: value.numpy() for name, value in plan.items()}
    return [{name: v[i] for name, v in plan.items()} for i in range(count)]


def batches(usual: Usual, batch: int, workers: int):
    """Batches without end.

    Args:
        usual: the clips.
        batch: clips in one.
        workers: processes of a `torch.utils.data.DataLoader`; 0: a loop without PyTorch.
    """
    if not workers:
        number = 0
        while True:
            items = [usual[number + i] for i in range(batch)]
            number += batch
            yield [np.stack(part) for part in zip(*items, strict=True)]
    import torch

    loader = torch.utils.data.DataLoader(
        usual,
        batch_size=batch,
        sampler=range(1 << 40),
        num_workers=workers,
        worker_init_fn=_one_thread,
        # Not forked: this process has run TensorFlow, whose locks a fork would copy.
        multiprocessing_context="spawn",
    )
    yield from loader


def _one_thread(worker):
    import torch

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
