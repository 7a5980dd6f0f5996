"""Table 1: where the boxes to follow come from (docs/truth.md)."""

from configs.experiments import common

COLUMNS = common.UCF_H51
LABELS = ("Pretraining dataset", "Source of ground-truths")
ROWS = {
    ("None", "-"): {"pretrain": None, "paper": (65.0, 30.9)},
    ("UCF-101", "Teacher tracker"): {
        "pretrain": "configs/ucf_teacher_r3d.py",
        "paper": (70.6, 44.4),
    },
    ("UCF-101", "Cycle consistency"): {
        "pretrain": "configs/ucf_cycle_r3d.py",
        "paper": (81.1, 53.3),
    },
    ("UCF-101", "Pre-set (x3)"): {
        "pretrain": "configs/ucf_r3d.py",
        "paper": (83.9, 53.6),
    },
    ("GOT-10k", "Real annotation"): {
        "pretrain": {
            "config": "configs/got10k_real_r3d.py",
            "small": {"game.num_trajectories": 1},
        },
        "paper": (77.0, 51.4),
    },
    ("GOT-10k", "Pre-set (x1)"): {
        "pretrain": {
            "config": "configs/got10k_preset1_r3d.py",
            "small": {"game.num_trajectories": 1},
        },
        "paper": (80.4, 49.4),
    },
    ("GOT-10k", "Pre-set (x3)"): {
        "pretrain": "configs/got10k_preset3_r3d.py",
        "paper": (85.9, 55.7),
    },
}
MEASURED = "three seeds: [truth.md](truth.md#table-1-at-small-size)"
