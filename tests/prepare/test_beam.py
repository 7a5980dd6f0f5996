"""Preparing with Apache Beam makes the files that one machine makes."""

import pathlib
import pickle
import sys

import pytest

from ctp_jax.data import index
from ctp_jax.errors import UserError
from ctp_jax.prepare import beam, shards
from ctp_jax.prepare.builders import video_folder
from tests.prepare.make_sources import contents, prepare_in
from tests.prepare.make_videos import write_numbered

IN_MEMORY = ["--beam_runner", "FnApiRunner"]
"""The engine of the DirectRunner, which first tries to fetch another from the net."""

IN_PROCESSES = ["--beam_options", "direct_running_mode=multi_processing"]
IN_PROCESSES += ["--beam_options", "direct_num_workers=2"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Nine videos and one that is none."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(9):
        path = folder / ("run" if i % 2 else "sit") / f"v{i}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_numbered(path, 3 + i, height=24, width=32)
    (folder / "run" / "text.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def one_machine(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_machine")
    prepare_in(folder, *flags_for(videos))
    return contents(folder)


def flags_for(videos) -> list[str]:
    flags = ["video_folder", "--videos", str(videos), "--shards", "4"]
    return [*flags, "--short_side", "16", "--max_bad", "0.1"]


@pytest.mark.parametrize("options", [[], IN_PROCESSES], ids=["threads", "processes"])
def test_beam_makes_the_same(options, videos, one_machine, tmp_path):
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    prepare_in(tmp_path, *flags_for(videos), *IN_MEMORY, *options)
    assert contents(tmp_path) == one_machine


def test_beam_goes_on_where_one_machine_was_stopped(
    videos, one_machine, tmp_path, monkeypatch
):
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    with monkeypatch.context() as patch:
        patch.setattr(index, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare_in(tmp_path, *flags_for(videos))
    data = tmp_path / ".preparing_video_folder" / "data"
    files = sorted(data.glob("*.tfrecord-*"))
    before = {file.name: file.stat().st_ino for file in files}
    files[1].write_bytes(files[1].read_bytes()[:-1])
    files[2].unlink()
    prepare_in(tmp_path, *flags_for(videos), *IN_MEMORY)
    assert contents(tmp_path) == one_machine
    where = tmp_path / "video_folder" / "1.0.0"
    for file in (files[0], files[3]):
        assert (where / file.name).stat().st_ino == before[file.name]


def test_a_worker_that_fails_costs_its_shard_only(
    videos, one_machine, tmp_path, monkeypatch, capfd
):
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    write = shards.write
    calls = []

    def second_fails(order, results):
        calls.append(order)
        if len(calls) == 2:
            raise RuntimeError("the machine is gone")
        write(order, results)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write", second_fails)
        with pytest.raises(RuntimeError, match="the machine is gone"):
            prepare_in(tmp_path, *flags_for(videos), *IN_MEMORY)
    assert "note: 1 of 4 shards are kept" in capfd.readouterr().err
    prepare_in(tmp_path, *flags_for(videos))
    assert contents(tmp_path) == one_machine


def order_for(videos, folder) -> shards.Order:
    builder = video_folder.Builder(data_dir=folder, arguments=arguments_for(videos))
    return builder.orders(str(folder), str(folder))[0]


def arguments_for(videos):
    return video_folder.Builder.read_flags("--videos", str(videos))


def test_a_worker_with_other_versions_refuses(videos, tmp_path):
    order = order_for(videos, tmp_path)
    order.versions["av"] = "0.1"
    (tmp_path / "order").write_bytes(pickle.dumps(order))
    with pytest.raises(RuntimeError, match=r"'av': '0\.1'.*: install the same"):
        beam.write_one(str(tmp_path / "order"))
    assert not pathlib.Path(order.file).exists()


def test_a_whole_shard_is_left_alone(videos, tmp_path):
    order = order_for(videos, tmp_path)
    (tmp_path / "order").write_bytes(pickle.dumps(order))
    beam.write_one(str(tmp_path / "order"))
    before = pathlib.Path(order.file).stat()
    beam.write_one(str(tmp_path / "order"))
    after = pathlib.Path(order.file).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_without_beam(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "apache_beam"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(
        UserError, match=r"needs Apache Beam: pip install -e \"\.\[beam"
    ):
        prepare_in(tmp_path, "moving_shapes", *IN_MEMORY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--beam_runner", "Fast"], "--beam_runner=Fast: Unexpected pipeline runner"),
        (["--beam_runner", "a.b.C"], "--beam_runner=a.b.C: No module named 'a'"),
    ],
)
def test_runners_that_are_none(flags, message, tmp_path):
    pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")
    with pytest.raises(UserError, match=message):
        prepare_in(tmp_path, "moving_shapes", *flags)
    assert list(tmp_path.iterdir()) == []


def test_options_without_a_runner(tmp_path):
    with pytest.raises(UserError, match="--beam_options needs a --beam_runner"):
        prepare_in(tmp_path, "moving_shapes", "--beam_options", "region=x")
