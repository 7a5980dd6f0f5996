"""Whole runs of the toy task in buckets, against the same runs on a disk."""

import hashlib
import json
import re
import signal

import jax
import numpy as np
import pytest
import tensorstore

import ctp_jax
from ctp_jax import bucket_lock, buckets, convert, features, report
from ctp_jax.errors import TryLater, UserError
from ctp_jax.tasks import base
from ctp_jax.train import loop
from ctp_jax.train.checkpoints import init_from, restore
from tests import emulators, own_videos
from tests.test_buckets import QUICK, forget
from tests.toy_data import ToyPipeline, opener, toy_config
from tests.train.distributed import toy_processes as toy


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    """A finished run with the checkpoints of steps 8 and 12."""
    workdir = tmp_path_factory.mktemp("disk") / "run"
    loop.train(toy_config(), workdir, opener())
    return workdir


@pytest.fixture(scope="module", params=emulators.STORES)
def store(request):
    with emulators.opened(request.param) as opened:
        yield opened


@pytest.fixture
def run(store, request, monkeypatch):
    """The name of a folder of the bucket; what fails is tried again at once."""
    monkeypatch.setattr(buckets, "_RETRIES", {**QUICK, "max_retries": 4})
    monkeypatch.setattr(buckets, "_FIRST_RETRIES", {**QUICK, "max_retries": 4})
    forget()
    yield re.sub(r"\W", "_", request.node.name)
    store.calm()


def address(store, run):
    return f"{store.scheme}://{emulators.BUCKET}/{run}"


def train(store, run, hook=None, **fields):
    return loop.train(toy_config(**fields), address(store, run), opener(hook))


def one_line(error):
    assert "\n" not in str(error.value) and str(buckets.root()) not in str(error.value)
    return str(error.value)


def array_in(store, folder):
    """An array of a checkpoint, as TensorStore reads it from the bucket."""
    place = {"driver": "gcs", "bucket": emulators.BUCKET, "path": f"{folder}/state/"}
    if store.scheme == "s3":
        place |= {"driver": "s3", "endpoint": store.url, "aws_region": "us-east-1"}
    spec = {"driver": "ocdbt", "base": place, "path": "params.encoder.dense.kernel/"}
    opened = tensorstore.open({"driver": "zarr", "kvstore": spec}, open=True).result()
    return opened.read().result()


def test_a_run_in_a_bucket_is_the_run_on_a_disk(store, run, on_disk, tmp_path, capsys):
    results = train(store, run)
    copy = store.copy_to(run, tmp_path)
    toy.assert_same_run(on_disk, copy)
    assert buckets.LOCK not in [path.name for path in copy.iterdir()]
    for step in (8, 12):
        folder = copy / "checkpoints" / str(step)
        listed = json.loads((folder / "files.json").read_text())
        listed = {k: v for k, v in listed.items() if not k.endswith("/")}
        files = [p for p in folder.rglob("*") if p.is_file() and p.name != "files.json"]
        assert {p.relative_to(folder).as_posix() for p in files} == set(listed)
        for path in files:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            wanted = listed[path.relative_to(folder).as_posix()]
            assert wanted == [path.stat().st_size, digest]
    wanted = toy.last_state(on_disk)[1]["['params']['encoder']['dense']['kernel']"]
    np.testing.assert_array_equal(array_in(store, f"{run}/checkpoints/12"), wanted)
    said = capsys.readouterr().out
    assert f"encoder      {address(store, run)}/encoder\n" in said
    # Once more: it is finished, and the metrics are those of the exported encoder.
    assert train(store, run) == results
    assert f"{address(store, run)}: this run is finished" in capsys.readouterr().out


def test_killed_while_it_writes_it_is_resumed(store, run, on_disk, tmp_path):
    mark = "checkpoints/8/files.json"

    def kill(method, path):
        if mark in path and method in ("POST", "PUT"):
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


@pytest.mark.parametrize("damage", ["changed", "missing", "added"])
def test_a_damaged_step_is_set_aside(store, run, damage, on_disk, tmp_path, capsys):
    store.copy_from(on_disk, run)
    name = max(
        store.names(f"{run}/checkpoints/12/state/ocdbt"), key=lambda n: "/d/" in n
    )
    if damage == "changed":
        data = store.get(name)
        store.put(name, data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "missing":
        store.delete(name)
    else:
        store.put(f"{name}-more", b"1")
    before = {
        n.partition("/checkpoints/")[2] for n in store.names(f"{run}/checkpoints/12/")
    }
    train(store, run)
    said = capsys.readouterr().out
    line = next(each for each in said.splitlines() if "is damaged" in each)
    assert f"moved to {address(store, run)}/damaged/12, resuming from step 8" in line
    after = {n.partition("/damaged/")[2] for n in store.names(f"{run}/damaged/")}
    assert after == before
    toy.assert_same_run(on_disk, store.copy_to(run, tmp_path))


def test_a_step_without_its_mark_is_none(store, run, on_disk, tmp_path, capsys):
    store.copy_from(on_disk, run)
    store.delete(f"{run}/checkpoints/12/files.json")
    store.delete(f"{run}/encoder/encoder.json")
    with pytest.raises(UserError, match="no step 12: use one of 8"):
        init_from.read(f"{address(store, run)}/checkpoints/12")
    train(store, run)
    assert "resuming from the checkpoint of step 8/12" in capsys.readouterr().out
    assert store.names(f"{run}/damaged/") == []
    toy.assert_same_run(on_disk, store.copy_to(run, tmp_path))


def test_a_connection_that_comes_back_is_not_noticed(store, run, on_disk, tmp_path):
    turn = iter(range(10**6))
    store.trouble = lambda *_: "drop" if next(turn) % 3 == 0 else None
    train(store, run)
    store.calm()
    toy.assert_same_run(on_disk, store.copy_to(run, tmp_path))


@pytest.mark.parametrize(
    "trouble,kind,message",
    [
        ("drop", TryLater, "cannot be reached ("),
        (403, UserError, "no permission to"),
    ],
)
def test_trouble_that_stays_is_one_line(store, run, trouble, kind, message):
    def hook(step, batch):
        if step == 6:
            store.trouble = lambda *_: trouble

    with pytest.raises(UserError) as caught:
        train(store, run, hook)
    assert type(caught.value) is kind
    line = one_line(caught)
    assert line.startswith(f"{address(store, run)}/checkpoints") and message in line
    with pytest.raises(UserError) as caught:  # so it is at the start
        train(store, run)
    line = one_line(caught)
    assert line.startswith(address(store, run)) and message in line
    store.calm()
    assert train(store, run)["videos"] == 21


def test_two_runs_in_one_place(store, run, monkeypatch):
    monkeypatch.setattr(bucket_lock, "_BEAT", 0.1)
    monkeypatch.setattr(bucket_lock, "_POLL", 0.05)
    folder = buckets.at(buckets.place(address(store, run)))
    with bucket_lock.held(folder, "", ""), pytest.raises(TryLater) as caught:
        train(store, run)
    assert "another run uses this folder (process" in one_line(caught)


def test_what_begins_with_a_run_in_a_bucket(store, run, on_disk, tmp_path):
    store.copy_from(on_disk, run)
    for part in ("", "/encoder", "/checkpoints", "/checkpoints/8"):
        near = init_from.read(str(on_disk) + part)
        far = init_from.read(address(store, run) + part)
        assert far.path.startswith(address(store, run))
        assert far.architecture == near.architecture
        trees = [(e.params, e.batch_stats) for e in (near, far)]
        jax.tree.map(np.testing.assert_array_equal, *trees)
    with pytest.raises(UserError, match=r"gs://|s3://") as caught:
        init_from.read(address(store, "nothing"))
    assert "no such folder" in one_line(caught)
    config = toy_config(init_from=address(store, run), steps=1)
    loop.train(config, tmp_path / "started", opener())
    batch = next(ToyPipeline(config, True).train_batches(0))
    state, step = restore.newest(config, base.load(config), address(store, run), batch)
    assert step == int(state.step) == 12
    assert report.write(address(store, run)).name == "report.html"
    assert b"<html" in store.get(f"{run}/report.html")
    assert store.names(run) == sorted(store.names(run))


def test_encoders_in_a_bucket(store, run, tmp_path):
    own_videos.make_run(tmp_path / "encoder")
    store.copy_from(tmp_path / "encoder", f"{run}/encoder")
    near = ctp_jax.load_encoder(tmp_path)
    far = ctp_jax.load_encoder(address(store, run))
    assert far.spec == near.spec
    clips = np.random.default_rng(0).integers(0, 256, (2, *near.spec.shape), np.uint8)
    np.testing.assert_array_equal(far(clips), near(clips))
    for source, target in ((tmp_path, "near"), (address(store, run), "far")):
        convert.main([str(source), str(tmp_path / f"{target}.safetensors")])
    files = [(tmp_path / f"{n}.safetensors").read_bytes() for n in ("near", "far")]
    assert files[0] == files[1]
    # And the commands that read encoders take an address.
    for name in features.FLAGS:
        features.FLAGS[name].value = features.FLAGS[name].default
    features.FLAGS(
        ["", f"--init_from={address(store, run)}", f"--out={tmp_path}/f.npz"]
    )
    features.main([str(own_videos.make_files(tmp_path / "videos")[0])])
    assert (tmp_path / "f.npz").exists()
