"""Both sides of the benchmark of operations do the same work, and it notices if not."""

import json

import numpy as np
import pytest

from benchmarks import ops


@pytest.fixture(scope="module", autouse=True)
def small(request):
    patch = pytest.MonkeyPatch()
    request.addfinalizer(patch.undo)
    patch.setattr(ops, "FRAMES", 3)
    patch.setattr(ops, "CHANNELS", 8)


def test_the_table_and_the_file(tmp_path, capsys):
    pytest.importorskip("cv2")
    # Several threads wait for each other for minutes on busy cores.
    pytest.importorskip("torch").set_num_threads(1)
    path = tmp_path / "found.json"
    ops.main(["--batch=2", "--rounds=1", f"--json={path}"])
    rows = json.loads(path.read_text())["rows"]
    table = capsys.readouterr().out
    for name in ("crop", "paste", "colour", "roi align, gradient"):
        sides = [row["side"] for row in rows if row["operation"] == name]
        assert ("ours, products" in sides) == (name in ("crop", "paste"))
        assert ("OpenCV" in sides) == (name != "roi align, gradient")
        assert sides[0] == "ours" and len(sides) == len(set(sides))
        assert name in table
    assert "tubelets" in table
    for row in rows:
        assert row["ms per clip"] > 0 and row["GB/s"] > 0
        assert (row["ratio"] is None) == (row["side"] == "ours")


def test_bytes_are_counted_once():
    rng = np.random.default_rng(0)
    crop, paste, _ = ops.drawing_cases(rng, 2, False, False)
    clip = 3 * 112 * 112 * 3
    assert crop.bytes == 2 * (3 * 144 * 148 * 3 + 4 * clip)
    assert paste.bytes == 2 * (4 * clip + 4 * clip)
    forward, both = ops.roi_cases(rng, 2, False)
    assert forward.bytes == 2 * 4 * 8 * (14 * 14 + 3 * 5 * 5)
    assert both.bytes == 2 * forward.bytes


def test_sides_that_differ_are_refused():
    ours = np.zeros(3, np.float32)
    near = {"ours": lambda: ours, "other": lambda: ours + 0.01}
    assert ops.compare(ops.Case("crop", 1, near)) == {"other": pytest.approx(0.01)}
    for wrong in (ours + 1, ours * np.nan):
        with pytest.raises(SystemExit, match="other differs from ours"):
            sides = {"ours": lambda: ours, "other": lambda wrong=wrong: wrong}
            ops.compare(ops.Case("crop", 1, sides))


def test_windows_lie_in_the_frames():
    frames = ops.made_batch(np.random.default_rng(0), 50)
    corner, side = frames["window"][:, :2], frames["window"][:, 2:]
    assert (corner >= 0).all() and (corner + side <= np.add(ops.CANVAS, 1e-3)).all()
    boxes = ops.made_patches(np.random.default_rng(0), 50)["boxes"]
    assert boxes.min() >= 0 and boxes.max() <= 112
    assert (boxes[..., 2:] - boxes[..., :2]).min() >= 16
