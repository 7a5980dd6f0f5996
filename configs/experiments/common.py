"""What experiments share: columns, small forms of configs, sizes of data sets."""

UCF = {"config": "configs/finetune_ucf.py:split={split}", "metric": "top1"}
H51 = {"config": "configs/finetune_hmdb.py:split={split}", "metric": "top1"}
SS = {"config": "configs/finetune_ssv1.py", "metric": "top1"}
UCF_H51 = {"UCF": UCF, "H51": H51}

IMAGENET = "{root}/imagenet_resnet18"
INFLATED = {"init_from": IMAGENET, "model.epsilon": 1e-5}
"""ResNet-18 of torchvision, inflated. Its small form would need small 2-D weights."""
NO_SMALL_IMAGENET = {**INFLATED, "small": "there are no ImageNet weights of this size"}
MADE_BY = {IMAGENET: f"python -m ctp_jax.convert resnet18-f37072fd.pth {IMAGENET}"}


def backbone(name, **more):
    """What is different where a row is finetuned with another network."""
    return {"arguments": f"backbone={name}", **more}


METHODS = (
    *("rotation", "speednet", "vcop", "vcp", "prp", "pace", "temptrans"),
    *("moco", "infonce", "coclr", "cep", "tubelet", "dpc", "memdpc"),
)
"""Pretext tasks beside the game, `configs/<name>.py`."""

SMALL = {
    **{
        f"{name}.py": f"configs/{name}.py"
        for name in ("small", "finetune_small", "demo")
    },
    "ucf_r3d.py": "configs/small.py:{ucf101}",
    "ucf_r2plus1d.py": "configs/small.py:{ucf101},backbone=r2plus1d10",
    "ucf_cycle_r3d.py": "configs/small.py:{ucf101},truth=cycle",
    "ucf_teacher_r3d.py": "configs/small.py:{ucf101_tracks},truth=teacher",
    "k400_r3d.py": "configs/small.py:{kinetics400}",
    "k400_r2plus1d.py": "configs/small.py:{kinetics400},backbone=r2plus1d10",
    "got10k_real_r3d.py": "configs/small.py:{got10k},truth=real",
    "got10k_preset1_r3d.py": "configs/small.py:{got10k}",
    "got10k_preset3_r3d.py": "configs/small.py:{got10k}",
    "track_got10k.py": "configs/track_got10k.py:small,{got10k}",
    "finetune_ucf.py": "configs/finetune_small.py:{ucf101}",
    "finetune_hmdb.py": "configs/finetune_small.py:{hmdb51}",
    "finetune_ssv1.py": "configs/finetune_small.py:{something_something_v1}",
    "finetune_k400.py": "configs/finetune_small.py:{kinetics400}",
    **{
        f"{name}.py": f"configs/{name}.py:small,{{data}}"
        for name in ("retrieval", *METHODS)
    },
}
"""Config -> with --scale=small; a data set in braces is replaced by the one chosen."""

SMALL_NETWORKS = {
    "r2plus1d18": "r2plus1d10",
    "r3d18": "r3d10",
    "r2d3d34": "r2d3d18",
}
"""Network -> with --scale=small; others stay."""

DATA = (
    *("ucf101", "hmdb51", "kinetics400", "something_something_v1", "got10k"),
    *("gym99", "gym288", "ssv2", "ntu60"),
    *("gym_fx_s1", "gym_ub_s1", "gym_vault", "gym_floor"),
)
"""Data sets of the paper and of SEVERE."""

SIZES = {
    ("ucf101", "train01"): 9537,
    ("ucf101", "test01"): 3783,
    ("ucf101", "train02"): 9586,
    ("ucf101", "test02"): 3734,
    ("ucf101", "train03"): 9624,
    ("ucf101", "test03"): 3696,
    ("ucf101_tracks", "train01"): 9537,
    ("ucf101_tracks", "test01"): 3783,
    **{("hmdb51", f"train0{split}"): 3570 for split in (1, 2, 3)},
    **{("hmdb51", f"test0{split}"): 1530 for split in (1, 2, 3)},
    # As the paper has it: clips disappear from the web.
    ("kinetics400", "train"): 220_000,
    ("kinetics400", "val"): 18_000,
    ("kinetics400_flow", "train"): 220_000,
    ("kinetics400_flow", "val"): 18_000,
    ("something_something_v1", "train"): 86_017,
    ("something_something_v1", "val"): 11_522,
    ("got10k", "train"): 9335,
    ("got10k", "val"): 180,
    ("gym99", "train"): 20_484,
    ("gym99", "test"): 8521,
    ("moving_shapes", "train"): 600,
    ("moving_shapes", "test"): 150,
}
"""Videos of a split, to plan with where it is not prepared."""
