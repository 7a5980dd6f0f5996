"""Mistakes of the user, as opposed to bugs of ours: what is one, and what is not."""

import errno
from collections.abc import Iterator

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded")


class UserError(Exception):
    """Something that the person at the keyboard can mend.

    The message is one line that says what is wrong, where, and what to do. The
    commands print it after `error:` and exit with `exit_code`, without a stack trace.
    """

    exit_code = 2


class TryLater(UserError):
    """Something that may be gone in a while: schedulers should start it again."""

    exit_code = 75


def allowed_bad(total: int, max_bad: float) -> int:
    """How many of `total` videos may be bad before that is an error.

    Args:
        total: how many there are.
        max_bad: the share of them, in [0, 1], that may be. One may, however few there
            are, unless this is 0.
    """
    # 0.29 of 100 shall be 29, which floating point makes a little less.
    return max(int(max_bad * total + 1e-9), int(max_bad > 0))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, one after the other."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that the disk or a quota is full.

    TensorStore and TensorFlow report it by errors of their own, with a text.
    """
    return any(
        (isinstance(cause, OSError) and cause.errno in _FULL)
        or any(text in str(cause) for text in _FULL_TEXTS)
        for cause in causes(error)
    )
