"""Pooled features against PyTorch; which evaluators look at them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from ctp_jax.errors import UserError
from ctp_jax.evaluators import knn, retrieval
from ctp_jax.evaluators.base import Subject
from ctp_jax.tasks import probe as probe_lib
from ctp_jax.tasks import recognition
from tests.tasks import made_clips as made

VIDEOS, CLIPS = made.VIDEOS, made.CLIPS


def make_config(**flat):
    probe = {
        "probe.scales": ((48, 36),),
        "probe.num_clips": CLIPS,
        # Not the strides that the network is trained with.
        "model.spatial_strides": (1, 2, 2, 1),
        "probe.spatial_strides": (1, 2, 2, 2),
    }
    return made.make_config(**{**probe, **flat})


def make_view(**flat):
    config = make_config(**flat)
    return probe_lib.Probe(config, recognition.Task(config))


@pytest.mark.parametrize(
    ("size", "bins"),
    [
        ((2, 7, 7), (2, 3, 3)),  # R3D-18 at 16 x 112 x 112
        ((2, 14, 14), (2, 3, 3)),
        ((4, 7, 7), (2, 3, 3)),
        ((5, 8, 11), (2, 3, 4)),
        ((1, 4, 4), (2, 3, 3)),  # fewer than the bins
        ((1, 1, 2), (2, 3, 3)),
        ((3, 6, 4), (1, 1, 1)),
        ((3, 6, 4), (3, 6, 4)),
    ],
)
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_adaptive_pool_equals_torch(size, bins, pooling):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    x = np.random.default_rng(0).normal(size=(2, *size, 5)).astype(np.float32)
    pool = jax.jit(lambda x: probe_lib.adaptive_pool(x, bins, pooling))
    got = pool(x)
    maps = torch.tensor(x).permute(0, 4, 1, 2, 3)
    short = {"average": "avg", "max": "max"}[pooling]
    oracle = getattr(torch.nn.functional, f"adaptive_{short}_pool3d")
    want = oracle(maps, bins).permute(0, 2, 3, 4, 1)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert jax.eval_shape(pool, jnp.bfloat16(x)).dtype == jnp.float32


def test_features_equal_torch():
    """Pooled, averaged over the clips, from a network with the probe's strides."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    from tests.models import torch_networks

    # Not ten bins of one position: 4 x 4 positions, in 3 x 3 bins that overlap.
    view = make_view(**{"probe.spatial_strides": (1, 2, 1, 2)})
    task = made.make_task()
    weights = made.make_weights(task)
    batch = made.make_batch(view, train=False, seed=5)
    got = jax.jit(view.predict)(weights, batch)["features"]
    assert got.shape == (VIDEOS, 2 * 3 * 3 * 16) and got.dtype == jnp.float32

    params, model_state = weights
    strides = (1, 2, 1, 2), (1, 2, 2, 2)
    network = torch_networks.residual("r3d18", (8, 8, 8, 16), *strides)
    stats = model_state["batch_stats"]["encoder"]
    torch_networks.load(network, params["encoder"], stats)
    network.eval()
    for video in range(VIDEOS):
        clips = np.stack(
            [made.normalized(made.opencv_clip(batch, video, c)) for c in range(CLIPS)]
        )
        with torch.no_grad():
            maps = network(torch_networks.channels_first(clips))
        assert maps.shape[3:] == (4, 4)
        pooled = torch.nn.functional.adaptive_avg_pool3d(maps, (2, 3, 3))
        want = pooled.mean(dim=0).permute(1, 2, 3, 0).reshape(-1)
        np.testing.assert_allclose(got[video], want, rtol=2e-3, atol=2e-3)
    assert np.ptp(got, axis=0).max() > 0.1


def test_clips_are_cut_as_in_the_test():
    spec = make_view().clip_spec(True)
    assert spec == make_view().clip_spec(False)
    assert (spec.num_clips, spec.strides, spec.sampling) == (CLIPS, (2,), "uniform")
    assert (spec.crop, spec.flip, spec.jitter) == ("center", 0.0, False)
    assert spec.scales == ((48, 36),)


def test_evaluators_of_a_pass_share_one_bank():
    subject = Subject(made.make_split([0, 1], "test"), made.make_split([0, 1, 2]))
    options = common.evaluators("x").x
    evaluators = [module.make(options, subject) for module in (retrieval, knn)]
    assert all(each.bank is evaluators[0].bank for each in evaluators)
    bank = evaluators[0].bank
    assert (bank.query_records.split, bank.gallery_records.split) == ("test", "train")


def test_clips_are_cut_out_of_larger_frames():
    with pytest.raises(
        UserError, match=r"config\.probe\.scales = .* 31 .*smaller than"
    ):
        make_view(**{"probe.scales": ((64, 31),)})


@pytest.mark.parametrize(
    ("train", "test", "names", "split"),
    [
        ([0, -1], [0], made.CLASSES, "train"),
        ([0, 1], [-1], made.CLASSES, "test"),
        ([-1], [-1], (), "train"),
    ],
)
def test_videos_without_labels_are_refused(train, test, names, split):
    view = make_view()
    splits = (
        made.make_split(train, "train", names),
        made.make_split(test, "test", names),
    )
    with pytest.raises(UserError, match=f"{split!r} have no labels.*nearest"):
        view.see_data(*splits)
