"""Both sides of benchmarks/train_step.py do the same, on a batch that can be."""

import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from benchmarks import pretraining, train_step


def test_a_made_up_batch_is_one_that_can_be_played():
    config = pretraining.make_config("r3d18", 3)
    batch = pretraining.make_batch(config)
    boxes = batch["plan"]["boxes"]
    assert (boxes == np.floor(boxes)).all()
    assert boxes.min() >= 0 and boxes.max() <= config.clip.size
    assert (boxes[..., 2:] > boxes[..., :2]).all()
    assert (np.ptp(boxes, axis=2) > 0).any()
    assert (np.sort(batch["plan"]["order"], axis=1) == np.arange(3)).all()
    assert len(np.unique(batch["frames"])) == 256


@pytest.mark.parametrize("step", ["Step", "Apart"])
def test_pytorch_computes_the_same(step):
    pytest.importorskip("torch", reason="compares with PyTorch")
    from benchmarks import torch_step

    config = pretraining.make_config("r3d18", 2, "float32", 0.03, "direct")
    config.clip.size, config.clip.num_frames = 32, 8
    config.head.init_std = (0.05, 0.1)
    config.optimizer.clip_norm = 20.0  # below the norm
    batch = pretraining.make_batch(config)
    ours = pretraining.Running(config, batch)
    theirs = getattr(torch_step, step)(
        torch_step.Variant("eager", "channels_last_3d"),
        config,
        jax.device_get(ours.state),
        np.asarray(ours.draw()),
        batch["plan"]["boxes"],
    )
    got, want = [theirs.step() for _ in range(3)], [ours.step() for _ in range(3)]
    np.testing.assert_allclose(got, want, rtol=1e-3)
    # By what the steps change: clipping, decay and momentum are the same.
    changes = np.diff(np.array([got, want])[..., 0])
    assert (changes < -1e-2).all()
    np.testing.assert_allclose(*changes, rtol=1e-2)


BLOCKED = """
import sys
for name in ("tensorflow", "tensorflow_datasets"):
    sys.modules[name] = None
from benchmarks import conv3d, ops, pretraining, profile_step, torch_step, train_step
from ctp_jax.train import mesh
config = pretraining.make_config("r3d18", 1, "float32", 0.03, "direct")
pretraining.Program(config, mesh.one_device()).lower()
"""


def test_it_needs_no_tensorflow():
    pytest.importorskip("torch", reason="imports PyTorch")
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


class Broken:
    def step(self):
        raise ValueError("two\nlines")


def test_a_side_that_fails_keeps_the_reason():
    def missing():
        raise RuntimeError("no compiler")

    side = train_step.Side("a", missing)
    side.start()
    assert side.failed == "RuntimeError: no compiler" and side.first is None
    side = train_step.Side("b", Broken)
    assert not side.failed
    side.start()
    assert side.failed == "ValueError: two lines"


def test_sides_that_differ_are_named():
    sides = [train_step.Side(name, object) for name in ("ours", "torch", "torch TF32")]
    for side, loss in zip(sides, (1.0, 1.002, 1.002), strict=True):
        side.first = (loss, 2.0)
    found, wrong = train_step.differences(sides, "float32")
    assert found == pytest.approx({"torch": 2e-3, "torch TF32": 2e-3})
    assert len(wrong) == 1 and wrong[0].startswith("torch: ")


_PARENT = """
import concurrent.futures, multiprocessing, os, time
from benchmarks import torch_step
if __name__ == "__main__":
    pool = concurrent.futures.ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), initializer=torch_step._end_with_parent
    )
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 60)
    time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_pytorchs_process_ends_with_a_killed_parent(tmp_path):
    pytest.importorskip("torch", reason="compares with PyTorch")
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    root = pathlib.Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        child = pathlib.Path("/proc", parent.stdout.readline().decode().strip(), "stat")
        assert is_alive(child)
        parent.kill()
    deadline = time.monotonic() + 20
    while is_alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(stat):
    """Whether a process runs, and does not only wait for its parent to notice its end."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
