"""Draws the videos of `moving_shapes`: textured sprites over a panning texture.

The class of a video is how its sprites move. What a single frame shows has the same
distribution in every class: positions are uniform on a torus that is a little larger
than the frame, sizes log-uniform and angles uniform at every instant of every motion,
and textures, shapes and the panning of the background are drawn without looking at
the class. So only motion tells the classes apart.

NumPy and Pillow only. A video is a pure function of (seed, index).
"""

import dataclasses

import numpy as np
from PIL import Image

from ctp_jax.prepare import video

CLASSES = (
    "left",
    "right",
    "up",
    "down",
    "clockwise",
    "counterclockwise",
    "grow",
    "shrink",
    "shake",
    "spin",
)
"""How the sprites of a video move, as seen in the frame (y points down)."""

FPS = 15.0
SIDES = (11.0, 33.0)  # pixels, extent of the smallest and of the largest sprite
MARGIN = 12  # pixels that the torus reaches over each border of the frame
TEXTURE = 48  # pixels, side of a sprite's texture


@dataclasses.dataclass(frozen=True)
class Sprite:
    """How one sprite looks and where it is in each of t frames.

    Attributes:
        x, y: float (t,), centre in pixels.
        side: float (t,), extent in pixels.
        angle: float (t,), radians.
        texture: float32 (s, s, 3), grey levels.
        shape: 'disc', 'square', 'diamond' or 'ring'.
    """

    x: np.ndarray
    y: np.ndarray
    side: np.ndarray
    angle: np.ndarray
    texture: np.ndarray
    shape: str


def encode_shapes(seed: int, index: int, quality: int = 90) -> video.EncodedVideo:
    """Video `index` as JPEG frames; its label is `index % len(CLASSES)`."""
    frames = draw_video(seed, index)
    return video.EncodedVideo([video.encode_jpeg(f, quality) for f in frames], FPS)


def draw_video(seed: int, index: int) -> np.ndarray:
    """Video `index` as uint8 (t, h, w, 3), t from 40 to 60, about 96 by 72 pixels."""
    rng = np.random.default_rng((seed, index))
    count = int(rng.integers(40, 61))
    height, width = int(rng.integers(68, 77)), int(rng.integers(88, 105))
    motion = CLASSES[index % len(CLASSES)]
    sprites = [
        draw_sprite(rng, motion, count, height, width)
        for _ in range(rng.integers(3, 6))
    ]
    background, x, y = draw_background(rng, count, height, width)
    frames = np.empty((count, height, width, 3), np.uint8)
    for i in range(count):
        canvas = window(background, x[i], y[i], height, width)
        for sprite in sprites:
            paste(canvas, sprite, i)
        frames[i] = np.clip(canvas + 0.5, 0, 255)
    return frames


def draw_sprite(
    rng: np.random.Generator, motion: str, count: int, height: int, width: int
) -> Sprite:
    """Draws the look of a sprite, then its path, of which only the kind is given."""
    look = {
        "texture": texture(rng, TEXTURE, TEXTURE),
        "shape": str(rng.choice(["disc", "square", "diamond", "ring"])),
    }
    x, y = rng.uniform(size=2) * (width + 2 * MARGIN, height + 2 * MARGIN)
    phase, angle = rng.uniform(0, 1), rng.uniform(0, 2 * np.pi)
    speed, turn = rng.uniform(0.8, 2.2), rng.choice([-1, 1])
    radius, heading = rng.uniform(8, 18), rng.uniform(0, 2 * np.pi)
    time = np.arange(count)
    still = np.zeros(count)
    dx, dy, dphase, dangle = still, still, still, still
    if motion in ("left", "right"):
        dx = speed * time * (1 if motion == "right" else -1)
    elif motion in ("up", "down"):
        dy = speed * time * (1 if motion == "down" else -1)
    elif motion in ("clockwise", "counterclockwise"):
        # y points down, so growing angles turn clockwise on the screen.
        turned = heading + speed / radius * time * (1 if motion == "clockwise" else -1)
        dx, dy = radius * np.cos(turned), radius * np.sin(turned)
    elif motion in ("grow", "shrink"):
        dphase = 0.013 * speed * time * (1 if motion == "grow" else -1)
    elif motion == "shake":
        swing = 0.3 * radius * np.sin(2 * np.pi * (phase + 0.05 * speed * time))
        dx, dy = swing * np.cos(heading), swing * np.sin(heading)
    elif motion == "spin":
        dangle = 0.08 * speed * turn * time
    smallest, largest = SIDES
    return Sprite(
        x=(x + dx) % (width + 2 * MARGIN) - MARGIN,
        y=(y + dy) % (height + 2 * MARGIN) - MARGIN,
        side=smallest * (largest / smallest) ** ((phase + dphase) % 1),
        angle=angle + dangle,
        **look,
    )


def paste(canvas: np.ndarray, sprite: Sprite, frame: int) -> None:
    """Draws the sprite into the float32 (h, w, 3) canvas, in place."""
    height, width = canvas.shape[:2]
    x, y, side = sprite.x[frame], sprite.y[frame], sprite.side[frame]
    reach = 0.75 * side + 1  # half the diagonal of a square, and its soft edge
    left, right = max(0, int(x - reach)), min(width, int(x + reach) + 2)
    top, bottom = max(0, int(y - reach)), min(height, int(y + reach) + 2)
    if left >= right or top >= bottom:
        return
    dx = np.arange(left, right) - x
    dy = (np.arange(top, bottom) - y)[:, None]
    cosine, sine = np.cos(sprite.angle[frame]), np.sin(sprite.angle[frame])
    # In the sprite's own axes, -0.5 to 0.5.
    u = (cosine * dx + sine * dy) / side
    v = (cosine * dy - sine * dx) / side
    if sprite.shape == "square":
        inside = 0.5 - np.maximum(np.abs(u), np.abs(v))
    elif sprite.shape == "diamond":
        inside = 0.5 - np.abs(u) - 0.7 * np.abs(v)
    else:
        inside = 0.5 - np.hypot(u, v)
        if sprite.shape == "ring":
            inside = np.minimum(inside, np.hypot(u, v) - 0.16)
    opacity = np.clip(inside * side + 0.5, 0, 1)[..., None].astype(np.float32)
    texture_height, texture_width = sprite.texture.shape[:2]
    patch = bilinear(
        sprite.texture, (u + 0.5) * texture_width, (v + 0.5) * texture_height
    )
    region = canvas[top:bottom, left:right]
    region += opacity * (patch - region)


def bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Samples float32 (h, w, 3) at pixel coordinates of any shape, edges clamped."""
    height, width = image.shape[:2]
    x, y = np.clip(x - 0.5, 0, width - 1.001), np.clip(y - 0.5, 0, height - 1.001)
    column, row = x.astype(np.int32), y.astype(np.int32)
    x = (x - column)[..., None].astype(np.float32)
    y = (y - row)[..., None].astype(np.float32)
    flat, corner = image.reshape(-1, 3), row * width + column
    upper = flat[corner] * (1 - x) + flat[corner + 1] * x
    lower = flat[corner + width] * (1 - x) + flat[corner + width + 1] * x
    return upper * (1 - y) + lower * y


def draw_background(
    rng: np.random.Generator, count: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A texture large enough to pan over, and the window's corner (t,) x, y on it."""
    time = np.arange(count)
    paths = []
    for velocity in rng.uniform(-0.6, 0.6, size=2):
        sway, period, start = rng.uniform(0, 4), rng.uniform(30, 90), rng.uniform(0, 7)
        path = velocity * time + sway * np.sin(2 * np.pi * time / period + start)
        paths.append(path - path.min())
    x, y = paths
    image = dead_leaves(rng, height + int(y.max()) + 2, width + int(x.max()) + 2)
    return image, x, y


def dead_leaves(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A float32 (height, width, 3) picture of shapes that cover each other.

    The dead leaves model (Lee, Mumford and Huang 2001) has the statistics of natural
    images: edges and patches of all sizes. So what is cut out of it in one place is
    seen when it lies in another, which plain textures would hide.
    """
    image = texture(rng, height, width)
    # Sizes follow a power law between these, so that all scales cover equal areas.
    smallest, largest = 7.0, 45.0
    count = height * width // 50
    sides = smallest / np.sqrt(1 - rng.uniform(0, 1 - (smallest / largest) ** 2, count))
    for side in sides:
        corners = rng.uniform(10, 245, size=3) + rng.uniform(-25, 25, size=(2, 2, 3))
        leaf = Sprite(
            x=rng.uniform(0, width, 1),
            y=rng.uniform(0, height, 1),
            side=np.array([side]),
            angle=rng.uniform(0, 2 * np.pi, 1),
            texture=corners.astype(np.float32),
            shape=str(rng.choice(["disc", "square", "diamond"])),
        )
        paste(image, leaf, 0)
    return np.clip(image, 0, 255)


def window(
    image: np.ndarray, x: float, y: float, height: int, width: int
) -> np.ndarray:
    """The float32 (height, width, 3) part of an image at a fractional corner."""
    column, row = int(x), int(y)
    right, down = np.float32(x - column), np.float32(y - row)
    part = image[row : row + height + 1, column : column + width + 1]
    part = part[:-1] * (1 - down) + part[1:] * down
    return part[:, :-1] * (1 - right) + part[:, 1:] * right


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
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
