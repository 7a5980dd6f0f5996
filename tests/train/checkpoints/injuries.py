"""Kinds of damage to a checkpoint, and a run whose checkpoints are damaged."""

import dataclasses
import pathlib
import shutil
from typing import Any
from unittest import mock

import jax

from ctp_jax.train import loop
from ctp_jax.train.checkpoints import manager
from ctp_jax.train.checkpoints.retention import RetentionPolicy
from tests.toy_data import opener, toy_config


def _replace(path, data):
    path.write_bytes(bytes(data))
    return path.name


def flipped_bit(folder, rng):
    path = _file(folder, rng)
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return _replace(path, data)


def truncated(folder, rng):
    path = _file(folder, rng)
    data = path.read_bytes()
    return _replace(path, data[: rng.integers(len(data))])


def emptied(folder, rng):
    return _replace(_file(folder, rng), b"")


def deleted_file(folder, rng):
    path = _file(folder, rng, at_least=0)
    path.unlink()
    return path.name


def deleted_folder(folder, rng):
    path = _choose([p for p in folder.rglob("*") if p.is_dir()], rng)
    shutil.rmtree(path)
    return path.name


def appended(folder, rng):
    path = _file(folder, rng, at_least=0)
    return _replace(path, path.read_bytes() + rng.bytes(1 + rng.integers(100)))


def swapped(folder, rng):
    """Two files have exchanged their names."""
    first = _file(folder, rng)
    second = _file(folder, rng, unlike=first.read_bytes())
    data = first.read_bytes()
    _replace(first, second.read_bytes())
    return f"{first.name}, {_replace(second, data)}"


def half_written(folder, rng):
    """A file of the right length that ends in zeros."""
    path = _file(folder, rng)
    data = path.read_bytes()
    written = rng.integers(len(data.rstrip(b"\0")))
    return _replace(path, data[:written].ljust(len(data), b"\0"))


def zeroed_block(folder, rng):
    path = _file(folder, rng)
    data = bytearray(path.read_bytes())
    marked = [at for at, byte in enumerate(data) if byte]
    start = max(0, marked[rng.integers(len(marked))] - rng.integers(64))
    end = min(start + 64, len(data))
    data[start:end] = bytes(end - start)
    return _replace(path, data)


def older_file(folder, rng):
    """A file is replaced by that of the previous step."""
    before = folder.with_name(str(min(int(p.name) for p in folder.parent.iterdir())))
    paths = [p for p in folder.rglob("*") if p.is_file()]
    pairs = [(p, before / p.relative_to(folder)) for p in paths]
    pairs = [
        (new, old)
        for new, old in pairs
        if old.exists() and new.read_bytes() != old.read_bytes()
    ]
    new, old = pairs[rng.integers(len(pairs))]
    return _replace(new, old.read_bytes())


def added_file(folder, rng):
    path = _choose([folder, *(p for p in folder.rglob("*") if p.is_dir())], rng)
    (path / "stray").write_bytes(rng.bytes(rng.integers(10)))
    return f"{path.name}/stray"


KINDS = (flipped_bit, truncated, emptied, deleted_file, deleted_folder, appended)
KINDS += (swapped, half_written, zeroed_block, older_file, added_file)


def _choose(paths, rng):
    return sorted(paths)[rng.integers(len(paths))]


def _file(folder, rng, at_least=1, unlike=None) -> pathlib.Path:
    """A random file with a non-zero byte (unless at_least is 0), different from `unlike`."""
    paths = [p for p in folder.rglob("*") if p.is_file()]
    if at_least:
        paths = [p for p in paths if p.read_bytes().strip(b"\0")]
    return _choose([p for p in paths if p.read_bytes() != unlike], rng)


@dataclasses.dataclass
class Prepared:
    """A finished run: its workdir, and the states that it saved by step."""

    workdir: pathlib.Path
    states: dict[int, Any]


def prepare(workdir: pathlib.Path) -> Prepared:
    """Trains the toy task for twelve steps, which leaves steps 4, 8 and 12."""
    states = {}
    save = manager.Checkpoints.save

    def noticed(self, step, state, meta):
        states[step] = jax.device_get(state)
        save(self, step, state, meta)

    with mock.patch.object(manager.Checkpoints, "save", noticed):
        loop.train(toy_config(keep_checkpoints=3), workdir, opener())
    return Prepared(workdir, states)


def copy(prepared: Prepared, workdir: pathlib.Path) -> pathlib.Path:
    """Copies the checkpoints to another workdir; returns the newest one there."""
    shutil.rmtree(workdir, ignore_errors=True)
    place = workdir / "checkpoints"
    shutil.copytree(prepared.workdir / "checkpoints", place)
    return place / str(max(prepared.states))


def restored(prepared: Prepared, workdir: pathlib.Path) -> tuple[int, Any, list[str]]:
    """(step, state, printed lines) of a run that is resumed in a workdir."""
    said: list[str] = []
    checkpoints = manager.Checkpoints(workdir, RetentionPolicy(3), said.append)
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape,
            leaf.dtype,
            sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]),
        ),
        prepared.states[max(prepared.states)],
    )
    try:
        state, _ = checkpoints.restore(target, lambda step, meta: None)
    finally:
        checkpoints.close()
    return int(state.step), jax.device_get(state), said


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal bit for bit."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in pairs)
