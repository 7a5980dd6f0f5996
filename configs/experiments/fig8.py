"""Fig. 8: more guided Grad-CAM, of the runs of Fig. 5."""

from configs.experiments import common

COLUMNS = {"UCF": common.UCF}
LABELS = ("Start",)
ROWS = {"CtP": "configs/ucf_r3d.py", "Random": None}
PICTURES = {
    "videos": (
        "ctp_jax.explain",
        "--workdir={run:CtP}",
        "--workdir={run:Random}",
        "--videos=6",
    ),
}
