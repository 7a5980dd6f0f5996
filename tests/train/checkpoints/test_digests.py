"""Digests equal NumPy's, and every change of an array changes them."""

import hashlib
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from ctp_jax.train.checkpoints import digests
from tests import forks

WORD = 2**32


def mix(x):
    """The end of MurmurHash3, in Python's integers."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B % WORD
    x = (x ^ (x >> 13)) * 0xC2B2AE35 % WORD
    return x ^ (x >> 16)


def by_hand(name, array):
    """The definition in the module's docstring, word by word."""
    flat = np.ascontiguousarray(array).reshape(-1)
    size = {1: "<u1", 2: "<u2"}.get(flat.dtype.itemsize, "<u4")
    words = flat.view(size).tolist()
    kind = f"{array.dtype}({', '.join(map(str, array.shape))})"
    about = hashlib.sha256(f"{name} {kind}".encode()).digest()
    text = ""
    streams = ((0x6A09E667, 0xBB67AE85), (0x3C6EF372, 0xA54FF53A))
    for lane, (first, second) in enumerate(streams):
        total = 0
        for i, word in enumerate(words):
            a = mix((i * 0x9E3779B9 + first) % WORD)
            b = (a * 0x9E3779B9 + second) % WORD | 1
            total += mix(word ^ a) * b
        named = int.from_bytes(about[4 * lane : 4 * lane + 4], "little")
        text += f"{total % WORD ^ named:08x}"
    return text


DTYPES = ("float32", "float64", "float16", ml_dtypes.bfloat16, "complex64", "bool")
DTYPES += ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64")
DTYPES += (ml_dtypes.float8_e4m3fn,)


def random_array(dtype, shape, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    return (100 * rng.standard_normal(shape)).astype(dtype)


@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 4, 5)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numpy_agrees(dtype, shape):
    array = np.asarray(random_array(dtype, shape))
    expected = {"a/b": by_hand("a/b", array)}
    assert digests.measure({"a": {"b": array}})[0] == expected
    with jax.enable_x64(True):
        on_device = jnp.asarray(array)
        assert on_device.dtype == array.dtype
    assert digests.measure({"a": {"b": on_device}})[0] == expected


def test_leaves_of_several_rows_beside_others():
    row = digests._ROW
    sizes = (row - 1, row, row + 1, 0, 1, 3 * row - 5)
    tree = {str(n): random_array("float32", (n,), n) for n in sizes}
    tree |= {"wide": random_array("float64", (row,)), "narrow": np.arange(row + 7)}
    tree["narrow"] = tree["narrow"].astype("uint8")
    expected = {name: by_hand(name, array) for name, array in tree.items()}
    assert digests.measure(tree) == (expected, [], [])
    for name, array in tree.items():
        if array.size:
            changed = array.copy()
            changed[-1] += 1
            assert digests.difference(expected, {**tree, name: changed}) == name


def test_every_bit_counts():
    array = random_array("float32", (2, 3, 5))
    seen = {digests.measure([array])[0]["0"]}
    # All flips as one stack, because one call of XLA per flip would be slow.
    flips = []
    for bit in range(8 * array.nbytes):
        bytes_ = bytearray(array.tobytes())
        bytes_[bit // 8] ^= 1 << bit % 8
        flips.append(np.frombuffer(bytes_, "float32").reshape(array.shape))
    rows = digests._rows([array])

    def sums_of(flipped):
        return digests._sums([flipped], rows)[0][0]

    sums = jax.jit(lambda x: jax.lax.map(sums_of, x))(np.stack(flips))
    before = np.asarray(jax.jit(sums_of)(array))
    assert (np.asarray(sums) != before).all()  # both words, for certain
    assert len({tuple(row) for row in np.asarray(sums).tolist()} | seen) == 961


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[::-1].copy(),
        lambda x: x.T.copy(),
        lambda x: x.reshape(-1),
        lambda x: x.view("int32"),
        lambda x: np.nextafter(x, np.float32(9), dtype="float32"),
        lambda x: np.concatenate([x, np.zeros((1, 4), "float32")]),
        np.zeros_like,
    ],
)
def test_other_arrays_differ(change):
    array = random_array("float32", (4, 4))
    changed = change(array)
    assert digests.measure([array])[0] != digests.measure([changed])[0]


def test_signs_of_zero_and_kinds_of_nan_differ():
    one, other = np.zeros(3, "float32"), -np.zeros(3, "float32")
    assert digests.difference(digests.measure([one])[0], [other]) == "0"
    nan = np.array([0x7FC00000, 0x7FC00001], "uint32").view("float32")
    found = digests.measure({"a": nan[:1], "b": nan[1:]})[0]
    assert digests.difference(found, {"a": nan[1:], "b": nan[1:]}) == "a"


def test_differences_are_named():
    tree = {"w": {"kernel": np.ones((2, 2), "float32")}, "step": np.int32(4)}
    stored, not_finite, _ = digests.measure(tree)
    assert digests.difference(stored, tree) == "" and not_finite == []
    assert digests.difference(stored, {**tree, "step": np.int32(5)}) == "step"
    assert digests.difference(stored, {"step": np.int32(4)}) == "w/kernel"
    assert digests.difference(stored, {**tree, "more": np.int32(4)}) == "more"
    assert digests.measure({}) == ({}, [], [])


@pytest.mark.parametrize("dtype", ["float32", "float64", ml_dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_is_named(dtype, value):
    tree = {name: np.ones((2, 3), dtype) for name in "abc"}
    tree["b"][1, 2] = value
    tree["n"] = np.array([2**31 - 1], "int32")
    assert digests.measure(tree)[1] == ["b"]


SCRIPT = """
import json, pathlib, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from ctp_jax.errors import UserError
from ctp_jax.train import mesh as mesh_lib, state
from ctp_jax.train.checkpoints import digests, manager, retention

rng = np.random.default_rng(1)
tree = {"a": rng.standard_normal((16, 3), np.float32), "b": np.int32(3)}
tree["c"] = rng.integers(0, 255, (8, 16), np.uint8)
mesh = mesh_lib.make_mesh()
two = jax.make_mesh((4, 2), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
found = [digests.measure(tree)[0]]
found.append(digests.measure(jax.device_put(tree, mesh_lib.replicated(mesh)))[0])
parts = {"a": P("data"), "b": P(), "c": P(None, "data")}
places = {k: NamedSharding(mesh, p) for k, p in parts.items()}
found.append(digests.measure(jax.device_put(tree, places))[0])
parts = {"a": P("x"), "b": P(), "c": P("y", "x")}
places = {k: NamedSharding(two, p) for k, p in parts.items()}
found.append(digests.measure(jax.device_put(tree, places))[0])
# One device holds another copy than the other devices.
copies = [jax.device_put(tree["a"] + (i == 5), d) for i, d in enumerate(jax.devices())]
odd = jax.make_array_from_single_device_arrays(
    (16, 3), mesh_lib.replicated(mesh), copies
)
# A state whose copies differ is not saved; the next good one is.
workdir = pathlib.Path(sys.argv[1])
checkpoints = manager.Checkpoints(workdir, retention.RetentionPolicy(3))
def train_state(params):
    everywhere = mesh_lib.replicated(mesh)
    rest = jax.device_put((np.int32(3), {"s": np.zeros(3, np.float32)}), everywhere)
    return state.TrainState(rest[0], params, rest[1], (rest[1]["s"],))
sound = jax.device_put(tree, mesh_lib.replicated(mesh))
checkpoints.save(1, train_state(sound), {})
checkpoints.wait()
try:
    checkpoints.save(2, train_state({**sound, "a": odd}), {})
    checkpoints.close()
    message = ""
except UserError as error:
    message = str(error)
checkpoints.save(3, train_state(sound), {})
checkpoints.close()
odd = digests.measure({**tree, "a": odd})
print(json.dumps([found, odd.digests["a"], odd.differing, message]))
"""


def test_copies_of_other_processes(monkeypatch):
    found = digests.measure({"a": np.ones(2), "b": np.ones(3)})
    assert found.differing == [] and digests.disagreement(found) is None
    firsts = {**found.digests, "b": "0" * 16}
    with monkeypatch.context() as patch:
        patch.setattr(digests.coordination, "from_first", lambda name, value: firsts)
        assert digests.disagreement(found) == ("b", 0)
    # A process that agrees with the first also learns of one that does not.
    monkeypatch.setattr(
        digests.coordination, "gather", lambda name, value: [value, "a"]
    )
    assert digests.disagreement(found) == ("a", 1)


def test_any_mesh_and_each_copy(tmp_path):
    flags = "--xla_force_host_platform_device_count=8"
    out = forks.run(["-c", SCRIPT, tmp_path], {"XLA_FLAGS": flags})
    found, odd, differing, message = json.loads(out.splitlines()[-1])
    assert len(found) == 4 and all(each == found[0] for each in found)
    assert odd != found[0]["a"] and differing == ["a"]
    assert "the devices disagree on params/a (process 0)" in message
    assert "last good checkpoint is step 1" in message and "\n" not in message
    there = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert there == ["1", "3"]
    rng = np.random.default_rng(1)
    assert found[0]["a"] == by_hand("a", rng.standard_normal((16, 3), np.float32))
