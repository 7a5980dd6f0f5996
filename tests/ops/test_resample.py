import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import ops as made
from ctp_jax.errors import UserError
from ctp_jax.ops import paste, resample

pytestmark = pytest.mark.usefixtures("optimized")

crop = jax.jit(resample.crop_resize_flip, static_argnums=(4, 5))
ways = pytest.mark.parametrize("way", resample.WAYS)


@ways
@pytest.mark.parametrize(
    ("in_size", "out_size"), [((48, 64), (30, 30)), ((33, 47), (60, 60))]
)
def test_resizing_equals_opencv(in_size, out_size, way):
    image = np.random.default_rng(0).uniform(0, 255, (*in_size, 3)).astype(np.float32)
    rows, columns = (
        resample.window_points(jnp.zeros(()), jnp.float32(size), jnp.float32(size), out)
        for size, out in zip(in_size, out_size, strict=True)
    )
    ours = jax.jit(resample.sample, static_argnums=3)(image, rows, columns, way)
    theirs = cv2.resize(image, out_size[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


@ways
def test_a_window_is_a_crop_of_the_resized_image(way):
    image = np.random.default_rng(1).uniform(0, 255, (72, 96, 3)).astype(np.float32)
    scaled = cv2.resize(image, (128, 96), interpolation=cv2.INTER_LINEAR)
    top, left, size = 13, 40, 56
    ratio = 72 / 96
    ours = crop(
        jnp.asarray(image)[None],
        jnp.array([top, left, size, size]) * ratio,
        jnp.array([72.0, 96.0]),
        jnp.array(False),
        size,
        way,
    )[0]
    theirs = scaled[top : top + size, left : left + size]
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


@ways
def test_padding_is_never_read(way):
    image = np.full((20, 20, 1), 7.0, np.float32)
    image[12:] = image[:, 15:] = 1e6
    ours = crop(
        jnp.asarray(image)[None],
        jnp.array([0.0, 0.0, 12.0, 15.0]),
        jnp.array([12.0, 15.0]),
        jnp.array(True),
        31,
        way,
    )
    np.testing.assert_allclose(ours, 7.0, rtol=1e-6)


@ways
def test_identity_and_mirror(way):
    clip = np.random.default_rng(2).integers(0, 256, (2, 3, 16, 16, 3))
    clip = jnp.asarray(clip, jnp.uint8)
    window = jnp.tile(jnp.array([0.0, 0.0, 16.0, 16.0]), (2, 1))
    extent = jnp.full((2, 2), 16.0)
    flip = jnp.array([False, True])
    ours = crop(clip, window, extent, flip, 16, way)
    np.testing.assert_array_equal(ours[0], clip[0])
    np.testing.assert_array_equal(ours[1], clip[1, :, :, ::-1])


def read(image, rows, columns):
    """Brute force in float64 of one image: (y, x, k)."""
    image, out = np.asarray(image, np.float64), []
    for y, x in np.ndindex(
        *(points.coordinates.shape[-1] for points in (rows, columns))
    ):
        value = 0.0
        for h, w in np.ndindex(*image.shape[:2]):
            near_y = 1 - abs(float(rows.coordinates[y]) - h)
            near_x = 1 - abs(float(columns.coordinates[x]) - w)
            value = value + max(near_y, 0) * max(near_x, 0) * image[h, w]
        out.append(value * bool(rows.inside[y]) * bool(columns.inside[x]))
    return np.reshape(out, (rows.inside.size, columns.inside.size, -1))


@ways
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("width", [8, 1])
def test_sampling_over_time_equals_brute_force(way, backend, width, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (2, 9, width, 3), np.uint8)
    grid = []
    for pixels, out in ((9, 5), (width, 6)):
        coordinates = rng.uniform(0, pixels - 1, (2, 4, out)).astype(np.float32)
        coordinates[..., :2] = 0, pixels - 1  # on the first and on the last pixel
        grid.append(resample.Points(coordinates, rng.random((2, 4, out)) < 0.8))
    ours = jax.jit(resample.sample_over_time, static_argnums=3)(image, *grid, way)
    for clip, frame in np.ndindex(2, 4):
        rows, columns = (
            resample.Points(*(each[clip, frame] for each in points)) for points in grid
        )
        expected = read(image[clip], rows, columns)
        np.testing.assert_allclose(ours[clip, frame], expected, atol=2e-4)


@pytest.mark.slow
@pytest.mark.slow
def test_both_ways_agree_on_a_batch_and_in_the_gradient():
    rng = np.random.default_rng(4)
    batch, patches = made.made_batch(rng, 2), made.made_patches(rng, 2)
    plan = paste.Patches(**jax.tree.map(jnp.asarray, patches))
    names = ("window", "extent", "flip")
    grid = [jnp.asarray(batch[name])[:, None] for name in names]
    frames = jnp.asarray(batch["frames"], jnp.float32)[:, None]
    towards = rng.normal(size=(2, 16, 112, 112, 3)).astype(np.float32)

    def draw(frames, way):
        clips = resample.crop_resize_flip(frames, *grid, 112, way)[:, 0]
        return paste.paste(clips, plan, way)

    @functools.partial(jax.jit, static_argnums=1)
    def both(frames, way):
        clips, back = jax.vjp(lambda frames: draw(frames, way), frames)
        return clips, back(towards)[0]

    (clips, slopes), (other_clips, other_slopes) = (
        both(frames, way) for way in resample.WAYS
    )
    # XLA may round a coordinate once or twice; edges of this noise are 255 a pixel.
    rounding = 255 * np.spacing(np.float32(max(frames.shape[-3:-1])))
    np.testing.assert_allclose(clips, other_clips, atol=rounding)
    np.testing.assert_allclose(slopes, other_slopes, atol=1e-3)


def test_the_backend_decides(monkeypatch):
    points, image = resample.Points(jnp.zeros(2)), jnp.zeros((3, 3, 1))
    wanted = {"cpu": "gathers", "gpu": "gathers", "tpu": "products"}
    for backend, way in (wanted | {"accelerator": "products"}).items():
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert resample.chosen_way() == way
        program = functools.partial(resample.sample, rows=points, columns=points)
        traced = jax.make_jaxpr(program)(image)
        assert ("gather[" in str(traced)) == (way == "gathers")
        assert ("dot_general[" in str(traced)) == (way == "products")
    with pytest.raises(UserError, match="way = 'x': choose one of"):
        resample.sample(image, points, points, "x")
