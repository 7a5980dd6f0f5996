"""Videos of a textured square whose track is known; no OpenCV is in them."""

import numpy as np
from PIL import Image


def texture(rng: np.random.Generator, height: int, width: int, grain: int = 8):
    """Smooth random colours, float64 (height, width, 3)."""
    shape = (height // grain + 2, width // grain + 2, 3)
    coarse = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
    fine = coarse.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(fine, np.float64)


def moving_square(
    side: float = 32,
    velocity: tuple[float, float] = (3, 0),
    growth: float = 1.0,
    *,
    start: tuple[float, float] = (20, 50),
    count: int = 16,
    size: tuple[int, int] = (144, 192),
    seed: int = 0,
):
    """Frames uint8 (count, *size, 3), and the square's boxes x1 y1 x2 y2 (count, 4).

    Args:
        side: of the square in the first frame, pixels.
        velocity: of its centre, pixels per frame.
        growth: of its side per frame, a factor.
        start: its corner x, y in the first frame.
        count: number of frames.
        size: height and width.
        seed: another makes another square, on the same background.
    """
    height, width = size
    background = texture(np.random.default_rng(1000), height, width) / 2 + 64
    look = texture(np.random.default_rng(seed), 64, 64)
    y, x = np.mgrid[:height, :width] + 0.5
    frames, boxes = [], []
    for i in range(count):
        now = side * growth**i
        x1, y1 = (s + side / 2 + v * i - now / 2 for s, v in zip(start, velocity))
        boxes.append([x1, y1, x1 + now, y1 + now])
        # Place of every pixel in the picture of the square, bilinear.
        u, v = ((x - x1) / now * 64 - 0.5), ((y - y1) / now * 64 - 0.5)
        left, top = np.clip(np.floor([u, v]), 0, 62).astype(int)
        a, b = np.clip(u - left, 0, 1)[..., None], np.clip(v - top, 0, 1)[..., None]
        shown = (1 - b) * ((1 - a) * look[top, left] + a * look[top, left + 1]) + b * (
            (1 - a) * look[top + 1, left] + a * look[top + 1, left + 1]
        )
        # The share of each pixel that the square covers.
        across = np.clip(np.minimum(x - x1, x1 + now - x) + 0.5, 0, 1)
        down = np.clip(np.minimum(y - y1, y1 + now - y) + 0.5, 0, 1)
        mask = (across * down)[..., None]
        frame = background * (1 - mask) + shown * mask
        frames.append(np.clip(frame + 0.5, 0, 255).astype(np.uint8))
    return np.stack(frames), np.array(boxes)
