"""Compares the ways to compute optical flow on textures whose motion is known.

    python -m benchmarks.flow

Prints a row per motion: for each method the mean error of both components, in pixels, as
it is read back from the JPEG files, and the time per frame on one core. The texture is
smooth, with a grain of 8 pixels, and moves as a whole.
"""

import time

import numpy as np
from PIL import Image

from benchmarks import measure
from ctp_jax import flow
from ctp_jax.prepare import stored, textures, video

MOTIONS = ((0.0, 0.0), (1.3, -0.6), (3.7, 2.2), (8.4, -5.1), (14.0, 3.0))
HEIGHT, WIDTH, MARGIN, GRAIN = 144, 192, 40, 8.0
BOUND, QUALITY = 20.0, 90
"""The defaults of `python -m ctp_jax.prepare flow`."""


def make_frames(motion: tuple[float, float], count: int = 3) -> np.ndarray:
    """uint8 (count, h, w, 3); each frame has moved by (x, y) pixels from the last."""
    rng, size = np.random.default_rng(0), (HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN)
    grey = 128 + 100 * textures.noise(rng, *size, GRAIN)
    wide = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")
    frames = []
    for number in range(count):
        x, y = (MARGIN - number * each for each in motion)
        way = Image.Transform.AFFINE, (1, 0, x, 0, 1, y), Image.Resampling.BICUBIC
        frames.append(np.asarray(wide.transform((WIDTH, HEIGHT), *way)))
    return np.stack(frames)


def measure_one(motion: tuple[float, float], method: str) -> tuple[float, float]:
    """(mean error in pixels, milliseconds of a frame)."""
    frames, start = make_frames(motion), time.process_time()
    motions = list(flow.compute(frames, method))[:-1]  # the last is a repetition
    each = 1e3 * (time.process_time() - start) / len(motions)
    images = [flow.to_image(found, BOUND) for found in motions]
    files = [video.encode_jpeg(image, QUALITY) for image in images]
    read = flow.from_image(stored.decode(files), BOUND)
    return float(np.abs(read - motion).mean()), each


def main() -> None:
    flow.require("tvl1").setNumThreads(1)
    rows = []
    for motion in MOTIONS:
        found = [measure_one(motion, method) for method in flow.METHODS]
        rows.append([f"{motion[0]:g}, {motion[1]:g}", *np.ravel(found).tolist()])
    columns = [f"{name} {what}" for name in flow.METHODS for what in ("error", "ms")]
    measure.show(("motion", *columns), rows)


if __name__ == "__main__":
    measure.run(main, devices=False)
