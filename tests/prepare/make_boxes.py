"""Rectangles that move at known pixels, and where they are seen in an image."""

import numpy as np

HEIGHT, WIDTH = 80, 120
COLOURS = np.array([[255, 0, 0], [0, 255, 0]], np.uint8)


def paths(count: int) -> np.ndarray:
    """x1 y1 x2 y2 of two rectangles that stay in the frame, int (count, 2, 4)."""
    time = np.arange(count)
    first = np.stack([8 + 2 * time, 10 + time], axis=-1)
    second = np.stack([WIDTH - 40 - time, HEIGHT - 34 - time // 2], axis=-1)
    corners = np.stack([first, second], axis=1)
    return np.concatenate([corners, corners + [[24, 16], [16, 20]]], axis=-1)


def draw(boxes: np.ndarray) -> np.ndarray:
    """uint8 (t, h, w, 3): the objects of (t, n, 4), red and green over black."""
    frames = np.zeros((len(boxes), HEIGHT, WIDTH, 3), np.uint8)
    for frame, objects in zip(frames, boxes, strict=True):
        for colour, (x1, y1, x2, y2) in zip(COLOURS, objects, strict=False):
            frame[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = colour
    return frames


def seen(image: np.ndarray, number: int = 0) -> list[float]:
    """x1 y1 x2 y2 of one of the rectangles in an image (h, w, 3)."""
    own = image[..., number].astype(float) - image[..., 1 - number]
    columns, rows = own.max(axis=0), own.max(axis=1)
    return [
        _rise(columns),
        _rise(rows),
        len(columns) - _rise(columns[::-1]),
        len(rows) - _rise(rows[::-1]),
    ]


def _rise(profile: np.ndarray) -> float:
    """Where a profile first passes half of its maximum; pixel i is from i to i + 1."""
    half = profile.max() / 2
    i = int(np.argmax(profile >= half))
    before = profile[i - 1] if i else 0.0
    return i + 0.5 - (profile[i] - half) / (profile[i] - before)
