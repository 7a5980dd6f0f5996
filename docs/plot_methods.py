"""Plots the training loss of runs of several methods, each with its loss at chance.

python docs/plot_methods.py OUT.png WORKDIR [WORKDIR ...]

Runs of one method are seeds: a line each. Dashed is the loss of a network that has learnt
nothing (`Task.chance_loss`), where that is known.
"""

import collections
import math
import pathlib
import sys

import matplotlib

from ctp_jax import metrics_file, visualize
from ctp_jax.tasks import base

matplotlib.use("agg")
import matplotlib.pyplot as plt

COLUMNS = 5


def main(out, *workdirs):
    runs = collections.defaultdict(list)
    for workdir in map(pathlib.Path, workdirs):
        config = visualize.config_of_run(workdir)
        lines, _ = metrics_file.read(workdir / "metrics.jsonl")
        train = [line for line in lines if line["kind"] == "train"]
        runs[config.task].append((config, train))
    rows = math.ceil(len(runs) / COLUMNS)
    figure, axes = plt.subplots(
        *(rows, COLUMNS),
        figsize=(2.4 * COLUMNS, 2.0 * rows),
        layout="constrained",
        squeeze=False,
    )
    for panel in axes.flat[len(runs) :]:
        panel.axis("off")
    for panel, (method, seeds) in zip(axes.flat, runs.items()):
        for _, train in seeds:
            panel.plot([x["step"] for x in train], [x["loss"] for x in train], lw=1)
        chance = base.load(seeds[0][0]).chance_loss()
        if chance is not None:
            panel.axhline(chance, color="black", ls="--", lw=0.8)
        panel.set_title(f"{method}, {len(seeds)} seeds", fontsize=9)
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("training loss; dashed: at chance", fontsize=9)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
