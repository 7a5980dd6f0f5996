"""Prepares a data set from raw videos: `python -m ctp_jax.prepare NAME ...`.

The data set is written into a folder beside its final place and moved there when it is
complete. A run that was stopped resumes with the shards that are missing. Worker
processes import this module: no heavy imports at the top.
"""

import functools
import importlib
import os
import signal
import sys
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from etils import epath

from ctp_jax import cli, config, modules
from ctp_jax.data import index, records
from ctp_jax.errors import UserError, causes, refusal
from ctp_jax.flags import Flags
from ctp_jax.formatting import one_line
from ctp_jax.prepare import beam, builders, provenance, shards, staging, summary
from ctp_jax.storage import remote

if TYPE_CHECKING:
    from ctp_jax.prepare.builders import base

NOTHING = "nothing was kept"


def main(argv: Sequence[str]) -> None:
    """Prepares a data set of JPEG frames from raw videos.

    python -m ctp_jax.prepare NAME [--flag=...]
    python -m ctp_jax.prepare NAME --help         the flags of a data set
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _interrupt)
    arguments, builder_class = parse(argv)
    print(prepare(arguments, builder_class))
    if step := summary.next_step(
        builder_class.CONFIG, arguments.name, arguments.data_dir
    ):
        print(step)


def _interrupt(*_) -> None:
    _hear_no_more()
    raise KeyboardInterrupt


def _hear_no_more() -> None:
    """Nothing cuts the clean-up short: a closing terminal and its shell both send SIGHUP."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if callable(signal.getsignal(number)):
            # Not SIG_IGN: Python prints a trace if one is on its way.
            signal.signal(number, lambda *_: None)


def parse(
    argv: Sequence[str],
) -> tuple[types.SimpleNamespace, "type[base.VideoBuilder]"]:
    """Parses the command line into the flags and the builder of the data set.

    Raises:
        UserError: no such data set, or flags that contradict each other.
    """
    # Preparation needs no GPU.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    names = modules.inside(builders.__name__, "base", "derived", "folders", "lists")
    name = argv[0] if argv else ""
    values = Flags()
    if name in ("-h", "--help"):
        cli.parse([name], values, f"{main.__doc__}\n    NAME: {', '.join(names)}")
    if not name:
        raise UserError(
            "no data set is named: needs one as the first argument, video_folder for "
            f"videos of your own, or one of {', '.join(names)}"
        )
    if name not in names:
        raise UserError(
            f"data set {name!r}: needs one of {', '.join(names)} as the first argument"
            + config.did_you_mean(name, names)
        )
    builder_class = importlib.import_module(names[name]).Builder
    builder_class.define_flags(values)
    _define_common(values, builder_class.NAME or name, builder_class.MAX_BAD)
    rest = cli.parse(argv, values, builder_class.__doc__)
    if rest:
        raise UserError(f"{rest[0]!r}: not a flag; flags begin with --")
    arguments = types.SimpleNamespace(
        **{
            # Shells leave --videos=~/x as it is.
            flag: os.path.expanduser(value) if isinstance(value, str) else value
            for flag, value in values.flag_values_dict().items()
        }
    )
    for flag in builder_class.UNUSED:
        if values[flag].present:
            raise UserError(f"--{flag}: has no use for {name}: leave it out")
    source = getattr(arguments, "from", "")
    arguments.name = arguments.name.replace("{from}", source)
    if not arguments.name.isidentifier():
        raise UserError(
            f"--name={arguments.name}: needs letters, digits and _ only, no digit first"
        )
    if arguments.name == source:
        raise UserError(f"--name={source}: is the data set of --from: choose another")
    return arguments, builder_class


def _define_common(values: Flags, name: str, max_bad: float) -> None:
    """Defines the flags that every data set has."""
    values.string("name", name, "Name of the prepared data set, for config.data.name.")
    values.string(
        "data_dir",
        "",
        "Where to write; default: $TFDS_DATA_DIR or ~/tensorflow_datasets.",
    )
    values.integer(
        "short_side", 144, "Pixels; larger videos are scaled down to it.", lower_bound=1
    )
    values.integer(
        "quality", 90, "Quality of the JPEG frames.", lower_bound=1, upper_bound=95
    )
    values.integer("workers", 0, "Number of processes; 0: one per core.", lower_bound=0)
    values.integer(
        "shards", 0, "Number of files; 0: one per 512 videos.", lower_bound=0
    )
    values.number(
        "max_bad",
        max_bad,
        "Share of the videos that may be unreadable (at least one may be, unless 0).",
        lower_bound=0,
        upper_bound=1,
    )
    values.boolean(
        "overwrite",
        False,
        "Replace an existing data set, once the new one is complete.",
    )
    values.string(
        "beam_runner", "", "Use Apache Beam with this runner: DirectRunner, ..."
    )
    values.strings("beam_options", [], "Options KEY=VALUE,... of the Beam pipeline.")


def prepare(
    arguments: types.SimpleNamespace, builder_class: "type[base.VideoBuilder]"
) -> str:
    """Prepares one data set and returns a summary.

    Raises:
        UserError: bad input, too many unreadable videos, a full disk, or an existing
            data set of this name that was prepared with other flags.
    """
    name, root = arguments.name, records.default_data_dir(arguments.data_dir)
    final = os.path.join(root, name, str(builder_class.VERSION))
    for flag, value in {**vars(arguments), "data_dir": root}.items():
        if isinstance(value, str):
            remote.check_reachable(value, f"--{flag}={value}")
    prepared = epath.Path(final, "dataset_info.json").exists()
    if prepared and not arguments.overwrite:
        other = provenance.differences(final, vars(arguments))
        if other:
            raise UserError(
                f"{final}: is prepared with {other}: pass --overwrite to prepare it "
                "again, or another --name to keep it"
            )
        changed = _changes(final, arguments, builder_class)
        return (
            f"already prepared{changed} (--overwrite prepares it again)\n"
            + summary.describe(name, root)
        )
    from ctp_jax.prepare.builders import base  # imports TFDS

    with staging.staging(root, name, final) as place:
        write = _writer(arguments, place)
        builder = builder_class(
            arguments=arguments,
            options=base.Options(
                short_side=arguments.short_side,
                quality=arguments.quality,
                workers=arguments.workers,
                max_bad=arguments.max_bad,
                shards=arguments.shards,
            ),
            name=name,
            data_dir=place.folder,
        )
        for note in builder.source.notes:
            print(one_line(f"note: {note}"), file=sys.stderr)
        _make(builder, place, write)
    expected = {split: len(names) for split, names in builder.source.splits.items()}
    text = summary.describe(name, root, expected)
    classes = len(builder.source.class_names)
    if builder.expected_classes not in (0, classes):
        text += (
            f"\n  note: {builder.expected_classes} classes were expected, this has "
            f"{classes}: check that no videos or lists are missing"
        )
    return text


def _changes(
    final: str,
    arguments: types.SimpleNamespace,
    builder_class: "type[base.VideoBuilder]",
) -> str:
    """What has changed since the videos were prepared, as far as names and boxes tell."""
    from ctp_jax.prepare.builders import base  # imports TFDS

    try:
        source = builder_class.make_source(arguments, base.Options())
    except UserError:  # prepared data are used without the videos, too
        return ""
    stored, skipped = index.read(final), epath.Path(final, base.SKIPPED_FILE)
    if stored is None or not skipped.exists():
        return ""
    now = {item.id.encode() for item in source.items}
    lines = skipped.read_bytes().splitlines()
    then = {*stored.id_bytes.tolist(), *(line.partition(b"\t")[0] for line in lines)}
    changes = []
    if now != then:
        changes.append(f"{len(now - then)} videos came and {len(then - now)} went")
    if provenance.read(final).get("boxes", source.digest) != source.digest:
        changes.append("the boxes, or what they are made from, changed")
    return ", but since then " * bool(changes) + " and ".join(changes)


def _writer(
    arguments: types.SimpleNamespace, place: staging.Staging
) -> Callable[..., None]:
    """A function that writes shards, here or with Beam. Raises `UserError`."""
    if not arguments.beam_runner:
        if arguments.beam_options:
            raise UserError("--beam_options needs a --beam_runner")
        return functools.partial(shards.write_all, workers=arguments.workers)
    options = [
        option.strip()
        for text in arguments.beam_options
        for option in text.split(",")
        if option.strip()
    ]
    beam.check(arguments.beam_runner, options)
    return functools.partial(
        beam.write_all,
        runner=arguments.beam_runner,
        options=options,
        folder=f"{place.folder}/orders",
    )


def _make(
    builder: "base.VideoBuilder", place: staging.Staging, write: Callable[..., None]
) -> None:
    """Writes the data set and moves it to its final place. Raises as `prepare` does."""
    orders = builder.orders(place.data, place.receipts)
    place.tidy(orders)
    there = place.kept(orders)
    if there:
        print(
            f"note: going on with {there} of {len(orders)} shards from an earlier run",
            file=sys.stderr,
        )
    try:
        made = shards.make(
            orders,
            write,
            name=builder.name,
            max_bad=builder.options.max_bad,
            progress=builder.options.progress,
        )
        place.tidy(orders)
        builder.assemble(place.data, made)
        place.finish()
    except BaseException as error:
        _hear_no_more()
        there = place.kept(orders)
        kept = f"{there} of {len(orders)} shards are kept" if there else NOTHING
        # Beam wraps what is raised in a worker.
        if any(isinstance(cause, KeyboardInterrupt) for cause in causes(error)):
            print(file=sys.stderr)  # ends the line of the progress bar
            resume = ": run the same command to go on" if there else ""
            raise KeyboardInterrupt(kept + resume) from None
        if isinstance(error, shards.TooManyBad):
            for video, reason in error.skipped:
                print(one_line(f"skipped: {video}: {reason}"), file=sys.stderr)
        explained = not isinstance(error, UserError) and refusal(
            error, place.folder, kept
        )
        if explained:
            raise explained from error
        if there:
            print(f"note: {kept}", file=sys.stderr)
        raise


if __name__ == "__main__":
    cli.run(main)
