"""The index and random access, against TensorFlow's own readers."""

import dataclasses
import io
import os
import pathlib
import shutil
import subprocess
import sys
import time
from typing import ClassVar

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from ctp_jax.data import index, reading, records, tfrecord
from ctp_jax.errors import UserError

CLASSES = ["Jump", "Run", "Walk"]


def random_frames(rng, count, height, width):
    return rng.integers(0, 255, (count, height, width, 3), np.uint8)


class FakeUcf(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The features and splits of TFDS's own `ucf101`, and boxes where asked for."""

    name = "fake_ucf"
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="jpeg", version="2.0.0"),
        tfds.core.BuilderConfig(name="png_boxes", version="2.0.0"),
    ]

    def _info(self):
        encoding, _, boxes = self.builder_config.name.partition("_")
        features = {
            "video": tfds.features.Video((None, 24, 32, 3), encoding_format=encoding),
            "label": tfds.features.ClassLabel(names=CLASSES),
        }
        if boxes:
            features["boxes"] = tfds.features.Tensor(shape=(None, 4), dtype=np.float32)
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(11),
            "test": self._generate_examples(4),
        }

    def _generate_examples(self, count):
        rng = np.random.default_rng(count)
        for i in range(count):
            frames = random_frames(rng, 3 + i, 24, 32)
            example = {"video": frames, "label": CLASSES[i % 3]}
            if "boxes" in self.info.features:
                example["boxes"] = rng.random((3 + i, 4), np.float32)
            yield f"v{i}", example


@pytest.fixture(scope="module", params=["jpeg", "png_boxes"])
def foreign(request, tmp_path_factory):
    """(data_dir, config) of a data set that TFDS prepared, in several shards."""
    data_dir = tmp_path_factory.mktemp("tfds")
    builder = FakeUcf(config=request.param, data_dir=data_dir)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
            num_shards=2, try_download_gcs=False
        )
    )
    return str(data_dir), request.param


def stored(opened: records.Records, split: str):
    """What TFDS itself reads, in the order of the shards."""
    builder = tfds.builder_from_directory(opened.directory)
    dataset = builder.as_dataset(
        split=split,
        decoders={"video": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    return list(dataset.as_numpy_iterator())


def test_a_data_set_of_tfds_reads_as_tfds_reads_it(foreign):
    data_dir, config = foreign
    for split, count in [("train", 11), ("test", 4)]:
        opened = records.open_records(f"fake_ucf/{config}", split, data_dir)
        assert len(opened) == count
        assert opened.class_names == tuple(CLASSES)
        assert opened.encoding == config.split("_")[0]
        assert opened.ids[1] == f"{split}_000001"
        read = tf.function(reading.read_features(opened))
        for i, expected in enumerate(stored(opened, split)):
            actual = read(tf.constant(i, tf.int64))
            assert actual["frames"].numpy().tolist() == expected["video"].tolist()
            assert int(actual["label"]) == expected["label"] == opened.label[i]
            assert opened.num_frames[i] == len(expected["video"])
            assert (opened.height[i], opened.width[i]) == (24, 32)
            assert list(actual["annotations"]) == ["boxes"] * ("boxes" in expected)
            if "boxes" in expected:
                np.testing.assert_array_equal(
                    actual["annotations"]["boxes"], expected["boxes"]
                )


def test_the_digest_is_of_names_in_order_and_of_boxes(foreign):
    data_dir, config = foreign
    whole, again = (
        records.open_records(f"fake_ucf/{config}", "all", data_dir) for _ in range(2)
    )
    assert whole.digest() == again.digest()
    features = dataclasses.replace(whole.features, digest="other boxes")
    others = [
        records.select(whole, np.arange(len(whole))[::-1]),
        records.select(whole, np.arange(len(whole) - 1)),
        dataclasses.replace(whole, features=features),
    ]
    assert len({each.digest() for each in [whole, *others]}) == 4


def test_all_is_every_split(foreign):
    data_dir, config = foreign
    opened = records.open_records(f"fake_ucf/{config}:2.0.0", "all", data_dir)
    assert len(opened) == 15
    assert sorted(opened.num_frames) == sorted([*range(3, 14), *range(3, 7)])


def test_index_is_kept_and_is_the_same_as_payloads_of_tensorflow(foreign):
    data_dir, config = foreign
    opened = records.open_records(f"fake_ucf/{config}", "all", data_dir)
    assert (pathlib.Path(opened.directory) / index.INDEX_FILE).exists()
    payloads = [p for p in tf.data.TFRecordDataset(opened.files).as_numpy_iterator()]
    for i, payload in enumerate(payloads):
        with open(opened.files[opened.file_index[i]], "rb") as file:
            file.seek(opened.offset[i])
            assert file.read(opened.length[i]) == payload


def test_reads_in_a_map_in_any_order(foreign):
    data_dir, config = foreign
    opened = records.open_records(f"fake_ucf/{config}", "train", data_dir)
    order = np.random.default_rng(0).permutation(11)
    dataset = tf.data.Dataset.from_tensor_slices(order)
    dataset = dataset.map(reading.read_features(opened), num_parallel_calls=2)
    counts = [len(x["frames"]) for x in dataset.as_numpy_iterator()]
    assert counts == opened.num_frames[order].tolist()


def copy_of(foreign, tmp_path):
    data_dir, config = foreign
    source = pathlib.Path(data_dir, "fake_ucf", config, "2.0.0")
    target = tmp_path / "fake_ucf" / config / "2.0.0"
    target.mkdir(parents=True)
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target, f"fake_ucf/{config}", str(tmp_path)


def test_truncated_and_missing_shards(foreign, tmp_path):
    target, name, data_dir = copy_of(foreign, tmp_path)
    records.open_records(name, "all", data_dir)
    shard = sorted(target.glob("*-train.tfrecord-*"))[1]
    whole = shard.read_bytes()
    for cut in (1, 7, len(whole) // 2):
        shard.write_bytes(whole[:-cut])
        with pytest.raises(
            UserError, match=f"{shard.name}.*prepare the data set again"
        ):
            records.open_records(name, "train", data_dir)
        (target / index.INDEX_FILE).rename(tmp_path / "kept")
        with pytest.raises(UserError, match=f"{shard.name}.*cut short"):
            records.open_records(name, "train", data_dir)
        (tmp_path / "kept").rename(target / index.INDEX_FILE)
    shard.unlink()
    with pytest.raises(UserError, match="is missing"):
        records.open_records(name, "train", data_dir)
    (target / index.INDEX_FILE).unlink()
    with pytest.raises(UserError, match="no file"):
        records.open_records(name, "train", data_dir)


def test_a_shard_that_lost_a_whole_record(foreign, tmp_path):
    target, name, data_dir = copy_of(foreign, tmp_path)
    opened = records.open_records(name, "all", data_dir)
    (target / index.INDEX_FILE).unlink()
    last = np.flatnonzero(opened.file_index == 0)[-1]
    with open(opened.files[0], "r+b") as file:
        file.truncate(opened.offset[last] - 12)
    with pytest.raises(UserError, match="but TFDS wrote 6"):
        records.open_records(name, "all", data_dir)


def test_damaged_index(foreign, tmp_path):
    target, name, data_dir = copy_of(foreign, tmp_path)
    records.open_records(name, "all", data_dir)
    path = target / index.INDEX_FILE
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="index cannot be read"):
        records.open_records(name, "all", data_dir)


def test_a_folder_that_cannot_be_written_is_scanned_anyway(
    foreign, tmp_path, monkeypatch
):
    _, name, data_dir = copy_of(foreign, tmp_path)

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(index, "write", refuse)
    (tmp_path / name / "2.0.0" / index.INDEX_FILE).unlink(missing_ok=True)
    assert len(records.open_records(name, "all", data_dir)) == 15


def test_unprepared_and_unknown_names(foreign):
    data_dir, config = foreign
    for name, command in [
        ("moving_shapes", "ctp_jax.prepare moving_shapes"),
        ("ucf101", "ctp_jax.prepare ucf101 --videos DIR"),
        ("got10k", "ctp_jax.prepare got10k --videos DIR"),
        ("mine", "ctp_jax.prepare video_folder --name mine"),
        ("ucf101/ucf101_1", "tfds build ucf101/ucf101_1"),
        (f"fake_ucf/{config}:9.9.9", "not prepared"),
    ]:
        with pytest.raises(UserError, match=command) as caught:
            records.open_records(name, "train", data_dir)
        assert data_dir in str(caught.value)
    with pytest.raises(
        UserError, match="no split 'val'; its splits are all, test, train"
    ):
        records.open_records(f"fake_ucf/{config}", "val", data_dir)
    with pytest.raises(UserError, match="needs NAME"):
        records.open_records("../x y", "train", data_dir)


def test_a_lost_shard_is_made_again_by_who_made_it(foreign, tmp_path):
    """Of a data set without a config, such as `moving_mnist`, the name does not say it."""
    data_dir, config = foreign
    place = tmp_path / "fake_ucf" / "2.0.0"
    shutil.copytree(pathlib.Path(data_dir, "fake_ucf", config, "2.0.0"), place)
    opened = records.open_records("fake_ucf", "train", str(tmp_path))
    os.truncate(opened.files[0], 10)
    with pytest.raises(UserError, match="has 10 bytes, .*tfds build fake_ucf .*--over"):
        records.open_records("fake_ucf", "train", str(tmp_path))


def test_opening_imports_no_tensorflow(foreign):
    data_dir, config = foreign
    code = (
        "import sys; from ctp_jax.data import records;"
        f"r = records.open_records('fake_ucf/{config}', 'train', {data_dir!r});"
        "assert len(r) == 11 and len(r.ids) == 11; assert 'tensorflow' not in sys.modules"
    )
    records.open_records(f"fake_ucf/{config}", "train", data_dir)
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("progressive", [False, True])
def test_image_size_is_that_of_pillow(kind, progressive):
    buffer = io.BytesIO()
    image = Image.fromarray(np.zeros((37, 301, 3), np.uint8))
    more = {"progressive": progressive, "comment": b"x" * 300} if kind == "JPEG" else {}
    image.save(buffer, kind, **more)
    assert tfrecord.image_size(buffer.getvalue()) == (37, 301, kind.lower())
    with pytest.raises(ValueError, match="neither JPEG nor PNG"):
        tfrecord.image_size(b"GIF89a" + bytes(20))


def test_a_million_records_open_in_seconds(tmp_path):
    count, folder = 1_000_000, tmp_path / "big" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "shard").write_bytes(bytes(100))
    columns = {name: np.ones(count, dtype) for name, dtype in index.COLUMNS.items()}
    columns |= {
        "file_index": np.zeros(count, np.int32),
        "offset": 12 * columns["offset"],
    }
    columns["label"] = np.full(count, -1, np.int32)
    found = index.Index(
        features=tfrecord.Features("frames"),
        encoding="jpeg",
        class_names=(),
        files=("shard",),
        file_size=np.array([100]),
        id_bytes=np.full(count, b"some/ordinary/name_of_a_video.mp4"),
        splits={"train": np.arange(count - 1)},
        **columns,
    )
    index.write(folder, found)
    start = time.perf_counter()
    assert len(records.open_records("big", "train", str(tmp_path))) == count - 1
    assert time.perf_counter() - start < 5
