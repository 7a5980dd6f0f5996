"""A copy of a data set with optical flow: what is computed, stored, said and read."""

import dataclasses
import itertools
import json
import sys
import types

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from configs import common
from ctp_jax import flow as flow_lib
from ctp_jax.data import bad_records, pipeline, reading, records
from ctp_jax.data.batch import ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.prepare import flow, video
from ctp_jax.prepare import stored as stored_lib
from ctp_jax.tasks import render
from tests.made_tracks import texture
from tests.prepare.make_sources import contents, prepare_in, read_all, resume

SIZE = (72, 96)  # height and width


# What is computed -------------------------------------------------------------------


def moving_texture(motions):
    """Frames (k, *SIZE, 3) of a texture that moves by (x, y) pixels, one after another."""
    rng = np.random.default_rng(0)
    wide = Image.fromarray(texture(rng, 160, 200).astype(np.uint8))
    places = np.cumsum([(0, 0), *motions], axis=0)
    height, width = SIZE
    return np.stack(
        [
            np.asarray(
                wide.transform(
                    (width, height),
                    Image.Transform.AFFINE,
                    (1, 0, 50 - x, 0, 1, 40 - y),
                    Image.Resampling.BICUBIC,
                )
            )
            for x, y in places
        ]
    )


def stored_motion(frames, method):
    """The motion as it is read from the flow frames after the JPEG round trip."""
    images = [flow_lib.to_image(m, 20) for m in flow_lib.compute(frames, method)]
    files = [video.encode_jpeg(image, 90) for image in images]
    return flow_lib.from_image(stored_lib.decode(files), 20)


def test_flow_is_the_motion_within_a_tenth_of_a_pixel():
    """On average over the frame, at its borders too, after the JPEG round trip."""
    motions = [(1.3, -0.6), (0, 0), (-2.25, 1.5), (0.4, 3.1)]
    found = stored_motion(moving_texture(motions), "tvl1")
    assert found.shape == (5, *SIZE, 2)
    for motion, frame in zip([*motions, motions[-1]], found, strict=True):
        error = np.abs(frame - motion)
        assert error.mean() < 0.1, motion
        assert np.median(error) < 0.1, motion
    assert not found[1].any()  # what stands still does so exactly
    np.testing.assert_array_equal(found[3], found[4])  # the last one has no next


def test_the_faster_method_is_within_a_quarter_of_a_pixel():
    found = stored_motion(moving_texture([(1.3, -0.6), (9.5, -5)]), "dis")
    for motion, frame in zip([(1.3, -0.6), (9.5, -5)], found[:2], strict=True):
        assert np.median(np.abs(frame - motion)) < 0.25, motion


def test_one_frame_does_not_move():
    assert not stored_motion(moving_texture([]), "tvl1").any()


def test_pictures_of_motion():
    motion = np.zeros((2, 3, 2), np.float32)
    motion[0, 0] = 20, -20
    motion[0, 1] = 400, -21
    motion[1, 2] = 10, 0.2
    image = flow_lib.to_image(motion, 20)
    assert image.dtype == np.uint8 and (image[..., 2] == 128).all()
    assert image[0, 0].tolist() == image[0, 1].tolist() == [255, 1, 128]
    assert image[1, 2].tolist() == [192, 129, 128]  # 191.5, to even
    assert image[1, 0].tolist() == [128, 128, 128]
    back = flow_lib.from_image(image, 20)
    np.testing.assert_allclose(back, motion.clip(-20, 20), atol=20 / 127 / 2 + 1e-6)


# The data set -----------------------------------------------------------------------

NAME = "moving_shapes_flow"
FLAGS = ["flow", "--from", "moving_shapes", "--method", "dis"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare_in(folder, "moving_shapes", "--train_videos", 4, "--test_videos", 2)
    return folder


@pytest.fixture(scope="module")
def prepared(data_dir):
    """The summary of moving_shapes_flow."""
    return prepare_in(data_dir, *FLAGS)


def test_everything_else_stays_and_flow_is_that_of_the_frames(data_dir, prepared):
    before = read_all("moving_shapes", data_dir)
    after, turned = (read_all(NAME, data_dir, stream) for stream in ("rgb", "flow"))
    assert before.keys() == after.keys()
    name = next(iter(before))
    assert "other" not in before[name]
    for name, features in after.items():
        old = before[name]
        assert features["frames"].tolist() == old["frames"].tolist()
        assert features["label"] == old["label"]
        assert features["annotations"].keys() == old["annotations"].keys()
        for kind, values in old["annotations"].items():
            np.testing.assert_array_equal(values, features["annotations"][kind])
        assert len(features["other"]) == len(features["frames"])
        assert turned[name]["frames"].tolist() == features["other"].tolist()
        assert turned[name]["other"].tolist() == features["frames"].tolist()
    frames = stored_lib.decode(after[name]["frames"].tolist())
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames[5:7]]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    expected = dis.calc(*grey, None)
    found = stored_lib.decode(after[name]["other"].tolist())[5]
    levels = 128 + expected.clip(-20, 20) / 20 * 127
    assert np.abs(found[..., :2] - levels).mean() < 1
    old, new = (
        records.open_index(name, str(data_dir))[1] for name in ("moving_shapes", NAME)
    )
    assert old.class_names == new.class_names and new.features.other == "flow"
    for split in ("train", "test"):
        names = [found.id_bytes[found.splits[split]].tolist() for found in (old, new)]
        assert names[0] == names[1]


def test_statistics_and_picture(data_dir, prepared):
    folder, _ = records.open_index(NAME, str(data_dir))
    about = json.loads((folder / flow.STATISTICS).read_text())
    lengths, clipped = [], []
    for features in read_all(NAME, data_dir).values():
        times = np.linspace(0, len(features["other"]) - 1, 8).round().astype(int)
        images = stored_lib.decode([features["other"][t] for t in times])
        motion = (images[..., :2].astype(float) - 128) * 20 / 127
        lengths.append(np.hypot(*np.moveaxis(motion, -1, 0)).ravel())
        clipped.append((np.abs(motion) >= 19.6).any(axis=-1).ravel())
    for percent in (50, 95):
        expected = np.percentile(np.concatenate(lengths), percent)
        found = about["pixels per frame"][f"{percent} %"]
        assert found == pytest.approx(expected, abs=20 * np.sqrt(2) / 1000 + 0.01)
    assert about["share clipped"] == pytest.approx(np.mean(np.concatenate(clipped)))
    assert "are clipped at 20" in prepared and about["frames looked at"] == 6 * 8
    with Image.open(folder / flow.SHEET) as picture:
        assert min(picture.size) > 200 and np.asarray(picture).std() > 10


def test_resumed_the_same_bytes(data_dir, tmp_path, monkeypatch, capsys):
    same = resume(data_dir, tmp_path, FLAGS, "flow", monkeypatch, capsys)
    assert len(same) == 4


# What the pipeline reads ------------------------------------------------------------

SPEC = ClipSpec(2, 4, 32, (1, 2), scales=(36, 40), flip=0.5)


def batches(data_dir, stream, spec, count=2, name=NAME, **flat):
    config = common.pretrain(
        name, split="train", eval_split="test", epochs=1, milestones=()
    )
    config.data.data_dir, config.data.workers = str(data_dir), 1
    config.data.stream, config.batch_size = stream, 4
    config.update_from_flattened_dict(flat)
    opened = pipeline.open_pipeline(config, spec, lambda rng, batch: {}, True)
    return opened, list(itertools.islice(opened.train_batches(), count))


def test_both_streams_show_the_same_places(data_dir, prepared):
    """The other stream's clip is the one that a run on that stream would see."""
    both = dataclasses.replace(SPEC, other_stream=(1,))
    _, rgb = batches(data_dir, "rgb", SPEC)
    _, flows = batches(data_dir, "flow", SPEC)
    for stream, own, other in (("rgb", rgb, flows), ("flow", flows, rgb)):
        _, found = batches(data_dir, stream, both)
        for batch, mine, theirs in zip(found, own, other, strict=True):
            assert batch["frames"].shape[1] == 3
            for name in ("frames", "times", "window", "flip", "extent", "choice"):
                np.testing.assert_array_equal(batch[name][:, :2], mine[name])
                np.testing.assert_array_equal(batch[name][:, 2], theirs[name][:, 1])
            shown = [False, False, True] if stream == "rgb" else [True, True, False]
            np.testing.assert_array_equal(batch["flow"], [shown] * 4)
            np.testing.assert_array_equal(batch["index"], mine["index"])
    assert "flow" not in rgb[0] and flows[0]["flow"].all()
    # And those are frames of the streams, decoded here by another decoder.
    opened, (batch,) = batches(data_dir, "flow", SPEC, 1)
    stored = read_all(NAME, data_dir)
    for row, clip, t in itertools.product(range(4), range(2), range(4)):
        name = opened.records.ids[batch["index"][row]]
        time = batch["times"][row, clip, t]
        image = stored_lib.decode([stored[name]["other"][time]])[0].astype(int)
        frame = batch["frames"][row, clip, t].astype(int)
        height, width = frame.shape[:2]
        places = [
            (y, x)
            for y in range(image.shape[0] - height + 1)
            for x in range(image.shape[1] - width + 1)
            if np.abs(image[y : y + height, x : x + width] - frame).mean() < 3
        ]
        assert places


def test_a_mirrored_motion_turns_round(data_dir, prepared):
    spec = dataclasses.replace(SPEC, other_stream=(1,))
    for batch in batches(data_dir, "rgb", spec)[1]:
        given = {n: jnp.asarray(batch[n]) for n in render.PER_CLIP if n in batch}
        drawn = np.asarray(render.crop_clips(given, 32))
        given["flip"] = jnp.zeros_like(given["flip"])
        straight = np.asarray(render.crop_clips(given, 32))
        expected = straight.copy()
        flipped = batch["flip"]
        expected[flipped] = straight[flipped][..., ::-1, :]
        turned = flipped & batch["flow"]
        expected[turned, ..., 0] = 256 - expected[turned, ..., 0]
        np.testing.assert_allclose(drawn, expected, atol=1e-2)


def test_a_damaged_flow_frame_makes_a_bad_record(data_dir, prepared, tmp_path):
    """Where flow is read; another video takes its place, and the reason is said."""
    folder = tmp_path / NAME / "1.0.0"
    folder.mkdir(parents=True)
    for name, data in contents(data_dir / NAME / "1.0.0").items():
        (folder / name).write_bytes(data)
    opened = records.open_records(NAME, "train", str(tmp_path), "flow")
    encoded = stored_lib.read(
        stored_lib.find(*records.open_index(NAME, str(tmp_path)))[0]
    )
    assert len(encoded.flow) == len(encoded.frames)
    one = records.select(opened, np.array([0]))
    assert "it could not be read then" in bad_records.diagnose(one, 0)
    path = one.files[one.file_index[0]]
    with open(path, "r+b") as file:
        file.seek(int(one.offset[0] + one.length[0] // 2))
        file.write(b"\xff\x00\xff")
    assert "bytes are not those" in bad_records.diagnose(one, 0)
    spec = dataclasses.replace(SPEC, other_stream=(1,))
    given = {"data.max_bad": 1.0}
    source, (first, _) = batches(tmp_path, "rgb", spec, **given)
    assert source.bad_records.records == 1 and (first["replaced"] > 0).any()
    assert np.asarray(first["flow"]).shape == (4, 3)


def test_wrong_flow_is_diagnosed(data_dir, prepared, monkeypatch):
    opened = records.open_records(NAME, "train", str(data_dir))
    parse = reading.parser(opened)

    def without(kind):
        def changed(payload):
            features = parse(payload)
            other = features["other"]
            other = (
                other[1:]
                if kind == "few"
                else tf.tensor_scatter_nd_update(other, [[2]], [b"no picture"])
            )
            return {**features, "other": other}

        return lambda _: changed

    one = records.select(opened, np.array([1]))
    monkeypatch.setattr(reading, "parser", without("few"))
    frames = int(one.num_frames[0])
    expected = f"it has {frames - 1} flow for {frames} frames"
    assert bad_records.diagnose(one, 0) == expected
    monkeypatch.setattr(reading, "parser", without("bad"))
    assert bad_records.diagnose(one, 0) == "frame 2 cannot be decoded"


# Mistakes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--from", ""], "--from: needs the name of a prepared data set"),
        (["--from", NAME], "has flow already"),
        (["--method", "farneback"], "method"),
        (["--bound", "0"], "bound"),
        (["--split", "val"], "'moving_shapes' has test, train"),
    ],
)
def test_mistakes_are_one_line(flags, message, data_dir, prepared):
    with pytest.raises(UserError, match=message) as raised:
        prepare_in(data_dir, *FLAGS, "--name=other", *flags)
    assert "\n" not in str(raised.value)


def test_a_data_set_without_flow_is_refused(data_dir, prepared):
    command = "`python -m ctp_jax.prepare flow --from moving_shapes`"
    for stream, spec in (
        ("flow", SPEC),
        ("rgb", dataclasses.replace(SPEC, other_stream=(0,))),
    ):
        with pytest.raises(UserError, match=command):
            batches(data_dir, stream, spec, name="moving_shapes")
    with pytest.raises(UserError, match=r"prepare flow --from a "):
        records.open_records("a_flow", "train", str(data_dir))


def test_without_contributed_modules(data_dir, monkeypatch):
    other = types.SimpleNamespace(__version__="5.1", setNumThreads=lambda _: None)
    monkeypatch.setitem(sys.modules, "cv2", other)
    with pytest.raises(UserError, match="flow 'tvl1': OpenCV 5.1 is installed without"):
        flow_lib.require("tvl1")
    assert flow_lib.require("dis") is other
