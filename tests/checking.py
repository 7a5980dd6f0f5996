"""What jaxtyping's import hook puts around every function of ours, in tests."""

import inspect
from importlib.machinery import SourceFileLoader
from unittest import mock

import beartype
import jaxtyping
from jaxtyping import _import_hook

# As PEP 484 has it and everybody reads it, an int is welcome where a float is.
check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def install():
    """Checks all functions of ours that are imported from now on."""
    jaxtyping.jaxtyped = _jaxtyped
    jaxtyping.install_import_hook("ctp_jax", f"{__name__}.check")
    loader = _import_hook._JaxtypingLoader
    if "exec_module" in vars(loader):
        loader.get_code = _get_code
        # Theirs looks elsewhere for compiled files until all that a module of ours imports
        # is imported: all of TensorFlow would be compiled anew, in every process.
        del loader.exec_module


def _jaxtyped(*, typechecker):
    """jaxtyping's decorator, which takes much longer, only where there are shapes."""
    check_shapes = jaxtyping._decorator.jaxtyped(typechecker=typechecker)

    def decorate(decorated):
        if inspect.isfunction(decorated) and not _names_shapes(decorated):
            return typechecker(decorated)
        return check_shapes(decorated)

    return decorate


def _names_shapes(function):
    """Whether an annotation has a shape, or a class in quotes, which jaxtyping looks up.

    It does not look into `type X = ...`, `NewType` and type variables; we have none.
    """
    annotations = inspect.get_annotations(function).values()
    return any(
        "jaxtyping" in repr(each) or (not isinstance(each, type) and "'" in repr(each))
        for each in annotations
    )


def _get_code(self, name):
    tag = self._typechecker.get_hash()
    with mock.patch(
        "importlib._bootstrap_external.cache_from_source",
        lambda *args, **options: _import_hook._optimized_cache_from_source(
            tag, *args, **options
        ),
    ):
        return SourceFileLoader.get_code(self, name)
