"""Imports go one way, and each big dependency has one door (docs/architecture.md)."""

import ast
import functools
import graphlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "ctp_jax").rglob("*.py"))

# From the bottom to the top: a room may import itself and what is listed before it.
ROOMS = (
    ("errors", "flags", "formatting", "terminal", "versions"),
    ("storage",),
    ("metrics_file",),
    ("results", "ranges", "ops"),
    ("config",),
    ("modules",),
    ("pictures", "cli", "devices", "trackers"),
    ("flow",),
    ("models",),
    ("data",),
    ("evaluators",),
    ("tasks",),
    ("train",),
    ("interop", "report"),
)
# Raw videos become shards apart from everything that runs in a step.
PREPARE_MAY_IMPORT = {
    "errors",
    "flags",
    "formatting",
    "terminal",
    "storage",
    "metrics_file",
    "versions",
    "cli",
    "config",
    "modules",
    "data",
    "pictures",
    "trackers",
    "flow",
    "prepare",
}
# Commands and whatever stands beside them import what they like, and nobody imports
# them.

DOORS = {
    "tensorflow": ("data/", "prepare/", "tasks/"),  # tasks: inside their plans
    "tensorflow_datasets": ("prepare/",),
    "orbax": ("train/checkpoints/pytrees.py",),
    "tensorstore": ("storage/object_store.py", "storage/buckets.py"),
    "huggingface_hub": ("train/checkpoints/hub.py",),
    "torch": ("interop/",),
    "torchvision": ("interop/",),
    "apache_beam": ("prepare/",),
    "cv2": ("trackers.py",),
}


# What a stranger's file may reach, likewise.
CALLS = {
    "json.load": (),
    "json.loads": (
        "storage/untrusted.py",
        "config.py",
        "train/distributed/coordination.py",
    ),
    "np.load": (),
    "pickle.load": (),
    "pickle.loads": ("prepare/beam.py",),
    "importlib.import_module": ("modules.py", "prepare/__main__.py"),
}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


@functools.cache
def nodes(path):
    return list(ast.walk(ast.parse(path.read_text())))


def imports(path):
    """The modules that a file imports, anywhere in it."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from package import module` imports the module.
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (w if w in MODULES else node.module for w in whole)


def part_of(module):
    return module.split(".")[1] if "." in module else ""


def allowed_for(part):
    """The rooms that a room may import; None for the commands, which may all."""
    if part == "prepare":
        return PREPARE_MAY_IMPORT
    for number, rooms in enumerate(ROOMS):
        if part in rooms:
            return {part, *(room for below in ROOMS[:number] for room in below)}
    return None


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_one_way(path):
    """Imports inside functions count, too."""
    allowed = allowed_for(part_of(name_of(path)))
    for module in imports(path):
        if module.startswith("ctp_jax.") and allowed is not None:
            assert part_of(module) in allowed, f"{path}: {module}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_big_dependency_has_one_door(path):
    place = path.relative_to(ROOT / "ctp_jax").as_posix()
    for module in imports(path):
        doors = DOORS.get(module.split(".")[0])
        assert doors is None or place.startswith(doors), f"{path}: {module}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_read_and_code_is_imported_in_one_place(path):
    place = path.relative_to(ROOT / "ctp_jax").as_posix()
    for node in nodes(path):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert place in CALLS.get(called, (place,)), f"{path}: {called}"


def test_no_cycles():
    graph = {
        name: {module for module in imports(path) if module in MODULES} - {name}
        for name, path in MODULES.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, naming it


SCRIPT = """
import sys
from ctp_jax import cli
cli.quiet()
def loaded(*names):
    return [name for name in names if name in sys.modules]
def refuse(place, *names):
    assert not loaded(*names), f"{place}: {loaded(*names)}"
from ctp_jax import classify, convert, explain, features, main, publish, search
from ctp_jax import track, visualize
from ctp_jax.prepare import __main__
import ctp_jax.reproduce.__main__
HEAVY = "tensorflow", "tensorflow_datasets", "torch", "keras", "matplotlib", "scipy"
refuse("commands", *HEAVY, "jax", "orbax", "cv2")
from ctp_jax import models, modules, tasks
for each in [*models.MODULES.values(), *modules.inside(tasks.__name__).values()]:
    modules.importlib.import_module(each)
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
