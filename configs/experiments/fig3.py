"""Fig. 3: tracking on GOT-10k with parts of the encoder frozen, mean IoU.

The paper's numbers and its schedule are in the figure alone; neither is in the text.
"""

from configs.experiments import common

PARTS = ("", "stem", "stem+1", "stem+2", "stem+3", "stem+4")
COLUMNS = {
    part or "nothing": {
        "config": f"configs/track_got10k.py:freeze={part}",
        "metric": "window_iou",
        "evaluators.sequences.kcf": False,
    }
    for part in PARTS
}
LABELS = ("Start",)
ROWS = {
    "Random": None,
    "ImageNet, inflated": {"transfer": common.NO_SMALL_IMAGENET},
    "CtP": "configs/k400_r3d.py",
    "CtP with its head": {
        "pretrain": "configs/k400_r3d.py",
        "transfer": {"init_head": True},
    },
}
FIGURE = {
    "x": {label: stages for stages, label in enumerate(COLUMNS)},
    "xlabel": "frozen parts: none, the stem, and so many stages more",
}
MADE_BY = common.MADE_BY
MEASURED = "got10k_mini, seed 0: [tracking.md](tracking.md#fig-3-at-small-size)"
