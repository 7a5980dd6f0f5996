"""Checkpoints: other runs are refused, damage is survived, a full disk is reported."""

import errno
import json
import pathlib
import shutil
import subprocess
import threading
import time
import traceback

import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint._src.serialization import serialization

from ctp_jax.errors import UserError, is_disk_full
from ctp_jax.train import loop, metrics
from ctp_jax.train.checkpoints import layout, manager
from ctp_jax.train.checkpoints import restore as restore_lib
from ctp_jax.train.checkpoints.retention import RetentionPolicy
from ctp_jax.train.state import TrainState, describe
from tests.toy_data import opener, toy_config


def state_of(value, width=3):
    params = {"kernel": jnp.full((width, 2), float(value)), "empty": {}}
    return TrainState(jnp.int32(value), params, {}, (jnp.zeros(()),))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("original")
    checkpoints = manager.Checkpoints(workdir, RetentionPolicy(3))
    for step in (1, 2, 3):
        meta = {"config": toy_config().to_dict(), "interval": {"loss": 0.1}}
        checkpoints.save(step, state_of(step), meta)
    checkpoints.close()
    return workdir


@pytest.fixture
def saved(original, tmp_path):
    """A workdir with the checkpoints of steps 1, 2 and 3."""
    return shutil.copytree(original, tmp_path, dirs_exist_ok=True)


def restore(workdir, check=lambda step, meta: None):
    said = []
    checkpoints = manager.Checkpoints(workdir, RetentionPolicy(3), said.append)
    try:
        found = checkpoints.restore(state_of(0), check)
    finally:
        checkpoints.close()
    return found, said


def test_newest_comes_back_exactly(saved):
    (state, meta), said = restore(saved)
    assert int(state.step) == 3 and not said
    np.testing.assert_array_equal(state.params["kernel"], np.full((3, 2), 3.0))
    assert meta["interval"] == {"loss": 0.1}
    assert meta["leaves"] == describe(state_of(0))


def test_nothing_there(tmp_path):
    assert restore(tmp_path) == (None, [])


def test_a_damaged_step_is_set_aside(saved):
    shutil.rmtree(saved / "checkpoints/3/state/d")
    (state, _), (line,) = restore(saved)
    assert int(state.step) == 2
    assert "step 3 is damaged" in line and "resuming from step 2" in line
    assert (saved / "damaged/3").exists()
    # Step 3 can be written again; if damaged again, it is moved to another place.
    checkpoints = manager.Checkpoints(saved, RetentionPolicy(3))
    checkpoints.save(3, state_of(3), {"config": {}})
    checkpoints.close()
    shutil.rmtree(saved / "checkpoints/3/state")
    assert int(restore(saved)[0][0].step) == 2
    assert (saved / "damaged/3.1").exists()


def check_with(saved, config, target):
    said = []

    def check(step, meta):
        restore_lib.check_same_run(saved, step, meta, target, config, said.append)

    restore(saved, check)
    return said


def test_another_architecture_is_named(saved):
    config = toy_config(**{"model.width": 4})
    with pytest.raises(UserError) as caught:
        check_with(saved, config, state_of(0, width=4))
    message = str(caught.value)
    assert "step 3 is of another architecture" in message
    assert "params/kernel is float32(3, 2), not float32(4, 2)" in message
    assert "model.width 8 -> 4" in message and "\n" not in message


def test_another_config_is_named(saved):
    config = toy_config(**{"optimizer.momentum": 0.5})
    with pytest.raises(UserError, match=r"another config: optimizer.momentum 0.9 -> 0"):
        check_with(saved, config, state_of(0))


def test_what_may_change(saved):
    config = toy_config(**{"log_every": 7, "data.workers": 3, "steps": 20})
    assert check_with(saved, config, state_of(0)) == [
        "config.steps: 12 -> 20, from step 3 on"
    ]


def test_the_loop_refuses_another_network(tmp_path):
    loop.train(toy_config(steps=1), tmp_path, opener())
    with pytest.raises(UserError, match="another architecture: params/encoder"):
        loop.train(toy_config(**{"steps": 1, "model.width": 4}), tmp_path, opener())
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model"]["width"] == 8  # the refused one left no trace


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def tensorstore_full(*args, **kwargs):
    raise ValueError("RESOURCE_EXHAUSTED: ... No space left on device [os_error='28']")


@pytest.mark.parametrize("fails", [full, tensorstore_full])
def test_full_disk_in_the_background_thread(tmp_path, monkeypatch, fails):
    real = serialization.async_serialize_from_host
    is_full = threading.Event()

    async def write(*args, **kwargs):
        if is_full.is_set():
            fails()
        return await real(*args, **kwargs)

    def fill(step, batch):
        if step == 6:  # between the saves of step 4 and step 8
            while not (tmp_path / "checkpoints/4").exists():
                time.sleep(0.01)
            is_full.set()

    monkeypatch.setattr(serialization, "async_serialize_from_host", write)
    with pytest.raises(UserError) as caught:
        loop.train(toy_config(), tmp_path, opener(fill))
    message = str(caught.value)
    assert "the disk is full" in message and "\n" not in message
    assert "last good checkpoint is step 4" in message
    is_full.clear()
    loop.train(toy_config(), tmp_path, opener())  # room has been made


def test_a_save_after_a_full_disk_is_tried(tmp_path, monkeypatch):
    said, is_full, real = [], threading.Event(), layout.CheckpointLayout.complete

    def complete(*arguments):
        if is_full.is_set():
            full()
        real(*arguments)

    monkeypatch.setattr(layout.CheckpointLayout, "complete", complete)
    checkpoints = manager.Checkpoints(tmp_path, RetentionPolicy(3), said.append)

    def save(step, full_now):
        checkpoints.save(step, state_of(step), {})
        checkpoints._thread.join()  # without a word of what it met
        is_full.set() if full_now else is_full.clear()

    save(1, full_now=True)
    save(2, full_now=False)
    assert said == []
    save(3, full_now=True)
    (line,) = said
    assert "a save failed, trying step 3 now" in line and "\n" not in line
    assert "the disk is full; the last good checkpoint is step 1" in line
    # Once more, and then twice in a row.
    save(4, full_now=True)
    save(5, full_now=True)
    assert len(said) == 2
    with pytest.raises(UserError, match="last good checkpoint is step 3"):
        save(6, full_now=False)
    checkpoints.close()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "3"]
    # `wait` raises at once.
    is_full.set()
    checkpoints.save(7, state_of(7), {})
    with pytest.raises(UserError, match="the disk is full"):
        checkpoints.wait()


def test_full_disk_in_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics.MetricWriter, "write", full)
    with pytest.raises(UserError, match="the disk is full"):
        loop.train(toy_config(), tmp_path, opener())


def test_is_disk_full_looks_at_causes():
    assert not is_disk_full(OSError(errno.EACCES, "no"))
    try:
        try:
            full()
        except OSError as error:
            raise RuntimeError("in a thread") from error
    except RuntimeError as error:
        assert is_disk_full(error)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system with room for 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize(
    ("filled_at", "rooms", "ends"),
    [
        ("begin", range(0, 200_000, 12_000), {"arrays"}),
        ("complete", range(0, 40_000, 4096), {"meta", "files.json"}),
    ],
)
def test_a_file_system_without_room(small_disk, monkeypatch, filled_at, rooms, ends):
    """The previous step stays intact at whatever moment of a save the disk fills up."""
    where_it_ended, complete = set(), False
    real = getattr(layout.CheckpointLayout, filled_at)
    for room in rooms:
        workdir = small_disk / "run"
        checkpoints = manager.Checkpoints(workdir, RetentionPolicy(3), print)
        checkpoints.save(1, large_state(1), {})
        checkpoints.wait()

        def filled(*arguments, room=room):
            free = shutil.disk_usage(small_disk).free
            (small_disk / "ballast").write_bytes(bytes(max(0, free - room)))
            real(*arguments)

        try:
            with monkeypatch.context() as patch:
                patch.setattr(layout.CheckpointLayout, filled_at, filled)
                checkpoints.save(2, large_state(2), {"padding": "p" * 9_000})
                checkpoints.wait()
            complete = True
        except UserError as error:
            assert "the disk is full; the last good checkpoint is step 1" in str(error)
            where_it_ended.add(phase(error))
        checkpoints.close()
        (small_disk / "ballast").unlink()
        checkpoints = manager.Checkpoints(workdir, RetentionPolicy(3), print)
        state, _ = checkpoints.restore(large_state(0), lambda step, meta: None)
        assert int(state.step) == (2 if complete else 1)
        np.testing.assert_array_equal(state.params["kernel"], int(state.step))
        if not complete:
            assert_opens_with_one_step(workdir)
            checkpoints.save(2, large_state(2), {})
        checkpoints.close()
        assert (workdir / "checkpoints/2").is_dir()
        shutil.rmtree(workdir)
        if complete:
            break
    assert complete and where_it_ended >= ends


def assert_opens_with_one_step(workdir):
    """Threads of TensorStore may still write for a moment after a failed save."""
    for _ in range(50):
        names = [path.name for path in (workdir / "checkpoints").iterdir()]
        if names == ["1"]:
            return
        time.sleep(0.1)
        manager.Checkpoints(workdir, RetentionPolicy(3), print).close()
    raise AssertionError(names)


def large_state(value):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 2**31, (80, 80), np.int32)  # cannot be compressed
    params = {"kernel": jnp.full((2, 2), float(value)), "noise": jnp.asarray(noise)}
    return TrainState(jnp.int32(value), params, {}, (jnp.zeros(()),))


def phase(error):
    """The part of a save that met the full disk."""
    text = "".join(traceback.format_exception(error))
    if "manifest.write(" in text:
        return "files.json"
    return "meta" if "in complete" in text else "arrays"


@pytest.mark.parametrize("name", ["write_text", "mkdir", "rename"])
def test_full_disk_after_the_arrays(tmp_path, monkeypatch, name):
    checkpoints = manager.Checkpoints(tmp_path, RetentionPolicy(3))
    checkpoints.save(1, state_of(1), {})
    checkpoints.wait()
    complete = layout.CheckpointLayout.complete

    def complete_on_full_disk(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(pathlib.Path, name, full)
            complete(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(layout.CheckpointLayout, "complete", complete_on_full_disk)
        checkpoints.save(2, state_of(2), {})
        with pytest.raises(UserError, match="last good checkpoint is step 1"):
            checkpoints.wait()
    assert checkpoints.latest() == 1
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["1"]
    checkpoints.save(2, state_of(2), {})  # room has been made
    checkpoints.close()
    assert int(restore(tmp_path)[0][0].step) == 2


def test_only_finite_states_are_saved(saved):
    checkpoints = manager.Checkpoints(saved, RetentionPolicy(3))
    state = state_of(4)
    momentum = ({"kernel": jnp.array([1.0, jnp.nan]), "scale": jnp.array(jnp.inf)},)
    with pytest.raises(UserError) as caught:
        checkpoints.save(4, state.replace(opt_state=momentum), {})
    checkpoints.close()
    message = str(caught.value)
    assert "step 4 was not saved, opt_state/0/kernel and 1 more is not" in message
    assert "last good checkpoint is step 3" in message and "\n" not in message
    assert not (saved / "checkpoints/4").exists()


def test_a_step_is_not_written_twice(saved):
    checkpoints = manager.Checkpoints(saved, RetentionPolicy(3))
    before = (saved / "checkpoints/3/files.json").read_bytes()
    checkpoints.save(3, state_of(9), {})
    checkpoints.save(2, state_of(9), {})
    checkpoints.close()
    assert (saved / "checkpoints/3/files.json").read_bytes() == before


def test_a_file_where_the_folder_should_be(tmp_path, saved):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/checkpoints").write_text("")
    with pytest.raises(UserError, match="is a file, must be a folder"):
        manager.Checkpoints(tmp_path / "other", RetentionPolicy(3))
    (saved / "damaged").write_text("")
    (saved / "checkpoints/3/files.json").unlink()
    with pytest.raises(UserError, match="damaged: is a file"):
        restore(saved)
