"""Counts and reports unreadable records, and stops the run if there are too many.

The graph of `ctp_jax.data.pipeline` skips a record that fails and does not say why. The
reason is found here, by reading that one record again.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ctp_jax import formatting
from ctp_jax.data import reading, records, tfrecord
from ctp_jax.data.batch import ClipSpec
from ctp_jax.errors import UserError, allowed_bad, reason
from ctp_jax.storage import remote

NAMED = 20
"""Number of unreadable records that are reported one by one."""

TRIES = 2
"""Attempts at a record: a brief failure of the network then changes no batch."""

Example = dict[str, Any]


class BadRecords:
    """The unreadable records of one split, as one process met them.

    Attributes:
        examples: number of examples whose record could not be read.
    """

    def __init__(
        self,
        opened: records.Records,
        total: int,
        max_bad: float,
        then: str,
        process: str = "",
    ):
        """Starts with no unreadable records.

        Args:
            opened: the split.
            total: number of its records that are used.
            max_bad: see `ctp_jax.errors.allowed_bad`.
            then: what happens to an example without its record, for the messages.
            process: prefix of the messages, to tell processes apart.
        """
        self._opened, self._total, self._max_bad = opened, total, max_bad
        self._then, self._process = then, process
        self._allowed = allowed_bad(total, max_bad)
        self._bad: dict[int, str] = {}
        self.examples = 0

    @property
    def records(self) -> int:
        """Number of different records that could not be read."""
        return len(self._bad)

    def add(self, numbers: Iterable[int]) -> None:
        """Counts an example for which these records were tried in vain.

        Raises:
            UserError: more unreadable records than `max_bad` allows.
        """
        self.examples += 1
        for number in numbers:
            if number not in self._bad:
                self._add_record(number)

    def describe(self, numbers: Iterable[int]) -> str:
        """The first few of these records and what is wrong with them."""
        first = [n for n in dict.fromkeys(numbers) if self._bad.get(n)][:3]
        return "; ".join(f"{self._opened.id_of(n)}: {self._bad[n]}" for n in first)

    def _add_record(self, number: int) -> None:
        opened, count = self._opened, len(self._bad) + 1
        reason = diagnose(opened, number) if count <= NAMED else ""
        self._bad[number] = reason
        if reason:
            self._say(
                f"{opened.name}: video {opened.id_of(number)} cannot be read: {reason} "
                f"({opened.files[opened.file_index[number]]}, byte "
                f"{opened.offset[number]}); {self._then}"
            )
        elif count & (count - 1) == 0 or count == NAMED + 1:
            self._say(
                f"{opened.name}: {count} of {formatting.count(self._total, 'video')} could "
                "not be read so far; not all are named"
            )
        if count > self._allowed:
            raise UserError(
                f"{opened.directory}: {count} of {formatting.count(self._total, 'video')} of "
                f"split {opened.split!r} cannot be read, more than config.data.max_bad = "
                f"{self._max_bad:g} allows ({self.describe(self._bad)}): restore the "
                "data, prepare them again with --overwrite, or raise max_bad"
            )

    def _say(self, line: str) -> None:
        print(f"note: {self._process}{line}", flush=True)


def diagnose(opened: records.Records, number: int) -> str:
    """What is wrong with one record, in a few words."""
    one = records.select(opened, np.array([number]))
    path = one.files[one.file_index[0]]
    try:
        size = remote.size(path)
    except FileNotFoundError:
        return "its file is gone"
    except (OSError, *reading.READ_ERRORS) as error:
        return f"its file cannot be reached ({reason(error)})"
    if size < one.offset[0] + one.length[0] + tfrecord.FOOTER:
        return f"its file ends at byte {size}"
    with tf.device("/CPU:0"):
        return _diagnose_bytes(one) or "it could not be read then, and can be now"


def _diagnose_bytes(one: records.Records) -> str:
    """As `diagnose`, for the only record of `one`; empty if it can be read."""
    try:
        found = reading.reader(one)(tf.constant(0, tf.int64))
    except tf.errors.DataLossError:
        return "its bytes are not those that were written"
    except reading.READ_ERRORS as error:
        return f"its file cannot be read ({explain(error)})"
    try:
        features = reading.parser(one)(found)
    except reading.READ_ERRORS:
        return f"it is no record with images under {one.features.frames!r}"
    frames = features["frames"].numpy()
    if len(frames) != one.num_frames[0]:
        there = formatting.count(len(frames), "frame")
        return f"it has {there}, not {one.num_frames[0]} as indexed"
    other = {one.features.other: features["other"]} if "other" in features else {}
    for name, values in (features["annotations"] | other).items():
        if len(values) != len(frames):
            return f"it has {len(values)} {name} for {len(frames)} frames"
    for stream in (frames, *(values.numpy() for values in other.values())):
        if reason := _diagnose_frames(one, stream):
            return reason
    return ""


def _diagnose_frames(one: records.Records, frames: Iterable[bytes]) -> str:
    """What is wrong with the first wrong one of a record's frames; empty if nothing is."""
    for number, frame in enumerate(frames):
        try:
            image = tf.io.decode_image(frame, channels=3, expand_animations=False)
        except reading.READ_ERRORS:
            return f"frame {number} cannot be decoded"
        if one.encoding == "jpeg" and not tf.io.is_jpeg(frame):
            return f"frame {number} is no JPEG, as others are"
        height, width = image.shape[:2]
        if (height, width) != (one.height[0], one.width[0]):
            indexed = f"{one.width[0]}x{one.height[0]}"
            return f"frame {number} is {width}x{height}, not {indexed} as indexed"
    return ""


def explain(error: Exception) -> str:
    """TensorFlow's message in one line, without the names of nodes of its graph."""
    text = re.sub(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\]", "", str(error))
    return " ".join(text.split())[:200]


def first_success(
    attempt: Callable[[tf.Tensor], Example], count: int, otherwise: Example | None
) -> Example:
    """The first of the attempts 0 .. count - 1 that succeeds.

    An op that fails stops the whole graph, but an element of a dataset that fails can be
    skipped. So the attempts are the elements of a dataset, of which the first good one
    is taken. Creating a dataset for each example costs time, so the pipeline uses this
    function only after a record could not be read.

    Args:
        attempt: function of the number of the attempt, an int64 scalar.
        count: number of attempts.
        otherwise: the result if all attempts fail; None: fail.
    """
    attempts = tf.data.Dataset.range(count)
    attempts = attempts.map(tf.autograph.experimental.do_not_convert(attempt))
    attempts = attempts.ignore_errors()
    if otherwise is not None:
        attempts = attempts.concatenate(tf.data.Dataset.from_tensors(otherwise))
    return attempts.take(1).get_single_element()


def placeholder(
    spec: ClipSpec,
    canvas: tuple[int, int],
    num_uniforms: int,
    annotations: Mapping[str, Sequence[int]],
) -> Example:
    """The placeholder of an example that cannot be read: black, with mask 0.

    Args:
        spec: see `ClipSpec`; its clips are those of the batch.
        canvas: height and width of the frames, pixels.
        num_uniforms: number of random numbers for its plan.
        annotations: of the data set, see `ctp_jax.data.tfrecord.Features`.
    """
    height, width = canvas
    shape = (spec.num_clips, spec.num_frames)
    size = tf.constant([height, width], tf.float32)
    whole = tf.concat([tf.zeros([2]), size], axis=0)
    nothing = tf.tile([[0, -1]], [spec.num_clips, 1])
    return ({"followed": nothing} if spec.follow else {}) | {
        "frames": tf.zeros((*shape, height, width, 3), tf.uint8),
        "extent": tf.tile(size[None], [spec.num_clips, 1]),
        "window": tf.tile(whole[None], [spec.num_clips, 1]),
        "flip": tf.zeros((spec.num_clips,), tf.bool),
        "times": tf.zeros(shape, tf.int32),
        "choice": tf.zeros((spec.num_clips,), tf.int32),
        "label": tf.constant(-1),
        "index": tf.constant(0),
        "mask": tf.constant(0.0),
        "replaced": tf.constant(1.0),
        "attempt": tf.constant(TRIES, tf.int64),
        "annotations": {
            name: tf.zeros((*shape, *own)) for name, own in annotations.items()
        },
        "uniforms": tf.zeros([num_uniforms]),
    }
