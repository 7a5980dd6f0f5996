"""Preparations that are stopped, injured and started again end as if nothing had been."""

import errno
import json
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from ctp_jax.data import index, records
from ctp_jax.errors import UserError
from ctp_jax.prepare import provenance, shards
from ctp_jax.prepare import schema as schema_lib
from ctp_jax.prepare import workers as workers_lib
from tests.prepare.make_sources import contents, prepare_in
from tests.prepare.make_videos import refuse, write_numbered

SHAPES = ["moving_shapes", "--train_videos", "9", "--test_videos", "3"]
SHAPES += ["--shards", "6"]
STAGING = ".preparing_moving_shapes"
SHARD = "moving_shapes-videos.tfrecord-0000{}-of-00006"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    prepare_in(folder, *SHAPES)
    return contents(folder)


def identities(folder) -> dict[str, tuple[int, int]]:
    """What changes when a file is written anew, by its name."""
    files = pathlib.Path(folder).rglob("*.tfrecord-*-of-?????")
    return {f.name: (f.stat().st_ino, f.stat().st_mtime_ns) for f in files}


def test_killed_and_started_again(uninterrupted, tmp_path, capfd):
    command = [sys.executable, "-m", "ctp_jax.prepare", *SHAPES, "--workers", "1"]
    process = subprocess.Popen([*command, "--data_dir", str(tmp_path)])
    receipts = tmp_path / STAGING / "receipts"
    while len(list(receipts.glob("*.json"))) < 2:
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait(60)
    whole = [path.stem for path in receipts.glob("*.json")]
    kept = {name: identities(tmp_path)[name] for name in whole}
    assert 2 <= len(kept) < 6
    with pytest.raises(UserError, match="not prepared"):
        records.open_records("moving_shapes", "all", str(tmp_path))
    prepare_in(tmp_path, *SHAPES)
    after = identities(tmp_path)
    assert {name: after[name] for name in whole} == kept
    assert f"going on with {len(whole)} of 6 shards" in capfd.readouterr().err
    assert contents(tmp_path) == uninterrupted


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    def out_of_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "write", out_of_space)
        with pytest.raises(UserError, match="6 of 6 shards are kept"):
            prepare_in(folder, *SHAPES)
    return folder


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A preparation of which all shards are there, and nothing else."""
    return pathlib.Path(shutil.copytree(stopped_once, tmp_path / "stopped"))


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def other_preparation(path):
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"fingerprint": "0"}))


def other_format(path):
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"rows": [[1, 2]]}))


@pytest.mark.parametrize(
    ("place", "injure"),
    [
        ("data", flip),
        ("data", cut),
        ("data", pathlib.Path.unlink),
        ("receipts", cut),
        ("receipts", pathlib.Path.unlink),
        ("receipts", other_preparation),
        ("receipts", other_format),
    ],
)
def test_an_injured_shard_is_made_anew(place, injure, stopped, uninterrupted):
    before = identities(stopped)
    name = SHARD.format(3)
    injure(stopped / STAGING / place / (name + ".json" * (place == "receipts")))
    (stopped / STAGING / "data" / f"{name}.incomplete-7").write_text("half")
    prepare_in(stopped, *SHAPES)
    assert contents(stopped) == uninterrupted
    after = identities(stopped)
    assert [name for name in after if after[name] != before[name]] == [SHARD.format(3)]


@pytest.mark.parametrize("flags", [["--workers", 3], ["--max_bad", 0.5]])
def test_flags_that_may_change_on_the_way(flags, stopped, uninterrupted):
    before = identities(stopped)
    prepare_in(stopped, *SHAPES, *flags)
    assert contents(stopped) == uninterrupted
    assert identities(stopped) == before


@pytest.mark.parametrize("flags", [["--quality", 70], ["--shards", 4]])
def test_other_flags_start_afresh(flags, stopped, tmp_path_factory, capsys):
    prepare_in(stopped, *SHAPES, *flags)
    assert "going on" not in capsys.readouterr().err
    fresh = tmp_path_factory.mktemp("fresh")
    prepare_in(fresh, *SHAPES, *flags)
    assert contents(stopped) == contents(fresh)


@pytest.fixture
def bad_then_mended(tmp_path):
    """Four videos, two of them bad in the middle; and a function that mends those."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for i in range(4):
        write_numbered(folder / f"v{i}.mp4", 3 + i, height=16, width=16)
    good = {i: (folder / f"v{i}.mp4").read_bytes() for i in (1, 2)}
    for i in good:
        (folder / f"v{i}.mp4").write_bytes(b"")

    def mend():
        for i, data in good.items():
            (folder / f"v{i}.mp4").write_bytes(data)

    return folder, mend


def test_videos_that_were_mended_are_tried_again(bad_then_mended, tmp_path):
    folder, mend = bad_then_mended
    flags = ["video_folder", "--videos", folder, "--shards", 4]
    with pytest.raises(shards.TooManyBad):
        prepare_in(tmp_path / "d", *flags, "--max_bad", 0)
    mend()
    text = prepare_in(tmp_path / "d", *flags)
    assert "4 videos" in text
    assert "skipped" not in text
    prepare_in(tmp_path / "fresh", *flags)
    assert contents(tmp_path / "d") == contents(tmp_path / "fresh")


def test_bad_videos_of_an_earlier_run_are_counted_and_listed(
    bad_then_mended, tmp_path, monkeypatch
):
    folder, _ = bad_then_mended
    flags = ["video_folder", "--videos", folder, "--shards", 4]
    with monkeypatch.context() as patch:
        patch.setattr(index, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare_in(tmp_path / "d", *flags, "--max_bad", 0.5)
    receipts = (tmp_path / "d" / ".preparing_video_folder" / "receipts").iterdir()
    next(path for path in receipts if '"skipped": []' in path.read_text()).unlink()
    # Before the fourth is tried.
    with pytest.raises(shards.TooManyBad, match="2 of the 3 videos tried") as caught:
        prepare_in(tmp_path / "d", *flags, "--max_bad", 0)
    assert len(caught.value.skipped) == 2
    assert "videos skipped: 2" in prepare_in(tmp_path / "d", *flags, "--max_bad", 0.5)


def try_bad(count, bad, **options):
    """Tries `count` videos of which those numbered `bad` cannot be used."""
    items = tuple(workers_lib.Item(f"v{i}", 0, refuse) for i in range(count))
    schema = schema_lib.Schema((), {})
    order = shards.Order(items, schema, "", "/no/receipt", "", {})

    def write(orders, watch):
        results = ("no good" if i in bad else None for i in range(count))
        list(watch(zip(items, results, strict=True)))

    shards.make([order], write, name="x", **options)


@pytest.mark.parametrize("progress", [False, True])
def test_videos_are_counted_with_a_bar_and_without(progress, monkeypatch):
    monkeypatch.setattr(shards, "VIDEOS", 4)  # smaller sets are tried to their end
    with pytest.raises(shards.TooManyBad, match="^2 of the 3 videos tried so far"):
        try_bad(5, [1, 2], max_bad=0.1, progress=progress)


@pytest.mark.parametrize(
    ("max_bad", "allowed"), [(0.29, 29), (0.57, 57), (0.005, 1), (0.0, 0)]
)
def test_how_many_may_be_bad(max_bad, allowed, monkeypatch):
    """In floating point 0.29 * 100 < 29."""
    monkeypatch.setattr(shards, "VIDEOS", 99)
    with pytest.raises(UserError, match="1 of 1 shards are missing"):
        try_bad(100, range(allowed), max_bad=max_bad, progress=False)
    with pytest.raises(shards.TooManyBad, match=f" allows {allowed} of 100"):
        try_bad(100, range(allowed + 1), max_bad=max_bad, progress=False)


def test_a_shard_that_its_receipt_does_not_describe(
    tmp_path, monkeypatch, uninterrupted
):
    """As when two workers of Beam write one, and one of them cannot read a video."""
    write = shards.write_all

    def another_file(orders, workers, watch):
        write(orders, workers, watch)
        path = pathlib.Path(orders[3].file)
        path.write_bytes(path.read_bytes() + b"more")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_all", another_file)
        with pytest.raises(
            UserError, match="1 of 6 shards are missing or do not match"
        ):
            prepare_in(tmp_path, *SHAPES)
    prepare_in(tmp_path, *SHAPES)
    assert contents(tmp_path) == uninterrupted


def test_a_data_set_of_bad_videos_only(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"")
    flags = ["video_folder", "--videos", tmp_path, "--max_bad", 1]
    with pytest.raises(UserError, match="none of its videos can be used: v.mp4: "):
        prepare_in(tmp_path / "d", *flags)


def test_other_flags_for_what_is_prepared(stopped):
    prepare_in(stopped, *SHAPES)
    assert "already prepared" in prepare_in(stopped, *SHAPES, "--workers", 1)
    message = (
        r"prepared with --quality=90 \(now 80\), --seed=0 \(now 3\): pass --overwrite"
    )
    with pytest.raises(UserError, match=message):
        prepare_in(stopped, *SHAPES, "--quality", 80, "--seed", 3)
    # As before flags were kept.
    (stopped / "moving_shapes" / "1.0.0" / provenance.FILE).unlink()
    assert "already prepared" in prepare_in(stopped, *SHAPES, "--quality", 80)


def test_the_same_folder_by_another_path_is_the_same(tmp_path, monkeypatch):
    write_numbered(tmp_path / "v.mp4", 3)
    prepare_in(tmp_path / "d", "video_folder", "--videos", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "already" in prepare_in(tmp_path / "d", "video_folder", "--videos", ".")
    with pytest.raises(UserError, match="prepared with --videos="):
        prepare_in(tmp_path / "d", "video_folder", "--videos", "d")
