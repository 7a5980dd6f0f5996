"""Table 9: scaling factors of the targets, centres / sizes."""

from configs.experiments import common

MEASURED = (
    "seed 0: 0.8/0.04 46.7 %, 0.8/0.08 41.3, 0.8/0.02 42.0, 1.0/0.05 39.3 "
    "(small: times 5 and 2.5)"
)


def row(centre, size, *paper):
    """The small variant's factors are in the same proportion to its own, 4 and 0.1."""
    small = 5 * centre, 2.5 * size
    return {
        "pretrain": {
            "config": "configs/ucf_r3d.py",
            "head.target_scale": (centre, centre, size, size),
            "small": {"head.target_scale": (small[0],) * 2 + (small[1],) * 2},
        },
        "paper": paper,
    }


COLUMNS = common.UCF_H51
LABELS = ("Factors",)
ROWS = {
    "0.8/0.04": row(0.8, 0.04, 83.9, 53.6),
    "0.8/0.08": row(0.8, 0.08, 83.3, 52.9),
    "0.8/0.02": row(0.8, 0.02, 83.6, 55.0),
    "1.0/0.05": row(1.0, 0.05, 83.2, 54.8),
}
