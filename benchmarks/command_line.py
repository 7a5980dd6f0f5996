"""The flags of the benchmarks: defaults in --help, one line for a mistake."""

import argparse
import contextlib
import importlib.util
import math
import multiprocessing
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any, NoReturn

from ctp_jax import cli
from ctp_jax.errors import UserError


class Parser(argparse.ArgumentParser):
    """A parser with `--json FILE`.

    Args:
        module: name of the benchmark, `__spec__.name`.
        about: its docstring.
    """

    def __init__(self, module: str, about: str):
        super().__init__(
            f"python -m {module}",
            description=about.splitlines()[0],
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument(
            "--json",
            type=writable,
            default="",
            metavar="FILE",
            help="write the figures there, too",
        )

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """As usual; the help tells the names that there are, and always the default."""
        kind = options.get("type")
        if "help" not in options:
            known = getattr(kind, "known", ())
            options["help"] = ",".join(known) or "default: %(default)s"
        return super().add_argument(*names, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def run(main: Callable[[], None]) -> None:
    """Calls it; what stops a benchmark from outside is one line."""
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        cli.fail(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        # At once: Python's own end, while PyTorch's threads compile, is a segfault.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(130)
    except BrokenPipeError:  # of `| head`: nobody reads on
        os._exit(141)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Processes started herein leave Ctrl-C to this one, which ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def fresh(function: Callable, *arguments: Any) -> Any:
    """The function's result from a new process."""
    with uninterrupted():
        pool = multiprocessing.get_context("spawn").Pool(1)
    with pool:
        return pool.apply(function, arguments)


def is_installed(module: str) -> bool:
    """Whether a module could be imported."""
    return importlib.util.find_spec(module) is not None


def is_there(peer: str) -> bool:
    """The same of a peer; says how to get it if not."""
    if not is_installed(peer):
        print(f"{peer} is not installed: without it (pip install {peer})", flush=True)
        return False
    return True


def need(module: str, package: str) -> None:
    """Ends the program where a module is missing."""
    if not is_installed(module):
        sys.exit(f"error: {module} is missing: pip install {package}")


def count(text: str, least: int = 1) -> int:
    """A whole number from 1 or another, as the `type` of a flag."""
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        message = f"{text!r}: needs a whole number from {least}"
        raise argparse.ArgumentTypeError(message)
    return number


def count_or_zero(text: str) -> int:
    """A whole number from 0, as the `type` of a flag."""
    return count(text, 0)


def counts(text: str, least: int = 1) -> list[int]:
    """Whole numbers from 1 or another, with commas, as the `type` of a flag."""
    try:
        return [count(item, least) for item in text.split(",")]
    except argparse.ArgumentTypeError as error:
        message = f"{text!r}: needs whole numbers from {least}, with commas"
        raise argparse.ArgumentTypeError(message) from error


def positive(text: str) -> float:
    """A finite number above 0, as the `type` of a flag."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: needs a number above 0")
    return number


def some_of(
    known: Collection[str], or_none: bool = False
) -> Callable[[str], list[str]]:
    """The `type` of a flag that takes some of these names, with commas."""

    def read(text: str) -> list[str]:
        found = [] if or_none and not text else text.split(",")
        for item in found:
            if item not in known:
                message = f"{item!r}: choose from {', '.join(known)}"
                raise argparse.ArgumentTypeError(message)
        return found

    read.known = tuple(known)
    return read


def writable(text: str) -> str:
    """A path where a file can be written, as the `type` of a flag."""
    path = pathlib.Path(text)
    can_be = path.parent.is_dir() and os.access(path.parent, os.W_OK)
    if text and (path.is_dir() or not can_be):
        raise argparse.ArgumentTypeError(f"{text!r}: no file can be written there")
    return text
