"""Preparing from end to end, and what bad input, full disks and Ctrl-C leave behind."""

import errno
import fcntl
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from ctp_jax import cli
from ctp_jax.data import index, reading, records
from ctp_jax.errors import UserError
from ctp_jax.prepare import __main__ as prepare
from ctp_jax.prepare import shards, staging, summary, video
from ctp_jax.prepare.builders import base
from ctp_jax.storage import remote
from tests.prepare.make_videos import write_numbered

SHAPES = ["moving_shapes", "--train_videos", "12", "--test_videos", "3"]


def run(*argv) -> str:
    return prepare.prepare(*prepare.parse([str(a) for a in argv]))


def run_command(*argv) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ctp_jax.prepare", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def error_lines(stderr: str) -> list[str]:
    """What a terminal shows, less the progress bar."""
    lines = stderr.replace("\r", "\n").split("\n")
    return [line for line in lines if line and "videos/s]" not in line]


def files_below(folder) -> list[str]:
    folder = pathlib.Path(folder)
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Six videos in two classes, of different sizes and lengths."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(6):
        path = folder / ("run" if i % 2 else "sit") / f"v{i}.mp4"
        path.parent.mkdir(exist_ok=True)
        size = {"height": 40 + 7 * i, "width": 51}
        write_numbered(path, 5 + i, rotation=90 * (i == 3), **size)
    return folder


@pytest.fixture
def with_bad(videos, tmp_path):
    """The same with two files that are no videos."""
    for path in videos.rglob("*.mp4"):
        copy = tmp_path / "with_bad" / path.relative_to(videos)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (tmp_path / "with_bad" / "run" / "text.mp4").write_text("no video")
    (tmp_path / "with_bad" / "sit" / "empty.mp4").write_bytes(b"")
    return tmp_path / "with_bad"


def test_the_command_from_end_to_end(videos, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Sit\n2 Run\n")
    (lists / "trainlist01.txt").write_text("Run/v3.mp4 2\nSit/v0.mp4 1\nSit/v4.avi 1\n")
    (lists / "testlist01.txt").write_text("Run/v1.mp4\n")
    flags = ["--videos", videos, "--lists", lists, "--name", "mine"]
    flags += ["--data_dir", tmp_path / "data", "--short_side", 32]
    done = run_command("video_folder", *flags)
    assert done.returncode == 0, done.stderr
    assert error_lines(done.stderr) == []
    assert "mine: 4 videos, 28 frames" in done.stdout
    assert "train01: 3 of 3 videos" in done.stdout
    assert "test01: 1 of 1 video\n" in done.stdout
    few = "  note: with so few videos, numbers measured on test01 will be coarse\n"
    assert done.stdout.count("note") == done.stdout.count(few) == 1
    step = done.stdout.partition("next:\n")[2]
    *command, spec, data_dir, workdir = shlex.split(step.replace("\\\n", ""))
    assert (
        command == ["python", "-m", "ctp_jax.main"] and workdir == "--workdir=runs/mine"
    )
    config = cli.load_config(spec.removeprefix("--config="))
    assert (config.data.name, config.data.split) == ("mine", "train01")
    assert config.data.eval_split == "test01"
    assert data_dir == f"--config.data.data_dir={tmp_path / 'data'}"

    opened = records.open_records("mine", "train01", str(tmp_path / "data"))
    assert opened.ids.tolist() == ["run/v3.mp4", "sit/v0.mp4", "sit/v4.mp4"]
    assert opened.class_names == ("Sit", "Run")
    assert opened.label.tolist() == [1, 0, 0]
    np.testing.assert_allclose(opened.fps, 25, rtol=1e-3)
    read = reading.read_features(opened)
    for i, name in enumerate(opened.ids):
        encoded = video.encode_video(videos / name, 32)
        frames = read(tf.constant(i, tf.int64))["frames"].numpy().tolist()
        assert frames == encoded.frames
        height, width = tf.io.decode_jpeg(frames[0]).shape[:2]
        assert (opened.height[i], opened.width[i]) == (height, width)
        assert min(height, width) == 32

    again = run_command("video_folder", *flags)
    assert again.returncode == 0
    assert again.stdout.startswith("already prepared (--overwrite")
    assert again.stdout.endswith(f"next:\n{step}")
    assert error_lines(again.stderr) == []


def test_what_comes_next_is_what_the_splits_are(videos, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(summary, "_FEW", 2)
    said = run("video_folder", "--videos", videos, "--workers", 1)
    assert "  test: 2 of 2 videos" in said and "note" not in said
    step = summary.next_step("configs/small.py", "video_folder", "")
    words = shlex.split(step.replace("\\\n", ""))
    assert words[4:] == [
        "--config=configs/small.py:data=video_folder",
        "--workdir=runs/video_folder",
    ]
    (tmp_path / "val" / "x").mkdir(parents=True)
    write_numbered(tmp_path / "val" / "x" / "a.mp4", 3)
    run("video_folder", "--videos", tmp_path / "val" / "..", "--name", "no_train")
    assert summary.next_step("configs/small.py", "no_train", "") == ""


def test_videos_that_come_and_go_after_the_preparation_are_said(tmp_path, monkeypatch):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "b", "c"):
        write_numbered(folder / f"{name}.mp4", 4)
    (folder / "bad.mp4").write_text("no video")
    flags = ["video_folder", "--videos", folder, "--data_dir", tmp_path / "data"]
    run(*flags)
    assert run(*flags).startswith("already prepared (")
    # A shell leaves this tilde as it is.
    monkeypatch.setenv("HOME", str(tmp_path))
    again = run(*flags[:1], "--videos", "~/videos", *flags[3:], "--name", "again")
    assert "again: 3 videos" in again and "videos skipped: 1" in again
    (folder / "d.mp4").touch()
    (folder / "e.mp4").touch()
    (folder / "a.mp4").unlink()
    assert run(*flags).startswith(
        "already prepared, but since then 2 videos came and 1 went (--overwrite"
    )
    (folder / "a.mp4").with_name("bad.mp4").unlink()
    assert "2 videos came and 2 went" in run(*flags)
    for path in folder.iterdir():
        path.unlink()
    assert run(*flags).startswith("already prepared (")


def test_tfds_reads_what_was_prepared(videos, tmp_path):
    run("video_folder", "--videos", videos, "--data_dir", tmp_path)
    opened = records.open_records("video_folder", "all", str(tmp_path))
    builder = tfds.builder_from_directory(opened.directory)
    assert builder.info.splits[index.STORED_SPLIT].num_examples == 6
    examples = builder.as_dataset(split=index.STORED_SPLIT).as_numpy_iterator()
    by_name = {e["video_id"].decode(): e for e in examples}
    assert sorted(by_name) == sorted(opened.ids)
    for name, label, count in zip(opened.ids, opened.label, opened.num_frames):
        assert by_name[name]["label"] == label
        assert len(by_name[name]["frames"]) == count
    train, test = (
        records.open_records("video_folder", s, str(tmp_path))
        for s in ("train", "test")
    )
    assert sorted([*train.ids, *test.ids]) == sorted(opened.ids)


def test_unlabelled_videos(videos, tmp_path):
    run("video_folder", "--videos", videos / "sit", "--data_dir", tmp_path)
    opened = records.open_records("video_folder", "train", str(tmp_path))
    assert opened.class_names == ()
    assert set(opened.label) == {-1}
    read = reading.read_features(opened)
    assert int(read(tf.constant(0, tf.int64))["label"]) == -1


def test_one_folder_too_high_is_one_class(videos, tmp_path):
    shutil.copytree(videos, tmp_path / "above" / "videos")
    flags = ["--data_dir", tmp_path / "data", "--workers", 1]
    said = run("video_folder", "--videos", tmp_path / "above", *flags)
    assert "one class, 'videos': if its videos belong" in said


def test_bad_videos_are_listed_and_skipped(with_bad, tmp_path):
    flags = ["--videos", with_bad, "--data_dir", tmp_path / "d", "--max_bad", "0.5"]
    text = run("video_folder", *flags)
    assert "videos skipped: 2" in text
    opened = records.open_records("video_folder", "all", str(tmp_path / "d"))
    assert len(opened) == 6
    skipped = pathlib.Path(opened.directory, base.SKIPPED_FILE).read_text().splitlines()
    names, reasons = zip(*(line.split("\t") for line in skipped))
    assert names == ("run/text.mp4", "sit/empty.mp4")
    assert "invalid data" in reasons[0]
    assert reasons[1] == "the file is empty"


def test_too_many_bad_videos_stop_the_job(with_bad, tmp_path):
    data_dir = tmp_path / "data"
    flags = ["--videos", with_bad, "--data_dir", data_dir, "--max_bad", "0.01"]
    done = run_command("video_folder", *flags)
    assert done.returncode == 2
    lines = error_lines(done.stderr)
    assert [line.split(":")[0] for line in lines] == [
        "note",
        "skipped",
        "skipped",
        "error",
    ]
    assert "so 10% of the videos, chosen by their names, are held out" in lines[0]
    assert "sit/empty.mp4: the file is empty" in lines[2]
    assert "--max_bad=0.01 allows 1 of 8" in lines[3]
    assert lines[3].endswith("pass --max_bad=0.25")
    assert files_below(data_dir) == []
    with pytest.raises(UserError, match="not prepared"):
        records.open_records("video_folder", "all", str(data_dir))


def test_no_bad_video_allowed(with_bad, tmp_path):
    flags = ["--data_dir", tmp_path / "data", "--max_bad", "0"]
    with pytest.raises(shards.TooManyBad) as caught:
        run("video_folder", "--videos", with_bad, *flags)
    assert len(caught.value.skipped) == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            [],
            "or one of boxes, flow, got10k, hmdb51",
        ),
        (["kinetic"], "data set 'kinetic': needs one of"),
        (["ucf101"], "--lists is missing"),
        (["video_folder", "--videos", "/no/where"], "/no/where: no such folder"),
        (["video_folder", "--vidoes", "x"], "'vidoes'. Did you mean: videos"),
        (["moving_shapes", "--quality", "99"], "--quality=99"),
        (
            ["moving_shapes", "--max_bad", "2"],
            "--max_bad=2: 2.0 is not a number in the range [0, 1]",
        ),
        (["moving_shapes", "--name", "a/b"], "--name=a/b: needs letters"),
        (
            ["moving_shapes", "--short_side=99"],
            "--short_side: has no use for moving_shapes",
        ),
        (["tracks", "--from=x", "--quality=50"], "--quality: has no use for tracks"),
        (
            ["video_folder", "--videos=/x", "--lists=/y", "--unlabelled"],
            "--unlabelled: is for folders, lists say",
        ),
    ],
)
def test_mistakes_are_user_errors_of_one_line(argv, message, tmp_path):
    with pytest.raises(UserError) as caught:
        run(*argv, *(["--data_dir", tmp_path] if argv else []))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files_below(tmp_path) == []


def test_a_mistake_on_the_command_line(tmp_path):
    (tmp_path / "train.txt").write_text("run/a.mp4\n")
    (tmp_path / "v").mkdir()
    write_numbered(tmp_path / "v" / "b.mp4", 3)
    flags = ["--videos", tmp_path / "v", "--train_list", tmp_path / "train.txt"]
    done = run_command("video_folder", *flags, "--data_dir", tmp_path / "data")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = error_lines(done.stderr)
    assert line.startswith("error: ")
    assert "train.txt:1: 1 of the 1 listed videos are not in" in line
    assert files_below(tmp_path / "data") == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for data_dir in (tmp_path / "file", tmp_path / "file/below"):
        message = f"--data_dir {data_dir}: no data set can be made"
        with pytest.raises(UserError, match=message):
            prepare.main(["moving_shapes", "--data_dir", str(data_dir)])


def test_help():
    done = run_command("video_folder", "--help")
    assert done.returncode == 0
    assert "--test_share" in done.stdout
    assert error_lines(done.stderr) == []


def out_of_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def over_quota(*_, **__):
    raise OSError(errno.EDQUOT, "Disk quota exceeded")


def out_of_space_in_tensorflow(*_, **__):
    message = "/data/x.tfrecord; No space left on device"
    raise tf.errors.ResourceExhaustedError(None, None, message)


@pytest.mark.parametrize(
    ("place", "name", "failure", "kept"),
    [
        (remote, "replacing", out_of_space, "nothing was kept"),
        (shards, "write", out_of_space_in_tensorflow, "nothing was kept"),
        (index, "write", out_of_space, "3 of 3 shards are kept"),
        (shards, "write", over_quota, "nothing was kept"),
        (staging.os, "fsync", out_of_space, "3 of 3 shards are kept"),
    ],
)
def test_a_full_disk(place, name, failure, kept, tmp_path, monkeypatch):
    flags = [*SHAPES, "--shards", 3, "--data_dir", tmp_path]
    with monkeypatch.context() as patch:
        patch.setattr(place, name, failure)
        with pytest.raises(UserError, match=f"(full|used up); {kept}: free some"):
            run(*flags)
    assert (files_below(tmp_path) == []) == (kept == "nothing was kept")
    assert "12 of 12" in run(*flags)
    assert [p.name for p in tmp_path.iterdir()] == ["moving_shapes"]


def test_overwriting_replaces_only_by_something_whole(tmp_path, monkeypatch):
    run(*SHAPES, "--data_dir", tmp_path)
    before = records.open_records("moving_shapes", "all", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(index, "write", out_of_space)
        with pytest.raises(UserError, match="full"):
            run(*SHAPES, "--data_dir", tmp_path, "--overwrite", "--seed", 1)
    after = records.open_records("moving_shapes", "all", str(tmp_path))
    np.testing.assert_array_equal(before.length, after.length)
    run(*SHAPES, "--data_dir", tmp_path, "--overwrite", "--seed", 1)
    after = records.open_records("moving_shapes", "all", str(tmp_path))
    assert (before.length != after.length).any()
    assert [p.name for p in tmp_path.iterdir()] == ["moving_shapes"]


def start_and_wait(data_dir) -> subprocess.Popen:
    """Starts to prepare something long, and waits until it is under way."""
    command = [sys.executable, "-m", "ctp_jax.prepare", "moving_shapes"]
    process = subprocess.Popen(
        [*command, "--train_videos", "5000", "--data_dir", str(data_dir)],
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(600):
        if list(pathlib.Path(data_dir).glob(".preparing_*/data/*.incomplete*")):
            time.sleep(0.5)
            return process
        time.sleep(0.1)
    process.kill()
    raise AssertionError(process.communicate()[1])


@pytest.mark.parametrize(
    "stops",
    [
        [signal.SIGINT, signal.SIGHUP],
        [signal.SIGTERM, signal.SIGHUP],
        [signal.SIGHUP, signal.SIGHUP, signal.SIGTERM],
    ],
)
def test_interrupted(stops, tmp_path):
    """A closing terminal and its shell both send SIGHUP."""
    process = start_and_wait(tmp_path)
    for stop in stops:
        process.send_signal(stop)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error_lines(stderr) == ["error: interrupted; nothing was kept"]
    assert list(tmp_path.iterdir()) == []


def test_killed_run_is_not_taken_for_whole_and_is_cleaned_up(tmp_path):
    process = start_and_wait(tmp_path)
    with pytest.raises(UserError, match="another process is preparing 'moving_shapes'"):
        run(*SHAPES, "--data_dir", tmp_path)
    process.kill()
    process.communicate(timeout=60)
    with pytest.raises(UserError, match="not prepared") as caught:
        records.open_records("moving_shapes", "train", str(tmp_path))
    assert "did you mean" not in str(caught.value)  # the hidden folder of the other
    assert "12 of 12" in run(*SHAPES, "--data_dir", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["moving_shapes"]


def test_the_lock_is_for_one_data_set_only(tmp_path):
    with staging.staging(str(tmp_path), "a", "") as place:
        with (
            open(pathlib.Path(place.folder) / "lock") as lock,
            pytest.raises(BlockingIOError),
        ):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with staging.staging(str(tmp_path), "b", ""):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_on_another_disk_is_refused_before_the_work(tmp_path):
    own = tmp_path.stat().st_dev
    folders = [d for d in ("/dev/shm", "/tmp") if os.path.isdir(d)]
    place = next((d for d in folders if os.stat(d).st_dev != own), None)
    if place is None:
        pytest.skip("needs another disk")
    with tempfile.TemporaryDirectory(dir=place) as other:
        (tmp_path / "moving_shapes").symlink_to(other)
        with pytest.raises(
            UserError, match="is on another disk than .*: name a folder"
        ):
            run(*SHAPES, "--data_dir", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["moving_shapes"]


def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with staging.staging(str(tmp_path), "a", "") as place:
        assert pathlib.Path(place.data).is_dir()
    note, rest = capsys.readouterr().err.split("\n", 1)
    assert "no locks on this file system (No locks available)" in note and not rest
    assert list(tmp_path.iterdir()) == []
