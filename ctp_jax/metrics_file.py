"""Reads `metrics.jsonl`: one JSON object per line, with a `kind` and a `step`."""

import pathlib
from typing import Any

from ctp_jax.storage import untrusted

_MAX_BYTES = 1 << 31

BASELINE = "_stay_put"
"""Metric `x_stay_put` is the metric `x` of a baseline, the first box in every frame."""
CHANCE = "_chance"
"""Metric `x_chance` is the metric `x` of guesses that look at no video."""
KCF = "_kcf"
"""Metric `x_kcf` is the metric `x` of the tracker KCF, which learns nothing before."""
BASELINES = {BASELINE: "a box that stays", CHANCE: "chance", KCF: "the tracker KCF"}
"""Of several baselines of a metric, the first is what it is judged by."""
GAIN_ERROR = "_gain_error"
"""Metric `x_gain_error` is the standard error, over videos, of `x` minus `x_stay_put`."""
VIDEOS = "videos"
"""The number of videos of an accuracy: `retrieval_videos` of `retrieval_top1`."""


def read(path: pathlib.Path) -> tuple[list[dict[str, Any]], int]:
    """The intact lines in order, and the number of truncated or damaged ones.

    Raises:
        OSError: see `untrusted.opened`.
    """
    lines, bad = [], 0
    for text in untrusted.read_bytes(path, _MAX_BYTES).splitlines():
        try:
            line = untrusted.parse_json(text, {"kind": str, "step": int})
            # A number of any length is JSON; the step of a run has 32 bits.
            if not 0 <= line["step"] < 2**31:
                raise ValueError("no step")
            lines.append(line)
        except ValueError:
            bad += 1
    return lines, bad
