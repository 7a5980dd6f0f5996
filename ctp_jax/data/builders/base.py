"""What the builders share: videos in, a TFDS data set with its index out.

Every video is stored once, in the TFDS split `videos`; the splits that people name
(`train01`, `test`, ...) are lists of record numbers in the index that lies beside the
shards (`ctp_jax.data.records`). The index is written before TFDS renames its
temporary folder, so it exists exactly when the data set is whole.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from ctp_jax.data import index, tfrecord, video
from ctp_jax.errors import UserError

SKIPPED_FILE = "skipped.txt"
"""Beside the shards: one line `file<TAB>reason` per video that was left out."""
MISSING_FILE = "missing.txt"
"""Beside the shards: one line `split<TAB>file` per listed video that was not there."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One video to prepare.

    Attributes:
        id: its name, unique in the data set.
        label: its class, -1 for none.
        encode: function of no arguments that gives `video.EncodedVideo` or raises
            `video.VideoError`; pickled and called in another process, so its module
            must not import TensorFlow.
    """

    id: str
    label: int
    encode: Callable[[], video.EncodedVideo]


@dataclasses.dataclass(frozen=True)
class Source:
    """What there is to prepare.

    Attributes:
        items: the videos.
        splits: names of the videos of each split.
        class_names: in the order of the labels; empty for unlabelled videos.
        has_boxes: whether every video comes with boxes.
        missing: (split, name) of listed videos that are not there.
        notes: lines to tell before the work starts.
    """

    items: Sequence[Item]
    splits: Mapping[str, Sequence[str]]
    class_names: Sequence[str] = ()
    has_boxes: bool = False
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
    """

    short_side: int = 144
    quality: int = 90
    workers: int = 0
    max_bad: float = 0.01
    progress: bool = True


class TooManyBad(UserError):
    """More unreadable videos than allowed. `skipped` lists (name, reason)."""

    def __init__(self, message: str, skipped: Sequence[tuple[str, str]]):
        super().__init__(message)
        self.skipped = list(skipped)


class VideoBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
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
        self.source = self.make_source(arguments, self.options)
        self.skipped: list[tuple[str, str]] = []
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
        label = tfds.features.Scalar(np.int64)
        if self.source.class_names:
            label = tfds.features.ClassLabel(names=list(self.source.class_names))
        features = {
            "frames": tfds.features.Sequence(
                tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
            ),
            "label": label,
            "video_id": tfds.features.Text(),
            "fps": tfds.features.Scalar(np.float32),
        }
        if self.source.has_boxes:
            features["boxes"] = tfds.features.Tensor(shape=(None, 4), dtype=np.float32)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            homepage=self.HOMEPAGE,
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager):
        # TFDS keeps the name `all` for itself.
        return {index.STORED_SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        total = len(self.source.items)
        share = self.options.max_bad
        allowed = max(1, int(share * total)) if share > 0 else 0
        done = encode_in_parallel(self.source.items, self.options.workers)
        bar = tqdm.tqdm(
            done,
            self.name,
            total,
            unit=" videos",
            # A line a minute into log files, which keep every one of them.
            mininterval=0.2 if sys.stderr.isatty() else 60,
            disable=not self.options.progress,
        )
        for item, result in bar:
            if isinstance(result, str):
                self.skipped.append((item.id, result))
                if len(self.skipped) > allowed:
                    bar.close()
                    done.close()
                    raise TooManyBad(
                        f"{len(self.skipped)} of the {bar.n + 1} videos tried so far "
                        f"cannot be used, and --max_bad={share:g} allows {allowed} of "
                        f"{total}: mend or remove them, or allow more",
                        self.skipped,
                    )
                continue
            example = {
                "frames": result.frames,
                "label": item.label,
                "video_id": item.id,
                "fps": result.fps,
            }
            if self.source.has_boxes:
                example["boxes"] = result.boxes
            yield item.id, example

    def _download_and_prepare(self, dl_manager, download_config) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        boxes = "boxes" if self.source.has_boxes else None
        # TFDS has pointed `data_dir` to its temporary folder for the time being.
        found = index.scan(
            self.data_dir,
            {s.name: list(s.shard_lengths) for s in self.info.splits.values()},
            tfrecord.Features("frames", "label", boxes, "video_id", "fps"),
            class_names=self.source.class_names,
            splits=self.source.splits,
        )
        pairs = {SKIPPED_FILE: self.skipped, MISSING_FILE: self.source.missing}
        for name, lines in pairs.items():
            with open(os.path.join(self.data_dir, name), "w") as file:
                file.writelines(f"{first}\t{second}\n" for first, second in lines)
        index.write(self.data_dir, found)


def encode_in_parallel(
    items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, video.EncodedVideo | str]]:
    """Encodes the videos in other processes, in order.

    At most a few videos per process are held in memory. A video that kills its
    process (broken files have crashed decoders) is found by trying those that were
    under way one at a time, and counts as unreadable.

    Yields:
        (item, encoded video, or the reason why there is none).
    """
    workers = min(workers or available_cores(), len(items))
    ahead = 3 * workers
    remaining = collections.deque(items)
    while remaining:
        try:
            for pair in _encode(remaining, workers, ahead):
                yield pair
                remaining.popleft()
        except concurrent.futures.process.BrokenProcessPool:
            suspects = list(remaining)[:ahead]
            try:
                for pair in _encode(suspects, 1, ahead=1):
                    yield pair
                    remaining.popleft()
            except concurrent.futures.process.BrokenProcessPool:
                yield remaining[0], "the decoder crashed"
                remaining.popleft()


def _encode(items, workers: int, ahead: int):
    """Yields (item, result) in order, with `ahead` items under way."""
    executor = concurrent.futures.ProcessPoolExecutor(
        workers,
        # Not fork: the parent holds TensorFlow and its threads.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    )
    try:
        waiting = collections.deque()
        for item in list(items):  # the caller shortens it meanwhile
            waiting.append((item, executor.submit(_run, item.encode)))
            if len(waiting) >= ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _run(encode: Callable[[], video.EncodedVideo]) -> video.EncodedVideo | str:
    try:
        return encode()
    except video.VideoError as error:
        return str(error)


def _start_worker() -> None:
    """Leaves Ctrl-C, which reaches every process, to the parent; dies with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """Ends this process when the parent is gone, killed for example."""
    multiprocessing.parent_process().join()
    os._exit(1)


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
