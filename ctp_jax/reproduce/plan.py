"""What is missing before runs can start, and how many hours they take."""

import contextlib
import functools
import json
import math
import os
import pathlib
import shlex
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ctp_jax import config as config_lib
from ctp_jax import metrics_file
from ctp_jax.data import records
from ctp_jax.errors import UserError
from ctp_jax.formatting import count, duration, wrapped
from ctp_jax.reproduce import experiments, specs
from ctp_jax.reproduce import runs as runs_lib
from ctp_jax.reproduce.runs import Run
from ctp_jax.storage import files, untrusted

MARK = "reproduce.json"
"""In the folder of a run: its command, the basis of its name, digests of its videos, the
seconds that it took so far, and, once it is made, `clips`."""
LOG = "log.txt"
"""Likewise: what it printed."""
FAILED = "failed.txt"
"""Likewise: why it failed, or which run that it needs, for workers that wait for it."""

REFERENCE = 16 * 112 * 112
"""Pixels of the clips that clips per second are of; others cost in proportion."""

_EVALUATED = 1 / 3
"""Cost of a clip that is only evaluated: no backward pass."""


def command_of(run: Run) -> str:
    """The command of a run as it is compared: without the folder of all runs."""
    arguments = run.command(runs_lib.ROOT)
    return shlex.join(each for each in arguments if not each.startswith("--workdir="))


def is_finished(run: Run, root: str | os.PathLike) -> bool:
    """Whether a run is complete: it exports its encoder last, or only evaluates."""
    folder = pathlib.Path(root, run.name)
    if run.trains:
        return (folder / "encoder" / "encoder.json").is_file()
    return any(line["kind"] == "eval" for line in _lines(folder))


def state(run: Run, root: str | os.PathLike) -> str:
    """'finished', 'failed', 'begun', or '' for a run that nobody started."""
    folder = pathlib.Path(root, run.name)
    if is_finished(run, root):
        return "finished"
    if (folder / FAILED).exists() and (folder / LOG).exists():
        return "failed"
    return "begun" if (folder / "metrics.jsonl").exists() else ""


def _lines(folder: pathlib.Path) -> list[dict]:
    try:
        return metrics_file.read(folder / "metrics.jsonl")[0]
    except OSError:
        return []


def _marks(root: str) -> Iterator[tuple[pathlib.Path, dict]]:
    """The folders of runs in `root` with what `MARK` says there."""
    for path in sorted(pathlib.Path(root).glob(f"*/{MARK}")):
        with contextlib.suppress(OSError, ValueError):
            shape = {"command": str, "basis": dict}
            yield path.parent, untrusted.load_json(path, shape)


def mark_of(run: Run) -> dict[str, Any]:
    """The contents of `MARK` for a run that starts."""
    return {"command": command_of(run), "basis": run.basis, "videos": _videos(run)}


def note(folder: pathlib.Path, mark: Mapping[str, Any], seconds: float = 0.0) -> None:
    """Writes `MARK` of a run, over what is there; adds seconds to those that it took."""
    known = {}
    with contextlib.suppress(OSError, ValueError):
        known = untrusted.load_json(folder / MARK)
    seconds += _number(known, "seconds") or 0.0
    with files.replacing(folder / MARK) as new:
        new.write_text(
            json.dumps({**known, **mark, "seconds": seconds}, indent=1) + "\n"
        )


def _number(mark: Mapping[str, Any], name: str) -> float | None:
    value = mark.get(name)
    return value if isinstance(value, (int, float)) else None


def _videos(run: Run) -> dict[str, str]:
    """{split: digest} of the splits of a run that are there."""
    found, data = {}, run.config.data
    for split in filter(None, (data.split, data.eval_split)):
        with contextlib.suppress(UserError):
            found[split] = _digest(data.name, split, data.data_dir)
    return found


def check_unchanged(runs: Iterable[Run], root: str) -> None:
    """Raises `UserError` where other runs or data are meant than those in `root`.

    That is so if a config file has changed since, or with another data set of the same
    name: old results are not mixed with new ones.
    """
    marks = list(_marks(root))
    made = {mark["command"]: (folder, mark["basis"]) for folder, mark in marks}
    videos = {folder.name: mark.get("videos", {}) for folder, mark in marks}
    for run in runs:
        before = videos.get(run.name, {})
        for split, digest in _videos(run).items() if before else ():
            if before.get(split, digest) != digest:
                raise UserError(
                    f"{os.path.join(root, run.name)}: split {split} of {run.config.data.name} "
                    "had other videos, or boxes, when this run was made: name those with "
                    "--data_dir, move the folder away, or use another --root"
                )
        folder, before = made.get(command_of(run), (None, {}))
        if folder is None or folder.name == run.name:
            continue
        changed = config_lib.differences(before, run.basis)
        fields = ", ".join(f"{name} {text}" for name, text in changed.items())
        raise UserError(
            f"{folder}: the config of this run has changed since: {fields}: change it "
            "back, move the folder away to make the run anew, or use another --root"
        )


def check_there(runs: Iterable[Run], root: str, made_by: Mapping[str, str]) -> None:
    """Raises `UserError` if anything is `missing`, with all of it."""
    if found := missing(runs, root, made_by):
        each = [
            f"({n}) {what}: {how}" for n, (what, how) in enumerate(found.items(), 1)
        ]
        raise UserError(
            f"not there yet: {'; '.join(each)}. Then the same command again, or leave out "
            "what needs them: --rows, --columns"
        )


def missing(
    runs: Iterable[Run], root: str, made_by: Mapping[str, str]
) -> dict[str, str]:
    """{data or file that is not there: how to make it}.

    Args:
        runs: that are to be made.
        root: the folder of all runs.
        made_by: see `Experiment`.
    """
    remedies: dict[str, str] = {}
    for run in runs:
        data = run.config.data
        follow = specs.clip_spec(run.config).follow
        for split in filter(None, (data.split, data.eval_split)):
            if found := _why_not(data.name, split, data.data_dir, follow):
                remedies.setdefault(*found)
        for value in run.overrides.values():
            if isinstance(value, str) and runs_lib.ROOT in value:
                path = value.replace(runs_lib.ROOT, root)
                if not os.path.exists(path):
                    remedy = made_by.get(value, "put it there")
                    remedies[path] = remedy.replace(runs_lib.ROOT, root)
    return remedies


@functools.cache
def _why_not(name: str, split: str, data_dir: str, follow) -> tuple[str, str] | None:
    """(what is missing, how to make it), or None if the split is prepared.

    `follow`: of a `ClipSpec`.
    """
    folder = records.default_data_dir(data_dir)
    try:
        records.find_directory(name, folder)
    except UserError:
        how = records.prepare_command(name, data_dir, follow, split=split)
        hint = config_lib.did_you_mean(name, records.prepared(folder))
        return f"data set {name}", how + hint
    try:
        records.check_followed(_open(name, split, data_dir), follow)
        return None
    except UserError as error:
        return f"data set {name}", str(error).removeprefix(f"data set {name!r} ")


@functools.cache
def _open(name: str, split: str, data_dir: str) -> records.Records:
    return records.open_records(name, split, data_dir)


@functools.cache
def _digest(name: str, split: str, data_dir: str) -> str:
    return _open(name, split, data_dir).digest()


def clips(run: Run, published: bool = False) -> float | None:
    """What a run computes, in training steps of clips of `REFERENCE` pixels.

    Counts frames of training and evaluation; all networks count alike.

    Args:
        run: to be made.
        published: take the sizes of data sets as published, whatever is prepared.

    Returns:
        None where the size of a data set is not known.
    """
    from ctp_jax.evaluators import base  # not above: it imports JAX

    config, data = run.config, run.config.data

    def size_of(split):
        if not published:
            with contextlib.suppress(UserError):
                return len(_open(data.name, split, data.data_dir))
        return experiments.shared()["SIZES"].get((data.name, split))

    size, held_out = size_of(data.split), data.eval_split and size_of(data.eval_split)
    if size is None or held_out is None:
        return None
    used = size * data.fraction
    epochs = config.steps * config.batch_size / used or config.epochs
    frames = specs.frames_per_video(config) * used * epochs
    passes = set()  # evaluators that look at the same share one
    for name, options in config.evaluators.items() if held_out else ():
        videos = options.videos or data.eval_videos or held_out
        every = options.every or config.eval_every
        times = max(1, math.floor(epochs / every)) if every else 1
        looks_at = base.load(name, options).LOOKS_AT
        tested = config.test.num_clips if "test" in config else 1
        if looks_at == "features":
            gallery = min(used, config.probe.gallery_videos or used)
            tested, videos = config.probe.num_clips, videos + gallery
        passes.add((looks_at, times * tested * videos * config.clip.num_frames))
    frames += _EVALUATED * sum(each for _, each in passes)
    return frames * config.clip.size**2 / REFERENCE


class Rates:
    """Clips of `REFERENCE` pixels per second: measured in the runs there are, or given."""

    def __init__(self, root: str, given: float | None):
        """Reads what the runs in `root` took, of whatever table they are."""
        self._given, self._rates, self._more = given, {}, {}
        for folder, mark in _marks(root):
            kind, lines = _kind(mark["basis"]), _lines(folder)
            took, amount = _number(mark, "seconds"), _number(mark, "clips")
            found = [x["clips_per_second"] for x in lines if x.get("clips_per_second")]
            if found:
                rate = statistics.median(found) * _share(mark["basis"])
            elif took and amount:
                rate = amount / took  # it only evaluates
            else:
                continue
            self._rates.setdefault(kind, []).append(rate)
            if took and amount:
                more = max(0.0, took - amount / rate)
                self._more.setdefault(kind, []).append(more)

    def hours(self, run: Run) -> float | None:
        """Hours of a run: its start, compiling included, and its clips.

        None if that cannot be told.
        """
        kind = _kind(run.basis)
        measured = self._rates.get(kind)
        rate = statistics.median(measured) if measured else self._given
        amount = clips(run) if rate else None
        if amount is None or not rate:
            return None
        return (statistics.median(self._more.get(kind, [0.0])) + amount / rate) / 3600


def _kind(basis: Mapping[str, Any]) -> tuple:
    """Runs of one kind are as fast, in pixels."""
    return tuple(basis.get(each) for each in ("task", "model.name", "model.width"))


def _share(basis: Mapping[str, Any]) -> float:
    """Pixels of a clip, of `REFERENCE`."""
    frames, size = basis.get("clip.num_frames", 0), basis.get("clip.size", 0)
    return frames * size**2 / REFERENCE


def places(cells: Mapping[tuple[str, str], Sequence[Run] | str]) -> dict[str, str]:
    """{name of a run: its place in the table}, 'row R: C', or 'row R' if others need it.

    Of several places the first, with their number.
    """
    found: dict[str, dict[str, None]] = {}
    for (row, column), runs in cells.items():
        for run in () if isinstance(runs, str) else runs:
            for needed in runs_lib.in_order(run.needs):
                found.setdefault(needed.name, {})[f"row {row}"] = None
            found.setdefault(run.name, {})[f"row {row}: {column}"] = None
    return {
        name: first + f" and {len(more)} more" * bool(more)
        for name, (first, *more) in found.items()
    }


def lines(
    runs: Sequence[Run],
    everything: Sequence[Run],
    root: str,
    rates: Rates,
    of: Mapping[str, str],
) -> list[str]:
    """The plan: a line for each run, with its place in `of`, and the sum of what is left.

    Numbers are those in `everything`, of all shards.
    """
    texts, total, unknown, of_known_data = [], 0.0, 0, False
    width = max((len(run.name) for run in runs), default=0)
    numbers = {run.name: number for number, run in enumerate(everything, 1)}
    for run in runs:
        text = state(run, root)
        if text != "finished":
            hours = rates.hours(run)
            total, unknown = total + (hours or 0), unknown + (hours is None)
            of_known_data |= hours is None and clips(run) is not None
            time = "time unknown" if hours is None else duration(3600 * hours)
            text = time + f" ({text})" * bool(text)
        needs = ", ".join(str(numbers[needed.name]) for needed in run.needs)
        parts = [
            f"{numbers[run.name]:>4}",
            f"{run.name:<{width}}",
            text,
            f"after {needs}" * bool(needs),
        ]
        texts.append(wrapped([*filter(None, parts), of[run.name]], indent=" " * 6))
    left = sum(not is_finished(run, root) for run in runs)
    line = f"{count(len(runs), 'run')}, {left} to make"
    if unknown < left or not left:
        line += f": {duration(3600 * total)}"
    if unknown:
        line += f"{', and' if unknown < left else ':'} {unknown} of unknown length"
        if of_known_data:
            line += (
                ".\nThe unknown times follow from --clips_per_second=N, of R3D-18 on 16 "
                "frames of 112 pixels,\nor from the first run of each kind"
            )
        else:
            line += ", whose data are not there"
    return [*texts, line]
