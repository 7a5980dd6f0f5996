"""Something-Something V1: from folders of frames and lists to records."""

import io
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ctp_jax.data import reading, records
from ctp_jax.errors import UserError
from ctp_jax.prepare import video
from ctp_jax.prepare import workers as workers_lib
from ctp_jax.prepare.builders import something_something_v1
from tests.prepare.make_sources import make_source, run_main, touch
from tests.prepare.make_videos import numbers

PREFIX = "something-something-v1-"
CLASSES = [
    "Putting something, something and something on the table",
    "Turning something upside down",
    "Trying something because it doesn't stick",
    "Holding something",
]
# id: (label, frames, height)
VIDEOS = {
    "7": (3, 4, 20),
    "100218": (0, 12, 20),
    "24413": (2, 3, 40),
    "60": (1, 5, 20),
    "61": (0, 2, 20),
    "62": (-1, 3, 20),
}
SPLITS = {"train": ["100218", "7", "24413"], "val": ["61", "60"], "test": ["62"]}


def jpeg(number: int, height: int) -> bytes:
    buffer = io.BytesIO()
    grey = np.full((height, height * 3 // 2, 3), 20 + 8 * number, np.uint8)
    Image.fromarray(grey).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture
def flags(tmp_path):
    """--videos and --lists of a small copy of the data set."""
    for name, (_, count, height) in VIDEOS.items():
        folder = tmp_path / "videos" / "20bn-something-something-v1" / name
        folder.mkdir(parents=True)
        for i in range(1, count + 1):
            (folder / f"{i:05d}.jpg").write_bytes(jpeg(i, height))
    lists = tmp_path / "lists"
    touch(lists, f"{PREFIX}labels.csv", text="\n".join(CLASSES) + "\n")
    for split, file in [("train", "train"), ("val", "validation"), ("test", "test")]:
        names = [CLASSES[VIDEOS[i][0]] for i in SPLITS[split]]
        lines = [f"{i};{name}" for i, name in zip(SPLITS[split], names)]
        lines = SPLITS["test"] if split == "test" else lines
        touch(lists, f"{PREFIX}{file}.csv", text="\n".join(lines) + "\n")
    return ["--videos", str(tmp_path / "videos"), "--lists", str(lists)]


def test_from_frames_to_records(flags, tmp_path, capsys):
    folder = pathlib.Path(flags[1], "20bn-something-something-v1")
    (folder / "60" / "00003.jpg").unlink()
    data = str(tmp_path / "data")
    code, out, errors = run_main(
        capsys, "something_something_v1", *flags, "--data_dir", data, "--short_side", 20
    )
    assert code == 0, errors
    assert errors == [
        f"note: train: 1 of 4 classes have no video: {CLASSES[1]}",
        f"note: val: 2 of 4 classes have no video: {CLASSES[2]}, {CLASSES[3]}",
    ]
    assert "val: 1 of 2 videos" in out
    assert "60: frame 3 is missing, 00004.jpg comes instead" in out
    assert "note: 174 classes were expected, this has 4" in out
    for split, wanted in SPLITS.items():
        opened = records.open_records("something_something_v1", split, data)
        assert opened.class_names == tuple(CLASSES)
        assert opened.ids.tolist() == [name for name in wanted if name != "60"]
        read = reading.read_features(opened)
        for row, name in enumerate(opened.ids):
            label, count, height = VIDEOS[name]
            example = read(tf.constant(row, tf.int64))
            assert int(example["label"]) == opened.label[row] == label
            assert opened.fps[row] == 12
            stored = example["frames"].numpy().tolist()
            originals = [jpeg(i, height) for i in range(1, count + 1)]
            assert (stored == originals) == (height == 20)
            images = [tf.io.decode_jpeg(frame).numpy() for frame in stored]
            assert {image.shape for image in images} == {(20, 30, 3)}
            assert numbers(images) == list(range(1, count + 1))


def test_what_is_listed(flags):
    source = make_source(something_something_v1.Builder, *flags)
    assert source.class_names == CLASSES
    assert source.splits == SPLITS
    labels = {name: label for name, (label, _, _) in VIDEOS.items()}
    assert {item.id: item.label for item in source.items} == labels
    nested = pathlib.Path(flags[1], "20bn-something-something-v1")
    again = make_source(
        something_something_v1.Builder, "--videos", str(nested), *flags[2:]
    )
    assert again.splits == SPLITS


def test_lists_from_a_spreadsheet(flags):
    """With a byte order mark, Windows line ends and quotes; and without a test list."""
    lists = pathlib.Path(flags[3])
    labels = "".join(f'"{name}"\r\n' for name in CLASSES)
    (lists / f"{PREFIX}labels.csv").write_bytes(b"\xef\xbb\xbf" + labels.encode())
    text = f'\ufeff7;"{CLASSES[3]}"\r\n\r\n100218;"{CLASSES[0]}"\r\n'
    (lists / f"{PREFIX}train.csv").write_bytes(text.encode())
    (lists / f"{PREFIX}test.csv").unlink()
    source = make_source(something_something_v1.Builder, *flags)
    assert source.class_names == CLASSES
    assert source.splits == {"train": ["7", "100218"], "val": SPLITS["val"]}
    assert {i.id: i.label for i in source.items} == {
        "7": 3,
        "100218": 0,
        "61": 0,
        "60": 1,
    }


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("labels", None, "labels.csv: No such file"),
        ("labels", "\n", "labels.csv: is empty"),
        ("labels", "Holding something\nHolding something\n", r"labels.csv:2: needs"),
        ("labels", "1;Holding something\n", r"labels.csv:1: needs `class name`"),
        ("train", "", r"train.csv: is empty"),
        ("train", "7\n", r"train.csv:1: needs `id;class name`, has `7`"),
        ("train", "7,Holding something\n", r"train.csv:1: needs `id;class name`"),
        (
            "train",
            "100218;Turning something upside down\n7;Holdin something\n",
            "train.csv:2: class 'Holdin something' .* did you mean 'Holding something'",
        ),
        (
            "train",
            "7;Holding something\n1;Holding something\n2;Holding something\n",
            r"train.csv:2: 2 of the 6 listed videos are not in .*: 1, 2$",
        ),
        (
            "train",
            "7;Holding something\n61;Holding something\n",
            r"validation.csv:1: 61 is listed already at .*train.csv:2",
        ),
        ("test", "62;;\n", r"test.csv:1: needs `id`, has `62;;`"),
    ],
)
def test_bad_lists(flags, file, text, message):
    path = pathlib.Path(flags[3], f"{PREFIX}{file}.csv")
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        make_source(something_something_v1.Builder, *flags)
    assert "\n" not in str(caught.value)


def test_missing_folders_and_lists(flags, tmp_path):
    labels = touch(tmp_path / "only", f"{PREFIX}labels.csv", text="Holding something")
    for given, message in [
        ([], "--lists is missing"),
        (["--lists", "/no/where"], "--lists=/no/where: no such folder"),
        (flags[2:], "--videos is missing"),
        ([*flags, "--videos", "/no/where"], "--videos=/no/where: no such folder"),
        (
            [*flags, "--lists", labels],
            "no list in it, needs something-something-v1-tra",
        ),
    ]:
        with pytest.raises(UserError, match=message):
            make_source(something_something_v1.Builder, *given)


def test_a_folder_without_frames_counts_as_a_bad_video(flags):
    source = make_source(something_something_v1.Builder, *flags)
    (item,) = [item for item in source.items if item.id == "7"]
    for file in pathlib.Path(flags[1]).glob("*/7/*"):
        file.unlink()
    with pytest.raises(video.VideoError, match="no frame in the folder"):
        item.encode()
    ((_, reason),) = workers_lib.encode_in_parallel([item], workers=1)
    assert reason == "no frame in the folder"
