"""An index with impossible values is refused; one that is gone is not replaced."""

import json
import os
import zipfile

import numpy as np
import pytest

from ctp_jax.data import index, records, tfrecord
from ctp_jax.errors import UserError

COUNT = 6


@pytest.fixture
def folder(tmp_path):
    """A data set of six records without their bytes."""
    folder = tmp_path / "mine" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(
        json.dumps({"splits": [{"name": "videos", "shardLengths": [str(COUNT)]}]})
    )
    (folder / "shard").write_bytes(bytes(6000))
    index.write(folder, made())
    return folder


def made(**changes):
    columns = {
        "file_index": np.zeros(COUNT),
        "offset": 12 + 1000 * np.arange(COUNT),
        "length": np.full(COUNT, 984),
        "num_frames": np.full(COUNT, 3),
        "height": np.full(COUNT, 36),
        "width": np.full(COUNT, 48),
        "label": np.arange(COUNT) % 2,
        "fps": np.full(COUNT, 25.0),
    }
    columns = {k: v.astype(index.COLUMNS[k]) for k, v in columns.items()}
    table = {
        "features": tfrecord.Features("frames", "label", {"boxes": (4,)}),
        "encoding": "jpeg",
        "class_names": ("a", "b"),
        "files": ("shard",),
        "file_size": np.array([6000]),
        "id_bytes": np.array([b"v%d" % i for i in range(COUNT)]),
        "splits": {
            "all": np.arange(COUNT),
            "train": np.arange(4),
            "test": np.array([5]),
        },
    }
    return index.Index(**{**columns, **table, **changes})


def open_split(folder, split="train"):
    return records.open_records("mine", split, str(folder.parents[1]))


def test_the_whole_one_is_read(folder):
    opened = open_split(folder)
    assert len(opened) == 4 and opened.ids.tolist() == ["v0", "v1", "v2", "v3"]
    assert opened.features == made().features and opened.encoding == "jpeg"


def changed(name, value):
    array = getattr(made(), name).copy()
    array[2] = value
    return {name: array}


TIB = 1 << 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (changed("length", TIB), "length"),
        (changed("length", np.iinfo(np.int64).max), "length"),
        (changed("length", -1), "length"),
        (changed("length", 0), "length"),
        (changed("length", 3985), "length"),  # one byte over the end
        (changed("offset", TIB), "offset"),
        (changed("offset", 0), "offset"),
        (changed("offset", np.iinfo(np.int64).min), "offset"),
        (changed("offset", np.iinfo(np.int64).max), "offset"),
        (changed("num_frames", 0), "num_frames"),
        (changed("num_frames", 1 << 30), "num_frames"),
        (changed("height", 1 << 30), "height"),
        (changed("height", 60_000) | changed("width", 60_000), "height and width"),
        (changed("width", -5), "width"),
        (changed("label", 2), "label"),
        (changed("label", -2), "label"),
        (changed("fps", np.nan), "fps"),
        (changed("fps", -1), "fps"),
        (changed("file_index", 1), "file_index"),
        (changed("file_index", -1), "file_index"),
        ({"splits": {"train": np.array([6])}}, "split 'train'"),
        ({"splits": {"train": np.array([-1])}}, "split 'train'"),
        ({"splits": {"train": np.array([0.5])}}, "split 'train'"),
        ({"length": np.full(COUNT - 1, 9)}, "length"),
        ({"length": np.full(COUNT, 9.0)}, "length"),
        ({"length": np.array(TIB)}, "length"),
        ({"id_bytes": np.arange(COUNT)}, "ids"),
        ({"file_size": np.array([6000, 1])}, "file_size"),
    ],
)
def test_impossible_values(folder, changes, message):
    index.write(folder, made(**changes))
    with pytest.raises(UserError, match=f"index cannot be read .{message}") as caught:
        open_split(folder)
    assert "\n" not in str(caught.value) and "--overwrite" in str(caught.value)


def test_names_of_other_encodings_are_read(folder):
    """As those in a data set of TFDS, which is scanned the first time."""
    index.write(folder, made(**changed("id_bytes", b"\xff")))
    opened = open_split(folder)
    assert opened.ids[2] == opened.id_of(2) == "\\xff"


def test_arrays_that_declare_a_tebibyte(folder):
    """And one with pickled objects, a pipe, a folder: no allocation, no code, no wait."""
    path = folder / index.INDEX_FILE
    arrays = {f"{name}.npy": npy for name, npy in members(path)}
    name = "length.npy"
    declared = arrays[name].replace(
        b"(6,), }" + b" " * 13, b"(1099511627776,), }" + b" "
    )
    assert declared != arrays[name] and len(declared) == len(arrays[name])
    with zipfile.ZipFile(path, "w") as archive:
        for each, data in (arrays | {name: declared}).items():
            archive.writestr(each, data)
    with pytest.raises(UserError, match="index cannot be read"):
        open_split(folder)
    np.savez(path, about=np.array([{}], object), allow_pickle=True)
    with pytest.raises(UserError, match="index cannot be read"):
        open_split(folder)
    for make in (os.mkfifo, os.mkdir):
        path.unlink()
        make(path)
        with pytest.raises(UserError, match="index cannot be read .is"):
            open_split(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": [3]}, "an item of files is not text"),
        ({"class_names": "ab"}, "class_names is not a list"),
        ({"features": {"frames": "frames"}}, "features.annotations is missing"),
        ({"features": {"frames": "f", "annotations": {"boxes": "x"}}}, "boxes is not"),
        ({"features": {"frames": "f", "annotations": {}, "more": 1}}, ""),
        ({"splits": ["train", "elsewhere"]}, "split:elsewhere"),
        ({"version": "3"}, "version is not a whole number"),
        ({"version": 2}, "version 2, not 3"),
    ],
)
def test_a_description_of_another_shape(folder, change, message):
    path = folder / index.INDEX_FILE
    with np.load(path) as stored:
        arrays = dict(stored)
    about = json.loads(arrays["about"].tobytes()) | change
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=f"index cannot be read .*{message}") as caught:
        open_split(folder)
    assert "\n" not in str(caught.value)


def members(path):
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            yield name.removesuffix(".npy"), archive.read(name)


def test_every_column_is_checked_for_its_type(folder):
    for field in (*index.COLUMNS, "file_size"):
        array = getattr(made(), field)
        for other in (array.astype(complex), array[:, None], array.astype("S9")):
            index.write(folder, made(**{field: other}))
            with pytest.raises(UserError, match=f"{field} has another type or length"):
                open_split(folder)


def test_an_index_that_is_gone_is_not_replaced(folder):
    """TFDS knows one split only, which contains the test videos too."""
    path = folder / index.INDEX_FILE
    path.unlink()
    for split in ("train", "videos", "all"):
        with pytest.raises(UserError, match=f"{index.INDEX_FILE} is missing") as caught:
            open_split(folder, split)
        assert "prepare video_folder --name mine" in str(caught.value)
        assert "--overwrite" in str(caught.value)
    assert not path.exists()


FOREIGN = {
    "dataset_info.json": {"splits": [{"name": "train", "shardLengths": ["1"]}]},
    "features.json": {"featuresDict": {"features": {"video": {"video": {}}}}},
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"splits": 3, "featuresDict": 3}',
        '{"splits": [3], "featuresDict": {"features": 3}}',
        '{"splits": [{"name": []}], "featuresDict": {"features": {"a": 3}}}',
        """{"splits": [{"name": "a", "shardLengths": ["x"]}],
            "featuresDict": {"features": {"a": {"sequence": 3}}}}""",
        """{"splits": [{"name": "a", "shardLengths": 3}],
            "featuresDict": {"features": {"a": {"sequence": {"feature": 3}}}}}""",
        "pipe",
    ],
)
def test_metadata_of_tfds_of_another_shape(tmp_path, name, text):
    folder = tmp_path / "theirs" / "1.0.0"
    folder.mkdir(parents=True)
    for each, good in FOREIGN.items():
        (folder / each).write_text(json.dumps(good))
    (folder / name).unlink()
    os.mkfifo(folder / name) if text == "pipe" else (folder / name).write_text(text)
    with pytest.raises(UserError) as caught:
        records.open_records("theirs", "train", str(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_arrays_are_those_that_numpy_reads(folder):
    with np.load(folder / index.INDEX_FILE) as stored:
        found = index.read(folder)
        assert found is not None
        for name in index.COLUMNS:
            np.testing.assert_array_equal(getattr(found, name), stored[name])


@pytest.mark.parametrize("kind", ["pipe", "latin-1"])
def test_names_of_classes_that_cannot_be_read(tmp_path, kind):
    folder = tmp_path / "theirs" / "1.0.0"
    folder.mkdir(parents=True)
    features = {"video": {"video": {}}, "label": {"classLabel": {}}}
    info = FOREIGN | {"features.json": {"featuresDict": {"features": features}}}
    for name, good in info.items():
        (folder / name).write_text(json.dumps(good))
    path = folder / "label.labels.txt"
    os.mkfifo(path) if kind == "pipe" else path.write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"label\.labels\.txt: .*: prepare") as caught:
        records.open_records("theirs", "train", str(tmp_path))
    assert "\n" not in str(caught.value)
