"""Fig. 6: training loss and accuracy on UCF-101, every ten epochs.

Which data the encoder of the figure was pretrained on is not said.
"""

from configs.experiments import common

MEASURED = "seed 0: 45.3 %, from scratch 8.0"
COLUMNS = {
    "UCF": {
        **common.UCF,
        "eval_every": 10.0,
        "small": {"eval_every": 1.0, "log_every": 10},
    }
}
LABELS = ("Start",)
ROWS = {"CtP": "configs/ucf_r3d.py", "Random": None}
FIGURE = {"curves": True}
