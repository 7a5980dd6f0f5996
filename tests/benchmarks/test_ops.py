"""Both sides of the benchmark of operations do the same work, and it notices if not."""

import json
import os

import numpy as np
import pytest

from benchmarks import ops
from ctp_jax.ops import resample


@pytest.fixture(scope="module", autouse=True)
def small(request):
    patch = pytest.MonkeyPatch()
    request.addfinalizer(patch.undo)
    patch.setattr(ops, "FRAMES", 3)
    patch.setattr(ops, "CHANNELS", 8)


def test_the_table_and_the_file(tmp_path, capsys):
    pytest.importorskip("cv2")
    path = tmp_path / "found.json"
    # One thread: several of PyTorch wait for each other for minutes on busy cores.
    flags = ["--batch_sizes", "2", "--rounds", "1", "--cores", "1"]
    flags += ["--ways", "products"]
    allowed = os.sched_getaffinity(0)
    try:
        ops.main([*flags, "--json", str(path)])
    finally:
        os.sched_setaffinity(0, allowed)
    rows = json.loads(path.read_text())["rows"]
    table = capsys.readouterr().out
    for name in ("crop", "paste", "colour", "roi align 14x14, gradient"):
        sides = [row["side"] for row in rows if row["operation"] == name]
        assert ("products" in sides) == (name in ("crop", "paste"))
        assert sides[0] == "ours" and len(sides) == len(set(sides))
        assert name in table
    drawn = [row for row in rows if row["operation"] in ("crop", "paste", "colour")]
    assert {"ours", "OpenCV"} <= {row["side"] for row in drawn}
    for row in rows:
        assert row["ms_per_clip"] > 0 and row["gb_per_s"] > 0
        assert (row["ratio"] is None) == (row["side"] == "ours")


def test_bytes_are_counted_once():
    sides = ops.Sides(None, None)
    rng = np.random.default_rng(0)
    crop, paste, _ = ops.drawing_cases(sides, rng, 2)
    clip = 3 * 112 * 112 * 3
    assert crop.bytes == 2 * (3 * 144 * 148 * 3 + 4 * clip)
    assert paste.bytes == 2 * (4 * clip + 4 * clip)
    forward, both = ops.roi_cases(sides, rng, 2, 7)
    assert forward.bytes == 2 * 4 * 8 * (7 * 7 + 3 * 5 * 5)
    assert both.bytes == 2 * forward.bytes


def test_sides_that_differ_are_refused():
    ours = np.zeros(3, np.float32)
    near = {"ours": lambda: ours, "other": lambda: ours + 0.01}
    assert ops.compare(ops.Case("crop", 1, near, 1)) == {"other": pytest.approx(0.01)}
    for wrong in (ours + 1, ours * np.nan):
        with pytest.raises(SystemExit, match="other differs from ours"):
            sides = {"ours": lambda: ours, "other": lambda wrong=wrong: wrong}
            ops.compare(ops.Case("crop", 1, sides, 1))


def test_windows_lie_in_the_frames():
    frames = ops.made_batch(np.random.default_rng(0), 50)
    corner, side = frames["window"][:, :2], frames["window"][:, 2:]
    assert (corner >= 0).all() and (corner + side <= np.add(ops.CANVAS, 1e-3)).all()
    boxes = ops.made_patches(np.random.default_rng(0), 50)["boxes"]
    assert boxes.min() >= 0 and boxes.max() <= 112
    assert (boxes[..., 2:] - boxes[..., :2]).min() >= 16


def test_wrong_flags_are_answered(capsys):
    assert ops.WAYS == resample.WAYS
    with pytest.raises(SystemExit):
        ops.parse(["--ways", "gathers,x"])
    assert "--ways: 'x': choose from gathers" in capsys.readouterr().err
    for sizes in ("2,x", "0"):
        with pytest.raises(SystemExit):
            ops.parse(["--batch_sizes", sizes])
        assert "--batch_sizes: " in capsys.readouterr().err
