"""Table 5: retrieval, the nearest training videos by features of the frozen encoder.

The numbers of VCOP, VCP, PRP and Pace are those of their papers, with R3D of ten layers.
"""

from configs.experiments import common


def column(data, k):
    return {
        "config": f"configs/retrieval.py:data={data},train=train0{{split}},test=test0{{split}}",
        "metric": f"retrieval_top{k}",
    }


def row(config, *paper):
    return {
        "pretrain": f"{config},backbone=r3d10",
        "transfer": common.backbone("r3d10"),
        "paper": paper,
    }


MEASURED = (
    "top 1, seed 0: random 11.3 %, VCOP 10.0, VCP 8.7, PRP 16.0, Pace 16.0, "
    "TempTrans 14.7, CtP 17.3"
)
COLUMNS = {
    "UCF top-1": column("ucf101", 1),
    "UCF top-5": column("ucf101", 5),
    "H51 top-1": column("hmdb51", 1),
    "H51 top-5": column("hmdb51", 5),
}
LABELS = ("Method", "Dataset")
ROWS = {
    ("VCOP", "UCF"): row("configs/vcop.py:data=ucf101", 14.1, 30.3, 7.6, 22.9),
    ("VCP", "UCF"): row("configs/vcp.py:data=ucf101", 18.6, 33.6, 7.6, 24.4),
    ("PRP", "UCF"): row("configs/prp.py:data=ucf101", 22.8, 38.5, 8.2, 25.8),
    ("Pace", "UCF"): row("configs/pace.py:data=ucf101", 19.9, 36.2, 8.2, 24.2),
    ("Ours", "UCF"): {
        "pretrain": "configs/ucf_r3d.py",
        "paper": (23.4, 40.9, 11.4, 30.2),
    },
    ("SpeedNet", "K400"): {
        "paper": (13.0, 28.1),
        "missing": "the binary SpeedNet of its own paper is not here",
    },
    ("TempTrans", "K400"): {
        "pretrain": "configs/temptrans.py:data=kinetics400",
        "paper": (26.1, 48.5),
    },
    ("Ours", "K400"): {
        "pretrain": "configs/k400_r3d.py",
        "paper": (29.0, 47.3, 11.8, 30.1),
    },
    ("Random encoder", "-"): {},  # not in the paper
}
