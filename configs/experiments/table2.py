"""Table 2: number of trajectories, and the masked region model (MRM).

On a quarter of Kinetics-400: which one, and for how long, the paper does not say; here it is
a quarter of every class, with the epochs of the whole. Table 2a has the same numbers at three
trajectories as Table 2b without MRM, so its other rows are without it, too.
"""

from configs.experiments import common

MEASURED = (
    "seed 0: R3D, 1, 2, 3, 4 trajectories 36.7, 44.0, 49.3, 50.0 %; 3 with MRM 45.3; "
    "R(2+1)D, 3 35.3, with MRM 29.3"
)


def pretrain(config, trajectories, visible):
    return {
        "config": config,
        "data.fraction": 0.25,
        "game.num_trajectories": trajectories,
        "game.visible": visible,
        "small": {"data.fraction": 1.0},
    }


COLUMNS = common.UCF_H51
LABELS = ("Backbone", "Trajectories", "MRM")
R3D, R2PLUS1D = "configs/k400_r3d.py", "configs/k400_r2plus1d.py"
ROWS = {
    ("R3D", "1", "no"): {"pretrain": pretrain(R3D, 1, 1.0), "paper": (81.7, 49.1)},
    ("R3D", "2", "no"): {"pretrain": pretrain(R3D, 2, 1.0), "paper": (83.0, 51.9)},
    ("R3D", "3", "no"): {"pretrain": pretrain(R3D, 3, 1.0), "paper": (82.8, 53.2)},
    ("R3D", "4", "no"): {"pretrain": pretrain(R3D, 4, 1.0), "paper": (82.2, 54.1)},
    ("R3D", "3", "yes"): {"pretrain": pretrain(R3D, 3, 0.8), "paper": (84.0, 55.3)},
    ("R(2+1)D", "3", "no"): {
        "pretrain": pretrain(R2PLUS1D, 3, 1.0),
        "transfer": common.backbone("r2plus1d18"),
        "paper": (85.1, 55.9),
    },
    ("R(2+1)D", "3", "yes"): {
        "pretrain": pretrain(R2PLUS1D, 3, 0.8),
        "transfer": common.backbone("r2plus1d18"),
        "paper": (87.2, 57.8),
    },
}
