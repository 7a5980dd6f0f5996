"""Table 10: speed and change of size of the patches."""

from configs.experiments import common

MEASURED = (
    "seed 0: speed 1, 3, 5, 15: 5.3, 45.3, 43.3, 48.0 %; scale 0.010, 0.025, 0.040, "
    "0.100: 45.3, 45.3, 44.0, 44.0"
)


def speed(value, *paper):
    pretrain = {"config": "configs/ucf_r3d.py", "game.speed": float(value)}
    return {"pretrain": pretrain, "paper": paper}


def scale(value, *paper):
    """The small variant has half the frames, so twice the change from one to the next."""
    pretrain = {
        "config": "configs/ucf_r3d.py",
        "game.size_change": value,
        "small": {"game.size_change": 2 * value},
    }
    return {"pretrain": pretrain, "paper": paper}


COLUMNS = common.UCF_H51
LABELS = ("Constraint", "Value")
ROWS = {
    ("Speed", "1"): speed(1, 80.6, 48.6),
    ("Speed", "3"): speed(3, 83.9, 53.6),
    ("Speed", "5"): speed(5, 83.4, 54.0),
    ("Speed", "15"): speed(15, 80.6, 49.3),
    ("Scale", "0.010"): scale(0.010, 83.3, 54.3),
    ("Scale", "0.025"): scale(0.025, 83.9, 53.6),
    ("Scale", "0.040"): scale(0.040, 83.5, 53.2),
    ("Scale", "0.100"): scale(0.100, 84.3, 54.2),
}
