"""Table 1 at small scale: where the boxes come from, on data with boxes and tracks.

    python -m ctp_jax.prepare tracks --from moving_shapes   # for the teacher
    python -m ctp_jax.reproduce truth[:data=mine,pretrain=1250,finetune=400,fraction=0.25]

All runs are of `configs/small.py`, on the built-in data unless `data=` names a set of yours
with boxes. `fraction` of the labels is finetuned with, as in docs/results.md.
"""

from configs import common

SOURCES = {
    "Teacher tracker": "teacher",
    "Cycle consistency": "cycle",
    "Real boxes": "real",
    "Preset, real and cycles": "mixed",
}


def get_experiment(arg=None):
    arg = common.parse_arg(
        arg, data="moving_shapes", pretrain=1250, finetune=400, fraction=0.25
    )

    def pretrain(truth, **fields):
        data = arg.data + "_tracks" * (truth == "teacher")
        config = f"configs/small.py:data={data},truth={truth}"
        return {"config": config, "steps": arg.pretrain, **fields}

    rows = {"None": {"pretrain": None}}
    rows |= {name: {"pretrain": pretrain(truth)} for name, truth in SOURCES.items()}
    for count in (1, 3):
        trajectories = {"game.num_trajectories": count}
        rows[f"Preset (x{count})"] = {"pretrain": pretrain("preset", **trajectories)}
    rows["None, as many steps in all"] = {
        "transfer": {"steps": arg.pretrain + arg.finetune},
        "columns": ("finetuned",),
    }
    rows["Chance"] = {"chance": True}
    finetuned = {
        "config": f"configs/finetune_small.py:data={arg.data}",
        "metric": "top1",
        "steps": arg.finetune,
        "data.fraction": arg.fraction,
    }
    frozen = {"config": f"configs/retrieval.py:small,data={arg.data}"}
    return {
        "LABELS": ("Source of boxes",),
        "COLUMNS": {
            "finetuned": finetuned,
            "k-NN": {**frozen, "metric": "knn_top1"},
            "nearest": {**frozen, "metric": "retrieval_top1"},
        },
        "ROWS": rows,
        "SEEDS": (0, 1, 2),
        "MEASURED": "three seeds: [truth.md](truth.md#table-1-at-small-size)",
    }
