"""Records of a prepared data set, for preparations that start from one.

Worker processes import this module: neither TensorFlow nor TFDS at the top.
"""

import dataclasses
import io
import os

import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image

from ctp_jax.data import index, tfrecord
from ctp_jax.prepare import video


@dataclasses.dataclass(frozen=True)
class Stored:
    """A record of a prepared data set.

    Attributes:
        path: of its file.
        offset, length: of its payload, bytes.
        checksum: of the payload, as it is in the file: another content has another.
        fps: frames per second.
        features: names of the features in the record.
    """

    path: str
    offset: int
    length: int
    checksum: bytes
    fps: float
    features: tfrecord.Features


def find(directory: epath.Path, found: index.Index) -> list[Stored]:
    """The records of a data set, with their checksums as they are in the files."""
    checksums = [b""] * len(found.offset)
    for number, file in enumerate(found.files):
        with (directory / file).open("rb") as opened:
            for n in np.flatnonzero(found.file_index == number):
                opened.seek(int(found.offset[n] + found.length[n]))
                checksums[n] = opened.read(tfrecord.FOOTER)
    return [
        Stored(
            path=os.fspath(directory / found.files[found.file_index[n]]),
            offset=int(found.offset[n]),
            length=int(found.length[n]),
            checksum=checksum,
            fps=float(found.fps[n]),
            features=found.features,
        )
        for n, checksum in enumerate(checksums)
    ]


def read(stored: Stored) -> video.EncodedVideo:
    """The video of a record. Raises `VideoError` if it is not as it was written."""
    from tensorflow_datasets.proto import tf_example_pb2  # without TensorFlow

    with epath.Path(stored.path).open("rb") as file:
        file.seek(stored.offset)
        payload = file.read(stored.length)
    if tfrecord.frame(payload)[1] != stored.checksum:
        raise video.VideoError(
            f"the record at byte {stored.offset} of "
            f"{os.path.basename(stored.path)} is damaged"
        )
    values = tf_example_pb2.Example.FromString(payload).features.feature
    frames = list(values[stored.features.frames].bytes_list.value)
    annotations = {
        name: np.array(values[name].float_list.value, np.float32).reshape(
            len(frames), *shape
        )
        for name, shape in stored.features.annotations.items()
    }
    other = stored.features.other
    flow = list(values[other].bytes_list.value) if other else []
    return video.EncodedVideo(frames, stored.fps, annotations, flow)


def decode(frames: list[bytes]) -> UInt8[np.ndarray, "k h w 3"]:
    """The frames of a record. Raises `VideoError` if their sizes differ."""
    images = [
        Image.open(io.BytesIO(frame), formats=("JPEG", "PNG")) for frame in frames
    ]
    if len({image.size for image in images}) > 1:
        raise video.VideoError("the frames are of different sizes")
    return np.stack([np.asarray(image.convert("RGB")) for image in images])


def check_opencv(found: str, started_with: str) -> None:
    """Raises `RuntimeError`: another OpenCV than that of the machine with the command."""
    if found != started_with:
        raise RuntimeError(
            f"this worker has OpenCV {found}, the job was started with {started_with}: "
            "install the same"
        )
