"""Base class of the builders: writes a TFDS data set and its index.

Every video is stored once, in the TFDS split `videos`. The splits of the user
(`train01`, `test`, ...) are lists of record numbers in the index beside the shards
(`ctp_jax.data.index`). The shards are written by `ctp_jax.prepare.shards`, not by TFDS:
its writer assigns videos to shards after it has read all of them, so it can neither
resume nor write the same files with Beam.
"""

import dataclasses
import functools
import os
import tempfile
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import dataset_builder

from ctp_jax.data import index
from ctp_jax.errors import UserError
from ctp_jax.flags import Flags
from ctp_jax.formatting import one_line
from ctp_jax.prepare import provenance, repeated, shards
from ctp_jax.prepare import schema as schema_lib
from ctp_jax.prepare.workers import Item, Options

SKIPPED_FILE = "skipped.txt"
"""Beside the shards: one line `file<TAB>reason` per unreadable video."""
MISSING_FILE = "missing.txt"
"""Beside the shards: one line `split<TAB>file` per listed video without a file."""
REPEATED_FILE = "repeated.txt"
"""Beside the shards: one line `split: file<TAB>same as split: file` per video that has the
same frames as one in another split."""

SUMMARY_FILE = "summary.txt"
"""Beside the shards: lines that a builder adds to the summary; most write none."""


@dataclasses.dataclass(frozen=True)
class Source:
    """The videos to prepare.

    Attributes:
        items: the videos.
        splits: names of the videos of each split.
        class_names: in the order of the labels; empty for unlabelled videos.
        annotations: {name: shape per frame} of the `EncodedVideo.annotations` that
            every video has.
        flow: whether every video has flow frames.
        missing: (split, name) of listed videos without a file.
        notes: lines to print before the videos are encoded.
        digest: of the contents of the files that the annotations come from.
    """

    items: Sequence[Item]
    splits: Mapping[str, Sequence[str]]
    class_names: Sequence[str] = ()
    annotations: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    flow: bool = False
    missing: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    digest: str = ""


# TFDS has no types; pyright looks for the keyword in those of `object`.
class VideoBuilder(  # pyright: ignore[reportGeneralTypeIssues]
    dataset_builder.FileReaderBuilder,
    skip_registration=True,  # pyright: ignore[reportCallIssue]
):
    """Base class of the builders; a data set says what it is in `source`."""

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = ""
    HOMEPAGE = ""
    NAME = ""
    """Default of `--name`, in which {from} is that flag; empty: the builder's name."""
    CLASSES = 0
    """Number of classes of the complete data set; 0: any number."""
    MAX_BAD = 0.01
    """Default of `--max_bad`."""
    UNUSED = ()
    """Of the flags that all data sets have, those that do nothing here."""
    CONFIG = ""
    """A config, perhaps with arguments, for any data set that is prepared like this; empty:
    the documentation names others."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Keeps data sets out of TFDS's registry: their names may be taken there."""
        super().__init_subclass__(skip_registration=True, **kwargs)

    def __init__(
        self,
        *,
        arguments: types.SimpleNamespace | None = None,
        options: Options | None = None,
        name: str = "",
        **kwargs: Any,
    ):
        """Lists the videos without reading them.

        Args:
            arguments: from `read_flags`; None: the defaults.
            options: how to prepare; None: the defaults.
            name: of the prepared data set; empty: that of the builder.
            **kwargs: of the TFDS builder, such as `data_dir`.

        Raises:
            UserError: missing folders, bad split lists.
        """
        self.options = options or Options()
        arguments = self.read_flags() if arguments is None else arguments
        if name:
            self.name = name
        self.arguments = arguments
        self.source = self.make_source(arguments, self.options)
        super().__init__(**kwargs)

    @property
    def expected_classes(self) -> int:
        """`CLASSES`, or that of the variant if a builder has several."""
        return self.CLASSES

    @classmethod
    def define_flags(cls, values: Flags) -> None:
        """Defines the flags that only this data set has."""

    @classmethod
    def read_flags(cls, *argv: str) -> types.SimpleNamespace:
        """The values of the flags of `define_flags` in a command line, by name."""
        values = Flags()
        cls.define_flags(values)
        values(["", *argv])
        return types.SimpleNamespace(**values.flag_values_dict())

    @classmethod
    def make_source(cls, arguments: types.SimpleNamespace, options: Options) -> Source:
        """Lists the videos, splits and classes."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            homepage=self.HOMEPAGE,
            features=self.schema.features(),
        )

    @property
    def schema(self) -> schema_lib.Schema:
        """The schema of every record."""
        return schema_lib.Schema(
            tuple(self.source.class_names),
            dict(self.source.annotations),
            self.source.flow,
        )

    @property
    def flags(self) -> dict[str, Any]:
        """The flags that decide what is written, by name."""
        options = dataclasses.asdict(self.options)
        wanted = ("short_side", "quality", "shards")
        return vars(self.arguments) | {name: options[name] for name in wanted}

    def orders(self, folder: str, receipts: str) -> list[shards.Order]:
        """The shards to write.

        Args:
            folder: of the shards.
            receipts: folder of their receipts.

        Raises:
            UserError: there is no video.
        """
        if not self.source.items:
            raise UserError(
                f"{self.name}: no videos to prepare: check the folders and lists in the "
                "flags"
            )
        dealt = shards.deal(self.source.items, self.options.shards)
        versions = provenance.versions()
        about = {
            "name": self.name,
            "version": str(self.VERSION),
            "schema": dataclasses.asdict(self.schema),
            "made with": versions,
            "annotations": self.source.digest,
        }
        fingerprint = provenance.fingerprint(about, dealt)
        template = self._get_filename_template(index.STORED_SPLIT)
        files = [
            template.sharded_filepath(shard_index=i, num_shards=len(dealt)).name
            for i in range(len(dealt))
        ]
        return [
            shards.Order(
                items=tuple(items),
                schema=self.schema,
                file=os.path.join(folder, file),
                receipt=os.path.join(receipts, f"{file}.json"),
                fingerprint=fingerprint,
                versions=versions,
            )
            for file, items in zip(files, dealt, strict=True)
        ]

    def assemble(self, folder: str, made: Sequence[shards.Shard]) -> None:
        """Writes the other files of the data set, `dataset_info.json` last.

        Args:
            folder: of the shards.
            made: all of them.

        Raises:
            UserError: there is no record in them.
        """
        if not any(shard.rows for shard in made):
            first = next(
                (": ".join(pair) for each in made for pair in each.skipped), ""
            )
            raise UserError(
                f"{self.name}: none of its videos can be used: {one_line(first)}"
            )
        where = epath.Path(folder)
        numbers = {item.id: i for i, item in enumerate(self.source.items)}
        skipped = [pair for shard in made for pair in shard.skipped]
        skipped.sort(key=lambda pair: numbers[pair[0]])
        for name, pairs in (
            (SKIPPED_FILE, skipped),
            (MISSING_FILE, self.source.missing),
            (REPEATED_FILE, repeated.find(made, self.source.splits)),
        ):
            lines = ["\t".join(map(one_line, pair)) + "\n" for pair in pairs]
            (where / name).write_text("".join(lines))
        provenance.write(folder, self.flags, made, self.source.digest)
        lengths = [len(shard.rows) for shard in made]
        found = index.build(
            folder,
            [(shard.name, shard.size) for shard in made],
            [shard.rows for shard in made],
            dataclasses.replace(self.schema.names(), digest=self.source.digest),
            {index.STORED_SPLIT: np.arange(sum(lengths))},
            class_names=self.source.class_names,
            splits=self.source.splits,
        )
        index.write(folder, found)
        self.write_more(folder, found)  # before what makes the data set a complete one
        split = tfds.core.SplitInfo(
            name=index.STORED_SPLIT,
            shard_lengths=lengths,
            num_bytes=sum(row.length for shard in made for row in shard.rows),
            filename_template=self._get_filename_template(index.STORED_SPLIT).replace(
                data_dir=where
            ),
        )
        self.info.set_splits(tfds.core.splits.SplitDict([split]))
        self.info.write_to_directory(where)

    def write_more(self, folder: str, found: index.Index) -> None:
        """Other files beside the shards and their index: none."""

    def _download_and_prepare(self, dl_manager, download_config) -> None:
        """Called by `download_and_prepare` of TFDS: prepares on this machine."""
        # During this call, `data_dir` is a temporary folder of TFDS.
        with tempfile.TemporaryDirectory() as receipts:
            orders = self.orders(self.data_dir, receipts)
            made = shards.make(
                orders,
                functools.partial(shards.write_all, workers=self.options.workers),
                name=self.name,
                max_bad=self.options.max_bad,
                progress=self.options.progress,
            )
            self.assemble(self.data_dir, made)
