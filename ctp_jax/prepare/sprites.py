"""Draws the videos of `moving_shapes`: textured sprites over a panning texture.

The class of a video is how its sprites move. What a single frame shows has the same
distribution in every class: positions are uniform on a torus that is a little larger
than the frame, sizes log-uniform and angles uniform at every instant of every motion,
and textures, shapes and the panning of the background are drawn without looking at
the class. So only motion tells the classes apart. Light comes from above, as in most
videos: without it, tasks that ask which way is up would have nothing to go by.

A video is a pure function of (seed, index).
"""

import dataclasses

import numpy as np

from ctp_jax.prepare import boxes, textures, video

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
COUNTS = (3, 5)  # sprites of a video, at least and at most
LIGHT = (1.1, 0.6)  # times the grey levels of the top and of the bottom row
FLAT = 0.7  # a diamond is 1 / FLAT as high as wide
HOLE = 0.16  # radius of the hole in a ring, as a share of its extent


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
    """Video `index` as JPEG frames, with boxes; its label is `index % len(CLASSES)`."""
    frames, found = draw_video(seed, index)
    jpegs = [video.encode_jpeg(frame, quality) for frame in frames]
    return video.EncodedVideo(jpegs, FPS, found)


def draw_video(seed: int, index: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Video `index`.

    Returns:
        (uint8 (t, h, w, 3), t from 40 to 60, about 96 by 72 pixels; the sprites' `boxes`
        (t, n, 4) and `visibility` (t, n), n the largest of `COUNTS`, see
        `ctp_jax.prepare.boxes`: the share of a sprite that is in the frame and not
        behind others).
    """
    rng = np.random.default_rng((seed, index))
    count = int(rng.integers(40, 61))
    height, width = int(rng.integers(68, 77)), int(rng.integers(88, 105))
    motion = CLASSES[index % len(CLASSES)]
    sprites = [
        draw_sprite(rng, motion, count, height, width)
        for _ in range(rng.integers(COUNTS[0], COUNTS[1] + 1))
    ]
    background, x, y = draw_background(rng, count, height, width)
    frames = np.empty((count, height, width, 3), np.uint8)
    visibility = np.zeros((count, COUNTS[1]))
    areas = [area(sprite) for sprite in sprites]
    light = np.linspace(*LIGHT, height)[:, None, None]
    for i in range(count):
        canvas = window(background, x[i], y[i], height, width)
        owner = np.full((height, width), -1)
        for number, sprite in enumerate(sprites):
            place, opacity = paste(canvas, sprite, i)
            owner[place][opacity > 0.5] = number
        frames[i] = np.clip(canvas * light + 0.5, 0, 255)
        for number, whole in enumerate(areas):
            visibility[i, number] = (owner == number).sum() / whole[i]
    found = np.zeros((count, COUNTS[1], 4))
    found[:, : len(sprites)] = np.stack([bounds(sprite) for sprite in sprites], axis=1)
    return frames, boxes.settle(found, np.minimum(visibility, 1), (width, height))


def bounds(sprite: Sprite) -> np.ndarray:
    """The box of a sprite in every frame, (t, 4): x1 y1 x2 y2 in pixels from 0."""
    cosine, sine = np.abs(np.cos(sprite.angle)), np.abs(np.sin(sprite.angle))
    right = down = np.full(sprite.side.shape, 0.5)
    if sprite.shape == "square":
        right = down = 0.5 * (cosine + sine)
    elif sprite.shape == "diamond":
        right = 0.5 * np.maximum(cosine, sine / FLAT)
        down = 0.5 * np.maximum(sine, cosine / FLAT)
    # `paste` has the middle of the first pixel at 0.
    x, y = sprite.x + 0.5, sprite.y + 0.5
    right, down = right * sprite.side, down * sprite.side
    return np.stack([x - right, y - down, x + right, y + down], axis=-1)


def area(sprite: Sprite) -> np.ndarray:
    """The area of a sprite in every frame, (t,), in pixels."""
    areas = {
        "disc": np.pi / 4,
        "square": 1.0,
        "diamond": 0.5 / FLAT,
        "ring": np.pi * (0.25 - HOLE**2),
    }
    return areas[sprite.shape] * sprite.side**2


def draw_sprite(
    rng: np.random.Generator, motion: str, count: int, height: int, width: int
) -> Sprite:
    """Draws the look of a sprite, then its path, of which only the kind is given."""
    look = {
        "texture": textures.draw(rng, TEXTURE, TEXTURE),
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


def paste(
    canvas: np.ndarray, sprite: Sprite, frame: int
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Draws the sprite into the float32 (h, w, 3) canvas, in place.

    Returns:
        (rows and columns around it, its opacity there).
    """
    height, width = canvas.shape[:2]
    x, y, side = sprite.x[frame], sprite.y[frame], sprite.side[frame]
    reach = 0.75 * side + 1  # half the diagonal of a square, and its soft edge
    left, right = max(0, int(x - reach)), min(width, int(x + reach) + 2)
    top, bottom = max(0, int(y - reach)), min(height, int(y + reach) + 2)
    if left >= right or top >= bottom:
        return np.s_[:0, :0], np.zeros((0, 0))
    dx = np.arange(left, right) - x
    dy = (np.arange(top, bottom) - y)[:, None]
    cosine, sine = np.cos(sprite.angle[frame]), np.sin(sprite.angle[frame])
    # In the sprite's own axes, -0.5 to 0.5.
    u = (cosine * dx + sine * dy) / side
    v = (cosine * dy - sine * dx) / side
    if sprite.shape == "square":
        inside = 0.5 - np.maximum(np.abs(u), np.abs(v))
    elif sprite.shape == "diamond":
        inside = 0.5 - np.abs(u) - FLAT * np.abs(v)
    else:
        inside = 0.5 - np.hypot(u, v)
        if sprite.shape == "ring":
            inside = np.minimum(inside, np.hypot(u, v) - HOLE)
    opacity = np.clip(inside * side + 0.5, 0, 1)[..., None].astype(np.float32)
    texture_height, texture_width = sprite.texture.shape[:2]
    patch = bilinear(
        sprite.texture, (u + 0.5) * texture_width, (v + 0.5) * texture_height
    )
    region = canvas[top:bottom, left:right]
    region += opacity * (patch - region)
    return np.s_[top:bottom, left:right], opacity[..., 0]


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
    image = textures.draw(rng, height, width)
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
