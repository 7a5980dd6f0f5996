"""A loader as the paper's authors have it: zips of JPEGs, OpenCV, NumPy, DataLoader.

Everything on the host, one clip after the other: frames are read one by one out of the
video's zip, decoded and resized whole, cropped and flipped as uint8, pasted and coloured
(through uint8 HSV), and at last normalised, channels first. The plans of what is pasted
where are those of ctp_jax, made before: it is not charged for them.
"""

import pathlib
import zipfile
from collections.abc import Callable, Iterable, Iterator
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

FRAME = "img_{:05d}.jpg"


def store_zips(opened: Records, folder: pathlib.Path, videos: int) -> list[str]:
    """Writes the frames of the first so many videos of a split, a zip each.

    Returns:
        The paths of the zips.
    """
    paths = []
    for number in range(min(videos, len(opened))):
        with open(opened.files[opened.file_index[number]], "rb") as file:
            file.seek(opened.offset[number])
            payload = file.read(opened.length[number])
        feature = tf.train.Example.FromString(payload).features.feature
        paths.append(str(folder / f"{number}.zip"))
        with zipfile.ZipFile(paths[-1], "w") as stored:
            frames = feature[opened.features.frames].bytes_list.value
            for count, frame in enumerate(frames, start=1):
                stored.writestr(FRAME.format(count), frame)
    return paths


def decode_opencv(data: bytes) -> np.ndarray:
    """A frame, uint8 (h, w, 3), BGR."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def fastest_decoder() -> tuple[str, Callable[[bytes], np.ndarray]]:
    """Name and function of libjpeg-turbo's thinnest wrapper, if it is installed."""
    try:
        import simplejpeg
    except ImportError:
        return "OpenCV", decode_opencv
    return "simplejpeg", lambda data: simplejpeg.decode_jpeg(data, "BGR")


class Usual:
    """Clips of one split: what PyTorch calls a map-style data set.

    Item i is random but for its seed, i; normalised, float32 (3, t, s, s), with its
    boxes, float32 (n, t, 4).
    """

    def __init__(self, config: ConfigDict, zips: list[str], plans: list[dict]):
        """Takes `config.clip`, and what `store_zips` and `plans_of` return."""
        self._config, self._zips, self._plans = config, zips, plans

    def __len__(self):
        return 1 << 40

    def __getitem__(self, number):
        rng = np.random.default_rng(number)
        clip = self._cut(self.frames(number), rng)
        plan = self._plans[number % len(self._plans)]
        clip = change_colours(paste(clip, plan), plan)
        return normalise(clip), plan["boxes"]

    def frames(self, number, decode=decode_opencv):
        """Whole frames at random times, uint8 (h, w, 3), BGR."""
        rng = np.random.default_rng([number, 1])
        config = self._config
        with zipfile.ZipFile(self._zips[rng.integers(len(self._zips))]) as video:
            count = sum(name.endswith(".jpg") for name in video.namelist())
            stride = rng.choice(config.strides)
            span = stride * (config.num_frames - 1) + 1
            times = rng.integers(max(count - span, 0) + 1)
            times = times + stride * np.arange(config.num_frames)
            times += rng.integers(stride, size=len(times))
            times = np.minimum(times, count - 1)
            return [decode(video.read(FRAME.format(t + 1))) for t in times]

    def _cut(self, frames, rng):
        """Frames resized, cropped and flipped, each uint8 (s, s, 3)."""
        config = self._config
        height, width = frames[0].shape[:2]
        scale = rng.choice(config.scales) / min(height, width)
        size = round(width * scale), round(height * scale)
        x = rng.integers(size[0] - config.size + 1)
        y = rng.integers(size[1] - config.size + 1)
        crop = np.s_[y : y + config.size, x : x + config.size]
        clip = [cv2.resize(frame, size)[crop] for frame in frames]
        if rng.random() < config.flip:
            clip = [frame[:, ::-1] for frame in clip]
        return clip


def paste(clip: list[np.ndarray], plan: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The patches of a plan, on uint8 frames."""
    pasted = [frame.copy() for frame in clip]
    for n in plan["order"]:
        boxes = plan["boxes"][n].astype(int)
        source = plan["source"][n]
        x1, y1, x2, y2 = boxes[source]
        patch = clip[source][y1:y2, x1:x2]
        mask = opencv_drawing.mask_of(
            x2 - x1, y2 - y1, plan["shape"][n], plan["edge"][n]
        )
        for t, (x1, y1, x2, y2) in enumerate(boxes):
            if not plan["visible"][n, t]:
                continue
            alpha = cv2.resize(mask, (x2 - x1, y2 - y1))[..., None]
            alpha = alpha * plan["opacity"][n, t]
            place = pasted[t][y1:y2, x1:x2]
            place[:] = (
                place * (1 - alpha) + cv2.resize(patch, place.shape[1::-1]) * alpha
            )
    return pasted


def change_colours(clip: list[np.ndarray], plan: dict[str, Any]) -> list[np.ndarray]:
    """The colours of a plan: hue and saturation of uint8, brightness and contrast."""
    if plan["hue_saturation"]:
        clip = [_change_hue(frame, plan["hue"], plan["saturation"]) for frame in clip]
    if plan["brightness"].any():
        levels = zip(clip, plan["brightness"], strict=True)
        clip = [np.clip(frame + level, 0, 255) for frame, level in levels]
    if (plan["contrast"] != 1).any():
        factors = zip(clip, plan["contrast"], strict=True)
        clip = [np.clip(frame * factor, 0, 255) for frame, factor in factors]
    return clip


def _change_hue(frame, hue, saturation):
    hsv = cv2.cvtColor(frame, cv2.COLOR_BGR2HSV).astype(np.float32)
    hsv[..., 0] = np.clip(hsv[..., 0] + hue / 2, 0, 179)  # in steps of two degrees
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 255)
    return cv2.cvtColor(np.round(hsv).astype(np.uint8), cv2.COLOR_HSV2BGR)


def normalise(clip: list[np.ndarray]) -> np.ndarray:
    """RGB, float32 (3, t, s, s)."""
    array = np.stack(clip).astype(np.float32)
    array = np.ascontiguousarray(array.transpose(3, 0, 1, 2)[::-1])
    array /= 255
    for channel, mean, std in zip(array, MEAN, STD, strict=True):
        channel -= mean
        channel /= std
    return array


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


def decoding_alone(
    usual: Usual, batch: int, decode: Callable[[bytes], np.ndarray]
) -> Iterator[None]:
    """Reads and decodes the frames of batches without end, and drops them."""
    number = 0
    while True:
        for i in range(batch):
            usual.frames(number + i, decode)
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
