"""Plots the held-out IoU and the training loss of runs from their metrics.jsonl.

python docs/plot_curve.py OUT.png WORKDIR [WORKDIR ...]
"""

import pathlib
import sys

import matplotlib

from ctp_jax import metrics_file

matplotlib.use("agg")
import matplotlib.pyplot as plt


def main(out, *workdirs):
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for workdir in map(pathlib.Path, workdirs):
        lines, _ = metrics_file.read(workdir / "metrics.jsonl")
        train = [line for line in lines if line["kind"] == "train"]
        held_out = [line for line in lines if line["kind"] == "eval"]
        steps = [line["step"] for line in held_out]
        left.plot([x["step"] for x in train], [x["loss"] for x in train])
        (curve,) = right.plot(steps, [x["iou"] for x in held_out], label=workdir.name)
        right.plot(
            steps,
            [x["iou_stay_put"] for x in held_out],
            "--",
            color=curve.get_color(),
            label=f"{workdir.name}, box left where it was",
        )
    left.set(xlabel="step", ylabel="training loss")
    right.set(xlabel="step", ylabel="mean IoU, held-out videos")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
