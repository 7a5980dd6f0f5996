"""Plots the training loss of runs of several methods, and prints what they learnt.

python docs/plot_methods.py OUT.png WORKDIR [WORKDIR ...]

Runs of one method are seeds: a line each. Dashed is the loss of a network that has learnt
nothing (`Task.chance_loss`), where that is known. The table is Markdown; its losses are
means over the last tenth of a run.
"""

import collections
import math
import pathlib
import sys

import matplotlib

from ctp_jax import metrics_file, results, visualize
from ctp_jax.tasks import base

matplotlib.use("agg")
import matplotlib.pyplot as plt

COLUMNS = 5


def main(out, *workdirs):
    runs = collections.defaultdict(list)
    for workdir in map(pathlib.Path, workdirs):
        config = visualize.config_of_run(workdir)
        lines, _ = metrics_file.read(workdir / "metrics.jsonl")
        runs[config.task].append((config, lines))
    chance = {
        method: base.load(seeds[0][0]).chance_loss() for method, seeds in runs.items()
    }
    plot(out, runs, chance)
    print("| | steps × videos | loss at chance | loss | held out | without learning |")
    print("| --- | --- | --- | --- | --- | --- |")
    for method, seeds in runs.items():
        print(f"| `{method}` | {' | '.join(describe(seeds, chance[method]))} |")


def plot(out, runs, chance):
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
        for _, lines in seeds:
            train = of_kind(lines, "train")
            panel.plot([x["step"] for x in train], [x["loss"] for x in train], lw=1)
        if chance[method] is not None:
            panel.axhline(chance[method], color="black", ls="--", lw=0.8)
        panel.set_title(f"{method}, {len(seeds)} seeds", fontsize=9)
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("training loss; dashed: at chance", fontsize=9)
    figure.savefig(out, dpi=110)


def of_kind(lines, kind):
    return [line for line in lines if line["kind"] == kind]


def describe(seeds, chance):
    """The columns of a method."""
    losses, found = [], []
    for config, lines in seeds:
        train = of_kind(lines, "train")
        last = [x["loss"] for x in train if x["step"] > 0.9 * config.steps]
        losses.append(f"{sum(last) / len(last):.3g}")
        evaluated = of_kind(lines, "eval")[-1]
        numbers = {k: v for k, v in evaluated.items() if isinstance(v, float)}
        found.append(results.results(numbers))
    name = results.main_metric(found[0])
    held_out = [each[name] for each in found]
    values = ", ".join(results.show(name, each.value) for each in held_out)
    baselines = {results.show(name, each.baseline) for each in held_out}
    yield f"{config.steps} × {config.batch_size}"  # of each seed
    yield "" if chance is None else f"{chance:.3g}"
    yield ", ".join(losses)
    yield f"{results.label(name)} {values}"
    yield f"{held_out[0].how} {', '.join(sorted(baselines))}"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
