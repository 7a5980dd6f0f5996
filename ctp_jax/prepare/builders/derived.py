"""Data sets that are made from a prepared one, --from: its records with something added.

Frames, labels, splits and what the records have besides stay as they are.
"""

import contextlib
import dataclasses
import functools
import hashlib
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from ctp_jax.data import index, records
from ctp_jax.errors import UserError
from ctp_jax.flags import Flags
from ctp_jax.formatting import duration
from ctp_jax.prepare import shards, video, workers
from ctp_jax.prepare import stored as stored_lib
from ctp_jax.prepare.builders import base


class Derived(base.VideoBuilder):
    """Subclasses say what they add, and how."""

    encode: Callable[..., video.EncodedVideo]
    """Of (record, name of the video, options)."""
    write_statistics: Callable[[str, Mapping[str, stored_lib.Stored], Any], list[str]]
    """Of (folder, records, options), once all are finished: gives lines for the summary."""

    @classmethod
    def define_flags(cls, values: Flags) -> None:
        about = "Only these splits, as train01,test01; default: all."
        values.string("from", "", "Name of the prepared data set.")
        values.list("split", [], about)

    @classmethod
    def read_options(cls, arguments: types.SimpleNamespace) -> Any:
        """What decides the contents, from the flags. Raises `UserError`."""
        raise NotImplementedError

    @classmethod
    def add(cls, source: base.Source, options: Any, name: str) -> base.Source:
        """The source with what is added declared.

        Args:
            source: declares what the records of the data set have.
            options: of `read_options`.
            name: of the data set.

        Raises:
            UserError: it is there already.
        """
        raise NotImplementedError

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        name, data_dir = getattr(arguments, "from"), getattr(arguments, "data_dir", "")
        if not name:
            raise UserError("--from: needs the name of a prepared data set")
        directory, found = records.open_index(name, data_dir)
        splits = {s: n.tolist() for s, n in found.splits.items() if s != "all"}
        for split in arguments.split:
            if split not in splits:
                raise UserError(
                    f"--split={split}: data set {name!r} has {', '.join(sorted(splits))}"
                )
        wanted: set[int] = set(range(len(found.offset)))
        if arguments.split:
            splits = {split: splits[split] for split in arguments.split}
            wanted = set().union(*splits.values())
        own = {n: tuple(shape) for n, shape in found.features.annotations.items()}
        names = [each.decode(errors="backslashreplace") for each in found.id_bytes]
        source = base.Source(
            items=(),
            splits={s: [names[n] for n in numbers] for s, numbers in splits.items()},
            class_names=found.class_names,
            annotations=own,
            flow=bool(found.features.other),
        )
        how = cls.read_options(arguments)
        source = cls.add(source, how, name)
        stored = stored_lib.find(directory, found)
        items = [
            base.Item(
                id=names[n],
                label=int(found.label[n]),
                encode=functools.partial(cls.encode, stored[n], names[n], how),
            )
            for n in sorted(wanted)
        ]
        checksums = [stored[n].checksum for n in sorted(wanted)]
        content = repr((found.features.digest, how, checksums))
        digest = hashlib.sha256(content.encode()).hexdigest()
        return dataclasses.replace(source, items=items, digest=digest)

    def orders(self, folder: str, receipts: str) -> list[shards.Order]:
        """As `base.VideoBuilder.orders`; says how long it will take."""
        orders = super().orders(folder, receipts)
        _announce(self.source.items, self.options.workers or workers.available_cores())
        return orders

    def write_more(self, folder: str, found: index.Index) -> None:
        """Statistics and pictures."""
        names = [each.decode() for each in found.id_bytes]
        stored = stored_lib.find(epath.Path(folder), found)
        lines = self.write_statistics(
            folder,
            dict(zip(names, stored, strict=True)),
            self.read_options(self.arguments),
        )
        epath.Path(folder, base.SUMMARY_FILE).write_text("\n".join(lines) + "\n")


def _announce(items: Sequence[workers.Item], cores: int) -> None:
    """Says how long it will take, after trying a few videos."""
    if len(items) < _ESTIMATED_FROM:
        return
    tried, start = items[:: len(items) // 2], time.perf_counter()
    for item in tried:
        with contextlib.suppress(video.VideoError):
            item.encode()
    each = (time.perf_counter() - start) / len(tried)
    print(
        f"note: {each:.1f} s per video of those tried: about "
        f"{duration(each * len(items) / cores)} for {len(items)} videos on {cores} cores",
        file=sys.stderr,
    )


_ESTIMATED_FROM = 50
"""Videos; of fewer, the progress bar soon says it."""
