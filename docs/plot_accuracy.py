"""Draws the accuracies of the methods in results.md, those of three seeds, as bars.

python docs/plot_accuracy.py docs/results.md OUT.png
"""

import pathlib
import re
import sys

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

TITLE = "## Fourteen methods on equal terms"
SCRATCH = "from scratch, as many frames in all"
CHANCE = 10


def main(page, out):
    section = pathlib.Path(page).read_text().partition(f"{TITLE}\n")[2]
    section = section.partition("\n### ")[0]
    row = re.compile(r"^\| `?([^|`]+?)`? \| \**([\d.]+) ± ([\d.]+)\** \|", re.MULTILINE)
    shown = [
        (name, float(mean), float(deviation))
        for name, mean, deviation in row.findall(section)
        if name == SCRATCH or " " not in name  # baselines have several words
    ]
    names, means, deviations = zip(*sorted(shown, key=lambda x: x[1]), strict=True)
    colours = {"ctp": "tab:orange", SCRATCH: "tab:gray"}
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    axes.barh(
        names,
        means,
        xerr=deviations,
        color=[colours.get(name, "tab:blue") for name in names],
        height=0.7,
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    axes.axvline(CHANCE, color="black", linestyle="--", linewidth=1)
    axes.set_xlabel("held-out videos right after finetuning, %; dashed: chance")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
