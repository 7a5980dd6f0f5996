import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax.ops import paste, resample, tubelets
from tests import opencv_drawing
from tests.ops import test_paste

pytestmark = pytest.mark.usefixtures("optimized")

CLIPS, FRAMES, SIZE, COUNT = 2, test_paste.FRAMES, 40, 2


def make_case(seed, same_size=False):
    """Clips to paste on, a source, patches, degrees and shears, NumPy."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, SIZE - 8, (COUNT, FRAMES, 2))
    sides = rng.integers(4, 25, (COUNT, 1 if same_size else FRAMES, 2))
    low = np.minimum(low, SIZE - sides) if same_size else low
    high = np.minimum(low + sides, SIZE)
    coarse = rng.integers(0, 256, (CLIPS + 1, FRAMES, 8, 8, 3)).astype(np.float32)
    clips = np.stack([[cv2.resize(f, (SIZE, SIZE)) for f in clip] for clip in coarse])
    plan = {
        "boxes": np.concatenate([low, high], -1).astype(np.float32),
        "source": rng.integers(0, FRAMES, COUNT).astype(np.int32),
        "shape": rng.integers(0, 3, COUNT).astype(np.int32),
        "edge": rng.choice([0.3, 0.41, 1.0], COUNT).astype(np.float32),
        "opacity": rng.uniform(0.8, 1, (COUNT, FRAMES)).astype(np.float32),
        "visible": rng.random((COUNT, FRAMES)) < 0.9,
        "order": rng.permutation(COUNT).astype(np.int32),
    }
    degrees = rng.uniform(-180, 180, (COUNT, FRAMES)).astype(np.float32)
    shear = rng.uniform(-0.9, 0.9, (COUNT, FRAMES, 2)).astype(np.float32)
    return clips[1:], clips[0], plan, degrees, shear


def paste_all(cases, way=""):
    clips, source, plans, degrees, shear = (
        jax.tree.map(lambda *rows: np.stack(rows), *part)
        for part in zip(*cases, strict=True)
    )

    def run(clips, source, plan, degrees, shear):
        inverse = tubelets.inverse_map(degrees, shear)
        patches = paste.Patches(**plan)
        return tubelets.paste_tubelets(clips, source, patches, inverse, way)

    return np.asarray(jax.jit(run)(clips, source, plans, degrees, shear))


def forward_map(degrees, shear):
    """Offsets (x, y) in the patch to offsets in the frame, float64."""
    angle, (x, y) = np.deg2rad(float(degrees)), np.float64(shear)
    turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return np.array(turn) @ [[1, 0], [y, 1]] @ [[1, x], [0, 1]]


def read(image, x, y):
    """A pixel of an image between its pixels, the coordinates clamped."""
    height, width = image.shape[:2]
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = min(int(x), max(width - 2, 0)), min(int(y), max(height - 2, 0))
    right, down = min(left + 1, width - 1), min(top + 1, height - 1)
    upper = image[top, left] * (1 - x + left) + image[top, right] * (x - left)
    lower = image[down, left] * (1 - x + left) + image[down, right] * (x - left)
    return upper * (1 - y + top) + lower * (y - top)


def brute_force(clips, source, plan, degrees, shear):
    """Pixel by pixel, as the description has it, in float64."""
    out, (frames, size) = np.float64(clips), source.shape[:2]
    for n in plan["order"]:
        at = plan["source"][n]
        x1, y1, x2, y2 = plan["boxes"][n, at].astype(int)
        patch = np.float64(source[at, y1:y2, x1:x2])
        kind, edge = plan["shape"][n], plan["edge"][n]
        mask = opencv_drawing.mask_of(x2 - x1, y2 - y1, kind, edge)
        for t in range(frames):
            low, high = np.float64(plan["boxes"][n, t]).reshape(2, 2)
            back = np.linalg.inv(forward_map(degrees[n, t], shear[n, t]))
            opacity = plan["opacity"][n, t] * plan["visible"][n, t]
            for y, x in np.ndindex(size, size):
                u, v = back @ (np.array([x, y]) + 0.5 - (low + high) / 2)
                width, height = high - low
                cover = np.clip(width / 2 + 0.5 - abs(u), 0, 1)
                cover *= np.clip(height / 2 + 0.5 - abs(v), 0, 1)
                if not cover:
                    continue
                where = (
                    (u / width + 0.5) * (x2 - x1) - 0.5,
                    (v / height + 0.5) * (y2 - y1) - 0.5,
                )
                alpha = opacity * cover * read(mask, *where)
                out[:, t, y, x] += (read(patch, *where) - out[:, t, y, x]) * alpha
    return out


@pytest.mark.parametrize("way", resample.WAYS)
def test_equals_brute_force(way):
    cases = [make_case(seed) for seed in range(3)]
    for ours, case in zip(paste_all(cases, way), cases, strict=True):
        np.testing.assert_allclose(ours, brute_force(*case), atol=0.02)


def warp(image, forward, box, border):
    """An image that is turned and sheared about the centre of a box, by OpenCV."""
    height, width = image.shape[:2]
    middle = np.array([width, height]) / 2 - 0.5  # OpenCV counts from pixel centres
    centre = (box[:2] + box[2:]) / 2 - 0.5
    matrix = np.c_[forward, centre - forward @ middle]
    return cv2.warpAffine(
        image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=border
    )


def test_equals_opencv():
    """Patches that keep their size, as in the release: `warpAffine` of each frame."""
    cases = [make_case(seed, same_size=True) for seed in range(10, 16)]
    for ours, (clips, source, plan, degrees, shear) in zip(
        paste_all(cases), cases, strict=True
    ):
        out = clips.copy()
        for n in plan["order"]:
            at = plan["source"][n]
            x1, y1, x2, y2 = plan["boxes"][n, at].astype(int)
            kind, edge = plan["shape"][n], plan["edge"][n]
            mask = opencv_drawing.mask_of(x2 - x1, y2 - y1, kind, edge)
            for t in range(FRAMES):
                forward = forward_map(degrees[n, t], shear[n, t])
                box = np.float64(plan["boxes"][n, t])
                cut = source[at, y1:y2, x1:x2]
                patch = warp(cut, forward, box, cv2.BORDER_REPLICATE)
                alpha = warp(mask, forward, box, cv2.BORDER_CONSTANT)[..., None]
                alpha *= plan["opacity"][n, t] * plan["visible"][n, t]
                out[:, t] += (patch - out[:, t]) * alpha
        # OpenCV rounds coordinates to 1/32 of a pixel, at an outline of 255 grey levels.
        assert np.abs(ours - out).max() < 255 / 32
        assert np.abs(ours - out).mean() < 0.1


def test_upright_patches_are_those_of_the_game():
    _, source, plan, degrees, shear = case = make_case(5)
    case = (source[None], source, plan, 0 * degrees, 0 * shear)
    theirs = paste.paste(
        jnp.asarray(source), paste.Patches(**jax.tree.map(jnp.asarray, plan))
    )
    np.testing.assert_allclose(paste_all([case])[0, 0], theirs, atol=0.01)


def test_bounding_boxes_hold_the_corners():
    _, _, plan, degrees, shear = make_case(6)
    boxes = plan["boxes"]
    inverse = tubelets.inverse_map(jnp.asarray(degrees), jnp.asarray(shear))
    ours = np.asarray(tubelets.bounding_boxes(jnp.asarray(boxes), inverse))
    for at in np.ndindex(COUNT, FRAMES):
        low, high = np.float64(boxes[at]).reshape(2, 2)
        half = (high - low) / 2
        corners = half * [[-1, -1], [1, -1], [1, 1], [-1, 1]]
        corners = corners @ forward_map(degrees[at], shear[at]).T + (low + high) / 2
        expected = [*corners.min(axis=0), *corners.max(axis=0)]
        np.testing.assert_allclose(ours[at], expected, atol=1e-4)
