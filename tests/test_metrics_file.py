"""Lines of metrics.jsonl, intact and damaged."""

from ctp_jax import metrics_file


def test_damaged_lines_are_counted_and_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [
        b'{"kind": "train", "step": 1, "loss": 0.5}',
        b'{"kind": "eval", "step": "x"}',
        b'{"kind": 3, "step": 1}',
        b'{"step": 1}',
        b"[1, 2]",
        b"17",
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"kind": "eval", "step": 1, "iou": null}',
        b'{"kind": "train", "st',
    ]
    path.write_bytes(b"\n".join(lines))
    good = [
        {"kind": "train", "step": 1, "loss": 0.5},
        {"kind": "eval", "step": 1, "iou": None},
    ]
    assert metrics_file.read(path) == (good, 9)
