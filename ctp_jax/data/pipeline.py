"""From records on disk to batches on the host, as one tf.data graph.

A batch is a pure function of (config, seed, step): position p of the run is record
`index_shuffle(p mod n, seed, epoch)` and all that is random about it depends on
(seed, p). So any step can be produced without those before it, and each process makes
its share of the same global batch. No Python runs per example.
"""

import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from ctp_jax.data import clips, draws, records
from ctp_jax.errors import UserError
from ctp_jax.tasks.base import ClipSpec, Task


def open_pipeline(
    config: ConfigDict,
    task: Task,
    train: bool,
    process_index: int = 0,
    process_count: int = 1,
) -> "Pipeline":
    """The pipeline of `config.data.split`, or of `eval_split` for evaluation.

    Raises:
        UserError: for data that is not prepared or a split that is not there.
    """
    split = config.data.split if train else config.data.eval_split
    opened = records.open_records(config.data.name, split, config.data.data_dir)
    return Pipeline(config, task, opened, train, process_index, process_count)


class Pipeline:
    """One split, seen by one process.

    Attributes:
        records: what is used of the split, a `ctp_jax.data.records.Records`.
        whole: all of it; more than `records` where `config.data.fraction` is below 1.
        num_examples: how many videos a pass has.
        class_names: of the labels; empty for unlabelled data.
    """

    def __init__(
        self,
        config: ConfigDict,
        task: Task,
        opened: records.Records,
        train: bool,
        process_index: int,
        process_count: int,
    ):
        """See `open_pipeline`."""
        self.whole = opened
        if train:
            opened = records.take_fraction(opened, config.data.fraction, config.seed)
        if not len(opened):
            raise UserError(f"{opened.name}: split {opened.split!r} has no videos")
        shortest = int(opened.num_frames.min())
        if shortest < config.data.min_frames:
            worst = opened.ids[int(opened.num_frames.argmin())]
            raise UserError(
                f"{opened.name}: {(opened.num_frames < config.data.min_frames).sum()} of "
                f"{len(opened)} videos of split {opened.split!r} have fewer than "
                f"config.data.min_frames = {config.data.min_frames} frames ({worst}: "
                f"{shortest}); leave them out when preparing, or lower it: the last "
                "frame of a short video is repeated"
            )
        self.records = opened
        self.class_names = opened.class_names
        limit = 0 if train else config.data.eval_videos
        self.num_examples = min(limit or len(opened), len(opened))
        self._task = task
        self._train = train
        self._spec = task.clip_spec(train)
        self._seed = config.seed
        self._batch = config.batch_size
        self._share = config.batch_size // process_count
        self._first = process_index * self._share
        self._workers = config.data.workers or os.cpu_count() or 1
        # Ten clips per video take ten times the memory.
        self._prefetch = max(1, config.data.prefetch // self._spec.num_clips)
        self._canvas = clips.canvas_size(opened.height, opened.width, self._spec)
        self._read = records.read_features(opened)
        self._sizes = tf.constant(np.stack([opened.height, opened.width], axis=-1))
        self._stream = "train" if train else "evaluation"
        self._clip_draws = draws.count_draws(self._trace_clip)
        self._plan_draws = draws.count_draws(self._trace_plan)

    def train_batches(self, start_step: int = 0) -> Iterator[dict[str, Any]]:
        """This process's share of the global batches from a step on, without end.

        Yields:
            `ctp_jax.tasks.base.Batch` of NumPy arrays, leading dimension
            batch_size / process_count.
        """
        start = start_step * self._share
        return self._batches(tf.data.Dataset.range(start, np.iinfo(np.int64).max))

    def eval_batches(self) -> Iterator[dict[str, Any]]:
        """One pass; what fills up the last batch has mask 0."""
        steps = -(-self.num_examples // self._batch)
        return self._batches(tf.data.Dataset.range(steps * self._share))

    def _batches(self, dataset: tf.data.Dataset) -> Iterator[dict[str, Any]]:
        dataset = dataset.map(
            tf.autograph.experimental.do_not_convert(self._example),
            num_parallel_calls=self._workers,
            deterministic=True,
        )
        dataset = dataset.batch(self._share, drop_remainder=True)
        dataset = dataset.map(tf.autograph.experimental.do_not_convert(self._plan))
        dataset = dataset.prefetch(self._prefetch)
        options = tf.data.Options()
        options.autotune.enabled = False
        options.threading.private_threadpool_size = self._workers
        # One decoder must not spread over cores that other decoders keep busy.
        options.threading.max_intra_op_parallelism = 1
        return self._arrays(dataset.with_options(options))

    def _arrays(self, dataset: tf.data.Dataset) -> Iterator[dict[str, Any]]:
        """The batches as NumPy arrays; what cannot be read becomes a `UserError`."""
        unreadable = tf.errors.OpError  # the module may be gone when Python exits
        try:
            yield from dataset.as_numpy_iterator()
        except unreadable as error:
            # Without the names of the nodes of TensorFlow's graph.
            reason = re.sub(
                r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\]", "", error.message or ""
            )
            reason = " ".join(reason.split())[:200]
            raise UserError(
                f"{self.records.directory}: a record cannot be read ({reason}); was the "
                "data set changed or damaged? prepare it again"
            ) from error

    def _example(self, element: tf.Tensor) -> dict[str, tf.Tensor]:
        step, row = element // self._share, element % self._share
        position = step * self._batch + self._first + row
        index, mask = self._locate(position)
        features = self._read(index)
        height, width = tf.unstack(tf.gather(self._sizes, index), num=2)
        numbers = draws.Draws(
            draws.uniforms(
                self._seed, f"{self._stream}/clip", position, self._clip_draws
            )
        )
        times = clips.sample_times(numbers, tf.size(features["frames"]), self._spec)
        window, flip = clips.sample_window(numbers, height, width, self._spec)
        frames, extent, shown = decode_window(
            features["frames"],
            times,
            window,
            (height, width),
            self._canvas,
            self._spec,
            jpeg=self.records.encoding == "jpeg",
        )
        example = {
            "frames": frames,
            "extent": extent,
            "window": shown,
            "flip": flip,
            "times": times,
            "label": tf.cast(features["label"], tf.int32),
            "index": tf.cast(index, tf.int32),
            "mask": mask,
            "uniforms": draws.uniforms(
                self._seed, f"{self._stream}/plan", position, self._plan_draws
            ),
        }
        if "boxes" in features:
            boxes = tf.gather(features["boxes"], times)
            example["boxes"] = boxes_in_clip(boxes, window, flip, self._spec.size)
        return example

    def _locate(self, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Record number of a position of the run, and whether it counts."""
        total = tf.constant(len(self.records), tf.int64)
        if not self._train:
            # Spread over the split, which may be sorted by class.
            row = tf.minimum(position, self.num_examples - 1)
            mask = tf.cast(position < self.num_examples, tf.float32)
            return row * total // self.num_examples, mask
        seed = tf.constant(draws.stream_seed(self._seed, "order"), tf.int64)
        epoch = position // total
        # Hashed: the shuffle takes its key as it is, and those of epochs 0, 1, 2 would
        # be so alike that their orders correlate.
        key = tf.random.stateless_uniform(
            [2], tf.stack([seed, epoch]), minval=None, maxval=None, dtype=tf.int64
        )
        index = tf.random.experimental.index_shuffle(position % total, key, total - 1)
        return index, tf.constant(1.0)

    def _plan(self, batch: dict[str, tf.Tensor]) -> dict[str, Any]:
        numbers = draws.Draws(batch.pop("uniforms"))
        return batch | {"plan": self._task.plan(numbers, batch, self._train)}

    def _trace_clip(self, numbers: draws.Draws) -> None:
        some = tf.constant(99)
        clips.sample_times(numbers, some, self._spec)
        clips.sample_window(numbers, some, some, self._spec)

    def _trace_plan(self, numbers: draws.Draws) -> Any:
        """`Task.plan` on a batch of one made of zeros: only what it draws matters."""
        spec, (height, width) = self._spec, self._canvas
        shape = (1, spec.num_clips, spec.num_frames)
        batch = {
            "frames": tf.zeros((*shape, height, width, 3), tf.uint8),
            "extent": tf.ones((1, spec.num_clips, 2)),
            "window": tf.ones((1, spec.num_clips, 4)),
            "flip": tf.zeros((1, spec.num_clips), tf.bool),
            "times": tf.zeros(shape, tf.int32),
            "label": tf.zeros([1], tf.int32),
            "index": tf.zeros([1], tf.int32),
            "mask": tf.ones([1]),
        }
        if self.records.boxes_feature:
            batch["boxes"] = tf.zeros((*shape, 4))
        return self._task.plan(numbers, batch, self._train)


def decode_window(
    encoded: tf.Tensor,
    times: tf.Tensor,
    window: tf.Tensor,
    frame_size: tuple[tf.Tensor, tf.Tensor],
    canvas: tuple[int, int],
    spec: ClipSpec,
    jpeg: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decodes the part of each frame that its clip shows.

    Args:
        encoded: the video's frames, string (k,).
        times: which of them, int32 (c, t).
        window: what each clip shows, float32 (c, 4), in pixels of the stored frame.
        frame_size: height and width of the stored frames, int32 scalars.
        canvas: height and width to pad to.
        spec: see `ClipSpec`.
        jpeg: whether partial decoding is possible.

    Returns:
        Frames uint8 (c, t, *canvas, 3), extents float32 (c, 2) and windows (c, 4) in
        pixels of the canvas.
    """
    frame_size = tf.stack(frame_size)
    clips_of_video, extents, shown = [], [], []
    for clip in range(spec.num_clips):
        start, length = window[clip, :2], window[clip, 2:]
        # The first row and column that bilinear interpolation touches.
        origin = tf.floor(start + 0.5 * length / spec.size - 0.5)
        origin = tf.maximum(tf.cast(origin, tf.int32) - clips.MARGIN, 0)
        extent = tf.minimum(frame_size - origin, tf.constant(canvas))
        box = tf.concat([origin, extent], axis=0)
        frames = []
        for time in range(spec.num_frames):
            data = encoded[times[clip, time]]
            if jpeg:
                frames.append(tf.io.decode_and_crop_jpeg(data, box, channels=3))
            else:
                image = tf.io.decode_image(data, channels=3, expand_animations=False)
                frames.append(
                    tf.image.crop_to_bounding_box(image, *tf.unstack(box, num=4))
                )
        frames = tf.stack(frames)
        missing = tf.constant(canvas) - extent
        padding = [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]]
        frames = tf.ensure_shape(tf.pad(frames, padding), (spec.num_frames, *canvas, 3))
        clips_of_video.append(frames)
        extents.append(tf.cast(extent, tf.float32))
        shown.append(tf.concat([start - tf.cast(origin, tf.float32), length], axis=0))
    return tf.stack(clips_of_video), tf.stack(extents), tf.stack(shown)


def boxes_in_clip(
    boxes: tf.Tensor, window: tf.Tensor, flip: tf.Tensor, size: int
) -> tf.Tensor:
    """Boxes of the stored frame as they appear in the drawn clip.

    Args:
        boxes: float32 (c, t, 4), x1 y1 x2 y2 in pixels of the stored frame.
        window: float32 (c, 4), y, x, height, width.
        flip: bool (c,).
        size: side of the drawn clip.

    Returns:
        float32 (c, t, 4) in pixels of the clip; not clipped to it.
    """
    y, x, height, width = tf.unstack(window[:, None, :], num=4, axis=-1)
    x1, y1, x2, y2 = tf.unstack(boxes, num=4, axis=-1)
    x1, x2 = ((value - x) * size / width for value in (x1, x2))
    y1, y2 = ((value - y) * size / height for value in (y1, y2))
    flip = flip[:, None]
    x1, x2 = tf.where(flip, size - x2, x1), tf.where(flip, size - x1, x2)
    return tf.stack([x1, y1, x2, y2], axis=-1)
