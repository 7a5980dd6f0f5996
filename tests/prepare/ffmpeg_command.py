"""The ffmpeg command, and videos whose frames say who they are.

Frame i is a smooth picture whose blue tells i (see `number`).
"""

import io
import itertools
import subprocess

import imageio_ffmpeg
import numpy as np
from PIL import Image

from ctp_jax.prepare import video
from tests.prepare.make_videos import picture, write_video

COUNT, HEIGHT, WIDTH = 25, 64, 96
SOURCE = [picture(HEIGHT, WIDTH, 8 * i - 10) for i in range(COUNT)]
X264 = "-c:v libx264 -crf 8 -preset veryfast"


def write_source(path):
    """A video of `COUNT` such frames, without loss."""
    return write_video(path, SOURCE, codec="ffv1", pix_fmt="bgr0")


def ffmpeg(*arguments) -> bytes:
    """Runs the command; `arguments` are split at spaces, paths are not."""
    words = [a.split() if isinstance(a, str) else [str(a)] for a in arguments]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-nostdin"]
    command += itertools.chain.from_iterable(words)
    return subprocess.run(command, check=True, capture_output=True).stdout


def shown_by_ffmpeg(path, size, filters="null") -> np.ndarray:
    """Every frame that the command shows, uint8 (n, h, w, 3)."""
    scale = f"-vf {filters},scale={size[1]}:{size[0]}:flags=area"
    raw = ffmpeg(
        "-i", path, scale, "-fps_mode passthrough -f rawvideo -pix_fmt rgb24 -"
    )
    return np.frombuffer(raw, np.uint8).reshape(-1, *size, 3)


def number(image) -> int:
    """Which frame this is."""
    return round((float(image[..., 2].mean()) - 30) / 8)


def stored(path) -> tuple[list[int], float]:
    """Numbers and rate of the frames as they are stored."""
    encoded = video.encode_video(path)
    images = [np.asarray(Image.open(io.BytesIO(frame))) for frame in encoded.frames]
    return [number(image) for image in images], encoded.fps


def decoded(path) -> np.ndarray:
    """Every frame as it is decoded, uint8 (n, h, w, 3)."""
    return np.stack([image for *_, image in video.decode_frames(path, 1000)])
