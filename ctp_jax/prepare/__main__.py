"""Turns raw videos into a data set: `python -m ctp_jax.prepare NAME ...`.

The data set is made in a folder of its own beside its final place and moved there
when it is whole; a run that was stopped goes on with the shards that are missing.
Processes that decode import this module: nothing heavy at the top.
"""

import argparse
import functools
import importlib
import os
import pkgutil
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from ctp_jax import config
from ctp_jax.data import index, records, storage
from ctp_jax.errors import UserError, causes
from ctp_jax.prepare import beam, builders, provenance, shards, staging

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
NOTHING = "nothing was kept"


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares a data set; returns the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        arguments, builder_class = parse(sys.argv[1:] if argv is None else argv)
        print(prepare(arguments, builder_class))
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        # On a line of its own: the progress bar has left its line open.
        kept = str(interrupt) or NOTHING
        if kept != NOTHING:
            kept += ": run the same command to go on"
        print(f"\nerror: interrupted; {kept}", file=sys.stderr)
        return INTERRUPTED


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UserError(f"{message}; see --help")


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, type]:
    """Parses the command line into the flags and the builder of the data set.

    Raises:
        UserError: no such data set, or flags that contradict each other.
    """
    _quieten()
    names = sorted(m.name for m in pkgutil.iter_modules(builders.__path__))
    names = [name for name in names if name not in ("base", "classes", "lists")]
    parser = _Parser(
        "python -m ctp_jax.prepare",
        description="Turns raw videos into a data set of JPEG frames.",
        epilog="`python -m ctp_jax.prepare NAME --help` shows the flags of a data set.",
    )
    parser.add_argument("dataset", metavar="NAME", help=", ".join(names))
    name = argv[0] if argv else ""
    if name in ("-h", "--help"):
        parser.parse_args(argv)
    if name not in names:
        like = config.closest(name, names)
        raise UserError(
            f"data set {name!r}: needs one of {', '.join(names)}, first"
            + (f"; did you mean {like}?" if like else "")
        )
    module = importlib.import_module(f"{builders.__name__}.{name}")
    builder_class = module.Builder
    parser = _Parser(
        f"python -m ctp_jax.prepare {name}",
        description=builder_class.__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("dataset", metavar=name, choices=[name], help=argparse.SUPPRESS)
    builder_class.add_arguments(parser)
    _add_common(parser, name)
    arguments = parser.parse_args(argv)
    if not arguments.name.isidentifier():
        raise UserError(f"--name={arguments.name}: needs letters, digits and _ only")
    if not 1 <= arguments.quality <= 95 or arguments.short_side < 1:
        raise UserError(
            f"--quality={arguments.quality} --short_side={arguments.short_side}: needs "
            "a quality of 1 to 95 and a side of at least 1 pixel"
        )
    if not 0 <= arguments.max_bad <= 1 or min(arguments.workers, arguments.shards) < 0:
        raise UserError(
            f"--max_bad={arguments.max_bad} --workers={arguments.workers} "
            f"--shards={arguments.shards}: needs a share from 0 to 1 and no negative "
            "number of processes or files"
        )
    return arguments, builder_class


def _add_common(parser: argparse.ArgumentParser, name: str) -> None:
    add = parser.add_argument_group("for every data set").add_argument
    add("--name", default=name, help="what to call the result, for config.data.name")
    add("--data_dir", default="", help="where to; $TFDS_DATA_DIR if empty, else ~/tensorflow_datasets")  # fmt: skip
    add("--short_side", type=int, default=144, help="pixels; smaller videos are kept")
    add("--quality", type=int, default=90, help="of the JPEG frames")
    add("--workers", type=int, default=0, help="processes; 0: one per core")
    add("--max_bad", type=float, default=0.01, help="share of unreadable videos to put up with (at least one, unless 0)")  # fmt: skip
    add("--shards", type=int, default=0, help="files to write; 0: one per 512 videos")
    add("--overwrite", action="store_true", help="replace what is there, once the new one is whole")  # fmt: skip
    add("--beam_runner", default="", help="DirectRunner, DataflowRunner, ...: with Apache Beam; else on this machine")  # fmt: skip
    add("--beam_options", action="append", default=[], metavar="KEY=VALUE,...", help="of the Beam pipeline; can be repeated")  # fmt: skip


def _quieten() -> None:
    """Keeps TensorFlow's and TFDS's chatter from the user. Call before the import."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    from absl import logging

    logging.set_verbosity(logging.ERROR)


def prepare(arguments: argparse.Namespace, builder_class: type) -> str:
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


def _writer(arguments: argparse.Namespace, place: staging.Staging) -> Callable:
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
    sys.exit(main())
