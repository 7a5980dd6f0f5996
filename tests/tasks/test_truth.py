"""Boxes of annotations and of the game in one batch, through the whole pipeline."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import small
from ctp_jax.data.plans import SOURCES
from ctp_jax.errors import UserError
from ctp_jax.prepare import video
from ctp_jax.prepare.builders import base as builders
from ctp_jax.tasks import base, mixture, render

SIZE, FRAMES = 32, 4


def encode_rectangles(index):
    """A white rectangle over black, gone in some frames, and a grey one at the border.

    Only the first is in `boxes` at first, with a place for one that is nowhere; tracks
    have both.
    """
    count, height, width = 14, 40, 60
    frames = np.zeros((count, height, width, 3), np.uint8)
    boxes = np.zeros((count, 2, 4), np.float32)
    visibility = np.zeros((count, 2), np.float32)
    tracks = np.zeros((count, 3, 4), np.float32)
    tracks_visibility = np.zeros((count, 3), np.float32)
    for i in range(count):
        x, y = 5 + 3 * i - 2 * index, 8 + 2 * index + i // 2
        boxes[i, 0] = tracks[i, 1] = x, y, x + 11, y + 7
        if i % 8 < 6:  # of 16 starts with 4 consecutive frames, some are possible
            frames[i, y : y + 7, max(x, 0) : x + 11] = 255
            visibility[i, 0] = 0.5
            tracks_visibility[i, 1] = 1.0
        frames[i, 30:36, 48:] = 100
        tracks[i, 2] = 48, 30, 66, 36  # partly outside the frame
        tracks_visibility[i, 2] = 1.0
    jpegs = [video.encode_jpeg(frame, 95) for frame in frames]
    known = {"boxes": boxes, "visibility": visibility, "tracks": tracks}
    return video.EncodedVideo(
        jpegs, 10.0, known | {"tracks_visibility": tracks_visibility}
    )


class Rectangles(builders.VideoBuilder):
    """Three videos with boxes and tracks."""

    @classmethod
    def make_source(cls, arguments, options):
        items = [
            builders.Item(f"v{i}", -1, functools.partial(encode_rectangles, i))
            for i in range(3)
        ]
        shapes = {"boxes": (2, 4), "visibility": (2,)}
        shapes |= {"tracks": (3, 4), "tracks_visibility": (3,)}
        names = [item.id for item in items]
        splits = {"train": names, "test": names}
        return builders.Source(items, splits, annotations=shapes)


pytestmark = pytest.mark.slow  # all of them read prepared data


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    options = builders.Options(progress=False, workers=1)
    Rectangles(data_dir=directory, options=options).download_and_prepare()
    return str(directory)


def make_config(data_dir, **truth):
    config = small.get_config("data=rectangles")
    config.data.data_dir, config.data.workers = data_dir, 1
    config.model.name = "tests.tiny_network"
    config.model.width = 1.0
    config.clip.size, config.clip.num_frames, config.clip.scales = SIZE, FRAMES, (36,)
    config.game.num_trajectories, config.game.scales = 2, (10.0,)
    config.game.visible = 1.0
    config.batch_size = 8
    config.truth.update({"preset": 1, **truth})
    return config


@pytest.fixture(scope="module")
def mixed(data_dir):
    """The task, eight batches, and their clips without patches and colours."""
    config = make_config(data_dir, real=1, teacher=1, cycle=1)
    task = base.load(config)
    opened = base.open_pipeline(config, task, True)
    batches = list(itertools.islice(opened.train_batches(3), 8))
    batch = jax.tree.map(lambda *rows: np.concatenate(rows), *batches)
    needed = ("frames", "window", "extent", "flip")
    clips = render.crop_clips({name: jnp.asarray(batch[name]) for name in needed}, SIZE)
    return task, batch, np.asarray(clips)[:, 0]


def pixels(frame, low, high):
    """The box around the grey levels of a frame between two bounds."""
    seen = (frame.mean(-1) > low) & (frame.mean(-1) < high)
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(rows) else None


def test_every_batch_has_the_shares_and_only_games_have_patches(mixed):
    _, batch, _ = mixed
    plan = batch["plan"]
    sources = np.array(SOURCES)[plan["origin"]]
    assert sources.tolist() == ["preset", "real", "teacher", "cycle"] * 16
    games = sources == "preset"
    assert not plan["visible"][~games].any() and plan["visible"][games].all()
    assert (plan["truth"][games] == plan["boxes"][games]).all()
    assert (plan["weights"][games] == 1).all()
    cycles = sources == "cycle"
    assert (plan["weights"][cycles] == [1, 0, 0, 0]).all()
    assert (batch["followed"][games | cycles, 0, 1] == -1).all()


@pytest.mark.parametrize(("source", "name"), [("real", "boxes"), ("teacher", "tracks")])
def test_boxes_are_where_the_pixels_of_the_drawn_clip_are(mixed, source, name):
    _, batch, clips = mixed
    rows = np.flatnonzero(batch["plan"]["origin"] == SOURCES.index(source))
    checked = 0
    for row in rows:
        chosen = batch["followed"][row, 0, 1]
        truth, weights = (batch["plan"][key][row, 0] for key in ("truth", "weights"))
        assert chosen in ((0,) if source == "real" else (1, 2))
        assert weights[0] == 1
        if chosen == 2:
            continue
        for frame, box, weight in zip(clips[row], truth, weights, strict=True):
            seen = pixels(frame, 127, 256)
            assert (seen is not None) == (weight > 0)
            if not weight:
                np.testing.assert_array_equal(box, truth[0])
            elif box.min() > 1 and box.max() < SIZE - 1:
                np.testing.assert_allclose(box, seen, atol=1.0)
                checked += 1
        # The window holds the first box, unless the frame ends there.
        assert truth[0].min() > -1 or batch["times"][row, 0, 0] == 0
        assert truth[0].max() < SIZE + 1
    assert checked > 15


def test_other_objects_follow_if_they_are_inside_at_first(mixed):
    _, batch, _ = mixed
    plan, source = batch["plan"], batch["plan"]["origin"]
    # The second box is nowhere; the second track is cut by the frame's edge.
    assert (plan["weights"][source == 1, 1] == 0).all()
    assert np.isfinite(plan["truth"]).all()
    seconds = 0
    for row in np.flatnonzero(source == 2):
        known = plan["weights"][row, 1, 0]
        first = batch["annotations"]["tracks"][row, 0, 0]
        chosen = batch["followed"][row, 0, 1]
        other = first[3 - chosen]
        visible = batch["annotations"]["tracks_visibility"][row, 0, 0, 3 - chosen] > 0
        inside = other.min() > -0.01 and other.max() < SIZE + 0.01
        assert known == (visible and inside)
        if known:
            np.testing.assert_array_equal(plan["truth"][row, 1, 0], other)
            seconds += 1
        else:
            assert (plan["weights"][row, 1] == 0).all()
    assert seconds > 0


def test_pictures_show_what_is_known(mixed):
    task, batch, _ = mixed
    overlay = task.overlay(batch)
    shown = np.isfinite(overlay.boxes[:, 0]).all(-1)
    np.testing.assert_array_equal(shown, batch["plan"]["weights"] > 0)
    assert overlay.captions[:4] == ["preset", "real", "teacher", "cycle"]


def test_in_an_evaluation_cycles_are_games(data_dir):
    config = make_config(data_dir, real=1, cycle=2)
    config.batch_size = 4
    task = base.load(config)
    opened = base.open_pipeline(config, task, False)
    batch = next(opened.eval_batches())
    # What reads again, and leaves out what cannot be read, gives the same.
    again = next(opened._batches(0, 4, retry=True))
    np.testing.assert_array_equal(again["followed"], batch["followed"])
    assert [SOURCES[i] for i in batch["plan"]["origin"]] == [
        "preset",
        "real",
        "preset",
        "preset",
    ]
    assert (batch["plan"]["weights"][[0, 2, 3]] == 1).all()
    variables = jax.eval_shape(task.init, jax.random.key(0), batch)
    outputs = jax.eval_shape(task.predict, variables, batch)
    assert outputs["weights"].shape == (4, 2, FRAMES)
    config = make_config(data_dir, cycle=3)
    assert base.load(config).clip_spec(train=False).follow == ()
    assert base.load(config).clip_spec(train=True).follow == ("",) * 4


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_every_part_of_a_batch_has_whole_periods(data_dir, parts):
    """The part p of a batch has its rows p, p + parts, p + 2 parts, ..."""
    config = make_config(data_dir, preset=2, teacher=1, cycle=3)
    config.optimizer.accumulate = parts
    mixed = mixture.Mixture(config)
    entries = mixed.entries(train=True)
    batch = np.array([SOURCES.index(entries[i % len(entries)]) for i in range(48)])
    for part in range(parts):
        rows = batch[part::parts]
        for name, count in (("preset", 2), ("teacher", 1), ("cycle", 3)):
            own = mixed.of(name, rows)
            assert (own == SOURCES.index(name)).all() and len(own) == len(
                rows
            ) * count / 6
            changed = np.where(rows == SOURCES.index(name), 9, rows)
            np.testing.assert_array_equal(mixed.put(name, rows, 9), changed)
            np.testing.assert_array_equal(mixed.put(name, changed, own), rows)


def test_a_data_set_without_tracks_is_refused_in_one_line(data_dir, monkeypatch):
    config = make_config(data_dir, real=1)
    task = base.load(config)
    monkeypatch.setattr(mixture, "_FOLLOWED", {"real": "masks"})
    with pytest.raises(UserError, match=r"'rectangles' has no masks in its frames"):
        base.open_pipeline(config, task, True)
