"""Table 8: squeezing the time of features before the boxes are predicted."""

from configs.experiments import common

COLUMNS = common.UCF_H51
LABELS = ("Squeeze?",)
ROWS = {
    "no": {
        "pretrain": {"config": "configs/ucf_r3d.py", "head.squeeze": False},
        "paper": (82.9, 52.3),
    },
    "yes": {"pretrain": "configs/ucf_r3d.py", "paper": (83.9, 53.6)},
}
