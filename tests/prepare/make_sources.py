"""What the tests of builders share."""

import contextlib
import pathlib
import signal

import pytest
import tensorflow as tf

from ctp_jax import cli
from ctp_jax.data import index, reading, records
from ctp_jax.errors import UserError
from ctp_jax.prepare import __main__ as prepare
from ctp_jax.prepare.builders import base


def make_source(builder, *flags) -> base.Source:
    """What the builder lists for these flags."""
    return builder.make_source(builder.read_flags(*flags), base.Options())


def touch(folder, *names, text="x") -> str:
    """Writes files below a folder; gives the folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)


def run_main(capsys, *argv) -> tuple[int, str, list[str]]:
    """Runs the command: exit code, output, lines of errors less the progress bar."""
    before, code = signal.getsignal(signal.SIGTERM), 0
    try:
        prepare.main([str(argument) for argument in argv])
    except UserError as error:
        code = error.exit_code
        with contextlib.suppress(SystemExit):
            cli.fail(error)
    finally:
        signal.signal(signal.SIGTERM, before)
    out, errors = capsys.readouterr()
    lines = errors.replace("\r", "\n").split("\n")
    return code, out, [line for line in lines if line and "videos/s]" not in line]


def prepare_in(data_dir, *argv) -> str:
    """Runs the command in this process, errors and all; gives its summary."""
    argv = [*map(str, argv), "--data_dir", str(data_dir)]
    return prepare.prepare(*prepare.parse(argv))


def contents(folder) -> dict[str, bytes]:
    """What is in every file below a folder."""
    folder = pathlib.Path(folder)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def read_all(name, data_dir, stream="rgb") -> dict[str, dict]:
    """{name of video: features}."""
    opened = records.open_records(name, "all", str(data_dir), stream)
    read = reading.read_features(opened)
    return {
        video_name: tf.nest.map_structure(
            lambda value: value.numpy(), read(tf.constant(i, tf.int64))
        )
        for i, video_name in enumerate(opened.ids)
    }


def resume(data_dir, folder, flags, kind, monkeypatch, capsys) -> dict[str, bytes]:
    """Prepares from moving_shapes in one go, and resumed with more processes.

    Asserts that records and what is named after the kind are the same, and gives them.
    """
    (folder / "moving_shapes").symlink_to(data_dir / "moving_shapes")
    flags = [*flags, "--split", "test", "--shards", 2, "--name"]
    prepare_in(folder, *flags, "whole", "--workers", 1)
    flags += ["resumed", "--workers", 2]
    with monkeypatch.context() as patch:
        patch.setattr(index, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare_in(folder, *flags)
    (receipt,) = (folder / ".preparing_resumed" / "receipts").glob("*-00001-*")
    receipt.unlink()
    capsys.readouterr()
    prepare_in(folder, *flags)
    assert "going on with 1 of 2 shards" in capsys.readouterr().err
    whole, resumed = (
        {
            file.replace(name, "x"): data
            for file, data in contents(folder / name).items()
            if "tfrecord" in file or kind in file
        }
        for name in ("whole", "resumed")
    )
    assert whole == resumed
    return whole
