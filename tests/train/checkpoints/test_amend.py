"""The meta of a complete step can be changed, and a kill meanwhile loses nothing."""

import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from ctp_jax.errors import UserError
from ctp_jax.train.checkpoints import manager, manifest
from ctp_jax.train.checkpoints.layout import CheckpointLayout
from ctp_jax.train.checkpoints.retention import RetentionPolicy
from tests.train.checkpoints.test_injuries import older_version
from tests.train.checkpoints.test_manager import restore, state_of
from tests.train.checkpoints.test_retention import there

DUE = {"results": {"accuracy": 0.1}, "evaluated": False, "due": True}
MADE = {"results": {"accuracy": 0.7}, "evaluated": True, "due": False}


@pytest.fixture
def saved(tmp_path):
    """Steps 1 and 2, the evaluation of the second still to be made."""
    checkpoints = manager.Checkpoints(tmp_path, RetentionPolicy(3))
    for step in (1, 2):
        checkpoints.save(step, state_of(step), {"config": {"a": [1]}, **DUE})
    checkpoints.close()
    return tmp_path


def arrays(folder):
    """{name: (inode, bytes)}"""
    paths = [path for path in (folder / "state").rglob("*") if path.is_file()]
    return {
        path.relative_to(folder): (path.stat().st_ino, path.read_bytes())
        for path in paths
    }


def amend(workdir, keep=None):
    checkpoints = manager.Checkpoints(workdir, keep or RetentionPolicy(3))
    checkpoints.amend(2, MADE)
    checkpoints.close()


@pytest.mark.parametrize("links", [True, False])
def test_only_the_meta_changes(saved, monkeypatch, links):
    def refused(*args, **kwargs):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    folder = saved / "checkpoints/2"
    before, old = arrays(folder), CheckpointLayout(saved).read_meta(2)
    if not links:
        monkeypatch.setattr(os, "link", refused)
    amend(saved)
    after = arrays(folder)
    if links:
        assert after == before
    else:
        assert {k: v[1] for k, v in after.items()} == {
            k: v[1] for k, v in before.items()
        }
    assert there(saved) == [1, 2]
    (state, meta), said = restore(saved)
    assert int(state.step) == 2 and said == []
    np.testing.assert_array_equal(state.params["kernel"], np.full((3, 2), 2.0))
    assert meta == {**old, **MADE} and meta != old


KILLED = """
import json, os, pathlib, shutil, sys
from ctp_jax.train.checkpoints.layout import CheckpointLayout

run, workdir, made = pathlib.Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
EVENTS = {"open", "os.link", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}
number, ended = 0, False
while not ended:
    number += 1
    place = pathlib.Path(workdir) / str(number)
    shutil.copytree(run, place)
    if (child := os.fork()) == 0:
        left = number

        def kill(event, arguments):
            global left
            if event in EVENTS:
                left -= 1
                if left == 0:
                    os._exit(9)

        sys.addaudithook(kill)
        CheckpointLayout(place).amend(2, made)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    ended = code != 9
print(number)
sys.exit(code)
"""


def test_a_kill_at_any_moment(saved, tmp_path_factory):
    place = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, saved, place, json.dumps(MADE)],
        check=True,
        capture_output=True,
        text=True,
    )
    before = {name: text for name, (_, text) in arrays(saved / "checkpoints/2").items()}
    old = CheckpointLayout(saved).read_meta(2)
    found, nameless = [], 0
    for number in range(1, int(done.stdout) + 1):
        folders = CheckpointLayout(place / str(number))
        assert 1 in folders.steps()
        nameless += 2 not in folders.steps()
        folders.open()
        assert {path.name for path in folders.path.iterdir()} == {"1", "2"}
        meta = folders.read_checked(2)
        assert meta in (old, {**old, **MADE})
        found.append(meta == old)
        after = arrays(folders.step(2))
        assert {name: text for name, (_, text) in after.items()} == before
    # First the old ones, then the new ones; in between the step has no name.
    assert found == sorted(found, reverse=True)
    assert sum(found) > 10 and nameless >= 1 and not found[-1]


def test_damage_to_the_arrays_is_still_noticed(saved):
    """The files are not measured anew."""
    path = next(p for p in (saved / "checkpoints/2/state/d").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    amend(saved)
    with pytest.raises(manifest.Damage, match=f"state/d/{path.name} has changed"):
        CheckpointLayout(saved).read_checked(2)
    assert int(restore(saved)[0][0].step) == 1


def test_a_meta_that_cannot_be_read(saved):
    (saved / "checkpoints/2/meta/metadata").write_text("{}{")
    with pytest.raises(UserError, match="2: meta/metadata has changed, since it was"):
        amend(saved)
    with pytest.raises(UserError, match="9: meta/metadata is missing"):
        manager.Checkpoints(saved, RetentionPolicy(3)).amend(9, MADE)
    assert there(saved) == [1, 2]


def test_a_full_disk(saved, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write_with_replaced", full)
        with pytest.raises(UserError, match="disk is full; the last good .* step 2"):
            amend(saved)
    assert there(saved) == [1, 2]
    assert restore(saved)[0][1]["due"] is True


def test_steps_of_older_versions(saved):
    older_version(saved / "checkpoints/2")
    amend(saved)
    assert CheckpointLayout(saved).read_checked(2)["due"] is False
    assert not (saved / "checkpoints/2" / manifest.NAME).exists()


def test_it_counts_as_one_of_the_best(saved):
    """Before and after the score of the step has been read."""
    keep = RetentionPolicy(1, 1, "accuracy")
    late = {"results": {"accuracy": 0.4}, "evaluated": True}
    shutil.copytree(saved, saved / "again")
    for workdir, early in ((saved, False), (saved / "again", True)):
        checkpoints = manager.Checkpoints(workdir, RetentionPolicy(3, 1, "accuracy"))
        if early:
            checkpoints.save(3, state_of(3), late)
            checkpoints.wait()
        checkpoints.amend(2, MADE)
        checkpoints.close()
        checkpoints = manager.Checkpoints(workdir, keep)
        for step in (3, 4):
            checkpoints.save(step, state_of(step), late)
        checkpoints.close()
        assert there(workdir) == [2, 4]


def test_the_score_is_read_again(saved):
    checkpoints = manager.Checkpoints(
        saved, RetentionPolicy(1, 1, "accuracy", lambda s: s == 2)
    )
    late = {"results": {"accuracy": 0.4}, "evaluated": True}
    checkpoints.save(3, state_of(3), late)
    checkpoints.save(4, state_of(4), {"results": {}, "evaluated": False})
    checkpoints.wait()
    assert there(saved) == [2, 3, 4]
    checkpoints.amend(2, MADE)
    assert there(saved) == [2, 4]
    checkpoints.close()
