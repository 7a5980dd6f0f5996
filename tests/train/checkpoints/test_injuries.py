"""Damaged checkpoints are always detected and moved away; the previous one is used."""

import errno
import os
import shutil

import numpy as np
import pytest

from ctp_jax.errors import UserError
from ctp_jax.train.checkpoints import manifest, pytrees, restore
from ctp_jax.train.checkpoints.layout import CheckpointLayout
from ctp_jax.train.distributed import coordination
from tests.train.checkpoints import injuries
from tests.train.distributed import toy_processes

TRIES = 10


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return injuries.prepare(tmp_path_factory.mktemp("run"))


def test_unhurt_is_restored_exactly(prepared, tmp_path):
    injuries.copy(prepared, tmp_path)
    step, state, said = injuries.restored(prepared, tmp_path)
    assert step == 12 and said == [] and not (tmp_path / "damaged").exists()
    assert injuries.same(state, prepared.states[12])
    assert not injuries.same(state, prepared.states[8])


@pytest.mark.parametrize("kind", injuries.KINDS, ids=lambda kind: kind.__name__)
def test_every_injury_is_noticed(prepared, tmp_path, kind):
    rng = np.random.default_rng(20)
    for number in range(TRIES):
        workdir = tmp_path / str(number)
        hurt = kind(injuries.copy(prepared, workdir), rng)
        step, state, said = injuries.restored(prepared, workdir)
        assert step == 8, hurt
        assert injuries.same(state, prepared.states[8]), hurt
        assert len(said) == 1 and "step 12 is damaged" in said[0], said
        assert (workdir / "damaged/12").is_dir()
        assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["4", "8"]
        shutil.rmtree(workdir)


def test_two_hurt_steps_and_all(prepared, tmp_path):
    rng = np.random.default_rng(21)
    injuries.flipped_bit(injuries.copy(prepared, tmp_path), rng)
    injuries.truncated(tmp_path / "checkpoints/8", rng)
    step, state, said = injuries.restored(prepared, tmp_path)
    assert step == 4 and len(said) == 2
    assert injuries.same(state, prepared.states[4])
    injuries.deleted_file(tmp_path / "checkpoints/4", rng)
    with pytest.raises(UserError, match=r"all 1 .* .step 4.*: move the folder away"):
        injuries.restored(prepared, tmp_path)
    assert (tmp_path / "checkpoints/4").exists()


def test_odd_things_in_the_folder(prepared, tmp_path):
    steps = injuries.copy(prepared, tmp_path).parent
    (steps / "_CHECKPOINT_METADATA").write_bytes(b"\xff{")
    (steps / "notes").mkdir()
    (steps / "007").mkdir()
    (steps / "99").mkdir()
    (steps / "98").write_text("a file")
    (steps / "97").mkdir()
    (steps / "97/state").write_text("a file")
    shutil.copytree(steps / "12", steps / "16.writing")
    shutil.copytree(steps / "12", steps / "2.deleting")
    step, state, said = injuries.restored(prepared, tmp_path)
    assert step == 12 and injuries.same(state, prepared.states[12])
    assert [line.split()[4] for line in said] == ["99", "98", "97"]
    left = {"12", "4", "8", "007", "notes", "_CHECKPOINT_METADATA"}
    assert {path.name for path in steps.iterdir()} == left


def test_values_that_are_not_what_was_saved(prepared, tmp_path):
    """Intact files with other values: only the digests of the arrays detect them."""
    folder = injuries.copy(prepared, tmp_path)
    tree = pytrees.load(folder / "state")
    tree["params"]["encoder"]["dense"]["kernel"][3, 2] *= -1
    shutil.rmtree(folder / "state")
    pytrees.save(folder / "state", tree)
    (folder / manifest.NAME).unlink()
    manifest.write(folder)
    manifest.check(folder)
    step, _, (line,) = injuries.restored(prepared, tmp_path)
    assert step == 8
    assert "params/encoder/dense/kernel differs from what was saved" in line


def test_a_meta_that_is_not_what_was_saved(prepared, tmp_path):
    folder = injuries.copy(prepared, tmp_path)
    path = folder / "meta/metadata"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    (folder / manifest.NAME).unlink()
    manifest.write(folder)
    _, _, (line,) = injuries.restored(prepared, tmp_path)
    assert "step 12 is damaged (meta/metadata has changed)" in line


REFUSED = PermissionError(13, "Permission denied")
NO_ANSWER = OSError(errno.EIO, "Input/output error")  # of a soft mount


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("files.json", REFUSED),
        ("state/_METADATA", REFUSED),
        ("meta/metadata", REFUSED),
        ("files.json", NO_ANSWER),
        ("state/_METADATA", NO_ANSWER),
    ],
)
def test_a_refused_file_is_no_damage(prepared, tmp_path, monkeypatch, path, error):
    refused = injuries.copy(prepared, tmp_path) / path
    real = os.open

    def fake(file, *args, **kwargs):
        if str(file) == str(refused):
            raise OSError(error.errno, error.strerror, str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr("os.open", fake)
    with pytest.raises(UserError) as caught:
        injuries.restored(prepared, tmp_path)
    message = str(caught.value)
    assert f"{path} cannot be read ({error.strerror})" in message
    assert "\n" not in message and refused.exists()
    assert not (tmp_path / "damaged").exists()


def test_readers_from_outside_notice_and_change_nothing(prepared, tmp_path):
    folder = injuries.copy(prepared, tmp_path)
    assert int(restore.arrays(tmp_path)[0]["step"]) == 12
    injuries.zeroed_block(folder / "state", np.random.default_rng(3))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="step 12 cannot be read .damaged: state/"):
        restore.arrays(tmp_path)
    assert int(restore.arrays(tmp_path, 8)[0]["step"]) == 8
    assert sorted(tmp_path.rglob("*")) == before


def test_every_file_and_every_byte_of_the_list(prepared, tmp_path):
    folder = injuries.copy(prepared, tmp_path)
    folders = CheckpointLayout(tmp_path)
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(manifest.Damage, match=r"is missing"):
            folders.read_checked(12)
        path.write_bytes(data)
    folders.read_checked(12)
    path = folder / manifest.NAME
    data = path.read_bytes()
    changed = [
        data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        for at in range(0, len(data), 9)
    ]
    for text in [*changed, data + b"\n", data.replace(b"\n", b" ")]:
        path.write_bytes(text)
        with pytest.raises(manifest.Damage):
            folders.read_checked(12)


def test_trouble_of_one_process_is_no_damage(prepared, tmp_path, monkeypatch):
    folder = injuries.copy(prepared, tmp_path)
    monkeypatch.setattr(
        coordination, "gather", lambda name, value: [value, "no such disk"]
    )
    with pytest.raises(
        UserError, match=r"12: only process 1 cannot read it .no such disk."
    ):
        injuries.restored(prepared, tmp_path)
    assert folder.exists() and not (tmp_path / "damaged").exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("4 GB wanted"),
        ValueError("UNAVAILABLE: Stale file handle"),
        ValueError("Error reading .zarray: what nobody has thought of"),
    ],
)
def test_trouble_with_sound_files(prepared, tmp_path, monkeypatch, error):
    folder = injuries.copy(prepared, tmp_path)

    def fails(path, target):
        raise error

    monkeypatch.setattr(pytrees, "restore", fails)
    with pytest.raises(UserError, match=f"cannot be read .{error}"):
        injuries.restored(prepared, tmp_path)
    assert folder.exists() and not (tmp_path / "damaged").exists()


def test_two_processes_set_the_same_step_aside(prepared, tmp_path):
    rng = np.random.default_rng(5)
    injuries.flipped_bit(injuries.copy(prepared, tmp_path), rng)
    codes, outputs = toy_processes.run(
        tmp_path, count=2, config={"keep_checkpoints": 3, "steps": 13}
    )
    assert codes == [0, 0], outputs
    assert "step 12 is damaged" in outputs[0]
    assert "resuming from the checkpoint of step 8/13" in outputs[0]
    assert (tmp_path / "damaged/12").is_dir()
    steps = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert steps == {"8", "12", "13"}
    for step in (12, 13):
        CheckpointLayout(tmp_path).read_checked(step)
