"""A track through a whole video is what the network says window by window."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctp_jax.data import reading, records
from ctp_jax.errors import UserError
from ctp_jax.ops import boxes as boxes_lib
from ctp_jax.ops import resample
from ctp_jax.tasks import base, ctp, encoder, tracker
from ctp_jax.train import evaluation
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train.distributed.preemption import Preemption
from ctp_jax.train.state import TrainState
from ctp_jax.train.watchdog import Watchdog
from tests import forks, made_sequences
from tests.made_sequences import FRAMES, LENGTHS, SIZE, make_config
from tests.tasks.made_clips import Split

data_dir = made_sequences.data_dir  # a fixture


def by_hand(task, network, frames, first):
    """The tracks of one video, in shares of the frame: a loop over its windows.

    `network(frames, query)` gives the deltas of one box.
    """
    count, query = len(frames), np.asarray(first, np.float64)
    track = []
    for start in range(0, max(count - 1, 1), FRAMES - 1):
        times = np.minimum(start + np.arange(FRAMES), count - 1)
        deltas = np.float64(network(frames[times], np.float32(query)))
        deltas *= np.array(task.config.head.target_scale)
        centre, side = (query[:2] + query[2:]) / 2, query[2:] - query[:2]
        centres, sides = centre + deltas[:, :2], side * np.exp(deltas[:, 2:])
        boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
        track += boxes[start > 0 : count - start].tolist()
        query = boxes[-1]
        for axis in (0, 1):
            if query[axis + 2] < 1:
                query[[axis, axis + 2]] += 1 - query[axis + 2]
            if query[axis] > SIZE - 1:
                query[[axis, axis + 2]] -= query[axis] - (SIZE - 1)
    return np.array(track) / SIZE


def evaluate(data_dir, devices):
    """The task, its variables, the evaluator after a pass, and its results."""
    config = make_config(data_dir, batch_size=8)
    config.evaluators.sequences.kcf = True
    task = ctp.Task(config)
    variables = made_sequences.make_variables(task)
    mesh = jax.make_mesh(
        (devices,),
        ("data",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:devices],
    )
    state = jax.device_put(TrainState(0, *variables, ()), mesh_lib.replicated(mesh))
    training = base.open_pipeline(config, task, True)
    (every,) = evaluation.open_all(config, task, training, mesh, None)
    results = every.run(state, Preemption(), Watchdog(60.0, print))
    return task, variables, every, results


@pytest.fixture(scope="module")
def evaluated(data_dir):
    return evaluate(data_dir, 1)


@pytest.mark.slow
def test_the_chain_is_the_network_window_by_window(evaluated, data_dir):
    task, variables, every, _ = evaluated

    @jax.jit
    def network(variables, frames, query):
        height, width = frames.shape[1:3]
        clip = resample.crop_resize_flip(
            frames[None],
            jnp.float32([[0, 0, height, width]]),
            jnp.float32([[height, width]]),
            jnp.zeros(1, bool),
            SIZE,
        )
        features, _ = task.features(variables, clip, train=False)
        return task.trajectories(variables, features, query[None, None])[0][0, 0]

    network = functools.partial(network, variables)
    found = every.evaluators["sequences"]._tracks()
    tracks = {track.number: track for track in found}
    assert sorted(tracks) == list(range(len(LENGTHS)))
    stored = records.open_records("sequences", "val", str(data_dir))
    for number, track in tracks.items():
        frames = list(reading.stored_frames(stored, number, range(LENGTHS[number])))
        _, boxes, visibility = made_sequences.make_video(number)
        share = np.tile([made_sequences.WIDTH, made_sequences.HEIGHT], 2)
        np.testing.assert_allclose(track.truth, boxes[:, 0] / share, atol=1e-5)
        np.testing.assert_array_equal(track.visible, visibility[:, 0] > 0)
        first = boxes[0, 0] / share * SIZE
        expected = by_hand(task, network, np.stack(frames), first)
        np.testing.assert_allclose(track.tracks[""], expected, atol=2e-4)
        moved = np.abs(expected - expected[0]).max()
        assert len(expected) == 1 or moved > 0.01


EIGHT_DEVICES = """
import json, sys
import numpy as np
from ctp_jax import modules
modules.allow("tests.tiny_network")
from tests.tasks.test_tracker import evaluate
found = evaluate(sys.argv[1], 8)[-1]
print(json.dumps({name: np.asarray(value).tolist() for name, value in found.items()}))
"""


@pytest.mark.slow
def test_eight_devices_are_alike(evaluated, data_dir):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    output = forks.run(["-c", EIGHT_DEVICES, data_dir], flags)
    eight, one = json.loads(output.splitlines()[-1]), evaluated[-1]
    assert one.keys() == eight.keys() and {"window_iou", "ao"} <= one.keys()
    for name, value in one.items():
        np.testing.assert_allclose(eight[name], value, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_kcf_follows_a_square_on_a_still_ground(evaluated):
    results = evaluated[-1]
    assert results["ao_kcf"] > results["ao_stay_put"]
    assert results["sr75_kcf"] > results["sr75_stay_put"]


@pytest.mark.slow
def test_pictures_and_table_are_written(evaluated, tmp_path):
    every = evaluated[2]
    every.save(tmp_path)
    rows = (tmp_path / "tracks.csv").read_text().splitlines()
    assert len(rows) == 1 + len(LENGTHS)
    for name in ("tracks.png", "tracks.gif"):
        assert (tmp_path / name).stat().st_size > 1000


def test_what_cannot_track_is_refused():
    config = make_config()
    with pytest.raises(UserError, match="not by config.task = 'encoder'"):
        config.task = "encoder"
        tracker.Tracker(config, encoder.Task(config))
    config.task = "ctp"
    view = tracker.Tracker(config, ctp.Task(config))
    split = Split(name="made", split="val", features=Split(annotations={}))
    with pytest.raises(UserError, match="made: videos of split 'val' have no boxes"):
        view.see_data(None, split)
    split.features.annotations["boxes"] = (3, 4)
    view.see_data(None, split)
    assert view.first_carry(5)["carried"].shape == (5, 3, 4)


def test_boxes_without_visibility_count_where_they_have_an_area():
    boxes = np.float32([[[[0, 0, 2, 2], [1, 1, 1, 3]]]])  # (b, c, t, 4)
    truth, visibility = tracker.annotated_boxes({"annotations": {"boxes": boxes}})
    np.testing.assert_array_equal(truth[0, 0], boxes[0, 0])
    assert visibility.tolist() == [[[1.0, 0.0]]]


def test_a_network_that_stays_is_the_baseline_that_stays():
    """Neither small boxes nor those at the border change from window to window."""
    first = jnp.array([[[5.0, 5, 7, 7], [-9, 3, 9, 8], [30, -20, 60, 2]]])
    query = first
    for _ in range(20):
        predicted = jnp.repeat(query[:, :, None], FRAMES, axis=2)
        query = tracker.next_query(predicted, 32)
    np.testing.assert_array_equal(query, first)
    lost = jnp.array([[[-40.0, 5, -20, 7], [jnp.inf, -jnp.inf, jnp.inf, jnp.inf]]])
    found = tracker.next_query(lost[:, :, None], 32)
    assert found[0, 0].tolist() == [-11, 5, 1, 7]
    assert np.isfinite(found).all()


def test_a_query_is_never_empty_or_outside():
    rng = np.random.default_rng(0)
    boxes = rng.normal(10, 30, (500, 4)).astype(np.float32)
    endless = jnp.array([np.inf, -np.inf, np.inf, np.inf])
    assert boxes_lib.cut_to_frame(endless, 32).tolist() == [28, 0, 32, 32]
    cut = np.asarray(boxes_lib.cut_to_frame(jnp.asarray(boxes), 32, 4.0))
    assert cut.min() >= 0 and cut.max() <= 32
    assert (cut[:, 2:] - cut[:, :2] >= 4 - 1e-5).all()
    inside = (boxes >= 0).all(1) & (boxes <= 32).all(1)
    inside &= (boxes[:, 2:] - boxes[:, :2] >= 4).all(1)
    assert inside.any()
    np.testing.assert_array_equal(cut[inside], boxes[inside])
