"""Serializes encoded videos as `tf.train.Example`, by TFDS without TensorFlow."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ctp_jax.data import tfrecord
from ctp_jax.prepare import video, workers

FEATURES = tfrecord.Features("frames", "label", id="video_id", fps="fps")
"""Names of the features of a record, annotations and flow apart."""
FLOW = "flow"


@dataclasses.dataclass(frozen=True)
class Schema:
    """The features of every record.

    Attributes:
        class_names: in the order of the labels; empty for unlabelled videos.
        annotations: see `ctp_jax.data.tfrecord.Features`.
        flow: whether there are flow frames.
    """

    class_names: tuple[str, ...]
    annotations: Mapping[str, tuple[int, ...]]
    flow: bool = False

    def features(self) -> Any:
        """The schema as a `tfds.features.FeaturesDict`."""
        import tensorflow_datasets as tfds

        label = tfds.features.Scalar(np.int64)
        if self.class_names:
            label = tfds.features.ClassLabel(names=list(self.class_names))
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
        features = {
            "frames": tfds.features.Sequence(image),
            **({FLOW: tfds.features.Sequence(image)} if self.flow else {}),
            "label": label,
            "video_id": tfds.features.Text(),
            "fps": tfds.features.Scalar(np.float32),
        }
        for name, shape in self.annotations.items():
            features[name] = tfds.features.Tensor(
                shape=(None, *shape), dtype=np.float32
            )
        return tfds.features.FeaturesDict(features)

    def names(self) -> tfrecord.Features:
        """The names of the features."""
        other = FLOW if self.flow else ""
        return dataclasses.replace(FEATURES, annotations=self.annotations, other=other)


class Serializer:
    """Serializes the record of a video."""

    def __init__(self, schema: Schema):
        from tensorflow_datasets.core import example_serializer

        self._schema, self._features = schema, schema.features()
        self._serializer = example_serializer.ExampleSerializer(
            self._features.get_serialized_info()
        )

    def __call__(self, item: workers.Item, encoded: video.EncodedVideo) -> bytes:
        """The payload; a function of the video, since features have a fixed order."""
        example = {
            "frames": encoded.frames,
            **({FLOW: encoded.flow} if self._schema.flow else {}),
            "label": item.label,
            "video_id": item.id,
            "fps": encoded.fps,
            **{name: encoded.annotations[name] for name in self._schema.annotations},
        }
        message = self._serializer.get_tf_example(
            self._features.encode_example(example)
        )
        return message.SerializeToString(deterministic=True)


def row(
    item: workers.Item, encoded: video.EncodedVideo, offset: int, length: int
) -> tfrecord.Row:
    """The row of the index for a video whose payload is at these bytes of its file."""
    height, width, encoding = tfrecord.image_size(encoded.frames[0])
    return tfrecord.Row(
        offset=offset,
        length=length,
        num_frames=len(encoded.frames),
        height=height,
        width=width,
        label=item.label,
        fps=float(np.float32(encoded.fps)),
        id=item.id.encode(),
        encoding=encoding,
    )
