"""Videos and data sets in an object store: one in memory stands in for it."""

import threading

import pytest
from etils.epath import backend, gpath
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from ctp_jax.data import index, records
from ctp_jax.errors import UserError
from ctp_jax.prepare import __main__ as prepare
from ctp_jax.prepare import shards
from ctp_jax.prepare.builders import video_folder
from ctp_jax.prepare.video import VideoError
from ctp_jax.storage import remote
from tests.prepare.make_sources import contents, make_source, prepare_in
from tests.prepare.make_videos import write_numbered

SHAPES = ["moving_shapes", "--train_videos", "9", "--test_videos", "3", "--shards", "3"]


@pytest.fixture
def store(monkeypatch):
    """What `gs://` paths hold, by their names; nothing in it can be renamed."""

    class Store(MemoryFileSystem):
        store: dict = {}  # noqa: RUF012
        pseudo_dirs: list = [""]  # noqa: RUF012

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(str(path).removeprefix("gs://"))

        def mv(self, *_, **__):
            raise AssertionError("a rename in an object store is a copy")

    monkeypatch.setitem(_registry, "gcs", Store)
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    backend.fsspec_backend._get_filesystem.cache_clear()
    yield Store()
    backend.fsspec_backend._get_filesystem.cache_clear()


def in_store(store, folder) -> dict[str, bytes]:
    found = store.find(folder)
    return {path.removeprefix(f"/{folder}/"): store.cat_file(path) for path in found}


def test_a_data_set_in_an_object_store(store, tmp_path):
    prepare_in(tmp_path, *SHAPES)
    text = prepare_in("gs://bucket/sets", *SHAPES)
    assert "gs://bucket/sets" in text
    assert in_store(store, "bucket/sets") == contents(tmp_path)
    assert len(records.open_records("moving_shapes", "test", "gs://bucket/sets")) == 3
    assert "already prepared" in prepare_in("gs://bucket/sets", *SHAPES)
    assert not store.exists("bucket/sets/.preparing_moving_shapes")


@pytest.mark.parametrize("kept", [0, 3])
def test_what_a_failed_run_leaves(kept, store, monkeypatch):
    """The receipts, if there are any; not the orders for Beam's workers."""
    folder = "bucket/sets/.preparing_moving_shapes"
    write = shards.write_all

    def fails(orders, workers, watch):
        store.pipe_file(f"{folder}/orders/00000.pickle", b"")
        if kept:
            write(orders, workers, watch)
        raise RuntimeError("the machines are gone")

    monkeypatch.setattr(shards, "write_all", fails)
    with pytest.raises(RuntimeError):
        prepare_in("gs://bucket/sets", *SHAPES)
    left = [path.removeprefix(f"/{folder}/") for path in store.find(folder)]
    assert [path.partition("/")[0] for path in left] == ["receipts"] * kept
    assert store.exists(folder) == (kept > 0)


def test_one_that_was_stopped_is_no_data_set_and_is_gone_on_with(
    store, tmp_path, monkeypatch
):
    prepare_in("gs://bucket/sets", *SHAPES, "--seed", 1)
    with monkeypatch.context() as patch:
        patch.setattr(index, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare_in("gs://bucket/sets", *SHAPES, "--overwrite")
    place = "bucket/sets/moving_shapes/1.0.0"
    assert not store.exists(f"{place}/dataset_info.json")
    first, second, _ = sorted(store.glob(f"{place}/*.tfrecord-*"))
    before = store.modified(first)
    store.pipe_file(second, store.cat_file(second)[:-1])
    prepare_in("gs://bucket/sets", *SHAPES)
    assert store.modified(first) == before
    prepare_in(tmp_path, *SHAPES)
    assert in_store(store, "bucket/sets") == contents(tmp_path)


def test_videos_in_an_object_store(store, tmp_path):
    for name in ("run/a.mp4", "sit/b.mp4"):
        (tmp_path / name).parent.mkdir()
        write_numbered(tmp_path / name, 4, rate=10)
    (tmp_path / "sit" / "empty.mp4").write_bytes(b"")
    store.put(f"{tmp_path}/", "bucket/videos", recursive=True)
    local = make_source(video_folder.Builder, "--videos", str(tmp_path))
    there = make_source(video_folder.Builder, "--videos", "gs://bucket/videos/")
    assert (there.splits, there.class_names) == (local.splits, local.class_names)
    for near, far in zip(local.items[:2], there.items[:2], strict=True):
        assert (far.id, far.label) == (near.id, near.label)
        assert far.encode() == near.encode()
    with pytest.raises(VideoError, match="the file is empty"):
        there.items[2].encode()
    store.rm(f"bucket/videos/{there.items[0].id}")
    with pytest.raises(FileNotFoundError):  # not a bad video: the worker tries again
        there.items[0].encode()


def test_a_store_that_cannot_be_reached(store, monkeypatch):
    def nobody(*args, **kwargs):
        raise RuntimeError("Could not resolve\nhost")

    monkeypatch.setattr(type(store), "info", nobody)
    monkeypatch.setattr(type(store), "exists", nobody)
    arguments = ["moving_shapes", "--data_dir=gs://bucket/sets", "--train_videos=2"]
    message = r"--data_dir=gs://bucket/sets: cannot be reached \(Could not resolve host"
    with pytest.raises(UserError, match=message):
        prepare.main(arguments)


def test_a_store_that_does_not_answer(store, monkeypatch):
    """TensorFlow would try for minutes."""
    answers = threading.Event()
    monkeypatch.setattr(type(store), "exists", lambda *_: answers.wait(60))
    monkeypatch.setattr(remote, "_PATIENCE", 0.1)
    with pytest.raises(
        UserError, match=r"data_dir = gs://bucket: .*no answer in 0\.1 s"
    ):
        records.open_records("moving_shapes", "test", "gs://bucket")
    answers.set()


def test_stores_of_other_kinds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="data_dir=foo://x: no such kind of store"):
        prepare.main(["moving_shapes", "--data_dir=foo://x"])
    assert list(tmp_path.iterdir()) == []
