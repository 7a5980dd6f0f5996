"""The command that made a run, and what to run next."""

import os
from collections.abc import Iterable, Mapping, Sequence

from ctp_jax import results
from ctp_jax.errors import UserError
from ctp_jax.report import verdict
from ctp_jax.report.read import Run
from ctp_jax.storage import files, untrusted

Step = tuple[str, list[str]]
"""Why, and the command."""

# Data whose splits and classes a config of its own knows.
_FINETUNE = {
    "ucf101": "finetune_ucf",
    "kinetics400": "finetune_ucf",
    "hmdb51": "finetune_hmdb",
    "something_something_v1": "finetune_ssv1",
}
_MAIN = ["python", "-m", "ctp_jax.main"]
_DOWNSTREAM = ("recognition", "encoder")
_OF_LAUNCHER = (
    "--coordinator",
    "--process_count",
    "--process_index",
    "--stopped_exit_code",
)
"""Flags that a launcher or `reproduce` gives; the commands here are typed by a person."""


def next_steps(run: Run, beside: verdict.Other | None) -> list[Step]:
    """What to run next, the most useful first; [] if nothing is known.

    Args:
        run: finished or not.
        beside: of `verdict.other`.
    """
    steps: list[Step] = []
    if not verdict.is_finished(run):
        command = [w for w in _flags(run.command) if not w.startswith(_OF_LAUNCHER)]
        return [("to go on, the same command", command)] if command else []
    trained = not verdict.evaluates_only(run)
    main = run.measured().get(results.main_metric(run.measured()))
    if run.command and trained:
        rate = run.fields.get("optimizer.learning_rate")
        if verdict.diverged(run) and isinstance(rate, (int, float)):
            more = {"config.optimizer.learning_rate": f"{rate / 10:g}"}
            return [("with a lower learning rate", _changed(run, more, "_slower"))]
        if main and main.standing in (results.WORSE, results.EVEN):
            if any(flag.startswith("--config.steps") for flag in run.command):
                full = _changed(run, {}, "_longer", without=["config.steps"])
                steps.append(("with all steps of its config", full))
            else:
                more = {"config.steps": str(4 * (run.step or 0))}
                steps.append(("four times as long", _changed(run, more, "_longer")))
    exported = (run.path / "encoder" / "encoder.json").exists()
    if exported and run.fields.get("truth.real"):
        track = ["python", "-m", "ctp_jax.track", "VIDEO", "--box=X,Y,W,H"]
        track += [f"--init_from={_workdir(run)}", "--out=tracked"]
        steps.append(("a box in a video of your own, followed", track))
    if run.fields.get("task") in _DOWNSTREAM or run.fields.get("init_from"):
        return steps + _comparison(run, beside)
    return steps + (_evaluation(run) if exported else [])


def _comparison(run: Run, beside: verdict.Other | None) -> list[Step]:
    """What shows whether the encoder was worth it."""
    if beside:
        other = os.path.join(os.path.dirname(_workdir(run)), beside.run.path.name)
        command = ["python", "-m", "ctp_jax.report", other, _workdir(run)]
        return [(f"beside {beside.how}", command)]
    if not run.command:
        return []
    if run.fields.get("init_from"):
        what = "_random" if verdict.evaluates_only(run) else "_scratch"
        without = _changed(run, {}, what, without=("config.init_",))
        return [("for comparison, without a pretrained encoder", without)]
    more = {"config.init_from": "RUN"}
    return [("with a pretrained encoder", _changed(run, more, "_pretrained"))]


def _evaluation(run: Run) -> list[Step]:
    """What shows what a pretrained encoder is good for."""
    fields, workdir = run.fields, _workdir(run)
    if fields.get("data.stream") == "flow":  # the commands below read RGB
        return []
    if not _has_classes(run):
        python, made = ["python", "-m"], "features.npz"
        network = [f"--init_from={workdir}", f"--out={made}"]
        alike = [f"--in={made}", "--out=similar.png"]
        return [
            (
                "features of videos, as these have no classes",
                [*python, "ctp_jax.features", "VIDEOS", *network],
            ),
            ("videos that are alike", [*python, "ctp_jax.search", "VIDEO", *alike]),
        ]
    name, small = str(fields.get("data.name", "")), fields.get("clip.size") == 56
    network, width = fields.get("model.name"), fields.get("model.width")
    more = ["--config.init_from=" + workdir]
    if width not in (0.125 if small else 1.0, None):
        more.append(f"--config.model.width={width}")
    if folder := fields.get("data.data_dir"):
        more.append(f"--config.data.data_dir={folder}")
    backbone = network not in ("r3d10" if small else "r3d18", None)
    arguments = [f"backbone={network}"] * backbone
    splits = {"train": fields.get("data.split"), "test": fields.get("data.eval_split")}
    usual = ("train", "test") if small else ("train01", "test01")
    known = [f"{k}={v}" for k, v in splits.items() if v not in (*usual, None)]
    data = [f"data={name}", *known, *arguments]
    retrieval = _config("retrieval", ["small"] * small + data)
    if small:
        finetune = [_config("finetune_small", data)]
    elif name in _FINETUNE:
        finetune = [_config(_FINETUNE[name], arguments)]
    else:
        places = zip(("split", "eval_split"), splits.values(), strict=True)
        finetune = [_config("finetune_ucf", arguments), f"--config.data.name={name}"]
        finetune += [f"--config.data.{k}={v}" for k, v in places if v is not None]
        finetune += ["--config.num_classes=0"]
    steps = [
        (
            "what its features are good for, by nearest neighbours",
            [*_MAIN, retrieval, *more, f"--workdir={workdir}_retrieval"],
        ),
        (
            "finetuned to recognise the classes",
            [*_MAIN, *finetune, *more, f"--workdir={workdir}_finetuned"],
        ),
    ]
    # Neighbours are those of held-out videos.
    return steps[1:] if splits["test"] == "" else steps


def _config(name: str, arguments: Sequence[str]) -> str:
    return f"--config=configs/{name}.py" + f":{','.join(arguments)}" * bool(arguments)


def _has_classes(run: Run) -> bool:
    """Whether the videos of a run are of several classes, by what its encoder says."""
    shape = {"provenance": {"class_names": [str]}}
    try:
        about = untrusted.read_json(run.path / "encoder" / "encoder.json", "", shape)
    except UserError:
        return False
    return len(about["provenance"]["class_names"]) > 1


def _workdir(run: Run) -> str:
    """The workdir as it was typed, so that a command works where that one did."""
    for flag in _flags(run.command):
        if flag.startswith("--workdir="):
            return flag.partition("=")[2].rstrip("/")
    return str(run.path)


def _flags(command: Sequence[str]) -> list[str]:
    """The words of a command, with `--name value` as one word, `--name=value`."""
    words: list[str] = []
    for word in command:
        last = words[-1] if words else ""
        known = ("--config", "--workdir", *_OF_LAUNCHER)
        waits = last in known or (last.startswith("--config.") and "=" not in last)
        if waits and not word.startswith("--"):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _changed(
    run: Run, more: Mapping[str, str], suffix: str, without: Iterable[str] = ()
) -> list[str]:
    """The command of a run with other flags, for a workdir beside its own."""
    dropped = (
        tuple(f"--{name}" for name in (*without, "workdir=", *more)) + _OF_LAUNCHER
    )
    kept = [flag for flag in _flags(run.command) if not flag.startswith(dropped)]
    flags = [f"--{name}={value}" for name, value in more.items()]
    return [*kept, *flags, f"--workdir={_workdir(run)}{suffix}"]


def published(command: Sequence[str]) -> list[str]:
    """A command without the names of folders above what it names."""
    words = []
    for word in _flags(command):
        name, equals, value = word.partition("=")
        words.append(
            f"{name}{equals}{files.without_folders(value)}" if equals else word
        )
    return [files.without_folders(word) for word in words]
