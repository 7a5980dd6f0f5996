"""Errors that the user can fix, as opposed to bugs."""

import contextlib
import errno
import os
import re
import traceback
from collections.abc import Callable, Iterator

_ROOM = "free some space and run the same command again"
_FULL = {
    errno.ENOSPC: ("the disk is full", _ROOM),
    errno.EDQUOT: ("the disk quota is used up", _ROOM),
    errno.EFBIG: ("a file exceeds the allowed size", "raise the limit (ulimit -f)"),
}
_CHECK = "check the disk or the network that holds it"
_REFUSALS = {
    **_FULL,
    errno.EMFILE: ("too many open files", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("too many open files on this machine", "close some"),
    errno.EACCES: ("no permission", "change it or name another place"),
    errno.EPERM: ("not permitted", "change that or name another place"),
    errno.EROFS: ("the file system is read-only", "name another place"),
    errno.ENOENT: ("no such file or folder", "check the path"),
    errno.EEXIST: ("is there and is something else", "name another place"),
    errno.ENOTDIR: ("a part of the path is no folder", "name another place"),
    errno.EISDIR: ("is a folder, not a file", "name another place"),
    errno.ENAMETOOLONG: ("the name is too long", "name another place"),
    errno.ELOOP: ("links lead in a circle", "name another place"),
    errno.EIO: ("cannot be read or written", _CHECK),
    errno.ESTALE: ("is gone from its server", _CHECK),
    errno.ENOTCONN: ("is not connected", _CHECK),
    errno.ETIMEDOUT: ("does not answer", _CHECK),
}
"""What the system may refuse: the reason, and the remedy."""
_IN_TEXTS = (*_FULL, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EROFS)
_IN_TEXTS += (errno.ENAMETOOLONG, errno.EIO, errno.ESTALE)
_DATA_EXTRA = ("tensorflow", "tensorflow_datasets")

_names: dict[str, str] = {}


def name_in_messages(path: str, name: str) -> None:
    """From now on, `shown` writes `name` where a text has `path`."""
    _names[path] = name


def shown(text: object) -> str:
    """A text as the user is to see it: with addresses for copies of what is in a bucket."""
    text = str(text)
    for path, name in _names.items():
        text = text.replace(path, name)
    return text


class UserError(Exception):
    """An error that the user can fix.

    The message is one line: the value, its place and the remedy. Commands print it after
    `error:` without a stack trace and exit with `exit_code`.
    """

    exit_code = 2

    def __str__(self) -> str:
        return shown(super().__str__())


class TryLater(UserError):
    """An error that may pass: schedulers should start the command again later."""

    exit_code = 75


def allowed_bad(total: int, max_bad: float) -> int:
    """How many of `total` videos may be unreadable.

    Args:
        total: number of videos.
        max_bad: the allowed share, in [0, 1]. Unless it is 0, at least one video is
            allowed.
    """
    # 0.29 * 100 must give 29, but is slightly less in floating point.
    return max(int(max_bad * total + 1e-9), int(max_bad > 0))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its chain of causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error or one of its causes is a full disk, quota or file."""
    return any(_number(cause) in _FULL for cause in causes(error))


def refusal(
    error: BaseException, place: object = "", note: str = ""
) -> UserError | None:
    """The error for the user if the system refused something, as on a full disk.

    Args:
        error: what was raised.
        place: to name if the error names no file, or if the disk is full.
        note: what else to say, e.g. what is kept.

    Returns:
        None for an error of another kind.
    """
    for cause in causes(error):
        number = _number(cause)
        if number is None:
            continue
        named = getattr(cause, "filename", None)
        if named is None or (number in _FULL and place):
            named = place or " ".join(str(cause).split())[:200]
        named = os.fsdecode(named) if isinstance(named, bytes) else str(named)
        reason, remedy = _REFUSALS[number]
        return UserError(f"{named}: {reason}{note and f'; {note}'}: {remedy}")
    return None


def explained(error: BaseException) -> UserError | None:
    """The error for the user, with the remedy; None for a bug."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name in _DATA_EXTRA:
        return UserError(
            f"{error.name} is not installed, which this command needs: "
            'in the checkout of ctp_jax, pip install -e ".[data]"'
        )
    # By its name: commands that need no JAX do not import it.
    text = str(error) if type(error).__name__ == "JaxRuntimeError" else ""
    if "RESOURCE_EXHAUSTED" in text and "memory" in text:
        asked = re.search(r"allocat\w+ [\d.]+ ?\w+", text)
        found = f" for {asked[0]}" if asked else ""
        return UserError(
            f"the device has too little memory{found}: take fewer clips at once, by a "
            "smaller batch_size, or in training by --config.optimizer.accumulate=2 (or "
            "more), which divides a batch"
        )
    # A ConfigDict raises it so if an older or hand-written config lacks a field.
    if isinstance(error, AttributeError) and isinstance(
        next(iter(error.args), None), KeyError
    ):
        return UserError(
            f"the config has no field {error}: start from configs/common.py"
        )
    return refusal(error)


@contextlib.contextmanager
def refusals(place: object, note: Callable[[], str] = str) -> Iterator[None]:
    """Raises the `refusal` of what the body raises, where there is one.

    Args:
        place: see `refusal`.
        note: returns that of `refusal`.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        explained = refusal(error, place, note())
        if explained is None:
            raise
        raise explained from error


@contextlib.contextmanager
def placed(place: str) -> Iterator[None]:
    """Puts a place before the text of a `UserError` of the body: 'place: text'."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def in_code(error: BaseException, path: str | os.PathLike | None = None) -> str:
    """What code of the user's raised while it was loaded, in one line with its place.

    Args:
        error: what was raised.
        path: of a file that was run; the line is one of its lines. A `ValueError` is then
            taken for what the file says of its arguments: its text alone is enough. None
            for a module: the file that raised it is named, too.

    Returns:
        ' (line 3): NameError: name ...', to stand after the path or the module.
    """
    text = " ".join(str(error).split())
    if path is not None and isinstance(error, (ValueError, UserError)):
        return f": {text}"
    places = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == os.fspath(path or frame.filename)
        and not frame.filename.startswith("<")  # the import system's
    ]
    if isinstance(error, SyntaxError) and (path is None or not places):
        places, text = [(error.filename or "", error.lineno)], error.msg
    file, line = places[-1] if places else ("", None)
    named = "" if path is not None else f": {file}"
    at = f" (line {line})" if places else ""
    return f"{named}{at}: {type(error).__name__}: {text}"


def reason(error: BaseException) -> str:
    """An error in a few words, on one line; what the system refused, without its path."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]


def _number(error: BaseException) -> int | None:
    """The errno in `_REFUSALS` that an error has, or None.

    TensorStore and TensorFlow report it in the text of errors of their own.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _REFUSALS else None
    return next((n for n in _IN_TEXTS if os.strerror(n) in str(error)), None)
