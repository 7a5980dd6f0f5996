"""`ctp_jax.load_encoder` and `read_clips`; their numbers are in test_own_videos.py."""

import doctest
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import tensorflow as tf

import ctp_jax
from ctp_jax import encoder
from ctp_jax.data import clips, evenly_spread
from ctp_jax.data import rng as rng_lib
from ctp_jax.data.batch import ClipSpec
from ctp_jax.errors import UserError, explained
from ctp_jax.own_videos import reader
from ctp_jax.prepare import video as videos
from tests.own_videos import made
from tests.prepare import make_videos

run, files = made.run, made.files  # fixtures


def test_clips_are_those_of_the_pipeline():
    for scale in (64, (86, 64), (48, 64)):
        spec = ClipSpec(
            num_clips=3,
            num_frames=4,
            size=40,
            strides=(3,),
            sampling="uniform",
            scales=(scale,),
            crop="center",
        )
        rng = rng_lib.Rng(tf.zeros([9]))
        for count in (1, 5, 12, 13, 14, 15, 30, 77):
            times, _ = clips.sample_times(rng, tf.constant(count), spec)
            np.testing.assert_array_equal(
                evenly_spread.sample_times(count, spec), times
            )
        for size in ((48, 64), (144, 255), (99, 67), (50, 50), (41, 111)):
            rng = rng_lib.Rng(tf.zeros([9]))
            want, _ = clips.sample_window(rng, *map(tf.constant, size), spec)
            window = evenly_spread.sample_window(*size, spec)
            np.testing.assert_array_equal(np.tile(window, (3, 1)), want)


def test_segments_cover_a_video():
    spec = ClipSpec(num_clips=1, num_frames=4, size=8, strides=(2,))
    for count, length in ((100, 25.0), (99, 12.5), (7, 25.0), (26, 1.0), (38, 25.0)):
        times = evenly_spread.sample_segments(count, length, spec)
        assert times.min() >= 0 and times.max() < count
        assert len(times) == max(1, int(count / length + 0.5))
        middles = (np.arange(len(times)) + 0.5) * length
        inside = (middles > 4) & (middles < count - 4)
        assert np.abs(times.mean(axis=1) - middles + 0.5)[inside].max(initial=0) < 1.5


def test_what_clips_may_be(run):
    ours = ctp_jax.load_encoder(str(run[0]))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 56, 56, 3), np.uint8)
    plain = (pixels / 255 - ours.spec.mean) / ours.spec.deviation
    want = ours(pixels)
    np.testing.assert_allclose(ours(plain), want, rtol=1e-4, atol=1e-5)
    stages = ours.stages(pixels)
    assert len(stages) == 5
    last = ours.module.apply(ours.variables, jax.numpy.float32(plain), train=False)
    np.testing.assert_allclose(stages[-1], last, rtol=1e-4, atol=1e-5)
    # Pooled to 2 x 3 x 3 bins: the mean over these of one position is that position.
    assert want.shape == (2, 18 * stages[-1].shape[-1])
    assert ours(pixels[:, :4, :32]).shape == want.shape
    for wrong, message in (
        (pixels[0], "needs .clips, frames, height, width, 3."),
        (pixels[..., :1], "needs .clips"),
        (pixels[:, :, :4], "needs at least 16 pixels"),
        (pixels.astype(np.int32), "needs uint8, or floats"),
        (pixels.astype(np.float32), "give grey levels as uint8"),
    ):
        with pytest.raises(UserError, match=message):
            ours(wrong)


BLOCK = """
import sys
from importlib.machinery import PathFinder
def find_spec(name, *more):
    return None if name.split(".")[0] in {names} else found(name, *more)
found, PathFinder.find_spec = PathFinder.find_spec, find_spec
# Without those that editable installs bring.
sys.meta_path = [each for each in sys.meta_path if "editable" not in repr(each)]
import numpy as np
"""
WITHOUT_TENSORFLOW = """
import ctp_jax
from ctp_jax import modules
modules.allow("tests.tiny_network")
encoder = ctp_jax.load_encoder({run!r})
clips = ctp_jax.read_clips({video!r}, encoder.spec)
np.save({out!r}, encoder(clips))
encoder.export({exported!r})
"""
WITHOUT_THIS_PACKAGE = """
import jax, pathlib
from jax import export
function = export.deserialize(bytearray(pathlib.Path({exported!r}).read_bytes()))
np.save({out!r}, function.call(np.load({clips!r})))
"""


def python(names, code):
    done = subprocess.run(
        [sys.executable, "-c", BLOCK.format(names=names) + code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == 0, done.stderr


def test_neither_needs_tensorflow_nor_the_export_this_package(run, files, tmp_path):
    out, exported = str(tmp_path / "out.npy"), str(tmp_path / "encoder.jax")
    code = WITHOUT_TENSORFLOW.format(
        run=str(run[0]), video=str(files[0]), out=out, exported=exported
    )
    python(("tensorflow", "tensorflow_datasets", "torch"), code)
    assert os.path.dirname(__file__).encode() not in pathlib.Path(exported).read_bytes()
    assert b"encoder.py" not in pathlib.Path(exported).read_bytes()
    ours = ctp_jax.load_encoder(run[0])
    want = ours(ctp_jax.read_clips(files[0], ours.spec))
    np.testing.assert_allclose(np.load(out), want, rtol=1e-4, atol=1e-5)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 56, 56, 3), np.uint8)
    np.save(tmp_path / "clips.npy", pixels)
    code = WITHOUT_THIS_PACKAGE.format(
        exported=exported, clips=str(tmp_path / "clips.npy"), out=out
    )
    python(("ctp_jax", "flax", "tensorflow"), code)
    np.testing.assert_allclose(np.load(out), ours(pixels), rtol=1e-4, atol=1e-5)


def test_what_is_missing_is_one_line():
    error = ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
    assert 'pip install -e ".[data]"' in str(explained(error))
    assert explained(ModuleNotFoundError("x", name="x")) is None


def test_too_little_memory_is_one_line():
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        jax.numpy.zeros(1 << 50, "uint8").block_until_ready()
    text = str(explained(caught.value))
    assert "too little memory for allocating 1125899906842624 bytes: " in text
    assert "\n" not in text and "config.optimizer.accumulate" in text
    assert explained(jax.errors.JaxRuntimeError("INTERNAL: a bug")) is None


def whole(path):
    """All frames that are to be shown, at a constant rate, (f, h, w, 3)."""
    shown = list(videos.decode_frames(path, reader.SHORT_SIDE))
    index, _ = videos.constant_rate([each[0] for each in shown], shown[0][1].rate)
    return np.stack([shown[i][3] for i in index])


@pytest.mark.parametrize("kind", ["constant", "variable", "announced wrongly"])
def test_frames_are_those_that_preparation_takes(kind, tmp_path, monkeypatch):
    times = np.arange(30) * 40
    times[12:] += 400 * (kind == "variable")  # a pause
    path = make_videos.write_numbered(tmp_path / "a.mkv", 30, times=times.tolist())
    want = whole(path)
    assert (len(want) > 30) == (kind == "variable")
    if kind == "announced wrongly":
        told, shown = videos.announced_times(path)
        wrong = told[:20], shown
        monkeypatch.setattr(videos, "announced_times", lambda path: wrong)
    numbers = lambda count, fps: np.array(
        [[0, 3, 5], [count // 2] * 3, [1, 0, count - 1]]
    )
    found = list(reader.read_clips(path, numbers))
    assert found[-1].attempt == (kind == "announced wrongly")
    found = [clip for clip in found if clip.attempt == found[-1].attempt]
    expected = numbers(len(want), 25.0)
    np.testing.assert_array_equal(np.stack([c.frames for c in found]), want[expected])
    seconds = np.stack([clip.times for clip in found])
    np.testing.assert_allclose(seconds, expected / 25, atol=0.01)


def test_files_that_are_no_videos_are_one_line(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_text("")
    for name in ("text.mp4", "empty.mp4", "none.mp4", "."):
        with pytest.raises(UserError) as caught:
            ctp_jax.read_clips(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such folder"):
        ctp_jax.load_encoder(tmp_path / "none")


def test_examples(run, files):
    """Those of the docstrings, on a network that is here."""
    ours = ctp_jax.load_encoder(run[0])
    names = {"run": run[0], "video": files[0], "ctp_jax": ctp_jax, "spec": ours.spec}
    for function in (
        encoder.Encoder.__call__,
        encoder.Encoder.stages,
        encoder.read_clips,
    ):
        function = getattr(function, "__wrapped__", function)
        parser = doctest.DocTestParser()
        name = function.__name__
        example = parser.get_doctest(function.__doc__, names, name, None, None)
        assert example.examples
        report = []
        runner = doctest.DocTestRunner()
        result = runner.run(example, out=report.append, clear_globs=False)
        assert not result.failed, "".join(report)
        names.update(example.globs)
