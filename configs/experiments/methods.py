"""All methods on small data: the same frames seen, network, budget and evaluation.

    python -m ctp_jax.reproduce methods:data=moving_shapes+mine --seeds=0,1,2 --plan

Arguments: `data`, sets joined by `+`, each NAME or NAME:TRAIN:TEST; `clips` of 8 frames to
pretrain with, and `finetune` with; `fraction` of the labels that are finetuned with;
`methods`, joined by `+`; learning `rates` to pretrain with beside those of the configs, joined
by `+`. A method with several clips of a video sees fewer videos. CoCLR's three stages share the
frames; it needs `python -m ctp_jax.prepare flow --from NAME`.
"""

from configs import common
from configs.experiments import common as experiments

MEASURED = (
    "moving_shapes, three seeds, and eleven methods on arid6 and fight300, seed 0: "
    "[results.md](results.md#fourteen-methods-on-equal-terms)"
)
METHODS = ("ctp", *experiments.METHODS)
SPLITS = {"arid6": ("train01", "test01"), "fight300": ("train01", "test01")}
"""Of data sets whose splits are not train and test."""


def get_experiment(arg=None):
    arg = common.parse_arg(
        arg,
        data="moving_shapes+arid6+fight300",
        methods="+".join(METHODS),
        clips=20_000,
        finetune=6400,
        fraction=1.0,
        rates="",
    )
    frames, labelled = 8 * arg.clips, 8 * arg.finetune
    methods = arg.methods.split("+")
    for method in methods:
        if method not in METHODS:
            raise ValueError(f"methods={method}: not one of {', '.join(METHODS)}")
    rows = {"Chance": {"chance": True}, "Random features, or from scratch": {}}
    rows["From scratch, as many frames in all"] = {
        "transfer": {"frames": frames + labelled},
        "columns": ("* finetuned",),
    }
    for method in methods:
        rows[method] = {"pretrain": pretrain(method, frames)}
        for rate in filter(None, arg.rates.split("+")):
            fields = {"optimizer.learning_rate": _number(rate)}
            rows[f"{method}, rate {rate}"] = {
                "pretrain": rows[method]["pretrain"] | fields
            }
    rows["Supervised, same frames"] = {
        "pretrain": {"config": "configs/finetune_small.py:{data}", "frames": frames}
    }
    columns = {}
    for each in arg.data.split("+"):
        columns |= columns_of(each, labelled, arg.fraction)
    return {
        "LABELS": ("Method",),
        "COLUMNS": columns,
        "ROWS": rows,
        "SEEDS": (0, 1, 2),
    }


def _number(rate):
    try:
        return float(rate)
    except ValueError:
        raise ValueError(f"rates={rate}: needs numbers such as 3e-4+3e-3") from None


def pretrain(method, frames):
    """A method's run on the data of a column, `{data}` or with flow `{flow}`."""
    if method == "ctp":
        return {"config": "configs/small.py:{data}", "frames": frames}
    if method != "coclr":
        return {"config": f"configs/{method}.py:small,{{data}}", "frames": frames}
    start = "configs/infonce.py:small,{flow}"
    return {
        "config": "configs/coclr.py:small,{flow}",
        "frames": frames // 3,
        "init_from": {"config": start, "frames": frames // 3},
        "coclr.sampler": {"config": f"{start},stream=flow", "frames": frames // 3},
    }


def columns_of(data, labelled, fraction):
    """The columns of a data set, `NAME` or `NAME:TRAIN:TEST`."""
    name, *splits = data.split(":")
    if len(splits) not in (0, 2):
        raise ValueError(f"data={data}: needs NAME or NAME:TRAIN:TEST")
    train, test = splits or SPLITS.get(name, ("train", "test"))
    splits = f"train={train},test={test}"
    values = {
        "data": f"data={name},{splits}",
        "flow": f"data={name}_flow,{splits}",
    }
    finetune = {
        "config": "configs/finetune_small.py:{data}",
        "frames": labelled,
        "data.fraction": fraction,
    }
    linear = {**finetune, "config": "configs/finetune_small.py:{data},linear"}
    frozen = {"config": "configs/retrieval.py:small,{data}"}
    kinds = {
        "finetuned": {**finetune, "metric": "top1"},
        "linear": {**linear, "metric": "top1"},
        "k-NN": {**frozen, "metric": "knn_top1"},
        "nearest": {**frozen, "metric": "retrieval_top1"},
    }
    return {f"{name} {kind}": {**run, "values": values} for kind, run in kinds.items()}
