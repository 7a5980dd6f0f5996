"""Files of any contents are read exactly, or refused in a word and without waiting."""

import io
import json
import os
import pathlib
import socket
import zipfile

import numpy as np
import pytest

from ctp_jax.errors import UserError
from ctp_jax.storage import files, untrusted


def fifo(path):
    os.mkfifo(path)


def local_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fspath(path))


def sparse(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return lambda path: path.write_bytes(data)


BROKEN = {
    "missing": lambda path: None,
    "folder": pathlib.Path.mkdir,
    "pipe": fifo,
    "socket": local_socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path),
    "a TiB": sparse,
    "empty": text(""),
    "cut": text('{"task": "ct'),
    "a list": text("[1]"),
    "a number": text("1e999"),
    "digits": text('{"a": ' + "9" * 5000 + "}"),
    "binary": text(b"\xff\xfe\0"),
    "not UTF-8": text(b'{"a": "\xe9"}'),
    "deep": text("[" * 100_000),
    "deep enough for Python": text('{"a": ' * 60 + "1" + "}" * 60),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_json_is_one_line(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    path = pathlib.Path("x.json")
    BROKEN[kind](path)
    with pytest.raises(UserError, match=r"^x\.json: .*: name another$") as caught:
        untrusted.read_json(path, "name another")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_shapes_of_json():
    shape = {"a": {str: [float]}, "b": bool, "c": [{"d": int}], "e": object}
    good = {"a": {"x": [1, 0.5]}, "b": True, "c": [{"d": 1, "more": 0}], "e": None}
    assert untrusted.parse_json(json.dumps(good), shape) == good
    for change, message in (
        ({"a": {"x": ["1"]}}, "an item of a.x is not a number"),
        ({"a": {"x": [True]}}, "an item of a.x is not a number"),
        ({"a": {"x": {}}}, "a.x is not a list"),
        ({"b": 1}, "b is not true or false"),
        ({"c": [{}]}, "an item of c.d is missing"),
        ({"c": [{"d": 1.0}]}, "an item of c.d is not a whole number"),
        ({"c": [3]}, "an item of c is not an object"),
    ):
        with pytest.raises(ValueError, match=message):
            untrusted.parse_json(json.dumps(good | change), shape)
    with pytest.raises(ValueError, match="e is missing"):
        untrusted.check_shape({k: v for k, v in good.items() if k != "e"}, shape)


def npz(**members):
    """An archive of such files, stored as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", members.pop("compression", 0)) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer


def npy(data=b"", **header):
    buffer = io.BytesIO()
    header = {"descr": "<i8", "fortran_order": False, "shape": (2,)} | header
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + data


def test_arrays_come_back():
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.random((3, 4, 2), np.float32),
        "f": np.asfortranarray(rng.random((3, 4))),
        "s": np.array([b"ab", b"c"]),
        "u": np.array(["é", "c"]),
        "empty": np.zeros((0, 3), np.int32),
        "scalar": np.array(5),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    found = untrusted.read_arrays(buffer)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert untrusted.read_arrays(buffer, lambda n: n == "s").keys() == {"s"}


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (npz(a=npy(b"x" * 16, shape=(1 << 40,))), "reshape"),  # 8 TiB are declared
        (npz(a=npy(b"x" * 16, shape=(-2,))), "negative"),
        (npz(a=npy(b"x" * 15)), "multiple"),
        (npz(a=npy(b"\x80\x04N.", descr="|O", shape=())), "OBJECT"),
        (npz(a=b"nothing"), "magic"),
        (npz(a=npy(bytes(1 << 22), shape=(1 << 19,)), compression=8), "stored"),
        (io.BytesIO(b"PK\x05\x06"), "zip"),
        (io.BytesIO(npz(a=npy(bytes(16))).getvalue()[:-30]), "zip"),
        (io.BytesIO(b""), "zip"),
    ],
)
def test_arrays_that_are_none(file, message):
    with pytest.raises(ValueError, match=message):
        untrusted.read_arrays(file)


def test_entries_that_share_their_bytes():
    """They are no way to make arrays that are larger than their file."""
    member = npy(bytes(1 << 16), shape=(1 << 13,))
    whole = npz(**{str(i): member for i in range(9)}).getvalue()
    begins = whole.index(b"PK\x01\x02")
    entries = whole[begins:].split(b"PK\x01\x02")
    for number, entry in enumerate(entries[1:-1], 1):  # each at the place of the first
        entries[number] = entry[:38] + bytes(4) + entry[42:]
    listing = b"PK\x01\x02".join(entries)
    first = whole[: whole.index(b"PK\x03\x04", 4)]
    end = listing[:-6] + len(first).to_bytes(4, "little") + listing[-2:]
    with pytest.raises(ValueError, match="damaged|stored"):
        untrusted.read_arrays(io.BytesIO(first + end))


@pytest.mark.parametrize(
    ("value", "published"),
    [
        ("/home/ann/runs/ucf_r3d", "ucf_r3d"),
        ("/home/ann/runs/ucf_r3d/", "ucf_r3d"),
        ("~ann/data", "data"),
        ("../ann/data", "data"),
        ("gs://anns-bucket/data", "data"),
        ("C:\\Users\\ann\\data", "data"),
        ("runs/ucf_r3d", "runs/ucf_r3d"),
        ("ucf101/ucf101_1_256:2.0.0", "ucf101/ucf101_1_256:2.0.0"),
        ({"a": ["/x/y", 1], "b": {"c": None}}, {"a": ["y", 1], "b": {"c": None}}),
    ],
)
def test_paths_lose_their_folders(value, published):
    assert files.without_folders(value) == published


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_a_lock_that_is_no_file(tmp_path, kind):
    (tmp_path / "precious").write_text("diary")
    path = tmp_path / "lock"
    make = {"folder": pathlib.Path.mkdir, "pipe": fifo}
    make.get(kind, lambda path: path.symlink_to(tmp_path / "precious"))(path)
    with (
        pytest.raises(UserError, match="is not a file"),
        files.locked(path, "is held", "wait"),
    ):
        raise AssertionError
    assert (tmp_path / "precious").read_text() == "diary"


def test_links_are_replaced_and_not_written_through(tmp_path):
    (tmp_path / "precious").write_text("diary")
    (tmp_path / "game.png").symlink_to("precious")
    with files.replacing_inside(tmp_path) as new:
        (new / "game.png").write_text("picture")
    assert (tmp_path / "precious").read_text() == "diary"
    assert (tmp_path / "game.png").read_text() == "picture"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["game.png", "precious"]
