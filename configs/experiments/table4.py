"""Table 4: against other methods, finetuned.

Rows marked † were run by the paper's authors with R3D-18. The others are numbers of the
methods' own papers, with their networks (docs/methods.md); where these are here, they are
run, in clips of this project's size and finetuned as all rows are.
"""

from configs.experiments import common

R2PLUS1D = common.backbone("r2plus1d18")


def row(config, network, *paper):
    """A method with a network of its own, which it is finetuned with, too."""
    pretrain = f"{config},backbone={network}"
    return {
        "pretrain": pretrain,
        "transfer": common.backbone(network),
        "paper": paper,
    }


def coclr():
    """One of the two cycles of CoCLR: InfoNCE on both streams, then CoCLR on frames."""
    data = "data=kinetics400_flow,backbone=s3d"
    frames = {"config": f"configs/infonce.py:{data}"}
    flow = {"config": f"configs/infonce.py:{data},stream=flow"}
    return {
        "pretrain": {
            "config": f"configs/coclr.py:{data}",
            "init_from": frames,
            "coclr.sampler": flow,
        },
        "transfer": common.backbone("s3d"),
        "paper": (87.9, 54.6),
    }


MEASURED = "seed 0: [results.md](results.md#the-papers-comparisons-small)"
COLUMNS = common.UCF_H51
LABELS = ("Method", "Dataset", "Arch.")
ROWS = {
    ("DPC", "K400", "R-2D3D"): row(
        "configs/dpc.py:data=kinetics400", "r2d3d34", 75.7, 35.7
    ),
    ("CBT", "K600", "S3D"): {
        "paper": (79.5, 44.6),
        "missing": "CBT has no public code, and is not here",
    },
    ("MemDPC", "K400", "R-2D3D"): row(
        "configs/memdpc.py:data=kinetics400", "r2d3d34", 78.1, 41.2
    ),
    ("SpeedNet", "K400", "S3D-G"): {
        "paper": (81.1, 48.8),
        "missing": "the binary SpeedNet of its own paper is not here; SpeedNet † is",
    },
    ("CEP", "K400", "SlowFast"): {
        "paper": (77.0, 36.8),
        "missing": "SlowFast is not here; CEP on R3D is in `methods`",
    },
    ("CoCLR", "K400", "S3D"): coclr(),
    ("VCP", "UCF", "R3D"): row("configs/vcp.py:data=ucf101", "r3d10", 66.0, 31.5),
    ("PRP", "UCF", "R3D"): row("configs/prp.py:data=ucf101", "r3d10", 66.5, 29.7),
    ("TempTrans", "UCF", "R3D"): {
        "pretrain": "configs/temptrans.py:data=ucf101",  # the nearest network
        "paper": (77.3, 47.5),
    },
    ("Ours", "UCF", "R3D"): {
        "pretrain": "configs/ucf_r3d.py",
        "paper": (83.9, 53.6),
    },
    ("TempTrans", "K400", "R3D"): {
        "pretrain": "configs/temptrans.py:data=kinetics400",
        "paper": (79.3, 49.8),
    },
    ("MoCo †", "K400", "R3D"): {
        "pretrain": "configs/moco.py:data=kinetics400",
        "paper": (77.0, 43.4),
    },
    ("VCOP †", "K400", "R3D"): {
        "pretrain": "configs/vcop.py:data=kinetics400",
        "paper": (73.3, 41.4),
    },
    ("3DRotNet †", "K400", "R3D"): {
        "pretrain": "configs/rotation.py:data=kinetics400",
        "paper": (77.5, 41.4),
    },
    ("MemDPC †", "K400", "R3D"): {
        "pretrain": "configs/memdpc.py:data=kinetics400",
        "paper": (75.3, 41.2),
    },
    ("SpeedNet †", "K400", "R3D"): {
        "pretrain": "configs/speednet.py:data=kinetics400",
        "paper": (83.5, 50.6),
    },
    ("Ours", "K400", "R3D"): {
        "pretrain": "configs/k400_r3d.py",
        "paper": (86.2, 57.0),
    },
    ("Pace", "UCF", "R(2+1)D"): row(
        "configs/pace.py:data=ucf101", "r2plus1d10", 75.9, 35.9
    ),
    ("VCOP", "UCF", "R(2+1)D"): row(
        "configs/vcop.py:data=ucf101", "r2plus1d10", 72.4, 30.9
    ),
    ("VCP", "UCF", "R(2+1)D"): row(
        "configs/vcp.py:data=ucf101", "r2plus1d10", 66.3, 32.2
    ),
    ("PRP", "UCF", "R(2+1)D"): row(
        "configs/prp.py:data=ucf101", "r2plus1d10", 72.1, 35.0
    ),
    ("TempTrans", "UCF", "R(2+1)D"): row(
        "configs/temptrans.py:data=ucf101", "r2plus1d18", 81.6, 46.4
    ),
    ("Ours", "UCF", "R(2+1)D"): {
        "pretrain": "configs/ucf_r2plus1d.py",
        "transfer": R2PLUS1D,
        "paper": (86.2, 57.1),
    },
    ("Pace", "K400", "R(2+1)D"): row(
        "configs/pace.py:data=kinetics400", "r2plus1d10", 77.1, 36.6
    ),
    ("Ours", "K400", "R(2+1)D"): {
        "pretrain": "configs/k400_r2plus1d.py",
        "transfer": R2PLUS1D,
        "paper": (88.4, 61.7),
    },
}
