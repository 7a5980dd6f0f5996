"""The built-in run, minutes on a laptop's CPU: `make demo`."""

from configs import small


def get_config(arg=None):
    return small.get_config(arg)
