"""Imports the modules that a config names.

A plain name is a module of this package. A name with a dot is a module outside of it, and
is imported only if the user named it for this command: in the config that the command was
given, or with --allow_code. A config that is read out of a workdir or a checkpoint may be
a stranger's, and names nothing.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import pathlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType

from ml_collections import ConfigDict

from ctp_jax import config as config_lib
from ctp_jax.errors import UserError, in_code

_FIELDS = (
    "task",
    "name",
    "module",
    "metrics_to",
)  # last parts of the fields that name modules

_allowed: set[str] = set()


def allow(*names: str) -> None:
    """Lets modules outside the package be imported by `load`."""
    _allowed.update(names)


def allow_named_by(config: ConfigDict) -> None:
    """Lets the modules be imported that a config of the user's own names."""
    allow(*named_by(config).values())


def named_by(config: ConfigDict) -> dict[str, str]:
    """{field: module} of the fields of a config that name modules."""
    return {
        field: value
        for field, value in config_lib.flatten(config).items()
        if field.rpartition(".")[2] in _FIELDS
        and field != "data.name"
        and isinstance(value, str)
    }


def digests(config: ConfigDict) -> dict[str, str]:
    """{'FIELD (code)': digest of its file} of the modules that are not of this package.

    Imports the packages that these are in, but not the modules.
    """
    found = {}
    for field, name in named_by(config).items():
        with contextlib.suppress(Exception):  # the run says what is wrong
            if "." in name and (spec := importlib.util.find_spec(name)):
                code = pathlib.Path(spec.origin or "").read_bytes()
                found[f"{field} (code)"] = hashlib.sha256(code).hexdigest()[:10]
    return found


def inside(package: str, *helpers: str) -> dict[str, str]:
    """{plain name: path} of the modules of a package, apart from its helpers."""
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return {m.name: f"{package}.{m.name}" for m in found if m.name not in helpers}


def load(
    field: str, what: str, name: str, ours: Mapping[str, str], *needs: str
) -> ModuleType:
    """Imports the module that a field of a config names.

    Args:
        field: `config.task` or another.
        what: is named, in a word.
        name: the value of the field.
        ours: {plain name: path} of the modules of this package that it may name.
        *needs: what the module must define.

    Raises:
        UserError: there is no such module, it does not load, it lacks something, or the
            user has not named it for this command.
    """
    value, path = f"{field} = {name!r}", ours.get(name, name)
    if name not in ours:
        if "." not in name or not all(map(str.isidentifier, name.split("."))):
            raise UserError(
                f"{value}: no such {what}; choose one of {', '.join(ours)}, or "
                "name a module of your own, with a dot"
            )
        if name not in _allowed:
            raise UserError(
                f"{value}: is code outside of ctp_jax, which a file of a run may not "
                f"name: if you trust it, add --allow_code={name}, or in Python: "
                f"from ctp_jax import modules; modules.allow({name!r})"
            )
    try:
        module = importlib.import_module(path)
    except Exception as error:
        if name in ours or isinstance(error, UserError):
            raise
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not f"{path}.".startswith(f"{missing}."):
            raise UserError(f"{value}{in_code(error)}") from error
        raise UserError(
            f"{value}: there is no module {missing}: correct the name, or add its "
            "folder to PYTHONPATH"
        ) from error
    for each in needs:
        if not hasattr(module, each):
            raise UserError(f"{value}: {module.__file__} does not define {each}")
    return module
