"""What every command shares: flags, one-line errors, a quiet start.

A command defines its flags on a `FlagValues` of its own, so that importing it has no
effect on another, and ends with `command.run(main, FLAGS)`.
"""

import ast
import difflib
import importlib.util
import logging
import os
import pathlib
import re
import sys
import threading
import traceback
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
    return config_flags.DEFINE_config_file(
        "config",
        None,
        "Config file, with arguments after a colon: configs/ucf_r3d.py:runlocal",
        flag_values=flag_values,
    )


def run(main: Callable[[Sequence[str]], Any], flag_values: flags.FlagValues) -> None:
    """Parses the command line, calls `main(positional arguments)`, exits.

    A `UserError` becomes one line on stderr and exit code 2; anything else is a bug
    and keeps its stack trace.
    """
    quiet()
    try:
        arguments = parse(sys.argv, flag_values, main.__doc__ or "")
        main(arguments)
    except UserError as error:
        fail(error)
    except AttributeError as error:
        field = _missing_field(error)
        if field is None:
            raise
        fail(
            UserError(f"the config has no field {field}: start from configs/common.py")
        )
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _missing_field(error: AttributeError) -> str | None:
    """The field that a hand-written or an older config lacks, if that is the error."""
    if not isinstance(error.__context__, KeyError):
        return None
    *_, innermost = traceback.extract_tb(error.__traceback__)
    return str(error) if innermost.filename.endswith("config_dict.py") else None


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
    sys.excepthook = _print_exception
    for module, name in ((threading, "excepthook"), (sys, "unraisablehook")):
        setattr(module, name, _without_echoes(getattr(module, name)))


def _without_echoes(hook: Callable[[Any], None]) -> Callable[[Any], None]:
    """A hook of threads or destructors that passes over what `_print_exception` does."""

    def filtered(report) -> None:
        if not _is_echo(report.exc_value):
            hook(report)

    return filtered


def _is_echo(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


def _print_exception(kind, error, trace) -> None:
    """The usual hook, less the echoes of a failed save or restore.

    When one array cannot be written, TensorStore still reports on all others to an
    event loop that Orbax has closed: dozens of stack traces beside our one line.
    """
    if _is_echo(error):
        return
    sys.__excepthook__(kind, error, trace)


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

    Raises:
        UserError: for a flag, a config or an override that is wrong, naming the
            closest one that is right.
    """
    _add_help(argv, flag_values, about)
    if "config" in flag_values:
        # ml_collections says the same at greater length, and some of it later.
        flag_values["config"]._sys_argv = list(argv)  # not sys.argv, in tests
        check_config_flags(argv)
    try:
        return flag_values(list(argv))[1:]
    except flags.UnrecognizedFlagError as error:
        like = difflib.get_close_matches(error.flagname, list(flag_values), n=1)
        hint = f"did you mean --{like[0]}?" if like else "see --help"
        raise UserError(f"--{error.flagname}: no such flag; {hint}") from error
    except (flags.Error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(_one_line(error)) from error


def check_config_flags(argv: Sequence[str]) -> None:
    """Raises `UserError` for a config that cannot be loaded or a wrong override."""
    values = _flag_values_of(argv)
    if "config" not in dict(values):
        if any(name.startswith(("config.", "noconfig.")) for name, _ in values):
            raise UserError("--config is missing: overrides need something to override")
        return
    config = load_config(dict(values)["config"] or "")
    for name, text in values:
        if name.startswith("config."):
            _check_override(config, name.removeprefix("config."), text)
        elif name.startswith("noconfig."):
            _check_override(config, name.removeprefix("noconfig."), "false")


def load_config(spec: str) -> ConfigDict:
    """The config that `FILE[:ARGUMENTS]` names.

    Raises:
        UserError: there is no such file, it does not load, or it refuses its arguments.
    """
    path, has_argument, argument = spec.partition(":")
    if not pathlib.Path(path).is_file():
        folder = pathlib.Path(path).parent
        there = sorted(str(p) for p in folder.glob("*.py")) if path else []
        like = difflib.get_close_matches(path, there, n=1, cutoff=0.3)
        hint = f"; did you mean {like[0]}?" if like else ""
        raise UserError(f"--config={spec}: no such file{hint}")
    try:
        module_spec = importlib.util.spec_from_file_location("checked_config", path)
        module = importlib.util.module_from_spec(module_spec)
        module_spec.loader.exec_module(module)
        config = module.get_config(*([argument] if has_argument else []))
    except Exception as error:
        raise UserError(f"--config={spec}: {_one_line(error)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={spec}: get_config() must return a ConfigDict")
    return config


def _check_override(config: ConfigDict, name: str, text: str | None) -> None:
    flat = config_lib.flatten(config)
    groups = {known.rpartition(".")[0] for known in flat} - {""}
    if name in groups:
        inside = [known for known in flat if known.startswith(f"{name}.")]
        raise UserError(f"--config.{name} is a group: set one of {', '.join(inside)}")
    if name not in flat:
        like = config_lib.closest(name, flat)
        names = ", ".join(config.keys())
        hint = f"did you mean --config.{like}?" if like else f"there are {names}"
        raise UserError(f"--config.{name}: no such field; {hint}")
    default = flat[name]
    kind = type(default)
    if text is None:
        if kind is not bool:
            raise UserError(f"--config.{name}: needs a value, e.g. {default!r}")
        return
    if not _parses(text, default):
        raise UserError(
            f"--config.{name}={text}: needs a value of type {kind.__name__}, as "
            f"{default!r} is"
        )


def _parses(text: str, default: Any) -> bool:
    """Whether a text can stand for a field with this default."""
    kind = type(default)
    if kind is bool:
        return text.lower() in ("true", "false", "1", "0", "t", "f")
    if kind is tuple:
        return _parses_tuple(text, default)
    if kind in (int, float):
        try:
            kind(text)
        except ValueError:
            return False
    return True


def _parses_tuple(text: str, default: tuple) -> bool:
    """As `_parses`; numbers must stay numbers, but may be grouped (width, height)."""
    if any(isinstance(item, str) for item in default):
        return True
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return False
    items = value if isinstance(value, (tuple, list)) else [value]
    flat = [x for item in items for x in (item if isinstance(item, tuple) else [item])]
    return all(isinstance(x, (int, float)) for x in flat)


def _flag_values_of(argv: Sequence[str]) -> list[tuple[str, str | None]]:
    """(name, text) of `--name=text` and `--name text`; text None where there is none."""
    found, arguments = [], list(argv[1:])
    while arguments:
        argument = arguments.pop(0)
        if argument == "--":
            break
        match = re.fullmatch(r"--?([^=-][^=]*)(=(.*))?", argument, re.DOTALL)
        if match is None:
            continue
        name, has_text, text = match.groups()
        if not has_text and arguments and not arguments[0].startswith("-"):
            text = arguments[0]
        found.append((name, text))
    return found


def _add_help(argv: Sequence[str], flag_values: flags.FlagValues, about: str) -> None:
    if not {"--help", "-h", "-help"} & set(argv):
        return
    print(f"{about.strip()}\n\n{flag_values.get_help(include_special_flags=False)}")
    sys.exit(0)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    named = isinstance(error, (ValueError, UserError, flags.Error))
    return text if named else f"{type(error).__name__}: {text}"
