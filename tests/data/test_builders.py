"""What the builders list, split and generate; preparing itself is in test_prepare."""

import argparse
import functools
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ctp_jax.data import records, shapes
from ctp_jax.data.builders import (
    base,
    hmdb51,
    lists,
    moving_shapes,
    ucf101,
    video_folder,
)
from ctp_jax.errors import UserError
from tests.data.make_videos import crash, encode_boxed, encode_numbered, refuse

OPTIONS = base.Options()


def make_source(builder, *flags):
    parser = argparse.ArgumentParser()
    builder.add_arguments(parser)
    return builder.make_source(parser.parse_args(flags), OPTIONS)


def touch(folder, *names, text="x"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)


# Moving shapes -------------------------------------------------------------------


def test_shapes_are_a_function_of_seed_and_index():
    first, again = shapes.draw_video(3, 7), shapes.draw_video(3, 7)
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.uint8
    assert 40 <= len(first) <= 60
    other = shapes.draw_video(4, 7)
    assert other.shape != first.shape or (other != first).any()
    encoded = shapes.encode_shapes(3, 7)
    decoded = np.stack([np.asarray(Image.open(io.BytesIO(f))) for f in encoded.frames])
    luma = np.array([0.299, 0.587, 0.114])  # chroma is halved
    assert np.abs(decoded @ luma - first @ luma).mean() < 3


def paths(motion, count=400, frames=50, height=72, width=96):
    """x, y, side, angle of many sprites, (count, frames) each."""
    rng = np.random.default_rng(shapes.CLASSES.index(motion))
    sprites = [
        shapes.draw_sprite(rng, motion, frames, height, width) for _ in range(count)
    ]
    return [
        np.stack([getattr(s, name) for s in sprites])
        for name in ("x", "y", "side", "angle")
    ]


def steps_on_torus(positions, extent):
    around = extent + 2 * shapes.MARGIN
    return (np.diff(positions, axis=1) + around / 2) % around - around / 2


@pytest.mark.parametrize("motion", shapes.CLASSES)
def test_a_frame_says_nothing_about_the_class(motion):
    """Every state is uniform at every instant, whatever the class.

    The largest gap between the empirical and the uniform distribution function of 400
    draws exceeds 0.1 once in a thousand times (Kolmogorov); the seeds are fixed.
    """
    x, y, side, angle = paths(motion)
    smallest, largest = shapes.SIDES
    for frame in (0, 13, 49):
        for uniform in (
            (x[:, frame] + shapes.MARGIN) / (96 + 2 * shapes.MARGIN),
            (y[:, frame] + shapes.MARGIN) / (72 + 2 * shapes.MARGIN),
            np.log(side[:, frame] / smallest) / np.log(largest / smallest),
            (angle[:, frame] / (2 * np.pi)) % 1,
        ):
            assert uniform.min() >= 0
            assert uniform.max() <= 1
            grid = (np.arange(400) + 0.5) / 400
            assert np.abs(np.sort(uniform) - grid).max() < 0.1


@pytest.mark.parametrize("motion", shapes.CLASSES)
def test_motion_is_that_of_the_class(motion):
    x, y, side, angle = paths(motion)
    dx, dy = steps_on_torus(x, 96), steps_on_torus(y, 72)
    across, along = np.ptp(np.cumsum(dx, 1), axis=1), np.ptp(np.cumsum(dy, 1), axis=1)
    # Twice the area swept around the start; positive is clockwise, y points down.
    swept = np.sum(np.cumsum(dx, 1)[:, :-1] * dy[:, 1:], axis=1) - np.sum(
        np.cumsum(dy, 1)[:, :-1] * dx[:, 1:], axis=1
    )
    growth = np.median(np.diff(np.log(side), axis=1), axis=1)
    turned = np.abs(angle[:, -1] - angle[:, 0])
    horizontal, vertical = dx.sum(1), dy.sum(1)
    seen = {
        "left": (horizontal < -30).all(),
        "right": (horizontal > 30).all(),
        "up": (vertical < -30).all(),
        "down": (vertical > 30).all(),
        "clockwise": (swept > 30).all(),
        "counterclockwise": (swept < -30).all(),
        "grow": (growth > 0.01).all(),
        "shrink": (growth < -0.01).all(),
        "shake": (np.hypot(across, along) > 2).all() and np.abs(swept).max() < 1e-6,
        "spin": (turned > 1).all(),
    }
    # Those that move straight sweep nothing either, but they go far.
    seen["shake"] &= (np.hypot(horizontal, vertical) < 12).all()
    assert [name for name, is_seen in seen.items() if is_seen] == [motion]


@pytest.mark.parametrize(("shape", "area"), [("disc", np.pi / 4), ("square", 1.0)])
def test_a_sprite_is_drawn_where_it_is(shape, area):
    side, x, y = 20.0, 30.3, 25.8
    sprite = shapes.Sprite(
        *(np.array([value]) for value in (x, y, side, 0.4)),
        texture=np.ones((48, 48, 3), np.float32),
        shape=shape,
    )
    canvas = np.zeros((60, 70, 3), np.float32)
    shapes.paste(canvas, sprite, 0)
    weight = canvas[..., 0]
    assert weight.sum() == pytest.approx(area * side**2, rel=0.02)
    rows, columns = np.indices(weight.shape)
    assert (weight * columns).sum() / weight.sum() == pytest.approx(x, abs=0.1)
    assert (weight * rows).sum() / weight.sum() == pytest.approx(y, abs=0.1)


def test_moving_shapes_source():
    flags = ["--train_videos", "12", "--test_videos", "5"]
    source = make_source(moving_shapes.MovingShapes, *flags)
    assert [len(source.splits[s]) for s in ("train", "test")] == [12, 5]
    assert {item.label for item in source.items[:10]} == set(range(10))
    assert all(i.id.startswith(source.class_names[i.label]) for i in source.items)
    with pytest.raises(UserError, match="--test_videos=0"):
        make_source(moving_shapes.MovingShapes, "--test_videos", "0")


# Folders and lists ---------------------------------------------------------------


def make_ucf(tmp_path):
    videos = touch(
        tmp_path / "videos",
        "HandstandPushups/v_HandStandPushups_g01_c01.avi",
        "HandstandPushups/v_HandstandPushups_g02_c01.avi",
        "Archery/v_Archery_g01_c01.avi",
        "Archery/v_Archery_g01_c02.mp4",
        "Archery/v_Archery_g09_c09.avi",
        "Archery/notes.txt",
    )
    folder = tmp_path / "lists"
    touch(folder, "classInd.txt", text="1 Archery\n2 HandstandPushups\n")
    touch(
        folder,
        "trainlist01.txt",
        text="Archery/v_Archery_g01_c01.avi 1\r\n"
        "HandStandPushups/v_HandStandPushups_g02_c01.avi 2\r\n",
    )
    touch(
        folder,
        "testlist01.txt",
        text="HandStandPushups/v_HandStandPushups_g01_c01.avi\n\n"
        "Archery/v_Archery_g01_c02.avi\n",
    )
    return videos, folder


def test_ucf_lists_find_files_spelt_otherwise(tmp_path):
    videos, folder = make_ucf(tmp_path)
    source = make_source(ucf101.Ucf101, "--videos", videos, "--lists", str(folder))
    assert source.class_names == ["Archery", "HandstandPushups"]
    assert source.splits == {
        "train01": [
            "Archery/v_Archery_g01_c01.avi",
            "HandstandPushups/v_HandstandPushups_g02_c01.avi",
        ],
        "test01": [
            "HandstandPushups/v_HandStandPushups_g01_c01.avi",
            "Archery/v_Archery_g01_c02.mp4",
        ],
    }
    assert {item.id: item.label for item in source.items} == {
        "Archery/v_Archery_g01_c01.avi": 0,
        "Archery/v_Archery_g01_c02.mp4": 0,
        "HandstandPushups/v_HandStandPushups_g01_c01.avi": 1,
        "HandstandPushups/v_HandstandPushups_g02_c01.avi": 1,
    }


def test_ucf_videos_in_one_folder(tmp_path):
    _, folder = make_ucf(tmp_path)
    flat = touch(
        tmp_path / "flat",
        "v_HandStandPushups_g01_c01.avi",
        "v_HandstandPushups_g02_c01.avi",
        "v_Archery_g01_c01.avi",
        "v_Archery_g01_c02.avi",
    )
    source = make_source(ucf101.Ucf101, "--videos", flat, "--lists", str(folder))
    assert {item.id: item.label for item in source.items} == {
        "v_Archery_g01_c01.avi": 0,
        "v_Archery_g01_c02.avi": 0,
        "v_HandStandPushups_g01_c01.avi": 1,
        "v_HandstandPushups_g02_c01.avi": 1,
    }


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("classInd.txt", "0 Archery\n", r"classInd.txt:1: needs `1 ClassName`"),
        ("classInd.txt", "1 Archery\nrun\n", r"classInd.txt:2: needs `2 ClassName`"),
        ("classInd.txt", "", r"classInd.txt: is empty"),
        ("trainlist01.txt", "Archery/a.avi 1\na b c\n", r"trainlist01.txt:2: needs"),
        ("trainlist01.txt", "v_Archery.avi 1\n", r"trainlist01.txt:1: needs"),
        ("trainlist01.txt", "Swim/a.avi\n", r"trainlist01.txt:1: class 'Swim' is not"),
        ("trainlist01.txt", "Archery/a.avi 2\n", r"trainlist01.txt:1: .* number 1 in"),
        (
            "trainlist01.txt",
            "Archery/a.avi 1\nArchery/b.avi 1\n",
            r"trainlist01.txt:1: 2 of the 4 listed .*Archery/a.avi, Archery/b.avi",
        ),
        (
            "trainlist01.txt",
            "Archery/v_Archery_g01_c02.avi 1\n",
            r"trainlist01.txt:1: .* is listed already at .*testlist01.txt:3",
        ),
    ],
)
def test_bad_ucf_lists(tmp_path, file, text, message):
    videos, folder = make_ucf(tmp_path)
    touch(folder, file, text=text)
    with pytest.raises(UserError, match=message) as caught:
        make_source(ucf101.Ucf101, "--videos", videos, "--lists", str(folder))
    assert "\n" not in str(caught.value)


def test_a_list_that_is_not_text(tmp_path):
    videos, folder = make_ucf(tmp_path)
    (folder / "trainlist01.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="trainlist01.txt: not a text file"):
        make_source(ucf101.Ucf101, "--videos", videos, "--lists", str(folder))


def test_missing_folders(tmp_path):
    videos, folder = make_ucf(tmp_path)
    empty = touch(tmp_path / "empty", "readme.md")
    for flags, message in [
        ([], "--lists is missing"),
        (["--lists", str(folder)], "--videos is missing"),
        (
            ["--lists", str(folder), "--videos", "/no/where"],
            "/no/where: no such folder",
        ),
        (["--lists", str(folder), "--videos", empty], "no video in it"),
        (["--lists", "/no/where", "--videos", videos], "/no/where: no such folder"),
        (["--lists", empty, "--videos", videos], "no list in it"),
    ]:
        with pytest.raises(UserError, match=message):
            make_source(ucf101.Ucf101, *flags)


def test_hmdb_lists(tmp_path):
    videos = touch(
        tmp_path / "videos",
        "brush_hair/a#b_(x).avi",
        "brush_hair/b.avi",
        "wave/c.avi",
        "wave/d.avi",
    )
    folder = tmp_path / "lists"
    for split, uses in [(1, "1210"), (2, "0021")]:
        first, second, third, fourth = uses
        text = f"a#b_(x).avi {first} \nb.avi {second} \n"
        touch(folder, f"brush_hair_test_split{split}.txt", text=text)
        text = f"c.avi {third}\nd.avi {fourth}\n"
        touch(folder, f"wave_test_split{split}.txt", text=text)
    flags = ["--videos", videos, "--lists", str(folder)]
    source = make_source(hmdb51.Hmdb51, *flags)
    assert source.class_names == ["brush_hair", "wave"]
    assert [item.label for item in source.items] == [0, 0, 1, 1]
    assert source.splits == {
        "train01": ["brush_hair/a#b_(x).avi", "wave/c.avi"],
        "test01": ["brush_hair/b.avi"],
        "unused01": ["wave/d.avi"],
        "unused02": ["brush_hair/a#b_(x).avi", "brush_hair/b.avi"],
        "test02": ["wave/c.avi"],
        "train02": ["wave/d.avi"],
    }
    touch(folder, "wave_test_split2.txt", text="c.avi 1\nd.avi 3\n")
    with pytest.raises(
        UserError, match="wave_test_split2.txt:2: needs `video.avi 0|1|2`"
    ):
        make_source(hmdb51.Hmdb51, *flags)


def test_folder_of_classes_is_split_class_by_class(tmp_path):
    names = [f"{c}/{i}.mp4" for c in ("run", "sit", "once") for i in range(20)]
    names = [
        name for name in names if not name.startswith("once") or name == "once/0.mp4"
    ]
    videos = touch(tmp_path, *names, ".hidden/x.mp4", "run/.part.mp4")
    source = make_source(video_folder.VideoFolder, "--videos", videos)
    assert source.class_names == ["once", "run", "sit"]
    train, test = source.splits["train"], source.splits["test"]
    assert sorted(train + test) == sorted(names)
    assert [sum(t.startswith(c) for t in test) for c in ("run", "sit", "once")] == [
        2,
        2,
        0,
    ]
    # The split follows from the names alone.
    again = make_source(video_folder.VideoFolder, "--videos", videos + "/")
    assert again.splits == source.splits
    half = make_source(
        video_folder.VideoFolder, "--videos", videos, "--test_share", "0.5"
    )
    assert set(test) < set(half.splits["test"])


def test_flat_folder_and_deep_folder_without_labels(tmp_path):
    flat = touch(tmp_path / "flat", "a.mp4", "b.MOV")
    source = make_source(video_folder.VideoFolder, "--videos", flat)
    assert [(i.id, i.label) for i in source.items] == [("a.mp4", -1), ("b.MOV", -1)]
    assert list(source.class_names) == []
    mixed = touch(tmp_path / "mixed", "a.mp4", "walk/b.mp4", "walk/deep/c.mp4")
    with pytest.raises(UserError, match="1 videos lie beside.*a.mp4"):
        make_source(video_folder.VideoFolder, "--videos", mixed)
    source = make_source(video_folder.VideoFolder, "--videos", mixed, "--unlabelled")
    assert {item.label for item in source.items} == {-1}


def test_one_list_each(tmp_path):
    videos = touch(tmp_path / "videos", "run/a.mp4", "sit/b.mp4", "sit/c.mp4")
    touch(tmp_path, "train.txt", text="run/a.mp4\nsit/b.mp4\n")
    touch(tmp_path, "test.txt", text="sit/c.mp4\n")
    flags = ["--videos", videos, "--train_list", str(tmp_path / "train.txt")]
    flags += ["--test_list", str(tmp_path / "test.txt")]
    source = make_source(video_folder.VideoFolder, *flags)
    assert source.splits == {"train": ["run/a.mp4", "sit/b.mp4"], "test": ["sit/c.mp4"]}
    with pytest.raises(UserError, match="needs one of them"):
        make_source(video_folder.VideoFolder, *flags, "--lists", videos)


def test_two_files_of_one_name_are_not_mistaken(tmp_path):
    folder = lists.Folder(touch(tmp_path, "x/a.avi", "y/a.mp4", "x/B.mp4"))
    assert folder.locate("x/a.avi") == "x/a.avi"
    assert folder.locate("y/A.avi") == "y/a.mp4"
    assert folder.locate("z/a.avi") is None
    assert folder.locate("z/b.avi") == "x/B.mp4"


# Parallel encoding ---------------------------------------------------------------


def test_encoding_keeps_the_order_and_survives_a_crash():
    items = [
        base.Item(f"v{i}", 0, functools.partial(encode_numbered, i + 1))
        for i in range(9)
    ]
    items[2] = base.Item("broken", 0, crash)
    items[6] = base.Item("refused", 0, refuse)
    done = list(base.encode_in_parallel(items, workers=2))
    assert [item for item, _ in done] == items
    assert done[2][1] == "the decoder crashed"
    assert done[6][1] == "no good"
    for i in (0, 1, 3, 4, 5, 7, 8):
        assert len(done[i][1].frames) == i + 1


class Boxed(base.VideoBuilder, skip_registration=True):
    """Two videos with a box per frame."""

    @classmethod
    def make_source(cls, arguments, options):
        items = [
            base.Item(f"v{i}", -1, functools.partial(encode_boxed, i)) for i in (2, 3)
        ]
        return base.Source(items, {"val": ["v3"]}, has_boxes=True)


def test_a_builder_with_boxes_used_as_tfds_does(tmp_path):
    builder = Boxed(data_dir=tmp_path, options=base.Options(progress=False))
    builder.download_and_prepare()
    opened = records.open_records("boxed", "val", str(tmp_path))
    assert opened.ids.tolist() == ["v3"]
    example = records.read_features(opened)(tf.constant(0, tf.int64))
    expected = encode_boxed(3)
    assert example["frames"].numpy().tolist() == expected.frames
    np.testing.assert_array_equal(example["boxes"], expected.boxes)
    assert int(example["label"]) == -1
