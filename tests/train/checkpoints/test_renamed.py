"""A step under another number is never taken for that number, and saving goes on."""

import json
import os
import shutil

import numpy as np
import pytest

from ctp_jax.errors import UserError
from ctp_jax.storage import untrusted
from ctp_jax.train.checkpoints import layout, manager, manifest
from ctp_jax.train.checkpoints import restore as restore_lib
from ctp_jax.train.checkpoints.retention import RetentionPolicy
from tests.train.checkpoints.test_manager import restore, state_of


def save(workdir, *steps, keep=2, meanwhile=lambda step: None):
    checkpoints = manager.Checkpoints(workdir, RetentionPolicy(keep), lambda line: None)
    checkpoints.restore(state_of(0), lambda step, meta: None)
    for step in steps:
        checkpoints.save(step, state_of(step), {"config": {}})
        checkpoints.wait()
        meanwhile(step)
    checkpoints.close()


def there(workdir):
    return sorted(p.name for p in (workdir / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("original")
    save(workdir, 10, 20)
    return workdir


@pytest.fixture
def run(original, tmp_path):
    """A workdir with the checkpoints of steps 10 and 20."""
    return shutil.copytree(original, tmp_path, dirs_exist_ok=True)


@pytest.mark.parametrize("number", ["21", "100", "999999999"])
def test_a_copy_is_moved_away_and_saving_goes_on(run, number):
    steps = run / "checkpoints"
    shutil.copytree(steps / "10", steps / number)
    (state, _), (line,) = restore(run)
    assert int(state.step) == 20
    assert f"step {number} " in line and "it is step 10, copied or renamed" in line
    assert (run / "damaged" / number).is_dir()
    save(run, 30, 40)
    assert there(run) == ["30", "40"]


def test_renamed_steps(run):
    steps = run / "checkpoints"
    (steps / "20").rename(steps / "99")
    (state, _), _ = restore(run)
    assert int(state.step) == 10
    # Nothing is lost if no other step is left: the message says what to do.
    (run / "damaged/99").rename(steps / "99")
    shutil.rmtree(steps / "10")
    with pytest.raises(UserError, match="step 99: it is step 20, copied or renamed"):
        restore(run)
    (steps / "99").rename(steps / "20")
    assert int(restore(run)[0][0].step) == 20


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("number", ["25", "40", "70"])
def test_a_copy_that_is_made_while_the_run_goes_on(run, keep, number):
    steps = run / "checkpoints"

    def meanwhile(step):
        if step == 30:
            shutil.copytree(steps / "30", steps / number)

    save(run, 30, 40, 50, keep=keep, meanwhile=meanwhile)
    kept = ["50"] if keep == 1 else ["40", "50"]
    assert [name for name in there(run) if name in ("20", "30", "40", "50")] == kept
    if number == "40":  # was in the way
        assert (run / "damaged/40").is_dir()
    (state, _), _ = restore(run)
    assert int(state.step) == 50


def test_another_run_reads_the_newest(run, capsys):
    steps = run / "checkpoints"
    shutil.copytree(steps / "10", steps / "100")
    arrays, meta = restore_lib.arrays(run)
    np.testing.assert_array_equal(arrays["step"], 20)
    assert meta["step"] == 20
    assert "100: it is step 10, copied or renamed: ignored" in capsys.readouterr().err
    with pytest.raises(UserError, match="it is step 10, copied or renamed"):
        restore_lib.arrays(run, 100)
    assert there(run) == ["10", "100", "20"]


def test_a_step_whose_arrays_are_of_another(run):
    """Its meta says what its folder says."""
    steps = run / "checkpoints"
    (steps / "10").rename(steps / "30")
    rewrite(steps / "30", lambda meta: meta.update(step=30))
    (state, _), (line,) = restore(run)
    assert int(state.step) == 20 and "it is step 10, copied or renamed" in line


def test_other_names_are_no_steps(run):
    for name in ("99999999999999999999", "2147483648", "020", "20.bak"):
        (run / "checkpoints" / name).mkdir()
    assert layout.CheckpointLayout(run).steps() == [10, 20]
    assert int(restore(run)[0][0].step) == 20


def rewrite(folder, change):
    """Changes the meta, and writes all digests anew, as a stranger may."""
    path = folder / "meta/metadata"
    meta = json.loads(path.read_text())
    change(meta)
    meta["sha256"] = untrusted.json_digest(meta)
    path.write_text(json.dumps(meta))
    manifest.write(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta.pop("step"),
        lambda meta: meta.pop("digests"),
        lambda meta: meta.update(digests={}),
        lambda meta: meta.update(digests=[]),
        lambda meta: meta.update(leaves=None),
        lambda meta: meta.clear(),
    ],
)
def test_without_digests_a_step_is_not_read(run, change):
    rewrite(run / "checkpoints/20", change)
    (state, _), (line,) = restore(run)
    assert int(state.step) == 10 and "step 20 is damaged" in line


@pytest.mark.parametrize(
    "name,kind",
    [
        ("files.json", "pipe"),
        ("files.json", "deep"),
        ("files.json", "missing"),
        ("meta/metadata", "device"),
        ("meta/metadata", "list"),
        ("meta/metadata", "missing"),
        ("state/pipe", "pipe"),
    ],
)
def test_whatever_lies_in_a_step(run, name, kind):
    path = run / "checkpoints/20" / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind != "missing":
        path.write_text({"deep": "[" * 100_000, "list": "[]"}[kind])
    (state, _), (line,) = restore(run)
    assert int(state.step) == 10 and "step 20 is damaged" in line
