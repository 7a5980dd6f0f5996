"""Table 3: against supervised pretraining.

The supervised encoder of Kinetics-400 is a run of recognition there: whose weights the paper
took is not said.
"""

from configs.experiments import common

MEASURED = (
    "seed 0: R3D from scratch 8.7 %, supervised 6.0, CtP 46.7; R(2+1)D 10.7, 8.7, 29.3"
)
COLUMNS = {**common.UCF_H51, "SS": common.SS}
LABELS = ("Backbone", "Method", "Dataset")
R2PLUS1D = common.backbone("r2plus1d18")
ROWS = {
    ("R3D", "None", "None"): {"paper": (65.0, 30.9, 39.2)},
    ("R3D", "Supervised", "ImageNet"): {
        "transfer": common.NO_SMALL_IMAGENET,
        "paper": (79.5, 40.0, 42.9),
    },
    ("R3D", "Supervised", "K400"): {
        "pretrain": "configs/finetune_k400.py",
        "paper": (91.6, 60.5, 43.3),
    },
    ("R3D", "CtP", "K400"): {
        "pretrain": "configs/k400_r3d.py",
        "paper": (86.2, 57.0, 44.2),
    },
    ("R(2+1)D", "None", "None"): {"transfer": R2PLUS1D, "paper": (67.0, 29.5, 40.6)},
    ("R(2+1)D", "Supervised", "K400"): {
        "pretrain": "configs/finetune_k400.py:backbone=r2plus1d18",
        "transfer": R2PLUS1D,
        "paper": (92.7, 64.5, 43.9),
    },
    ("R(2+1)D", "CtP", "K400"): {
        "pretrain": "configs/k400_r2plus1d.py",
        "transfer": R2PLUS1D,
        "paper": (88.4, 61.7, 48.3),
    },
}
MADE_BY = common.MADE_BY
