"""The examples in docstrings print what they say: of all functions of some modules."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

from ctp_jax import ops
from ctp_jax.data import evenly_spread

MODULES = [
    importlib.import_module(f"{ops.__name__}.{found.name}")
    for found in pkgutil.iter_modules(ops.__path__)
]
MODULES.append(evenly_spread)
# Looked up by hand: doctest's own finder passes over functions that the suite's import
# hook has wrapped.
FUNCTIONS = [
    function
    for module in MODULES
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_")
]


@pytest.mark.parametrize(
    "function", FUNCTIONS, ids=lambda f: f"{f.__module__.split('.')[-1]}.{f.__name__}"
)
def test_example(function):
    names = dict(vars(inspect.getmodule(function)))
    example = doctest.DocTestParser().get_doctest(
        function.__doc__, names, function.__name__, names["__file__"], None
    )
    if inspect.signature(function).parameters:
        assert example.examples, "needs an example"
    report = []
    result = doctest.DocTestRunner().run(example, out=report.append)
    assert not result.failed, "".join(report)
