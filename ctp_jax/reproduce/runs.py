"""The runs that tables need: each once, by the digest of its effective config."""

import copy
import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from ctp_jax import cli, modules
from ctp_jax import config as config_lib
from ctp_jax.errors import UserError, placed
from ctp_jax.reproduce import experiments, specs
from ctp_jax.reproduce.experiments import Column, Experiment, Row
from ctp_jax.storage import untrusted

ROOT = "{root}"
"""In a value of a field: the folder of all runs."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a user chooses for all runs.

    Attributes:
        small: whether small forms take the place of the configs.
        seeds: empty: those of each experiment.
        splits: of data sets that have several.
        data: {data set of the paper: NAME[:TRAIN:TEST]}; '': all others.
        data_dir: where data are; empty: as the configs say.
        overrides: {field: text} for every run that has the field.
    """

    small: bool = False
    seeds: tuple[int, ...] = ()
    splits: tuple[int, ...] = (1,)
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)
    data_dir: str = ""
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)


class NoSmallForm(Exception):
    """A run that cannot be made with --scale=small; says why."""


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run of `ctp_jax.main`.

    Attributes:
        name: of its folder; the same for the same effective config.
        spec: of the config file.
        overrides: of its fields; values may be other runs.
        config: effective; fields that name other runs are empty.
        basis: what makes it another run than others, see `_basis`; fields that change
            no results do count where the experiment sets them.
        needs: runs that are made before.
    """

    name: str
    spec: str
    overrides: Mapping[str, Any]
    config: ConfigDict
    basis: Mapping[str, Any]
    needs: tuple["Run", ...]

    @functools.cached_property
    def level(self) -> int:
        """Runs in the longest chain that ends before this one."""
        return max((run.level + 1 for run in self.needs), default=0)

    @property
    def trains(self) -> bool:
        """Whether it trains, or only evaluates."""
        return bool(self.config.steps or self.config.epochs)

    def command(self, root: str) -> list[str]:
        """The command line, without `python`, with its workdir in `root`."""
        values = {
            field: f"{root}/{value.name}" if isinstance(value, Run) else value
            for field, value in self.overrides.items()
        }
        return [
            "-m",
            "ctp_jax.main",
            f"--config={self.spec}",
            *(f"--config.{k}={v}".replace(ROOT, root) for k, v in values.items()),
            f"--workdir={root}/{self.name}",
            "--stopped_exit_code=75",
        ]


class Runs:
    """All runs of some experiments.

    Attributes:
        by_name: each run once.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.by_name: dict[str, Run] = {}
        self._overridden: set[str] = set()

    def cells(self, experiment: Experiment) -> dict[tuple[str, str], list[Run] | str]:
        """{(name of a row, label of a column): its runs, or why there are none}."""
        found: dict[tuple[str, str], list[Run] | str] = {}
        for row in experiment.rows:
            for column in experiment.columns:
                try:
                    made = row.missing or self.cell(experiment, row, column)
                except NoSmallForm as why:
                    made = str(why)
                found[row.name, column.label] = made
        return found

    def cell(self, experiment: Experiment, row: Row, column: Column) -> list[Run]:
        """The runs of a cell, for every split and seed; `NoSmallForm` where it has none."""
        if row.chance or not row.has(column.label):
            return []
        pretrain = row.pretrain
        if isinstance(pretrain, str):
            pretrain = {"config": pretrain}
        described = pretrain
        if column.run is not None:
            described = _merged(column.run, row.transfer)
            described |= {"init_from": pretrain} if pretrain else {}
        if described is None:
            return []
        found = {}
        for split in self.settings.splits:
            for seed in self.settings.seeds or experiment.seeds:
                values = {"split": str(split), **column.values}
                with placed(_place(experiment, row, column)):
                    run = self._make(described, values, seed)
                found[run.name] = run
        return list(found.values())

    def _make(self, described: Mapping[str, Any], values, seed: int) -> Run:
        """The run of a description, and before it the runs that it needs."""
        spec, described = self._at_scale(described, values)
        config = copy.deepcopy(_load(spec))
        fields = {k: v for k, v in described.items() if k not in experiments.RUN}
        needs = {
            field: self._make(value, values, seed)
            for field, value in fields.items()
            if experiments.is_run(value)
        }
        for field, value in list(fields.items()):
            # Checks the field of a run, too.
            if specs.assign(config, field, "" if field in needs else value, spec):
                continue
            del fields[field]  # so that equal runs have equal commands
        counted = {*fields}  # even of those that change no results
        overridden = self._override(config, spec)
        frames = described.get("frames")
        if frames and "steps" not in overridden:
            steps = _steps_of(config, frames)
            if specs.assign(config, "steps", steps, spec):
                fields["steps"] = steps
        if self.settings.data_dir:
            config.data.data_dir = fields["data.data_dir"] = self.settings.data_dir
        config.seed = seed
        config_lib.validate(config)
        basis = _basis(config, counted)
        basis |= {field: f"run {run.name}" for field, run in needs.items()}
        name = _name(config, basis, needs)
        overrides = {**fields, **overridden, "seed": seed, **needs}
        made = Run(name, spec, overrides, config, basis, tuple(needs.values()))
        return self.by_name.setdefault(name, made)

    def _override(self, config: ConfigDict, spec: str) -> dict[str, Any]:
        """Sets the fields that the user overrides for all runs, where there are such."""
        found = {}
        trains = config.steps or config.epochs
        for field, text in self.settings.overrides.items():
            length = field in ("steps", "epochs")
            if field not in config_lib.flatten(config) or (length and not trains):
                continue
            if field == "epochs" and config.steps:
                raise UserError(
                    f"--override=epochs: {spec} has config.steps = {config.steps}, which "
                    "counts: give --override=steps=N"
                )
            found[field] = specs.parse(config, field, text)
            specs.assign(config, field, found[field], spec)
            self._overridden.add(field)
        return found

    def _at_scale(self, described, values) -> tuple[str, dict[str, Any]]:
        """(config with arguments, the description) at the scale that is chosen."""
        small = described.get("small", {}) if self.settings.small else {}
        if small is None or isinstance(small, str):
            raise NoSmallForm(small or "it has no small form")
        large, described = described["config"], _merged(described, small)
        spec = specs.with_arguments(described["config"], described.get("arguments", ""))
        if self.settings.small and "config" not in small:
            spec = specs.small_form(spec, self.settings.data)
        elif small:
            values = {"data": specs.chosen(large, self.settings.data), **values}
        try:
            spec = spec.format_map(values)
        except (KeyError, ValueError, IndexError) as error:
            raise UserError(f"config {spec!r}: no value for {error}") from error
        return specs.path(spec), described

    def check_settings(self) -> None:
        """Raises `UserError` for settings that no run follows, or that the table makes."""
        names = {run.config.data.name for run in self.by_name.values()}
        given = [text.partition(":")[0] for text in self.settings.data.values()]
        of_paper = tuple(experiments.shared()["DATA"])
        if (
            given
            and not self.settings.small
            and any(n.startswith(of_paper) for n in names)
        ):
            raise UserError(
                "--data: the full-size tables are on the paper's data: needs --scale=small"
            )
        # Some may be for columns that are left out; flow and tracks have longer names.
        followed = any(name.startswith(each) for name in names for each in given)
        if names and given and not followed:
            raise UserError(
                f"--data={', '.join(given)}: no run here is on data of the paper, but on "
                f"{', '.join(sorted(names))}: name data as the table's file does, of "
                f"`methods` as methods:data={'+'.join(self.settings.data.values())}"
            )
        every = [run.overrides.items() for run in self.by_name.values()]
        needs = {k for each in every for k, v in each if isinstance(v, Run)}
        for field in self.settings.overrides:
            if field == "seed":
                raise UserError("--override=seed: --seeds sets it: give that")
            if field in needs:
                raise UserError(
                    f"--override={field}: the table sets it to another of its runs: write "
                    "one of your own (docs/experiments.md)"
                )
            if self.by_name and field not in self._overridden:
                configs = [run.config for run in self.by_name.values()]
                known = {name for each in configs for name in config_lib.flatten(each)}
                hint = config_lib.suggestion(field, sorted(known))
                raise UserError(f"--override={field}: no run has this field; {hint}")


@functools.cache
def _load(spec: str) -> ConfigDict:
    return cli.load_config(spec)


def _place(experiment: Experiment, row: Row, column: Column) -> str:
    return f"{experiment.name}, row {row.name!r}, column {column.label!r}"


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The second goes before the first; forms for --scale=small are merged, too."""
    merged = {**first, **second}
    inner = first.get("small"), second.get("small")
    if isinstance(inner[0], Mapping) and isinstance(inner[1], Mapping):
        merged["small"] = {**inner[0], **inner[1]}
    return merged


def _steps_of(config: ConfigDict, frames: int) -> int:
    """Steps until so many frames have been seen."""
    return max(1, round(frames / (config.batch_size * specs.frames_per_video(config))))


def _basis(config: ConfigDict, counted: Iterable[str]) -> dict[str, Any]:
    """A config without what changes no results, unless it is among the counted fields.

    Code of the user's that it names counts, by a digest.
    """
    flat = config_lib.flatten(config_lib.as_dict(config)) | modules.digests(config)
    return {
        field: value
        for field, value in flat.items()
        if field in counted or not field.startswith(config_lib.PLUMBING)
    }


def _name(config: ConfigDict, basis: Mapping[str, Any], needs) -> str:
    """`recognition-ucf101-r3d18-from-ctp-s0-1a2b3c4d`: told by a person and by digest."""
    digest = untrusted.json_digest(basis)[:10]
    start = needs.get("init_from")
    last = config.task.rpartition(".")[2], config.model.name.rpartition(".")[2]
    parts = [last[0], config.data.name, last[1]]
    parts += ["from", start.config.task.rpartition(".")[2]] if start else []
    words = [re.sub(r"\W+", "_", each) for each in parts]
    return "-".join([*words, f"s{config.seed}", digest])


def in_order(runs: Iterable[Run]) -> list[Run]:
    """All runs and what they need, each once and after what it needs.

    By `level`, so that shards find what they need made by the others at the same time.
    """

    def all_of(runs) -> Iterator[Run]:
        for run in runs:
            yield from all_of(run.needs)
            yield run

    by_name = {run.name: run for run in all_of(runs)}
    return sorted(by_name.values(), key=lambda run: run.level)
