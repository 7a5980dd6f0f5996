"""What jaxtyping's import hook puts around every function of ours, in tests."""

from importlib.machinery import SourceFileLoader
from unittest import mock

import beartype
import jaxtyping
from jaxtyping import _import_hook

# As PEP 484 has it and everybody reads it, an int is welcome where a float is.
check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def install():
    """Checks all functions of ours that are imported from now on."""
    jaxtyping.install_import_hook("ctp_jax", f"{__name__}.check")
    loader = _import_hook._JaxtypingLoader
    if "exec_module" in vars(loader):
        loader.get_code = _get_code
        # Theirs looks elsewhere for compiled files until all that a module of ours imports
        # is imported: all of TensorFlow would be compiled anew, in every process.
        del loader.exec_module


def _get_code(self, name):
    tag = self._typechecker.get_hash()
    with mock.patch(
        "importlib._bootstrap_external.cache_from_source",
        lambda *args, **options: _import_hook._optimized_cache_from_source(
            tag, *args, **options
        ),
    ):
        return SourceFileLoader.get_code(self, name)
