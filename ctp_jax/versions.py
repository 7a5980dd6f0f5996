"""Versions of the packages that a result was made with."""

import importlib.metadata
from collections.abc import Iterable

import ctp_jax


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of this package and of the named ones that are installed."""
    found = {"ctp_jax": ctp_jax.__version__}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
