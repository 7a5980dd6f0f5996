"""Checkpoints in buckets: damage, kills and trouble of the store are survived."""

import collections
import hashlib
import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

from ctp_jax.errors import TryLater, UserError
from ctp_jax.storage import buckets
from ctp_jax.train.checkpoints import manager
from ctp_jax.train.checkpoints.retention import RetentionPolicy
from ctp_jax.train.state import TrainState
from tests import emulators

store, run = emulators.store, emulators.run


def state_of(value):
    params = {"kernel": jnp.full((30, 2), float(value)) + jnp.arange(2), "empty": {}}
    return TrainState(jnp.int32(value), params, {}, (jnp.zeros(()),))


def opened(store, run, said=None, last=3):
    place = buckets.place(f"{store.scheme}://{emulators.BUCKET}/{run}")
    say = (lambda line: None) if said is None else said.append
    return manager.Checkpoints(place, RetentionPolicy(last), say)


def save(store, run, *steps, last=3):
    checkpoints = opened(store, run, last=last)
    for step in steps:
        checkpoints.save(step, state_of(step), {"config": {"seed": step}})
    checkpoints.wait()
    return checkpoints


def restored(store, run):
    """(step, lines) of a process that resumes."""
    said = []
    checkpoints = opened(store, run, said)
    state, meta = checkpoints.restore(state_of(0), lambda step, meta: None)
    step = int(state.step)
    np.testing.assert_array_equal(
        state.params["kernel"], state_of(step).params["kernel"]
    )
    assert meta["config"] == {"seed": step}
    return step, [str(UserError(line)) for line in said]


def steps_in(store, run):
    names = store.names(f"{run}/checkpoints/")
    return sorted({int(name.split("/")[2]) for name in names})


def test_what_is_written(store, run):
    save(store, run, 1, 2, 3, last=2)
    assert steps_in(store, run) == [2, 3]  # 1 is deleted with all its objects
    prefix = f"{run}/checkpoints/3/"
    listed = json.loads(store.get(f"{prefix}files.json"))
    listed = {prefix + k: v for k, v in listed.items() if not k.endswith("/")}
    for name in store.names(prefix):
        if not name.endswith("/files.json"):
            data = store.get(name)
            assert listed.pop(name) == [len(data), hashlib.sha256(data).hexdigest()]
    assert listed == {}
    # TensorStore reads the array from the bucket by itself.
    place = {"driver": "gcs", "bucket": emulators.BUCKET, "path": f"{prefix}state/"}
    if store.scheme == "s3":
        place |= {"driver": "s3", "endpoint": store.url, "aws_region": "us-east-1"}
    spec = {"driver": "ocdbt", "base": place, "path": "params.kernel/"}
    array = (
        tensorstore.open({"driver": "zarr", "kvstore": spec}).result().read().result()
    )
    np.testing.assert_array_equal(array, np.float32([[3, 4]] * 30))
    assert restored(store, run) == (3, [])
    # On this machine, at most the step that was read.
    place = buckets.place(f"{store.scheme}://{emulators.BUCKET}/{run}")
    assert [path.name for path in (place / "checkpoints").iterdir()] == ["3"]


@pytest.mark.parametrize(
    "store,damage",
    [("s3", "changed"), *(("gs", d) for d in ("changed", "missing", "added", "list"))],
    indirect=["store"],
)
def test_a_damaged_step_is_set_aside(store, run, damage):
    save(store, run, 2, 3)
    prefix = f"{run}/checkpoints/3/"
    name = next(n for n in store.names(f"{prefix}state/ocdbt") if "/d/" in n)
    name = f"{prefix}files.json" if damage == "list" else name
    if damage == "missing":
        store.delete(name)
    elif damage == "added":
        store.put(f"{name}-more", b"1")
    else:
        data = store.get(name)
        store.put(name, data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    before = {n.removeprefix(prefix): store.get(n) for n in store.names(prefix)}
    step, (line,) = restored(store, run)
    aside = f"{run}/damaged/3"
    assert step == 2 and "step 3 is damaged (" in line
    where = (
        f"moved to {store.scheme}://{emulators.BUCKET}/{aside}, resuming from step 2"
    )
    assert where in line
    after = {
        n.removeprefix(f"{aside}/"): store.get(n) for n in store.names(f"{aside}/")
    }
    assert after == before and steps_in(store, run) == [2]
    # Again: written anew, damaged anew, and moved to another place.
    save(store, run, 3)
    store.put(f"{prefix}state/_METADATA", b"")
    assert restored(store, run)[0] == 2
    assert store.names(f"{run}/damaged/3.1/")


def test_a_step_without_its_mark_is_none(store, run):
    """As a kill during a save or a deletion leaves it."""
    save(store, run, 1, 2)
    store.delete(f"{run}/checkpoints/2/files.json")
    assert steps_in(store, run) == [1, 2]
    assert restored(store, run) == (1, [])
    assert steps_in(store, run) == [1] and not store.names(f"{run}/damaged/")


def test_a_copied_step_is_ignored(store, run, tmp_path, capfd):
    save(store, run, 1)
    store.copy_from(
        store.copy_to(f"{run}/checkpoints/1", tmp_path), f"{run}/checkpoints/7"
    )
    assert opened(store, run)._layout.newest() == 1
    assert (
        f"{run}/checkpoints/7: it is step 1, copied or renamed"
        in capfd.readouterr().err
    )


@pytest.mark.parametrize(
    "store,trouble", [("gs", "drop"), ("s3", 503)], indirect=["store"]
)
def test_a_connection_that_comes_back_is_not_noticed(store, run, trouble):
    tries = collections.Counter()

    def twice(method, path):
        asked = method, re.sub(r"tensorstore=\w+", "", path)
        tries[asked] += 1
        return trouble if tries[asked] <= 2 else None

    store.trouble = twice
    save(store, run, 1, 2, 3, last=1)
    assert restored(store, run) == (3, [])
    store.calm()
    assert steps_in(store, run) == [3]


@pytest.mark.parametrize(
    "trouble,kind,message",
    [("drop", TryLater, "cannot be reached ("), (403, UserError, "no permission to ")],
)
def test_trouble_that_stays_is_one_line(store, run, trouble, kind, message):
    checkpoints = save(store, run, 1)
    store.trouble = lambda *_: trouble
    checkpoints.save(2, state_of(2), {"config": {"seed": 2}})
    with pytest.raises(UserError) as caught:
        checkpoints.wait()
    emulators.forget()
    with pytest.raises(UserError) as at_the_start:
        opened(store, run)
    for each in (caught, at_the_start):
        line = str(each.value)
        assert type(each.value) is kind and "\n" not in line
        assert line.startswith(f"{store.scheme}://{emulators.BUCKET}/{run}/checkpoints")
        assert message in line
    store.calm()
    save(store, run, 2)
    assert restored(store, run) == (2, [])
