"""Versions of this package, and of those that a result was made with."""

from collections.abc import Iterable

VERSION = "0.1.0"


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of this package and of the named ones that are installed."""
    import importlib.metadata  # not above: every command imports this file

    found = {"ctp_jax": VERSION}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
