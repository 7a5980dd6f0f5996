"""The flags of the benchmarks: defaults in --help, one line for a mistake."""

import argparse
import importlib.util
import os
import pathlib
import sys
from typing import NoReturn


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

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


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


def count(text: str) -> int:
    """A whole number from 1, as the `type` of a flag."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: needs a whole number from 1")
    return number


def writable(text: str) -> str:
    """A path where a file can be written, as the `type` of a flag."""
    path = pathlib.Path(text)
    if text and (path.is_dir() or not os.access(path.parent, os.W_OK)):
        raise argparse.ArgumentTypeError(f"{text!r}: no file can be written there")
    return text
