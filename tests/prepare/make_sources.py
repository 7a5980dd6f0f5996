"""What the tests of builders share."""

import contextlib
import pathlib
import signal

from ctp_jax import cli
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
