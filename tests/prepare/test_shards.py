"""Shards: what is in them, their bytes, and that nothing changes them."""

import collections
import functools
import pickle
import weakref

import numpy as np
import pytest
import tensorflow as tf

from ctp_jax.data import index, tfrecord
from ctp_jax.errors import UserError
from ctp_jax.prepare import beam, shards
from ctp_jax.prepare import workers as workers_lib
from ctp_jax.prepare.builders import base
from tests.prepare.make_sources import contents
from tests.prepare.make_videos import crash, encode_boxed, encode_numbered, refuse


def items_of(count):
    return [
        workers_lib.Item(f"v{i}", i % 3, functools.partial(encode_numbered, i % 5 + 1))
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("videos", "asked", "count"),
    [(1, 0, 1), (512, 0, 1), (513, 0, 2), (7, 3, 3), (2, 5, 2)],
)
def test_every_video_is_dealt_once_and_evenly(videos, asked, count):
    items = items_of(videos)
    dealt = shards.deal(items, asked)
    assert len(dealt) == count
    sizes = [len(part) for part in dealt]
    assert max(sizes) - min(sizes) <= 1
    names = collections.Counter(item.id for part in dealt for item in part)
    assert names == collections.Counter(item.id for item in items)
    assert shards.deal(items[::-1], asked) == dealt


def test_videos_of_one_name_are_refused():
    with pytest.raises(ValueError, match="same name"):
        shards.deal([*items_of(3), *items_of(1)])


class Nothing(base.VideoBuilder):
    """A source without videos."""

    @classmethod
    def make_source(cls, arguments, options):
        return base.Source([], {})


def test_no_videos_at_all(tmp_path):
    builder = Nothing(data_dir=tmp_path)
    with pytest.raises(UserError, match="nothing: no videos to prepare"):
        builder.orders(str(tmp_path), str(tmp_path))
    with pytest.raises(ValueError, match="no videos"):
        shards.deal([])


@pytest.mark.parametrize("payload", [b"", b"abc", bytes(range(256)) * 5000])
def test_records_are_framed_as_tensorflow_does(payload, tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "x")) as writer:
        writer.write(payload)
    before, after = tfrecord.frame(payload)
    assert before + payload + after == (tmp_path / "x").read_bytes()


class Trouble(base.VideoBuilder):
    """Twelve videos with boxes; one cannot be used, one kills its decoder."""

    @classmethod
    def make_source(cls, arguments, options):
        items = [
            base.Item(f"v{i}", i % 2, functools.partial(encode_boxed, i + 1))
            for i in range(12)
        ]
        items[4] = base.Item("crashing", 0, crash)
        items[9] = base.Item("refused", 1, refuse)
        names = [item.id for item in items]
        splits = {"train": names[::-1], "test": names[:2]}
        return base.Source(items, splits, ("a", "b"), annotations={"boxes": (4,)})


def build(folder, **options):
    options = base.Options(max_bad=0.2, progress=False, shards=5, **options)
    return Trouble(data_dir=folder, options=options)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    builder = build(tmp_path_factory.mktemp("one"), workers=1)
    builder.download_and_prepare()
    return builder


@pytest.mark.parametrize("workers", [2, 4])
def test_any_number_of_processes_makes_the_same(workers, built, tmp_path):
    other = build(tmp_path, workers=workers)
    other.download_and_prepare()
    assert contents(built.data_dir) == contents(other.data_dir)


def test_shards_in_any_order_by_the_function_of_beam(built, tmp_path):
    builder = build(tmp_path)
    for folder in ("data", "receipts"):
        (tmp_path / folder).mkdir()
    orders = builder.orders(str(tmp_path / "data"), str(tmp_path / "receipts"))
    for order in orders[::-1]:
        beam.write_one(stored(order, tmp_path))
    builder.assemble(str(tmp_path / "data"), [shards.read(order) for order in orders])
    assert contents(built.data_dir) == contents(tmp_path / "data")


def stored(order, folder):
    (folder / "order").write_bytes(pickle.dumps(order))
    return str(folder / "order")


def test_what_is_written(built):
    where = dict(line.split("\t") for line in lines(built, base.SKIPPED_FILE))
    assert where == {"refused": "no good", "crashing": "the decoder crashed"}
    # In the order of the source, which is not that of the hashes.
    assert list(where) == ["crashing", "refused"]
    found = index.read(built.data_dir)
    names = [name.decode() for name in found.id_bytes]
    assert sorted(names) == sorted(f"v{i}" for i in range(12) if i not in (4, 9))
    assert [names[i] for i in found.splits["test"]] == ["v0", "v1"]
    for i, name in enumerate(names):
        shard = tf.io.gfile.GFile(
            f"{built.data_dir}/{found.files[found.file_index[i]]}", "rb"
        )
        shard.seek(int(found.offset[i]))
        example = tf.train.Example.FromString(shard.read(int(found.length[i])))
        feature = example.features.feature
        expected = encode_boxed(int(name[1:]) + 1)
        assert list(feature["frames"].bytes_list.value) == expected.frames
        boxes = feature["boxes"].float_list.value
        np.testing.assert_array_equal(boxes, expected.annotations["boxes"].ravel())
        assert feature["label"].int64_list.value == [int(name[1:]) % 2]
        assert feature["video_id"].bytes_list.value == [name.encode()]
        assert feature["fps"].float_list.value == [25.0]


def lines(builder, file):
    with open(f"{builder.data_dir}/{file}") as opened:
        return opened.read().splitlines()


def test_the_index_is_what_a_walk_through_the_files_finds(built):
    found = index.scan(
        built.data_dir,
        {split.name: split.shard_lengths for split in built.info.splits.values()},
        built.schema.names(),
        class_names=built.source.class_names,
        splits=built.source.splits,
    )
    np.testing.assert_equal(vars(index.read(built.data_dir)), vars(found))


def test_tfds_reads_shards_that_are_empty(tmp_path):
    options = base.Options(max_bad=1, progress=False, shards=12, workers=2)
    builder = Trouble(data_dir=tmp_path, options=options)
    builder.download_and_prepare()
    assert sorted(builder.info.splits["videos"].shard_lengths) == [0] * 2 + [1] * 10
    examples = builder.as_dataset(split="videos").as_numpy_iterator()
    assert len({example["video_id"] for example in examples}) == 10


def test_one_video_at_a_time_is_held(tmp_path):
    order = shards.Order(
        items=tuple(items_of(6)),
        schema=base.schema_lib.Schema((), {}),
        file=str(tmp_path / "x"),
        receipt=str(tmp_path / "x.json"),
        fingerprint="",
        versions={},
    )
    alive = []

    def results():
        for item in order.items:
            video = item.encode()
            alive.append(weakref.ref(video))
            yield item, video
            del video
            assert sum(reference() is not None for reference in alive) <= 1

    shards.write(order, results())
    assert len(alive) == 6
    assert shards.is_whole(order)
