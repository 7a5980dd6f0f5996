"""Draws the textures of `ctp_jax.prepare.sprites`, of random kinds and colours."""

import numpy as np
from PIL import Image


def draw(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A float32 (height, width, 3) texture of a random kind, in random colours."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    kind = rng.integers(5)
    warp = 6 * noise(rng, height, width, 24)
    turn, period = rng.uniform(0, np.pi), rng.uniform(9, 24)
    along = columns * np.cos(turn) + rows * np.sin(turn) + warp
    across = rows * np.cos(turn) - columns * np.sin(turn) + warp
    wave, other = (
        np.sin(along * 2 * np.pi / period),
        np.sin(across * 2 * np.pi / period),
    )
    if kind == 0:  # clouds
        level = noise(rng, height, width, 20) + 0.5 * noise(rng, height, width, 7)
    elif kind == 1:  # stripes
        level = np.clip(3 * wave, -1, 1)
    elif kind == 2:  # checks
        level = np.clip(4 * wave * other, -1, 1)
    elif kind == 3:  # dots
        level = np.clip(6 * (wave + other - 0.7), -1, 1)
    else:  # patches
        level = np.floor(noise(rng, height, width, 16) * 4) / 3
    mix = (0.5 + 0.5 * np.clip(level, -1, 1))[..., None]
    first, second = palette(rng)
    shade = 22 * noise(rng, height, width, 30) + 10 * noise(rng, height, width, 5)
    image = first * (1 - mix) + second * mix + shade[..., None]
    return np.clip(image, 0, 255).astype(np.float32)


def noise(
    rng: np.random.Generator, height: int, width: int, grain: float
) -> np.ndarray:
    """Smooth noise, float32 (height, width) in about [-1, 1], blobs of `grain` pixels."""
    shape = (int(height / grain) + 3, int(width / grain) + 3)
    coarse = Image.fromarray(rng.uniform(-1, 1, shape).astype(np.float32))
    box = (1, 1, 1 + width / grain, 1 + height / grain)
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC, box))


def palette(rng: np.random.Generator) -> np.ndarray:
    """Two colours, float32 (2, 3), at least 110 grey levels apart in sum."""
    while True:
        colours = rng.uniform(20, 235, size=(2, 3)).astype(np.float32)
        if np.abs(colours[0] - colours[1]).sum() > 110:
            return colours
