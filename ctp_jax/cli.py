"""What every command shares: flags, one-line errors, a quiet start.

A command defines its flags on a `FlagValues` of its own, so that importing it has no
effect on another, and ends with `cli.run(main, FLAGS)`.
"""

import logging
import os
import pathlib
import re
import runpy
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from ctp_jax import config as config_lib
from ctp_jax.errors import UserError


def define_config(flag_values: flags.FlagValues) -> flags.FlagHolder:
    """Defines `--config=FILE[:ARGUMENTS]` with its overrides `--config.x=y`."""
    holder = config_flags.DEFINE_config_file(
        "config",
        None,
        "Config file, with arguments after a colon: configs/ucf_r3d.py:runlocal",
        flag_values=flag_values,
    )
    # That of ml_collections lets a missing file pass until the config is used.
    flag_values["config"].parser = _ConfigParser()
    return holder


class _ConfigParser(flags.ArgumentParser):
    """Loads the config, and looks whether it has the fields that are overridden."""

    def parse(self, argument: str) -> ConfigDict:
        config = load_config(argument)
        for each in sys.argv[1:]:
            if match := re.match(r"--?(?:no)?config\.([^=]+)", each):
                _check_field(config, match[1])
        return config.lock()

    def flag_type(self) -> str:
        return "config file"


def run(
    main: Callable[[Sequence[str]], Any], flag_values: flags.FlagValues | None = None
) -> None:
    """Parses the command line, calls `main(positional arguments)`, exits.

    A `UserError` becomes one line on stderr and exit code 2; anything else is a bug
    and keeps its stack trace.

    Args:
        main: the command; its docstring is what --help says first.
        flag_values: its flags; None: it parses the command line itself.
    """
    quiet()
    try:
        if flag_values is None:
            main(sys.argv[1:])
        else:
            main(parse(sys.argv, flag_values, main.__doc__ or ""))
    except UserError as error:
        fail(error)
    except AttributeError as error:
        # As a ConfigDict raises it: a hand-written or an older config lacks a field.
        if not (error.args and isinstance(error.args[0], KeyError)):
            raise
        fail(
            UserError(f"the config has no field {error}: start from configs/common.py")
        )
    except KeyboardInterrupt as interrupt:
        print(f"error: {'; '.join(['interrupted', *interrupt.args])}", file=sys.stderr)
        sys.exit(130)


def fail(error: UserError) -> NoReturn:
    """Prints the line and exits with the error's code."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    sys.exit(error.exit_code)


def quiet() -> None:
    """Leaves the terminal to our own lines. To be called before JAX is used."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Or TensorFlow announces oneDNN, which the host's part has no use for.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # Or it imports Keras, which nobody here uses, and with it Matplotlib and SciPy: half
    # a second. For want of the older Keras that this asks for, it goes without.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    # Orbax logs each save, and each failure with its stack: failures reach us as
    # exceptions anyway.
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    for module, name in (
        (sys, "excepthook"),
        (sys, "unraisablehook"),
        (threading, "excepthook"),
    ):
        setattr(module, name, _without_echoes(getattr(module, name)))


def _without_echoes(hook: Callable[..., Any]) -> Callable[..., None]:
    """A hook that prints exceptions, less the echoes of a failed save or restore.

    When one array cannot be written, TensorStore still reports on all others to an
    event loop that Orbax has closed: dozens of stack traces beside our one line.
    """

    def filtered(*report) -> None:
        error = report[1] if len(report) == 3 else report[0].exc_value
        if not (
            isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
        ):
            hook(*report)

    return filtered


def use_compilation_cache(small: bool = True) -> None:
    """Keeps compiled programs, so that a second start takes seconds.

    They lie in $JAX_COMPILATION_CACHE_DIR, else in `~/.cache/ctp_jax`.

    Args:
        small: keep those, too, that compile in less than a second, of which a run has
            many. Not for several processes: one may read what another is writing.
    """
    import jax  # not above: commands that need no JAX start faster without

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        directory = str(cache.expanduser() / "ctp_jax")
        jax.config.update("jax_compilation_cache_dir", directory)
    if small and not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def parse(argv: Sequence[str], flag_values: flags.FlagValues, about: str) -> list[str]:
    """Parses into `flag_values`; returns what is not a flag.

    Args:
        argv: `sys.argv`, where ml_collections looks for overrides of a config.
        flag_values: the flags that there are.
        about: what --help says first.

    Raises:
        UserError: for a flag, a config or an override that is wrong.
    """
    if {"--help", "-h", "-help"} & set(argv):
        print(f"{about.strip()}\n\n{flag_values.get_help(include_special_flags=False)}")
        sys.exit(0)
    try:
        arguments = flag_values(list(argv))[1:]
    except flags.UnrecognizedFlagError as error:
        if error.flagname.startswith("config."):
            message = (
                f"--config is missing: --{error.flagname} overrides one of its fields"
            )
            raise UserError(message) from error
        raise UserError(f"{error} (see --help)") from error
    except (flags.Error, ValueError) as error:
        raise UserError(str(error)) from error
    for name in flag_values:
        if name.startswith("config."):
            _check_items(name, flag_values[name])
    return arguments


def load_config(spec: str) -> ConfigDict:
    """The config that `FILE[:ARGUMENTS]` names.

    Raises:
        UserError: there is no such file, it does not load, or it refuses its arguments.
    """
    path, has_argument, argument = spec.partition(":")
    if not pathlib.Path(path).is_file():
        there = [str(p) for p in pathlib.Path(path).parent.glob("*.py")]
        like = config_lib.closest(path, there)
        hint = f"; did you mean {like}?" if like else ""
        raise UserError(f"--config={spec}: no such file{hint}")
    try:
        get_config = runpy.run_path(path)["get_config"]
        config = get_config(*([argument] if has_argument else []))
    except Exception as error:
        raise UserError(f"--config={spec}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={spec}: get_config() must return a ConfigDict")
    return config


def _check_field(config: ConfigDict, name: str) -> None:
    """Raises `UserError` with the closest name if there is no such field or group."""
    known = list(config_lib.flatten(config))
    if not any(f"{each}.".startswith(f"{name}.") for each in known):
        like, groups = config_lib.closest(name, known), ", ".join(config)
        hint = f"did you mean --config.{like}?" if like else f"there are {groups}"
        raise UserError(f"--config.{name}: no such field; {hint}")


def _check_items(name: str, flag: flags.Flag) -> None:
    """Raises `UserError` for text where numbers belong.

    In a tuple: ml_collections takes `(1,x)` for a text, and any other kind of items.
    """
    if not isinstance(flag, flags.MultiFlag):
        return
    value, default = tuple(flag.value or ()), tuple(flag.default or ())
    if _has_text(value) and not _has_text(default):
        raise UserError(f"--{name}={value}: needs numbers, as {default} has")


def _has_text(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_has_text, value))
    return isinstance(value, str)
