"""Pictures show boxes in the right place; mistakes are reported in one line."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from configs import small
from ctp_jax import cli, pictures, visualize
from ctp_jax.errors import UserError
from ctp_jax.tasks import base


def test_a_box_is_drawn_around_its_pixels():
    frame = np.zeros((20, 20, 3), np.uint8)
    image = np.asarray(
        pictures.draw_frame(frame, np.array([[5.0, 6.0, 15.0, 12.0]]), None, zoom=4)
    )
    lit = np.argwhere(image.sum(-1) > 0)
    (top, left), (bottom, right) = lit.min(0), lit.max(0)
    np.testing.assert_allclose([left, top, right, bottom], [20, 24, 60, 48], atol=2)
    assert image[28:44, 26:54].sum() == 0


def make_drawn(videos=3):
    rng = np.random.default_rng(0)
    clips = rng.integers(0, 256, (videos, 5, 16, 16, 3), np.uint8)
    boxes = np.tile(np.float32([2, 3, 9, 12]), (videos, 2, 5, 1))
    names = [f"video {i}" for i in range(videos)]
    return visualize.Drawn(clips, boxes, boxes + 1, names, "a title")


def test_sheet_and_animation_are_written(tmp_path):
    drawn = make_drawn()
    paths = visualize.save(drawn, tmp_path / "new" / "folder", columns=4, zoom=2)
    with Image.open(paths[0]) as sheet:
        assert sheet.size[0] >= 4 * 32 and sheet.size[1] >= 3 * 32
    with Image.open(paths[1]) as animation:
        assert animation.n_frames == 5
        # Larger than in the sheet: each of three clips has about 168 pixels.
        assert 3 * 150 < animation.size[0] < 3 * 190
    assert [path.name for path in paths] == ["clips.png", "clips.gif"]
    paths = visualize.save(drawn._replace(shows="game"), tmp_path)
    assert [path.name for path in paths] == ["game.png", "game.gif"]


def test_one_clip_of_every_video_is_animated():
    drawn = make_drawn(videos=9)._replace(per_video=3)
    shown = visualize._animation(drawn, 2)
    np.testing.assert_array_equal(shown["clips"], drawn.clips[::3])
    assert shown["zoom"] == 10 and shown["original"] is None
    pairs = visualize._animation(make_drawn(9)._replace(original=drawn.clips), 2)
    assert len(pairs["clips"]) == len(pairs["original"]) == 4
    assert "the original on the left" in pairs["title"]


@pytest.mark.parametrize(
    "name, arguments, shows",
    [
        ("small", "", "game"),
        ("small", "truth=cycle", "game"),
        ("small", "truth=teacher", "boxes"),
        ("track_got10k", "small", "boxes"),
        ("rotation", "small", "clips"),
        ("tubelet", "small", "game"),
    ],
)
def test_pictures_are_named_for_what_they_show(name, arguments, shows):
    config = cli.load_config(f"configs/{name}.py:{arguments}")
    assert base.load(config).shows == shows


@pytest.mark.parametrize("said", [(), tuple("abcde")])
def test_clips_that_a_task_names_all_have_a_row(said):
    clips = np.arange(10)[:, None, None, None, None] * np.ones((1, 2, 4, 4, 3))
    overlay = base.Overlay(["", ""], clips=said)
    clips = clips.reshape(2, 5, 2, 4, 4, 3).astype(np.uint8)
    drawn = visualize._rows(clips, overlay, ["v", "w"], "")
    shown = "abcde" if said else ("clip 1", "clip 3", "clip 5")
    assert drawn.names == [f"{name}, {each}" for name in "vw" for each in shown]
    rows = range(10) if said else (0, 2, 4, 5, 7, 9)
    assert drawn.clips[:, 0, 0, 0, 0].tolist() == list(rows)


def test_a_config_of_another_version_is_named(tmp_path):
    config = small.get_config().to_dict()
    del config["head"]["squeeze"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = run([f"--workdir={tmp_path}"])
    assert done.returncode == 2
    assert "the config has no field" in done.stderr and "squeeze" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def run(flags):
    return subprocess.run(
        [sys.executable, "-m", "ctp_jax.visualize", *flags],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--config and --workdir are missing"),
        (["--workdir=/nowhere/at/all"], "no run (no config.json)"),
        (["--config=configs/demo.py"], "--out is missing"),
        (["--wrkdir=x"], "Did you mean: workdir"),
        (["--config.seed=1", "--out=x"], "--config is missing"),
    ],
)
def test_mistakes_get_one_line(flags, message):
    done = run(flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_data_that_are_not_prepared_get_one_line():
    config = cli.load_config("configs/demo.py")
    config.data.data_dir = "/nowhere"
    with pytest.raises(UserError, match="ctp_jax.prepare moving_shapes") as caught:
        visualize.draw(config, 1)
    assert "\n" not in str(caught.value)
