"""Mistakes of the user, as opposed to bugs of ours."""


class UserError(Exception):
    """Something that the person at the keyboard can mend.

    The message is one line that says what is wrong, where, and what to do. The
    commands print it after `error:` and exit with 2, without a stack trace.
    """
