"""Imports go one way, and each big dependency has one door (docs: DESIGN)."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "ctp_jax").rglob("*.py"))

# A part may import itself, and those named here.
BASICS = {"errors", "files", "versions", "config"}
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "versions": set(),
    "config": {"errors"},
    "ops": set(BASICS),
    "models": {"ops", *BASICS},
    "pictures": set(BASICS),
    "evaluators": {"ops", "pictures", "data", *BASICS},
    "data": {"ops", "tasks.base", *BASICS},
    "tasks": {"models", "ops", "evaluators", "data", *BASICS},
    "interop": {"models", "ops", "train", *BASICS},
    "train": {"models", "ops", "evaluators", "data", "tasks", *BASICS},
    "command": set(BASICS),
    "report": {"pictures", "command", *BASICS},
}
# Commands and whatever stands beside them import what they like, and nobody imports
# them.

DOORS = {
    "tensorflow": ("data/",),
    "tensorflow_datasets": ("data/", "prepare.py"),
    "orbax": ("train/checkpoints/pytrees.py",),
    "torch": ("interop/",),
    "torchvision": ("interop/",),
}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imports(path):
    """(module, whether it is imported with the file) for every import in it."""
    tree = ast.parse(path.read_text())
    lazy = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from package import module` imports the module.
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [w if w in MODULES else node.module for w in whole]
        else:
            continue
        for name in names:
            yield name, id(node) not in lazy


def part_of(module):
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_one_way(path):
    part = part_of(name_of(path))
    if part not in MAY_IMPORT:
        return
    for module, _ in imports(path):
        if not module.startswith("ctp_jax.") or part_of(module) == part:
            continue
        allowed = MAY_IMPORT[part]
        inside = module.removeprefix("ctp_jax.")
        assert part_of(module) in allowed or inside in allowed, f"{path}: {module}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_big_dependency_has_one_door(path):
    place = path.relative_to(ROOT / "ctp_jax").as_posix()
    for module, _ in imports(path):
        doors = DOORS.get(module.split(".")[0])
        assert doors is None or place.startswith(doors), f"{path}: {module}"


def test_tensorflow_is_not_imported_with_the_rest():
    """Nothing outside data/ imports a module of data/ when it is imported itself."""
    for path in FILES:
        part = part_of(name_of(path))
        if part in MAY_IMPORT and part != "data":
            for module, at_once in imports(path):
                assert part_of(module) != "data" or not at_once, f"{path}: {module}"


def test_no_cycles():
    graph = {
        name: {m for m, at_once in imports(path) if at_once and m in MODULES} - {name}
        for name, path in MODULES.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, naming it


SCRIPT = """
import sys
from ctp_jax import command
command.quiet()
def loaded(*names):
    return [name for name in names if name in sys.modules]
def refuse(place, *names):
    assert not loaded(*names), f"{place}: {loaded(*names)}"
from ctp_jax import convert, main, prepare, visualize
HEAVY = "tensorflow", "tensorflow_datasets", "torch", "keras", "matplotlib", "scipy"
refuse("commands", *HEAVY, "jax", "orbax", "cv2")
from ctp_jax.models import heads, resnet3d
from ctp_jax.tasks import ctp, features, recognition
refuse("models and tasks", *HEAVY, "orbax", "cv2")
from ctp_jax.train import loop
refuse("train", "tensorflow", "tensorflow_datasets", "torch", "keras", "matplotlib")
from ctp_jax.data import pipeline
refuse("data", "tensorflow_datasets", "torch", "keras", "matplotlib")
assert loaded("tensorflow")
"""


def test_nothing_heavy_is_imported_before_it_is_needed():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
