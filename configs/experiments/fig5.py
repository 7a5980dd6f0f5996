"""Fig. 5: guided Grad-CAM of the finetuned classifier and of one from scratch."""

from configs.experiments import common

COLUMNS = {"UCF": common.UCF}
LABELS = ("Start",)
ROWS = {"CtP": "configs/ucf_r3d.py", "Random": None}
PICTURES = {
    "videos": (
        "ctp_jax.explain",
        "--workdir={run:CtP}",
        "--workdir={run:Random}",
        "--videos=2",
    ),
}
