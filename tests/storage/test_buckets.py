"""Folders in object stores, with an emulator of each kind of store."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest

from ctp_jax.errors import TryLater, UserError
from ctp_jax.storage import bucket_lock, buckets, files, object_store
from tests import emulators

store = emulators.store


@pytest.fixture
def folder(store, monkeypatch, request):
    """An empty folder; what fails is tried again four times, at once."""
    emulators.quickly(monkeypatch)
    yield buckets.at(buckets.place(f"{store.scheme}://runs/{request.node.name}/x"))
    store.calm()


def inside(folder, name):
    """The whole name of an object."""
    return f"{folder.address.partition('://runs/')[2]}/{name}"


def write(folder, name, data):
    path = folder.place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def refused(doing, kind=UserError):
    """The message of what fails: one line."""
    with pytest.raises(UserError) as caught:
        doing()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_to_and_fro(folder, store):
    data = {"a": b"", "b/c": bytes(range(256)) * 40, "b/d e%2F+ü": b"x"}
    for name, content in data.items():
        write(folder, name, content)
    folder.upload(data)
    assert [store.get(inside(folder, name)) for name in data] == list(data.values())
    assert folder.names() == sorted(data) and folder.names("b/") == sorted(data)[1:]
    shutil.rmtree(folder.place)
    folder.download([*data, "none"])
    found = [p for p in folder.place.rglob("*") if p.is_file()]
    assert {
        p.relative_to(folder.place).as_posix(): p.read_bytes() for p in found
    } == data
    folder.delete(["a", "none"])
    assert store.names(inside(folder, "")) == [
        inside(folder, n) for n in sorted(data)[1:]
    ]
    assert folder.read("a") == (None, buckets.ABSENT)


def test_names_that_cannot_be_files_here_are_passed_over(folder, store):
    for name in ("good", "placeholder/", "a//b"):
        store.put(inside(folder, name), b"1")
    assert folder.names() == ["good"]
    write(folder, "one/two", b"")
    store.put(inside(folder, "one"), b"1")
    message = refused(lambda: folder.download(["one"]))
    assert "x/one: is a folder, not a file" in message


def test_one_of_many_creates_an_object(folder):
    won, start = [], threading.Barrier(8)

    def create(index):
        start.wait()
        if folder.write("mine", b"%d" % index, buckets.ABSENT):
            won.append(index)

    threads = [threading.Thread(target=create, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    value, version = folder.read("mine")
    assert [value] == [b"%d" % index for index in won]
    newer = folder.write("mine", b"newer", version)
    assert newer and folder.write("mine", b"late", version) is None
    folder.delete(["mine"], version)
    assert folder.read("mine") == (b"newer", newer)


@pytest.mark.parametrize("trouble", ["drop", 500, 503, 429])
def test_what_may_pass_is_tried_again(folder, store, trouble):
    write(folder, "a", b"1")
    left = []

    def sometimes(*_):
        return trouble if left and left.pop() else None

    store.trouble = sometimes
    for doing in (
        lambda: folder.upload(["a"]),
        lambda: folder.read("a")[0],
        lambda: folder.names(),
        lambda: folder.delete(["a"]),
    ):
        left.extend([True] * 3)
        assert doing() in (None, b"1", ["a"])
        assert not left


@pytest.mark.parametrize("trouble", [401, 403])
def test_missing_rights(folder, store, trouble):
    store.trouble = lambda *_: trouble
    before = len(store.requests)
    for word, doing in {
        "list": lambda: folder.names(),
        "read": lambda: folder.read("a"),
        "write": lambda: folder.write("a", b""),
        "delete": lambda: folder.delete(["a"]),
    }.items():
        assert f"{folder.address}: no permission to {word} objects" in refused(doing)
    assert len(store.requests) < before + 8  # is not tried again and again


def test_a_store_that_is_gone(folder, store):
    store.trouble = lambda *_: "drop"
    for doing in (
        folder.names,
        lambda: folder.read("a"),
        lambda: folder.write("a", b""),
    ):
        message = refused(doing, TryLater)
        assert f"{folder.address}: cannot be reached (" in message
        assert "run the same command again" in message
    emulators.forget()
    assert "cannot be reached" in refused(lambda: buckets.at(folder.place), TryLater)


def test_a_store_that_is_silent(folder, store, monkeypatch):
    answers = threading.Event()
    store.trouble = lambda *_: answers.wait(60) and "drop"
    monkeypatch.setattr(object_store, "_PATIENCE", 0.2)
    emulators.forget()
    message = refused(lambda: buckets.at(folder.place), TryLater)
    answers.set()
    assert "cannot be reached (no answer in 0.2 s)" in message


def test_there_is_no_such_bucket(folder, store):
    other = buckets.at(buckets.place(f"{store.scheme}://nowhere/x"))
    assert "no such bucket" in refused(lambda: other.write("a", b""))


def test_the_mark_is_written_last_and_deleted_first(folder, store):
    for name, data in {"mark": b"old", "a/old": b"1", "a/same": b"2"}.items():
        store.put(inside(folder, name), data)
    for name, data in {"mark": b"new", "a/new": b"3", "a/same": b"4"}.items():
        write(folder, name, data)
    before = len(store.requests)
    seen = []
    buckets.replace(folder.place, "mark", lambda: seen.extend(folder.names()))
    assert seen == ["a/new", "a/same"]
    assert folder.names() == ["a/new", "a/same", "mark"]
    assert store.get(inside(folder, "mark")) == b"new"
    changes = [r for r in store.requests[before:] if r[0] in ("POST", "PUT", "DELETE")]
    assert [changes[0][0], changes[-1][0] != "DELETE"] == ["DELETE", True]
    assert all(re.search("x(/|%2F)mark", changes[at][1]) for at in (0, -1))
    # Broken off in the middle, it is not there.
    write(folder, "a/new", b"5")
    upload = "name=" if store.scheme == "gs" else "PUT"
    store.trouble = lambda method, path: (
        403 if "a/new" in path and upload in method + path else None
    )
    refused(lambda: buckets.replace(folder.place, "mark"))
    store.calm()
    assert folder.names() == ["a/new", "a/same"]


def test_small_files_are_pulled_and_what_changed_is_pushed(folder, store):
    there = (
        "config.json",
        "encoder/encoder.json",
        "encoder/arrays/d",
        "checkpoints/1/f",
    )
    for name in (*there, ".lock", "tensorboard/old"):
        store.put(inside(folder, name), b"{}")
    path = buckets.opened(folder.address)
    found = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    assert found == {"config.json", "encoder/encoder.json"}
    assert (path / "checkpoints").is_dir()
    for name in ("tensorboard/new", "metrics.jsonl", "half.incomplete-1", ".hidden"):
        write(folder, name, b"1")
    before = len(store.requests)
    buckets.push(path)
    after = set(folder.names())
    assert after == {*there, ".lock", "tensorboard/new", "metrics.jsonl"}
    sent = [
        path for method, path in store.requests[before:] if method in ("POST", "PUT")
    ]
    assert len(sent) == 2
    os.utime(path / "metrics.jsonl", ns=(1, 1))
    buckets.push(path)
    sent = [
        path for method, path in store.requests[before:] if method in ("POST", "PUT")
    ]
    assert len(sent) == 3 and "metrics.jsonl" in sent[-1]


def test_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = buckets.place("gs://bucket/a/b/")
    assert place == buckets.root() / "gs/bucket/a/b"
    assert str(UserError(f"{place}/c: x")) == "gs://bucket/a/b/c: x"
    assert buckets.place("a") == tmp_path / "a" and buckets.at(tmp_path) is None
    for wrong in ("gs://", "s3:///a", "gs://b/../c", "gs://b//c"):
        with pytest.raises(UserError, match=r"needs (gs|s3)://BUCKET/FOLDER"):
            buckets.place(wrong)
    assert "cannot be used" in refused(lambda: buckets.at(buckets.place("gs://B_/a")))
    with pytest.raises(UserError, match=r"gs://b/out.npz: must be on a disk"):
        files.absolute("gs://b/out.npz")
    assert list(tmp_path.iterdir()) == []


def test_copies_of_killed_processes_are_deleted(tmp_path):
    """And not those of processes that live."""
    code = "import os; from ctp_jax.storage import buckets; print(buckets.root(), flush=True)"
    environ = {**os.environ, "TMPDIR": str(tmp_path)}

    def start(more):
        command = [sys.executable, "-c", f"{code}\n{more}"]
        process = subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stdin=subprocess.PIPE
        )
        return process, pathlib.Path(process.stdout.readline().decode().strip())

    alive, kept = start("input()")
    killed, left = start("os._exit(0)")
    killed.communicate()
    assert left.is_dir()
    ended, own = start("")
    ended.communicate()
    assert list(tmp_path.iterdir()) == [kept] and not own.exists()
    alive.communicate(b"\n")
    assert list(tmp_path.iterdir()) == []


# The lock.


@pytest.fixture
def short(monkeypatch):
    """A lease of a second."""
    for name, seconds in {"_BEAT": 0.1, "_LEASE": 1.0, "_POLL": 0.05}.items():
        monkeypatch.setattr(bucket_lock, name, seconds)


def held(folder):
    return bucket_lock.held(folder, "another run uses it", "wait")


def holder(folder, **fields):
    """Writes the lock of a process that does not renew it."""
    about = {"holder": "process 7 on mars", "machine": "mars", "pid": 7, "token": "x"}
    folder.write(buckets.LOCK, json.dumps(about | fields).encode())


def test_a_second_holder_is_refused_while_the_first_lives(folder, short):
    with held(folder):
        began = time.monotonic()
        with pytest.raises(TryLater) as caught, held(folder):
            pass
        assert time.monotonic() - began < 0.9  # no need to wait for the lease
        message = f"{folder.address}: another run uses it (process {os.getpid()} on "
        assert str(caught.value).startswith(message)
    assert buckets.LOCK not in folder.names()
    with held(folder):
        pass


def test_a_lock_that_is_not_renewed_is_taken_over(folder, short, capfd):
    holder(folder)
    began = time.monotonic()
    with held(folder):
        assert 1 <= time.monotonic() - began < 5
        bucket_lock.check(folder.place)
    assert "has the lock of process 7 on mars: waiting" in capfd.readouterr().err
    folder.write(buckets.LOCK, b"no lock at all")
    with held(folder):
        pass


def test_the_lock_of_a_dead_process_of_this_machine_is_taken_at_once(folder):
    ended = subprocess.Popen(["true"])
    ended.wait()
    holder(folder, machine=bucket_lock._machine(), pid=ended.pid)
    began = time.monotonic()
    with held(folder):
        assert time.monotonic() - began < 5


def test_whoever_has_lost_the_lock_is_told(folder, short):
    with held(folder):
        bucket_lock.check(folder.place)
        folder.delete([buckets.LOCK])
        holder(folder)
        message = refused(lambda: bucket_lock.check(folder.place))
        assert "taken this folder over (process 7 on mars)" in message
    assert b"mars" in folder.read(buckets.LOCK)[0]  # and leaves it to its holder


def test_a_lock_that_another_has_taken_and_given_back_is_lost(folder, short):
    """A process that stood still for so long may not go on: the run is the other's."""
    with held(folder):
        folder.delete([buckets.LOCK])
        for _ in range(2):
            message = refused(lambda: bucket_lock.check(folder.place))
            assert "taken this folder over" in message
    assert buckets.LOCK not in folder.names()


def test_an_answer_that_is_lost_does_not_lose_the_lock(folder, store, monkeypatch):
    """The store has written the lock; the second try is told that it is there."""
    answered = store._ask
    lost = []

    def ask(method, path, *more):
        found = answered(method, path, *more)
        if method in ("POST", "PUT") and "lock" in path and len(lost) < 2:
            lost.append(path)
            raise OSError("the answer is lost")
        return found

    monkeypatch.setattr(store, "_ask", ask)
    with held(folder):
        bucket_lock.check(folder.place)
    assert lost and buckets.LOCK not in folder.names()
