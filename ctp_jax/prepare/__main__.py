"""Turns raw videos into a data set: `python -m ctp_jax.prepare NAME ...`.

The data set is made in a folder of its own beside its final place and moved there
when it is whole; a run that was stopped goes on with the shards that are missing.
Processes that decode import this module: nothing heavy at the top.
"""

import functools
import importlib
import os
import pkgutil
import signal
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from etils import epath

from ctp_jax import cli, config
from ctp_jax.data import index, records, storage
from ctp_jax.errors import UserError, causes
from ctp_jax.prepare import beam, builders, provenance, shards, staging

NOTHING = "nothing was kept"


def main(argv: Sequence[str]) -> None:
    """Turns raw videos into a data set of JPEG frames.

    python -m ctp_jax.prepare NAME [--flag=...]
    python -m ctp_jax.prepare NAME --help         the flags of a data set
    """
    signal.signal(signal.SIGTERM, _interrupt)
    print(prepare(*parse(argv)))


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


def parse(argv: Sequence[str]) -> tuple[types.SimpleNamespace, type]:
    """Parses the command line into the flags and the builder of the data set.

    Raises:
        UserError: no such data set, or flags that contradict each other.
    """
    # The host's part has no use for the GPU.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    names = sorted(m.name for m in pkgutil.iter_modules(builders.__path__))
    names = [name for name in names if name not in ("base", "classes", "lists")]
    name = argv[0] if argv else ""
    values = flags.FlagValues()
    if name in ("-h", "--help"):
        cli.parse([name], values, f"{main.__doc__}\n    NAME: {', '.join(names)}")
    if name not in names:
        like = config.closest(name, names)
        raise UserError(
            f"data set {name!r}: needs one of {', '.join(names)}, first"
            + (f"; did you mean {like}?" if like else "")
        )
    builder_class = importlib.import_module(f"{builders.__name__}.{name}").Builder
    builder_class.define_flags(values)
    _define_common(values, name)
    rest = cli.parse(argv, values, builder_class.__doc__)
    if rest:
        raise UserError(f"{rest[0]!r}: not a flag; flags begin with --")
    arguments = types.SimpleNamespace(**values.flag_values_dict())
    if not arguments.name.isidentifier():
        raise UserError(f"--name={arguments.name}: needs letters, digits and _ only")
    return arguments, builder_class


def _define_common(values: flags.FlagValues, name: str) -> None:
    """Defines the flags that every data set has."""
    text = functools.partial(flags.DEFINE_string, flag_values=values)
    number = functools.partial(flags.DEFINE_integer, flag_values=values, lower_bound=0)
    text("name", name, "What to call the result, for config.data.name.")
    text("data_dir", "", "Where to; default: $TFDS_DATA_DIR or ~/tensorflow_datasets.")
    number("short_side", 144, "Pixels; smaller videos are kept.", lower_bound=1)
    number("quality", 90, "Of the JPEG frames.", lower_bound=1, upper_bound=95)
    number("workers", 0, "Processes; 0: one per core.")
    number("shards", 0, "Files to write; 0: one per 512 videos.")
    flags.DEFINE_float(
        "max_bad",
        0.01,
        "Share of unreadable videos to put up with (at least one, unless 0).",
        flag_values=values,
        lower_bound=0,
        upper_bound=1,
    )
    flags.DEFINE_boolean(
        "overwrite",
        False,
        "Replace what is there, once the new one is whole.",
        flag_values=values,
    )
    text("beam_runner", "", "DirectRunner, ...: with Apache Beam; else this machine.")
    flags.DEFINE_multi_string(
        "beam_options", [], "KEY=VALUE,... of the Beam pipeline.", flag_values=values
    )


def prepare(arguments: types.SimpleNamespace, builder_class: type) -> str:
    """Prepares one data set and returns a summary.

    Raises:
        UserError: bad input, too many unreadable videos, a full disk, a data set of this
            name that is prepared otherwise.
    """
    name, root = arguments.name, records.default_data_dir(arguments.data_dir)
    final = os.path.join(root, name, str(builder_class.VERSION))
    try:
        prepared = epath.Path(final, "dataset_info.json").exists()
    except Exception as error:
        if not storage.is_remote(root):
            raise
        # Each kind of store has errors of its own.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"--data_dir={root}: cannot be reached ({reason})") from error
    if prepared and not arguments.overwrite:
        other = provenance.differences(final, vars(arguments))
        if other:
            raise UserError(
                f"{final}: is prepared with {other}: --overwrite makes it anew, another "
                "--name leaves it"
            )
        return f"already prepared (--overwrite makes it anew)\n{summary(name, root)}"
    from ctp_jax.prepare.builders import base  # with TFDS

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
            print(f"note: {note}", file=sys.stderr)
        _make(builder, place, write)
    expected = {split: len(names) for split, names in builder.source.splits.items()}
    text = summary(name, root, expected)
    classes = len(builder.source.class_names)
    if builder.expected_classes not in (0, classes):
        text += (
            f"\n  note: {builder.expected_classes} classes were expected, this has "
            f"{classes}; is it all there?"
        )
    return text


def _writer(arguments: types.SimpleNamespace, place: staging.Staging) -> Callable:
    """What makes the shards: this machine, or a Beam pipeline. Raises `UserError`."""
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


def _make(builder: Any, place: staging.Staging, write: Callable) -> None:
    """Makes the data set and puts it into its place. Raises as `prepare` does."""
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
        kept = _kept(place, orders)
        # Beam wraps what is raised in a worker.
        if any(isinstance(cause, KeyboardInterrupt) for cause in causes(error)):
            print(file=sys.stderr)  # the progress bar has left its line open
            if kept != NOTHING:
                kept += ": run the same command to go on"
            raise KeyboardInterrupt(kept) from None
        if isinstance(error, shards.TooManyBad):
            for video, reason in error.skipped:
                print(f"skipped: {video}: {reason}", file=sys.stderr)
        explained = staging.disk_trouble(error, place.folder, kept)
        if explained:
            raise explained from error
        if kept != NOTHING:
            print(f"note: {kept}", file=sys.stderr)
        raise


def _kept(place: staging.Staging, orders: Sequence[shards.Order]) -> str:
    kept = place.kept(orders)
    if not kept:
        return NOTHING
    return f"{kept} of {len(orders)} shards are kept"


def summary(name: str, root: str, expected: dict[str, int] | None = None) -> str:
    """What lies in a prepared data set, in a few lines.

    Args:
        name: of the data set.
        root: the `data_dir`.
        expected: how many videos each split should have.
    """
    all_of_it = records.open_records(name, "all", root)
    found = index.read(all_of_it.directory)
    frames = int(all_of_it.num_frames.sum())
    size = int(all_of_it.file_size.sum())
    minutes = float((all_of_it.num_frames / all_of_it.fps).sum()) / 60
    lines = [
        f"{name}: {len(all_of_it)} videos, {frames} frames, {minutes:.1f} minutes, "
        + f"{size / 1e6:.1f} MB in {all_of_it.directory}"
    ]
    for split in sorted(set(found.splits) - {"all"}):
        count = f"{len(found.splits[split])}"
        if expected:
            count += f" of {expected[split]}"
        lines.append(f"  {split}: {count} videos")
    if len(found.class_names) == 1:
        lines.append(
            f"  one class, {found.class_names[0]!r}: if these are more, --videos is to "
            "name the folder that holds theirs"
        )
    elif found.class_names:
        lines.append(f"  {len(found.class_names)} classes")
    for file, what, shown in [
        ("skipped.txt", "videos skipped", 10),
        ("missing.txt", "listed videos were not there", 3),
    ]:
        path = epath.Path(all_of_it.directory, file)
        found_there = path.read_text().splitlines() if path.exists() else []
        if found_there:
            lines.append(f"  {len(found_there)} {what}, see {path}:")
            lines += [
                f"    {line.replace(chr(9), ': ')}" for line in found_there[:shown]
            ]
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
