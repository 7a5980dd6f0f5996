"""What all commands share: flags, one-line errors, no messages of libraries.

A command defines its flags in its own `Flags`, and ends with `cli.run(main, FLAGS)`.
"""

import ast
import itertools
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
from ctp_jax import errors, modules, terminal
from ctp_jax.errors import UserError, in_code
from ctp_jax.flags import Flags
from ctp_jax.versions import installed


def define_config(flag_values: Flags) -> flags.FlagHolder:
    """Defines `--config=FILE[:ARGUMENTS]` with its overrides `--config.x=y`.

    And --allow_code, for names of modules that the config does not contain.
    """
    define_allow_code(flag_values)
    holder = config_flags.DEFINE_config_file(
        "config",
        None,
        "Config file, its arguments after a colon: configs/ucf_r3d.py:runlocal",
        flag_values=flag_values,
    )
    # The parser of ml_collections accepts a missing file until the config is used.
    flag_values["config"].parser = _ConfigParser()
    # And its parser of tuples joins the values of a flag that is given twice.
    config_flags.register_flag_parser(parser=_TupleParser())(tuple)
    return holder


def define_allow_code(flag_values: Flags) -> None:
    """Defines --allow_code, for commands that read the config of a run."""
    flag_values.list(
        "allow_code",
        [],
        "Modules outside of ctp_jax that a config read from a run or a checkpoint may "
        "name: they are imported, so that their code runs.",
    )


class _ConfigParser(flags.ArgumentParser):
    """Loads the config and checks that the overridden fields exist."""

    def parse(self, argument: str) -> ConfigDict:
        config = load_config(argument)
        for each in sys.argv[1:]:
            if match := re.match(r"--?(?:no)?config\.([^=]*)", each):
                _check_field(config, match[1])
        return config.lock()

    def flag_type(self) -> str:
        return "config file"


class _TupleParser(flags.ArgumentParser):
    """Parses `(1, 2)`; one number is a tuple of one."""

    def parse(self, argument: str | tuple) -> tuple:
        if isinstance(argument, tuple):  # the default
            return argument
        try:
            value = ast.literal_eval(argument)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise ValueError('needs items with commas, as in "(1, 2)"') from None
        return tuple(value) if isinstance(value, (tuple, list)) else (value,)

    def flag_type(self) -> str:
        return "tuple"


# What Python and absl say of values, and what is meant.
_PLAIN = {
    r"invalid literal for int\(\) with base 10: .*": "needs a whole number",
    "could not convert string to float: .*": "needs a number",
    r"\('Non-boolean argument to boolean flag', .*\)": "needs true or false",
}


def run(main: Callable[[Sequence[str]], Any], flag_values: Flags | None = None) -> None:
    """Parses the command line, calls `main(positional arguments)`, exits.

    --version prints the version, and that of JAX, instead.

    A `UserError` becomes one line on stderr and its exit code, and so does what the
    system refuses, and Ctrl-C. Any other exception is a bug and keeps its stack trace.

    Args:
        main: the command; --help begins with its docstring.
        flag_values: its flags; None: it parses the command line itself.
    """
    terminal.guard_streams()
    interrupts = terminal.Interrupts()
    quiet()
    if "--version" in sys.argv[1:]:
        print(", ".join(f"{k} {v}" for k, v in installed(["jax"]).items()))
        return
    terminal.say_alive()
    try:
        if flag_values is None:
            main(sys.argv[1:])
        else:
            main(parse(sys.argv, flag_values, main.__doc__ or ""))
    except SystemExit:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and error.args:
            # The command has tidied up and says what is left.
            print(f"error: interrupted; {error.args[0]}", file=sys.stderr, flush=True)
            terminal.end_soon(terminal.INTERRUPTED)
            sys.exit(terminal.INTERRUPTED)
        if interrupts.came or isinstance(error, KeyboardInterrupt):
            sys.stdout.flush()
            terminal.end()
        if explained := errors.explained(error):
            fail(explained)
        # JAX's note on how it shortens stack traces would be the last line, where the
        # error should stand.
        notes = getattr(error, "__notes__", ())
        error.__notes__ = [note for note in notes if "JAX has removed" not in note]
        raise
    finally:
        terminal.end_on_interrupt()  # there is nothing left to clean up
    if terminal.lost_output():
        sys.exit(1)


def fail(error: UserError) -> NoReturn:
    """Prints the line and exits with the error's code."""
    sys.stdout.flush()
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    sys.exit(error.exit_code)


def quiet() -> None:
    """Suppresses messages of libraries. Call this before JAX is used."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Otherwise TensorFlow prints a message about oneDNN, which is not used here.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # Otherwise TensorFlow imports Keras, and with it Matplotlib and SciPy, which takes
    # half a second. This asks for an older Keras; without it, none is imported.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    # Orbax logs each save, and each failure with its stack trace; failures reach us as
    # exceptions as well.
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
    """An exception hook that drops the follow-up errors of a failed save or restore.

    When one array cannot be written, TensorStore still reports the others to an event
    loop that Orbax has closed, which prints dozens of stack traces.
    """

    def filtered(*report) -> None:
        error = report[1] if len(report) == 3 else report[0].exc_value
        if isinstance(error, KeyboardInterrupt):  # raised where nobody can catch it
            terminal.end()
        if not (
            isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
        ):
            hook(*report)

    return filtered


def parse(argv: Sequence[str], flag_values: Flags, about: str) -> list[str]:
    """Parses into `flag_values`; returns the positional arguments.

    Args:
        argv: must be `sys.argv` if a config is among the flags.
        flag_values: the flags of the command.
        about: the text that --help begins with.

    Raises:
        UserError: a flag, the config or an override is wrong.
    """
    if {"--help", "-h", "-help"} & set(argv):
        print(f"{about.strip()}\n\n{flag_values.get_help(include_special_flags=False)}")
        sys.exit(0)
    if "config" in flag_values:
        # There ml_collections looks for overrides.
        argv = sys.argv[:] = [argv[0], *_config_first(argv[1:])]
    try:
        arguments = flag_values(list(argv))[1:]
    except flags.UnrecognizedFlagError as error:
        if error.flagname.startswith("config."):
            message = (
                f"--config is missing: --{error.flagname} needs a config to override"
            )
            raise UserError(message) from error
        config = flag_values["config"].value if "config" in flag_values else None
        fields = config_lib.flatten(config or {})
        if error.flagname in {each.rpartition(".")[2] for each in fields}:
            hint = config_lib.suggestion(error.flagname, fields)
            raise UserError(f"--{error.flagname}: is no flag; {hint}") from error
        raise UserError(f"{error} (see --help)") from error
    except (flags.Error, ValueError) as error:
        text = str(error)
        for theirs, plain in _PLAIN.items():
            text = re.sub(theirs, plain, text)
        raise UserError(text) from error
    if "allow_code" in flag_values:
        modules.allow(*(flag_values["allow_code"].value or ()))
    if "config" in flag_values:
        config = flag_values["config"].value
        if config is not None:
            modules.allow_named_by(config)
            config_lib.validate(config)
    return arguments


def _config_first(arguments: Sequence[str]) -> list[str]:
    """The last --config, then all else: its overrides must follow it."""
    configs, rest = [], []
    remaining = iter(arguments)
    for each in remaining:
        if each in ("--config", "-config"):
            configs = [each, *itertools.islice(remaining, 1)]
        elif re.match("--?config=", each):
            configs = [each]
        else:
            rest.append(each)
    return configs + rest


def load_config(spec: str) -> ConfigDict:
    """Loads the config `FILE[:ARGUMENTS]`.

    Raises:
        UserError: the file does not exist, does not load, or refuses its arguments.
    """
    path, has_argument, argument = spec.partition(":")
    if not pathlib.Path(path).is_file():
        there = [str(p) for p in pathlib.Path(path).parent.glob("*.py")]
        hint = config_lib.did_you_mean(path, there)
        raise UserError(f"--config={spec}: no such file{hint}")
    try:
        found = runpy.run_path(path)
        if "get_config" not in found:
            raise ValueError("defines no get_config()")
        config = found["get_config"](*([argument] if has_argument else []))
    except Exception as error:
        raise UserError(f"--config={spec}{in_code(error, path)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"--config={spec}: get_config() returns {type(config).__name__}: must return "
            "a ConfigDict"
        )
    return config


def _check_field(config: ConfigDict, name: str) -> None:
    """Raises `UserError`, with the closest name, for an unknown field or group."""
    known = list(config_lib.flatten(config))
    if not any(f"{each}.".startswith(f"{name}.") for each in known):
        hint = config_lib.suggestion(name, known)
        raise UserError(f"--config.{name}: no such field; {hint}")
