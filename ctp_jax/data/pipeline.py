"""Reads records from disk and yields batches on the host, as one tf.data graph.

A batch is a pure function of (config, seed, step): position p of the run is record
`shuffled(p, n, seed)`, and all its random numbers depend on (seed, p)
only. So any step can be produced without the steps before it, and each process produces
its share of the same global batch. No Python runs per example.

A record that cannot be read is retried once and then replaced by another record, which
is a function of (seed, p), too. In an evaluation it is left out: its row has mask 0.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from ctp_jax.data import (
    bad_records,
    clips,
    decode,
    following,
    reading,
    records,
    rng,
    selection,
    shuffle,
)
from ctp_jax.data.bad_records import TRIES
from ctp_jax.data.batch import VISIBILITY, Batch, ClipSpec, num_windows
from ctp_jax.errors import UserError
from ctp_jax.formatting import count

RECORDS = 8
"""Different records to try for one training example before the run fails."""

PlanFunction = Callable[[rng.Rng, Batch], dict[str, Any]]
"""Function of random numbers, one row per video, and the batch; see `Task.plan`."""


def open_pipeline(
    config: ConfigDict,
    spec: ClipSpec,
    plan: PlanFunction,
    train: bool,
    process_index: int = 0,
    process_count: int = 1,
) -> "Pipeline":
    """The pipeline of `config.data.split`, or of `eval_split` for evaluation.

    Args:
        config: `config.data`, `config.seed` and `config.batch_size` are used.
        spec: which clips of a video to decode.
        plan: samples all random decisions but which pixels to decode.
        train: shuffled and endless; otherwise one pass in the order of the split.
        process_index: of this process, which yields its share of every batch.
        process_count: number of processes that share a batch.

    Raises:
        UserError: for data that is not prepared or a split that is not there.
    """
    split = config.data.split if train else config.data.eval_split
    opened = records.open_records(
        config.data.name,
        split,
        config.data.data_dir,
        config.data.get("stream", "rgb"),
        [name for name in spec.follow if name],
    )
    return Pipeline(config, spec, plan, opened, train, process_index, process_count)


class Pipeline:
    """One split, seen by one process.

    Attributes:
        records: the records that are used, a `ctp_jax.data.records.Records`.
        whole: the whole split; more than `chosen` if `config.data.fraction` is below 1
            or `config.data.min_frames` leaves videos out.
        chosen: more than `records` if videos are too short for the task and left out.
        skipped: how many videos are left out because they are too short.
        num_examples: number of examples of a pass: videos, or with windows of whole
            videos those, and the padding between them.
        class_names: of the labels; empty for unlabelled data.
        bad_records: counts unreadable records, a `ctp_jax.data.bad_records.BadRecords`.
    """

    def __init__(
        self,
        config: ConfigDict,
        spec: ClipSpec,
        plan: PlanFunction,
        opened: records.Records,
        train: bool,
        process_index: int,
        process_count: int,
    ):
        """See `open_pipeline`."""
        self.whole = opened
        self.chosen, opened, self.skipped = selection.choose(
            opened, config.data, config.seed, spec.min_frames
        )
        if spec.other_stream:
            records.check_other(opened.name, opened.features)
        else:  # not read
            features = dataclasses.replace(opened.features, other="")
            opened = dataclasses.replace(opened, features=features)
        records.check_followed(opened, spec.follow)
        self.records = opened
        self.class_names = opened.class_names
        limit = 0 if train else config.data.eval_videos
        videos = min(limit or len(opened), len(opened))
        self._batch = config.batch_size
        if train:
            self._visits = shuffle.Training(len(opened), config.seed)
        elif spec.sampling == "windows":
            counts = num_windows(opened.num_frames, spec.num_frames)
            self._visits = shuffle.Windows(counts, videos, self._batch)
        else:
            self._visits = shuffle.Evaluation(len(opened), videos)
        self.num_examples = self._visits.count
        self.bad_records = bad_records.BadRecords(
            opened,
            videos,
            config.data.max_bad,
            "another takes its place" if train else "the evaluation goes on without it",
            f"process {process_index}: " if process_count > 1 else "",
        )
        self._train = train
        self._spec = spec
        # The clips of the batch, and whether each shows the other stream.
        self._clips = [*range(spec.num_clips), *spec.other_stream]
        self._drawn = dataclasses.replace(spec, num_clips=len(self._clips))
        self._other = np.arange(len(self._clips)) >= spec.num_clips
        self._flow = self._other ^ (config.data.get("stream", "rgb") == "flow")
        self._seed = config.seed
        self._share = config.batch_size // process_count
        self._first = process_index * self._share
        self._workers = config.data.workers or os.cpu_count() or 1
        # Ten clips per video take ten times the memory.
        self._prefetch = max(1, config.data.prefetch // len(self._clips))
        self._attempts = TRIES + (min(RECORDS, len(opened)) - 1 if train else 0)
        self._canvas = clips.canvas_size(opened.height, opened.width, self._spec)
        self._narrow = bool(opened.width.min() < self._canvas[1])
        self._read = reading.read_features(opened)
        self._sizes = tf.constant(np.stack([opened.height, opened.width], axis=-1))
        self._stream = "train" if train else "evaluation"
        self._clip_draws = rng.count_uniforms(self._trace_clip, lead=())
        self._planned, self._plan_draws = self._trace_plan(plan)
        if not train:
            with tf.device("/CPU:0"):
                self._blank = self._make_blank(self._plan_draws)

    def train_batches(self, start_step: int = 0) -> Iterator[dict[str, Any]]:
        """This process's share of the global batches from a step on, without end.

        Yields:
            `ctp_jax.data.batch.Batch` of NumPy arrays, leading dimension
            batch_size / process_count.

        Raises:
            UserError: too many videos cannot be read.
        """
        return self._arrays(start_step, np.iinfo(np.int64).max)

    def eval_batches(self) -> Iterator[dict[str, Any]]:
        """One pass; padding of the last batch has mask 0. Raises as `train_batches`."""
        steps = -(-self.num_examples // self._batch)
        return self._arrays(0, steps * self._share)

    def _batches(self, step: int, last: int, retry: bool) -> Iterator[dict[str, Any]]:
        """Batches from a step on, up to this process's element number `last`."""
        example = self._retried_example if retry else self._example
        dataset = tf.data.Dataset.range(step * self._share, last)
        dataset = dataset.map(
            tf.autograph.experimental.do_not_convert(example),
            num_parallel_calls=self._workers,
            deterministic=True,
        )
        # One thread that copies and plans would feed no more clips with more cores.
        parallel = {
            "num_parallel_calls": min(self._workers, self._prefetch),
            "deterministic": True,
        }
        dataset = dataset.batch(self._share, drop_remainder=True, **parallel)
        dataset = dataset.map(
            tf.autograph.experimental.do_not_convert(self._plan), **parallel
        )
        dataset = dataset.prefetch(self._prefetch)
        options = tf.data.Options()
        options.autotune.enabled = False
        # Rewriting the graph takes longer than it saves: what can be fused is fused.
        options.experimental_optimization.apply_default_optimizations = False
        options.threading.private_threadpool_size = self._workers
        # Examples are decoded in parallel: one decoder uses one core.
        options.threading.max_intra_op_parallelism = 1
        return dataset.with_options(options).as_numpy_iterator()

    def _arrays(self, step: int, last: int) -> Iterator[dict[str, Any]]:
        """The batches as NumPy arrays; counts the replaced records.

        The graph without retries is faster: it is used until a record cannot be read.
        """
        retry = False
        batches = self._batches(step, last, retry)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except reading.READ_ERRORS as error:
                if retry:
                    raise self._failure(step, error) from error
                retry = True
                batches = self._batches(step, last, retry)
                continue
            numbers = batch.pop("attempt")
            for row in np.flatnonzero(batch["replaced"]).tolist():
                element = step * self._share + row
                self.bad_records.add(self._tried(element, int(numbers[row])))
            yield batch
            step += 1

    def _tried(self, element: int, count: int) -> list[int]:
        """The different records of an element's attempts 0 .. count - 1."""
        with tf.device("/CPU:0"):
            position = self._position(tf.constant(element, tf.int64))
            return [
                int(self._visits.locate(position, tf.constant(attempt, tf.int64))[0])
                for attempt in range(TRIES - 1, count)
            ]

    def _failure(self, step: int, error: Exception) -> UserError:
        """The error for a step whose batch could not be produced."""
        example = tf.function(self._retried_example, autograph=False)
        for element in range(step * self._share, (step + 1) * self._share):
            try:
                example(tf.constant(element, tf.int64))
            except reading.READ_ERRORS:
                tried = self._tried(element, self._attempts)
                self.bad_records.add(tried)
                return UserError(
                    f"{self.records.directory}: of {count(len(tried), 'video')} tried for "
                    f"an example of step {step + 1}, none can be read "
                    f"({self.bad_records.describe(tried)}): restore the data, or "
                    "prepare them again with --overwrite"
                )
        return UserError(
            f"{self.records.directory}: the batch of step {step + 1} could not be read, "
            f"but now it can ({bad_records.explain(error)}): run the same command again"
        )

    def _position(self, element: tf.Tensor) -> tf.Tensor:
        """Position in the run of this process's element, both int64 scalars."""
        step, row = element // self._share, element % self._share
        return step * self._batch + self._first + row

    def _example(self, element: tf.Tensor) -> dict[str, tf.Tensor]:
        """The first attempt at an element; fails if it fails."""
        return self._attempt(self._position(element), tf.constant(0, tf.int64))

    def _retried_example(self, element: tf.Tensor) -> dict[str, tf.Tensor]:
        """The first attempt at an element that succeeds."""
        position, blank = self._position(element), None
        if not self._train:
            index, mask = self._visits.locate(position, tf.constant(0))
            blank = self._blank | {"index": tf.cast(index, tf.int32), "replaced": mask}
        return bad_records.first_success(
            lambda number: self._attempt(position, number), self._attempts, blank
        )

    def _attempt(self, position: tf.Tensor, attempt: tf.Tensor) -> dict[str, Any]:
        index, mask = self._visits.locate(position, attempt)
        features = self._read(index)
        height, width = tf.unstack(tf.gather(self._sizes, index), num=2)
        numbers = rng.Rng(
            rng.uniforms(self._seed, f"{self._stream}/clip", position, self._clip_draws)
        )
        chosen, window = following.sample_clips(
            numbers,
            position,
            features["annotations"],
            tf.size(features["frames"]),
            (height, width),
            self._spec,
            self._visits.window(position),
        )
        if self._spec.other_stream:
            window = tf.gather(window, self._clips)
            chosen = {name: tf.gather(chosen[name], self._clips) for name in chosen}
        times, flip = chosen["times"], chosen["flip"]
        encoded, stored = features["frames"], times
        if self._spec.other_stream:
            stored += tf.size(encoded) * self._other[:, None].astype(np.int32)
            encoded = tf.concat([encoded, features["other"]], axis=0)
        frames, extent, shown = decode.decode_window(
            encoded,
            stored,
            window,
            (height, width),
            self._canvas,
            self._drawn,
            jpeg=self.records.encoding == "jpeg",
            narrow=self._narrow,
        )
        example = {
            "frames": frames,
            "extent": extent,
            "window": shown,
            **chosen,
            "label": tf.cast(features["label"], tf.int32),
            "index": tf.cast(index, tf.int32),
            "mask": mask,
            "replaced": tf.cast(attempt >= TRIES, tf.float32),
            "attempt": attempt,
            "annotations": {},
            **self._flow_entry(),
            "uniforms": rng.uniforms(
                self._seed, f"{self._stream}/plan", position, self._plan_draws
            ),
        }
        for name in self.records.features.annotations:
            values = tf.gather(features["annotations"][name], times)
            if name in VISIBILITY:
                values = decode.boxes_in_clip(values, window, flip, self._spec.size)
            example["annotations"][name] = values
        return example

    def _plan(self, batch: dict[str, tf.Tensor]) -> dict[str, Any]:
        return batch | {"plan": self._planned(batch.pop("uniforms"), batch)}

    def _trace_clip(self, numbers: rng.Rng) -> None:
        some, shapes = tf.constant(99), self.records.features.annotations
        known = {name: tf.zeros([99, *own]) for name, own in shapes.items()}
        position = tf.constant(0, tf.int64)
        following.sample_clips(numbers, position, known, some, (some, some), self._spec)

    def _trace_plan(self, plan: PlanFunction) -> tuple[Callable[..., Any], int]:
        """The graph of the plan, and how many random numbers it uses.

        Built here once: both graphs of the pipeline call it.
        """
        blank = self._make_blank(0)
        del blank["uniforms"]
        batch = tf.nest.map_structure(
            lambda value: tf.TensorSpec([self._share, *value.shape], value.dtype), blank
        )
        return rng.traced(plan, batch, (self._share,))

    def _make_blank(self, num_uniforms: int) -> dict[str, tf.Tensor]:
        blank = bad_records.placeholder(
            self._drawn, self._canvas, num_uniforms, self.records.features.annotations
        )
        return blank | self._flow_entry()

    def _flow_entry(self) -> dict[str, tf.Tensor]:
        """`flow` of the batch, where there is any."""
        return {"flow": tf.constant(self._flow)} if self._flow.any() else {}
