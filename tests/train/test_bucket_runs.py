"""Whole runs of the toy task in buckets, against the same run on a disk."""

import re
import signal

import jax
import numpy as np
import pytest

import ctp_jax
from ctp_jax import convert, features, report
from ctp_jax.errors import TryLater, UserError
from ctp_jax.storage import bucket_lock, buckets
from ctp_jax.tasks import base
from ctp_jax.train import loop
from ctp_jax.train.checkpoints import init_from, restore
from tests import emulators
from tests.commands import call
from tests.own_videos import made
from tests.toy_data import ToyPipeline, opener, toy_config
from tests.train.distributed import toy_processes as toy

run = emulators.run


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    """A finished run with the checkpoints of steps 8 and 12."""
    workdir = tmp_path_factory.mktemp("disk") / "run"
    loop.train(toy_config(), workdir, opener())
    return workdir


@pytest.fixture(scope="module")
def store():
    with emulators.opened("gs") as opened:
        yield opened


def address(store, run):
    return f"{store.scheme}://{emulators.BUCKET}/{run}"


def train(store, run, **fields):
    return loop.train(toy_config(**fields), address(store, run), opener())


def one_line(error):
    assert "\n" not in str(error.value) and str(buckets.root()) not in str(error.value)
    return str(error.value)


def check_run_in(store, run, on_disk, tmp_path, capsys):
    """Returns how many requests the first start made."""
    results = train(store, run, keep_checkpoints=1)
    first = len(store.requests)
    copy = store.copy_to(run, tmp_path)
    toy.assert_same_run(on_disk, copy)
    assert buckets.LOCK not in [path.name for path in copy.iterdir()]
    said = capsys.readouterr().out
    assert f"encoder      {address(store, run)}/encoder\n" in said
    # Once more: it is finished, and the metrics are those of the exported encoder.
    assert train(store, run, keep_checkpoints=1) == results
    said = " ".join(capsys.readouterr().out.split())  # it may be folded
    assert f"{address(store, run)}: this run is finished" in said
    return first


def test_a_run_in_a_bucket_is_the_run_on_a_disk(
    store, run, on_disk, tmp_path, capsys, pytestconfig
):
    first = check_run_in(store, run, on_disk, tmp_path, capsys)
    # Without the lock, which is renewed by the clock.
    first, last = (
        [(m, p) for m, p in part if ".lock" not in p]
        for part in (store.requests[:first], store.requests[first:])
    )
    marks = [
        index + 1
        for index, (method, path) in enumerate(first)
        if method == "POST" and re.search("checkpoints%2F(8|12)%2Ffiles", path)
    ]
    objects = len(store.names(f"{run}/checkpoints/12/"))
    counted = emulators.counted(first[slice(*marks)])
    again = emulators.counted(last)
    if pytestconfig.getoption("capture") == "no":
        with capsys.disabled():
            print(f"\n{objects} objects a checkpoint: {counted}; a start: {again}")
    # The log and arrays are written too, unless step 8 was so slow that it took them along.
    assert objects <= counted["PUT"] <= objects + 4
    before = sum(m == "POST" and "checkpoints%2F4%2F" in p for m, p in first)
    assert counted["DELETE"] == before  # the step that is not kept
    assert counted["LIST"] <= 5 and counted["GET"] <= 3
    assert again["GET"] <= objects + 12 and again["LIST"] <= 6 and "PUT" not in again


def test_a_run_in_s3(run, on_disk, tmp_path, capsys):
    with emulators.opened("s3") as s3:
        check_run_in(s3, run, on_disk, tmp_path, capsys)


def test_killed_while_it_writes_it_is_resumed(store, run, on_disk, tmp_path):
    mark = "checkpoints/8/files.json"

    def kill(method, path):
        if mark in path and method == "POST":
            process.send_signal(signal.SIGKILL)
            return "drop"
        return None

    store.trouble = kill
    (process,) = toy.start(address(store, run))
    codes, outputs = toy.end([process])
    assert codes == [-signal.SIGKILL], outputs
    store.calm()
    there = store.names(f"{run}/checkpoints/8/")
    assert there and not any(mark in name for name in there)
    assert f"{run}/{buckets.LOCK}" in store.names(run)
    codes, outputs = toy.run(address(store, run))
    assert codes == [0] and "resuming from the checkpoint of step 4" in outputs[0], (
        outputs
    )
    assert "Traceback" not in outputs[0] and "ctp_jax-bucket-" not in outputs[0]
    toy.assert_same_run(on_disk, store.copy_to(run, tmp_path))


def test_two_processes_go_on_with_what_one_has_written(store, run, on_disk, tmp_path):
    toy.copy_until(on_disk, 8, tmp_path / "until 8")
    store.copy_from(tmp_path / "until 8", run)
    codes, outputs = toy.run(address(store, run), count=2)
    assert codes == [0, 0], outputs
    assert "resuming from the checkpoint of step 8" in outputs[0]
    copy = store.copy_to(run, tmp_path / "copy")
    toy.assert_alike(on_disk, copy)
    ours, theirs = toy.last_state(copy), toy.last_state(on_disk)
    assert ours[0] == theirs[0] == [8, 12] and ours[1].keys() == theirs[1].keys()
    for name, leaf in ours[1].items():
        np.testing.assert_allclose(leaf, theirs[1][name], rtol=1e-3, atol=1e-4)
    assert init_from.read(address(store, run)).provenance["steps"] == 12


@pytest.mark.parametrize(
    "trouble,kind,message",
    [("drop", TryLater, "cannot be reached ("), (403, UserError, "no permission to ")],
)
def test_trouble_at_the_start(store, run, trouble, kind, message):
    store.trouble = lambda *_: trouble
    with pytest.raises(UserError) as caught:
        train(store, run)
    assert type(caught.value) is kind and message in one_line(caught)
    assert one_line(caught).startswith(address(store, run))


def test_two_runs_in_one_place(store, run, monkeypatch):
    monkeypatch.setattr(bucket_lock, "_BEAT", 0.1)
    monkeypatch.setattr(bucket_lock, "_POLL", 0.05)
    folder = buckets.at(buckets.place(address(store, run)))
    with bucket_lock.held(folder, "", ""), pytest.raises(TryLater) as caught:
        train(store, run)
    assert "another run uses this folder (process" in one_line(caught)


def test_what_begins_with_a_run_in_a_bucket(store, run, on_disk):
    store.copy_from(on_disk, run)
    for part in ("", "/encoder", "/checkpoints", "/checkpoints/8"):
        near = init_from.read(str(on_disk) + part)
        far = init_from.read(address(store, run) + part)
        assert far.path.startswith(address(store, run))
        assert far.architecture == near.architecture
        trees = [(e.params, e.batch_stats) for e in (near, far)]
        jax.tree.map(np.testing.assert_array_equal, *trees)
    with pytest.raises(UserError) as caught:
        init_from.read(address(store, "nothing"))
    assert f"{address(store, 'nothing')}: no such folder" in one_line(caught)
    config = toy_config()
    batch = next(ToyPipeline(config, True).train_batches(0))
    state, step = restore.newest(config, base.load(config), address(store, run), batch)
    assert step == int(state.step) == 12
    assert report.write(address(store, run)).name == "report.html"
    assert b"<html" in store.get(f"{run}/report.html")


def test_a_page_in_a_folder_of_a_bucket_that_nothing_was_read_from(
    store, run, on_disk, tmp_path
):
    page = report.compare([on_disk], f"{address(store, run)}/new/page.html")
    assert page.name == "page.html"
    assert b"<html" in store.get(f"{run}/new/page.html")
    with pytest.raises(UserError, match="new"):
        report.compare([on_disk], tmp_path / "new" / "page.html")
    assert not (tmp_path / "new").exists()


def test_encoders_in_a_bucket(store, run, tmp_path):
    made.make_run(tmp_path / "run/encoder")
    store.copy_from(tmp_path / "run", run)
    near, far = (
        ctp_jax.load_encoder(source)
        for source in (tmp_path / "run", address(store, run))
    )
    assert far.spec == near.spec
    (video, *_) = made.make_files(tmp_path / "videos")
    clips = ctp_jax.read_clips(video, near.spec)
    np.testing.assert_array_equal(far(clips), near(clips))
    # `convert` reads it too, and has no names for this network.
    with pytest.raises(
        UserError, match="has no encoder like 'tests.tiny_network'"
    ) as no:
        call(convert, address(store, run), tmp_path / "far.safetensors")
    assert one_line(no).startswith(address(store, run))
    # So do commands with --init_from.
    call(
        features, video, f"--init_from={address(store, run)}", f"--out={tmp_path}/f.npz"
    )
    with np.load(tmp_path / "f.npz") as found:
        assert len(found["features"]) > 0
