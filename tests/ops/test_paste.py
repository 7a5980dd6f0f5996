import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax.ops import paste, resample
from tests import opencv_drawing

pytestmark = pytest.mark.usefixtures("optimized")

SIZE, FRAMES, COUNT = 48, 6, 4


def random_patches(seed):
    rng = np.random.default_rng(seed)
    low = rng.integers(0, SIZE - 2, (COUNT, FRAMES, 2))
    high = np.minimum(low + rng.integers(1, 30, low.shape), SIZE)
    return {
        "boxes": np.concatenate([low, high], -1).astype(np.float32),
        "source": rng.integers(0, FRAMES, COUNT).astype(np.int32),
        "shape": rng.integers(0, 3, COUNT).astype(np.int32),
        "edge": rng.choice([0.3, 0.41, 1.0], COUNT).astype(np.float32),
        "opacity": rng.uniform(0.8, 1, (COUNT, FRAMES)).astype(np.float32),
        "visible": rng.random((COUNT, FRAMES)) < 0.7,
        "order": rng.permutation(COUNT).astype(np.int32),
    }


@pytest.mark.parametrize("way", resample.WAYS)
def test_equals_opencv(way):
    clips = np.random.default_rng(0).uniform(0, 255, (8, FRAMES, SIZE, SIZE, 3))
    clips = clips.astype(np.float32)
    plans = [random_patches(seed) for seed in range(8)]
    batch = paste.Patches(
        **{name: np.stack([p[name] for p in plans]) for name in plans[0]}
    )
    ours = np.asarray(jax.jit(paste.paste, static_argnums=2)(clips, batch, way))
    for clip, plan, result in zip(clips, plans, ours, strict=True):
        expected = opencv_drawing.paste(clip, plan)
        np.testing.assert_allclose(result, expected, atol=0.02)


def test_hidden_patches_change_nothing():
    clip = np.random.default_rng(1).uniform(0, 255, (FRAMES, SIZE, SIZE, 3))
    clip = jnp.asarray(clip, jnp.float32)
    plan = random_patches(3) | {"visible": np.zeros((COUNT, FRAMES), bool)}
    ours = paste.paste(clip, paste.Patches(**jax.tree.map(jnp.asarray, plan)))
    np.testing.assert_array_equal(ours, clip)


def test_an_opaque_rectangle_that_stays_changes_nothing_in_its_source_frame():
    clip = np.random.default_rng(2).uniform(0, 255, (FRAMES, SIZE, SIZE, 3))
    clip = jnp.asarray(clip, jnp.float32)
    plan = random_patches(4) | {
        "boxes": np.tile(np.float32([8, 9, 30, 28]), (COUNT, FRAMES, 1)),
        "shape": np.zeros(COUNT, np.int32),
        "edge": np.ones(COUNT, np.float32),
        "opacity": np.ones((COUNT, FRAMES), np.float32),
        "visible": np.ones((COUNT, FRAMES), bool),
        "source": np.full(COUNT, 2, np.int32),
    }
    ours = np.asarray(
        paste.paste(clip, paste.Patches(**jax.tree.map(jnp.asarray, plan)))
    )
    np.testing.assert_allclose(ours[2], clip[2], atol=1e-4)
    inside = np.broadcast_to(clip[2, 9:28, 8:30], (FRAMES, 19, 22, 3))
    np.testing.assert_allclose(ours[:, 9:28, 8:30], inside, atol=1e-4)
