"""What the builders share: videos in, a TFDS data set with its index out.

Every video is stored once, in the TFDS split `videos`; the splits that people name
(`train01`, `test`, ...) are lists of record numbers in the index that lies beside the
shards (`ctp_jax.data.records`). The shards are ours (`ctp_jax.prepare.shards`), not those
of TFDS's own writer: that one knows what is in a shard only when it has read all
videos, so it can neither go on after an interruption nor give the same files with Beam.
"""

import argparse
import dataclasses
import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import dataset_builder

from ctp_jax.data import index
from ctp_jax.errors import UserError
from ctp_jax.prepare import provenance, shards
from ctp_jax.prepare import schema as schema_lib
from ctp_jax.prepare.workers import Item

SKIPPED_FILE = "skipped.txt"
"""Beside the shards: one line `file<TAB>reason` per video that was left out."""
MISSING_FILE = "missing.txt"
"""Beside the shards: one line `split<TAB>file` per listed video that was not there."""


@dataclasses.dataclass(frozen=True)
class Source:
    """What there is to prepare.

    Attributes:
        items: the videos.
        splits: names of the videos of each split.
        class_names: in the order of the labels; empty for unlabelled videos.
        annotations: {name: shape of one frame's value} of what every video knows of its
            frames, in `EncodedVideo.annotations`; empty: nothing.
        missing: (split, name) of listed videos that are not there.
        notes: lines to tell before the work starts.
    """

    items: Sequence[Item]
    splits: Mapping[str, Sequence[str]]
    class_names: Sequence[str] = ()
    annotations: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    missing: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Options:
    """How to prepare.

    Attributes:
        short_side: pixels, see `video.encode_video`.
        quality: of the JPEG files, 1 to 95.
        workers: processes; 0 for one per core.
        max_bad: share of the videos that may be unreadable; at least one may be,
            unless it is 0.
        progress: whether to draw a bar.
        shards: files to write; 0: by the number of videos.
    """

    short_side: int = 144
    quality: int = 90
    workers: int = 0
    max_bad: float = 0.01
    progress: bool = True
    shards: int = 0


class VideoBuilder(dataset_builder.FileReaderBuilder, skip_registration=True):
    """Base class of the builders; a data set says what it is in `source`."""

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = ""
    HOMEPAGE = ""
    CLASSES = 0
    """How many the whole data set has; 0: any number. Others are remarked on."""

    def __init__(
        self,
        *,
        arguments: argparse.Namespace | None = None,
        options: Options | None = None,
        name: str = "",
        **kwargs: Any,
    ):
        """Lists the videos; reads none of them.

        Args:
            arguments: what `add_arguments` asked for; None for its defaults.
            options: how to prepare.
            name: of the prepared data set, where it is not that of the builder.
            **kwargs: see TFDS; `data_dir` above all.

        Raises:
            UserError: missing folders, bad split lists.
        """
        self.options = options or Options()
        if arguments is None:
            parser = argparse.ArgumentParser()
            self.add_arguments(parser)
            arguments = parser.parse_args([])
        if name:
            self.name = name
        self.arguments = arguments
        self.source = self.make_source(arguments, self.options)
        super().__init__(**kwargs)

    @property
    def expected_classes(self) -> int:
        """`CLASSES`, of a builder that serves several data sets that of this one."""
        return self.CLASSES

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Adds the flags that only this data set has."""

    @classmethod
    def make_source(cls, arguments: argparse.Namespace, options: Options) -> Source:
        """Lists what there is to prepare."""
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
        """What is in every record."""
        return schema_lib.Schema(
            tuple(self.source.class_names), dict(self.source.annotations)
        )

    @property
    def flags(self) -> dict[str, Any]:
        """What was asked for, by the flags' names."""
        options = dataclasses.asdict(self.options)
        wanted = ("short_side", "quality", "shards")
        return vars(self.arguments) | {name: options[name] for name in wanted}

    def orders(self, folder: str, receipts: str) -> list[shards.Order]:
        """The shards to make.

        Args:
            folder: where to.
            receipts: folder of what says that they are whole.

        Raises:
            UserError: there is no video.
        """
        if not self.source.items:
            raise UserError(
                f"{self.name}: no videos to prepare: see that the folders and lists that "
                "were named have some"
            )
        dealt = shards.deal(self.source.items, self.options.shards)
        versions = provenance.versions()
        about = {
            "name": self.name,
            "version": str(self.VERSION),
            "schema": dataclasses.asdict(self.schema),
            "made with": versions,
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
        """Writes all that lies beside the shards, `dataset_info.json` last.

        Args:
            folder: of the shards.
            made: all of them.

        Raises:
            UserError: there is no record in them.
        """
        if not any(shard.rows for shard in made):
            raise UserError(f"{self.name}: none of its videos can be used")
        where = epath.Path(folder)
        numbers = {item.id: i for i, item in enumerate(self.source.items)}
        skipped = [pair for shard in made for pair in shard.skipped]
        skipped.sort(key=lambda pair: numbers[pair[0]])
        pairs = {SKIPPED_FILE: skipped, MISSING_FILE: self.source.missing}
        for name, lines in pairs.items():
            text = "".join(f"{first}\t{second}\n" for first, second in lines)
            (where / name).write_text(text)
        provenance.write(folder, self.flags, made)
        lengths = [len(shard.rows) for shard in made]
        found = index.build(
            folder,
            [(shard.name, shard.size) for shard in made],
            [shard.rows for shard in made],
            self.schema.names(),
            {index.STORED_SPLIT: np.arange(sum(lengths))},
            class_names=self.source.class_names,
            splits=self.source.splits,
        )
        index.write(folder, found)
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

    def _download_and_prepare(self, dl_manager, download_config) -> None:
        """What `download_and_prepare` of TFDS does: all on this machine, at once."""
        # TFDS has pointed `data_dir` to its temporary folder for the time being.
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
