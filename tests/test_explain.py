"""The command that draws what speaks for a class."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from configs import finetune_small, small
from ctp_jax import config as config_lib
from ctp_jax import explain, pictures, report
from ctp_jax.errors import UserError
from ctp_jax.train import loop
from tests.commands import call
from tests.prepare.make_videos import picture, write_video


def make_explained(video, rng, shape=(5, 16), boxes=1, **fields):
    t, s = shape
    values = {
        "video": video,
        "caption": f"{video}: left",
        "answer": "left (90%)",
        "label": 3,
        "predicted": 3,
        "clip": np.random.default_rng(len(video)).integers(
            0, 256, (t, s, s, 3), "uint8"
        ),
        "grad_cam": rng.uniform(size=(t, s, s)),
        "guided": rng.normal(size=(t, s, s, 3)),
        "guided_grad_cam": rng.normal(size=(t, s, s, 3)),
        "boxes": np.tile([2.0, 3.0, 9.0, 12.0], (boxes, t, 1)),
        "shares": np.array([0.5, 0.25, 0.125]),
    }
    return explain.Explained(**values | fields)


def make_runs(*names, **fields):
    rng = np.random.default_rng(0)
    videos = ("a", "bb")
    return {
        name: [make_explained(video, rng, **fields) for video in videos]
        for name in names
    }


def test_rows_of_two_runs_stand_under_the_same_clip():
    runs = make_runs("pretrained", "scratch")
    drawn = explain.draw(runs)
    for first in ("pretrained: ", "scratch: "):
        assert f"{first}Grad-CAM of left (90%)" in drawn.names
    assert [name.rpartition(":")[0] for name in drawn.names] == [
        *("a", "pretrained", "pretrained", "scratch", "scratch"),
        *("bb", "pretrained", "pretrained", "scratch", "scratch"),
    ]
    parts = "Grad-CAM, guided Grad-CAM"
    assert drawn.title == f"frames | pretrained: {parts} | scratch: {parts}"
    assert drawn.animated == 5 and list(drawn.captions) == ["a: left", "bb: left"]
    np.testing.assert_array_equal(drawn.clips[0], runs["scratch"][0].clip)
    np.testing.assert_array_equal(drawn.clips[5], runs["scratch"][1].clip)
    heat = pictures.overlay_heat(
        runs["scratch"][1].clip[None], runs["scratch"][1].grad_cam[None]
    )
    np.testing.assert_array_equal(drawn.clips[8], heat[0])
    # Boxes are on the frames only.
    assert [len(each) for each in drawn.boxes] == [1, 0, 0, 0, 0] * 2
    drawn = explain.draw(runs, guided=True)
    parts = "Grad-CAM, guided backpropagation, guided Grad-CAM"
    assert drawn.title == f"frames | pretrained: {parts} | scratch: {parts}"
    assert (
        drawn.animated == 7 and drawn.names[2] == "pretrained: guided backpropagation"
    )
    slopes = pictures.slopes_as_pixels(runs["pretrained"][0].guided)
    np.testing.assert_array_equal(drawn.clips[2], slopes)


def test_frames_of_a_run_that_sees_others_are_drawn_too():
    runs = make_runs("one", "two")
    runs["two"][1] = runs["two"][1]._replace(clip=runs["two"][0].clip)
    drawn = explain.draw(runs)
    assert drawn.animated == 6 and len(drawn.clips) == 12
    runs["two"] = make_runs("two", shape=(3, 16))["two"]
    with pytest.raises(UserError, match="clips of 3 frames of 16 pixels and 5 frames"):
        explain.draw(runs)
    runs["two"] = runs["one"][:1] * 3  # as of a task with three clips per video
    with pytest.raises(UserError, match="one and two see other clips of the videos"):
        explain.draw(runs)


def test_without_pixels_nothing_of_the_video_is_drawn():
    """Grey frames, and heat as on grey; guided Grad-CAM would show edges."""
    runs = make_runs("run")
    drawn = explain.draw(runs, boxes_only=True)
    assert drawn.names[:2] == ["a: left", "Grad-CAM of left (90%)"]
    assert len(drawn.clips) == 4 and (drawn.clips[::2] == 128).all()
    clip = np.full_like(runs["run"][0].clip, 128)[None]
    heat = pictures.overlay_heat(clip, runs["run"][0].grad_cam[None])[0]
    np.testing.assert_array_equal(drawn.clips[1], heat)


def test_summary_is_the_mean_of_the_clips_with_boxes():
    runs = make_runs("run")["run"]
    runs.append(runs[0]._replace(shares=np.array([1.0, 0.75, 0.25]), predicted=2))
    runs.append(runs[0]._replace(shares=np.full(3, np.nan)))
    runs.append(runs[0]._replace(label=-1, shares=np.full(3, np.nan)))
    assert explain.summary("run", runs) == (
        "run: 5 clips, 3 of 4 right; in the boxes are 16.7% of the pixels, 66.7% of "
        "Grad-CAM, 41.7% of guided Grad-CAM (mean of 3 clips)"
    )
    assert explain.summary("run", runs[3:4]) == "run: 1 clip, 1 of 1 right"


def test_heat_is_relative_to_each_clip_and_nothing_stays_grey():
    clips = np.full((3, 2, 4, 4, 3), 100, np.uint8)
    heat = np.random.default_rng(0).uniform(size=(3, 2, 4, 4))
    heat[1], heat[2] = 1e-9 * heat[0], 0
    drawn = pictures.overlay_heat(clips, heat)
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[2] == 70).all()
    # The hottest place has the brightest colour.
    assert drawn[0].sum(-1).argmax() == heat[0].argmax()


def test_slopes_are_drawn_frame_by_frame():
    rng = np.random.default_rng(0)
    slopes = rng.normal(size=(1, 3, 32, 32, 3)) * 1e-8 + 1e-8
    slopes[0, 1] *= 100
    slopes[0, 2] = 0
    drawn = pictures.slopes_as_pixels(slopes).astype(float)[0] / 255
    for frame in drawn[:2]:
        assert frame.mean() == pytest.approx(0.5, abs=0.01)
        assert frame.std() == pytest.approx(0.1, abs=0.01)
    assert (drawn[2] == 127 / 255).all()


# On a real run ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(moving_shapes, tmp_path_factory):
    """Folders of two recognisers, equal ones, and of a run that classifies nothing."""
    folder = tmp_path_factory.mktemp("explain")
    config = finetune_small.get_config()
    config.data.data_dir = moving_shapes(12, 6)
    config.steps = config.batch_size = 2
    config.optimizer.warmup_steps, config.evaluators = 0, {}
    config.model.name = "tests.tiny_network"
    loop.train(config, folder / "one")
    shutil.copytree(folder / "one", folder / "two")
    (folder / "pretext").mkdir()
    pretext = json.dumps(config_lib.as_dict(small.get_config()))
    (folder / "pretext" / "config.json").write_text(pretext)
    return folder


def test_two_runs_are_explained_on_the_same_videos(runs, tmp_path, capsys):
    one, two = (f"--workdir={runs / name}" for name in ("one", "two"))
    call(explain, one, two, "--videos=3", "--rows=2", f"--out={tmp_path}", "--arrays")
    out = capsys.readouterr().out
    assert "one: " in out and "two: " in out and " of 3 right" in out
    with Image.open(tmp_path / "explain.gif") as animation:
        assert animation.n_frames == 8
        width = animation.width
    assert width >= 5 * 112
    arrays = np.load(tmp_path / "explain.npz")
    assert arrays["grad_cam"].shape == (2, 3, 8, 56, 56)
    assert (arrays["video"][0] == arrays["video"][1]).all()
    assert len(set(arrays["video"][0])) == 3  # evenly spread, so of several classes
    assert (arrays["grad_cam"] >= 0).all() and np.ptp(arrays["guided_grad_cam"]) > 0
    product = arrays["grad_cam"][..., None] * arrays["guided"]
    np.testing.assert_allclose(arrays["guided_grad_cam"], product, rtol=1e-6)
    # The page of the run has them.
    call(explain, one, "--videos=1")
    assert "What speaks for a class" in report.write(runs / "one").read_text()


def test_a_true_class_that_is_not_known_is_said(runs, monkeypatch):
    monkeypatch.setattr(explain, "labels", lambda batch: np.array([-1]))
    with pytest.raises(UserError, match="--true: the class of .* is not known"):
        list(explain.explain(str(runs / "one"), 1, explain.TRUE_CLASS))


def test_videos_and_classes_by_name(runs):
    found = list(explain.explain(str(runs / "one"), 6))
    videos = [found[4].video, found[1].video]
    chosen = list(explain.explain(str(runs / "one"), videos))
    assert [each.video for each in chosen] == videos
    np.testing.assert_array_equal(chosen[1].grad_cam, found[1].grad_cam)
    wanted = list(explain.explain(str(runs / "one"), videos, "grow"))
    assert all(each.answer.startswith("grow (") for each in wanted)
    true = list(explain.explain(str(runs / "one"), videos, explain.TRUE_CLASS))
    for each in true:
        assert each.answer.startswith(each.caption.partition(": ")[2] + " (")
        assert each.video.startswith(each.answer.partition(" ")[0])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--videos=left_999999"],
            "--videos=left_999999: moving_shapes, split 'test',",
        ),
        (["--class=lefd"], "--class=lefd: .*; did you mean left"),
        (["--class=zzzz"], "--class=zzzz: .* has none of that name: it has "),
        (["--class=left", "--true"], "exclude each other"),
        (["--workdir={}/pretext"], "config.task = 'ctp' has no classes to explain"),
        (["--workdir={}/none"], "no run"),
        (["--data_dir={}/none"], "is not prepared in"),
        (["none.mp4"], "^none.mp4: no such file"),
        (["--videos=0"], "--videos: give names, or a number above 0"),
        (["none.mp4", "--true"], "--true and none.mp4 exclude each other"),
        (["none.mp4", "--videos=2"], "--videos and none.mp4 exclude each other"),
    ],
)
def test_mistakes_get_one_line(runs, flags, message):
    flags = [f"--workdir={runs / 'one'}", *(each.format(runs) for each in flags)]
    if "none.mp4" not in flags:
        flags = ["--videos=1", *flags]
    with pytest.raises(UserError, match=message) as caught:
        call(explain, *flags)
    assert "\n" not in str(caught.value)


def test_a_network_with_relus_of_its_own_is_refused(runs, monkeypatch):
    from tests import tiny_network

    part = tiny_network.Tiny._part

    def with_own_relu(self, *arguments):
        object.__setattr__(self, "relu", jax.nn.relu)
        return part(self, *arguments)

    monkeypatch.setattr(tiny_network.Tiny, "_part", with_own_relu)
    with pytest.raises(UserError, match="none of its relus is self.relu"):
        list(explain.explain(str(runs / "one"), 1))


def test_files_need_no_data_set(runs, tmp_path, capsys):
    path = tmp_path / "mine.mp4"
    write_video(path, [picture(60, 80, shift=4 * i) for i in range(30)])
    one = f"--workdir={runs / 'one'}"
    call(explain, one, path, "--data_dir=/nowhere", f"--out={tmp_path}")
    assert "one: 1 clip\n" in capsys.readouterr().out
    (found,) = explain.explain(str(runs / "one"), [path])
    assert found.label == -1 and found.caption == "mine.mp4"
    assert (tmp_path / "explain.png").exists()
