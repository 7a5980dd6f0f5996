"""Errors that the user can fix, as opposed to bugs."""

import errno
from collections.abc import Iterator

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded")


class UserError(Exception):
    """An error that the user can fix.

    The message is one line: the value, its place and the remedy. Commands print it after
    `error:` without a stack trace and exit with `exit_code`.
    """

    exit_code = 2


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
    """Whether an error or one of its causes is a full disk or quota.

    TensorStore and TensorFlow report it in the text of errors of their own.
    """
    return any(
        (isinstance(cause, OSError) and cause.errno in _FULL)
        or any(text in str(cause) for text in _FULL_TEXTS)
        for cause in causes(error)
    )
