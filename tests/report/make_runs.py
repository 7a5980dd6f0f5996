"""Workdirs as the trainer leaves them, written by hand: no trainer is needed."""

import csv
import json

import numpy as np


def write_config(workdir, **fields):
    """A config of the usual shape; 'data.fraction' and the like name its fields."""
    config = {
        "task": "recognition",
        "seed": 0,
        "data": {"name": "toy", "data_dir": "/data", "fraction": 1.0},
        "model": {"name": "r3d18", "width": 0.25, "temporal_strides": [1, 2, 2, 2]},
        "optimizer": {"learning_rate": 0.01, "milestones": []},
        "batch_size": 8,
        "epochs": 30.0,
        "steps": 300,
        "init_from": "",
        "freeze": False,
    }
    for name, value in fields.items():
        *groups, last = name.split(".")
        place = config
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(json.dumps(config))


def write_metrics(workdir, lines):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(text)


def train_lines(steps=300, clips=8, **more):
    """Loss falls as 1 / step; `clips` per step, each of a tenth of a second."""
    return [
        {
            "kind": "train",
            "step": step,
            "epoch": step / 10,
            "loss": 20.0 / step + 0.1,
            "learning_rate": 0.01 * (1 - step / steps),
            "grad_norm": 1.5,
            "clips_per_second": clips / 0.1,
            "input_share": 0.25,
            "eta": (steps - step) * 0.1,
        }
        | more
        for step in range(10, steps + 1, 10)
    ]


def eval_lines(steps=300, every=100, **final):
    """Every value climbs evenly to its final one."""
    return [
        {"kind": "eval", "step": step, "epoch": step / 10}
        | {name: value * step / steps for name, value in final.items()}
        for step in range(every, steps + 1, every)
    ]


def pretraining(workdir, iou=0.7):
    write_config(workdir, task="ctp", freeze="")
    lines = train_lines(iou=0.6, loss_center=0.3, loss_size=0.05)
    lines += eval_lines(iou=iou, success_auc=iou - 0.01)
    for line in lines:
        if line["kind"] == "eval":
            line |= {"iou_stay_put": 0.5625, "success_auc_stay_put": 0.55}
    write_metrics(workdir, lines)
    frames = np.linspace(1.0, 0.4, 8)
    np.savez(
        workdir / "evaluation.npz",
        step=300,
        iou_per_frame=frames,
        iou_per_frame_stay_put=frames**2,
    )


def recognition(workdir, top1=0.75, names=("walk", "run", "jump"), **fields):
    """30 videos of each class; of class 0, five are taken for class 1."""
    write_config(workdir, **fields)
    values = {"top1": top1, "top5": 0.9, "class_accuracy": top1, "eval_loss": 0.8}
    lines = train_lines(top1=0.8) + eval_lines(**values)
    chance = {"top1": 1 / len(names), "top5": min(5 / len(names), 1.0)}
    chance["class_accuracy"] = 1 / len(names)
    for line in lines:
        if line["kind"] == "eval":
            line |= {f"{name}_chance": value for name, value in chance.items()}
            line["videos"] = 30 * len(names)
    write_metrics(workdir, lines)
    counts = np.diag(np.full(len(names), 30))
    counts[0, 0], counts[0, 1] = 25, 5
    np.savez(
        workdir / "evaluation.npz",
        step=300,
        confusion=counts,
        class_names=np.array(names),
        class_accuracies=np.diag(counts) / counts.sum(1),
    )
    rows = [
        [
            f"v{true}_{i:02d}.avi",
            names[true],
            names[said],
            0.5 + i / 100,
            int(true == said),
        ]
        + [";".join([names[said], *[n for n in names if n != names[said]]][:5])]
        for true, row in enumerate(counts)
        for said, count in enumerate(row)
        for i in range(count)
    ]
    header = ["video", "label", "predicted", "probability", "correct", "top5"]
    write_csv(workdir / "predictions.csv", header, rows)


def retrieval(workdir, top1=0.01, **fields):
    write_config(workdir, task="encoder", epochs=0.0, steps=0, **fields)
    values = {f"retrieval_top{k}": k / 100 for k in (1, 5, 10, 20, 50)}
    values |= {"knn_top1": 0.4, "knn_top5": 0.6, "retrieval_top1": top1}
    values |= {"retrieval_top1_chance": 0.1, "retrieval_videos": 100}
    write_metrics(workdir, [{"kind": "eval", "step": 0, "epoch": 0.0} | values])


def write_command(workdir, *flags):
    """As `ctp_jax.main` notes it."""
    command = ["python", "-m", "ctp_jax.main", *flags, f"--workdir={workdir}"]
    (workdir / "command.json").write_text(json.dumps(command))


def write_csv(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
