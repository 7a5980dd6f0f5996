"""Decoding: against OpenCV's reader, and against times and numbers we wrote."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from ctp_jax.prepare import video
from tests.prepare.make_videos import numbers, picture, write_numbered, write_video


def decode(path, short_side=1000):
    return [image for *_, image in video.decode_frames(path, short_side)]


def open_with_cv2(path):
    """RGB frames, upright: OpenCV turns them by itself."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        ok, image = capture.read()
        if not ok:
            return frames
        frames.append(image[..., ::-1])


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (47, 63), (33, 90)])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_frames_are_those_that_opencv_reads(tmp_path, size, rotation):
    frames = [picture(*size, shift=20 * i) for i in range(5)]
    path = write_video(tmp_path / "a.mp4", frames, rotation=rotation)
    ours, theirs = decode(path), open_with_cv2(path)
    assert len(ours) == len(theirs) == 5
    upright = size if rotation % 180 == 0 else size[::-1]
    for own, other in zip(ours, theirs):
        assert own.shape == other.shape == (*upright, 3)
        assert np.abs(own.astype(int) - other).max() <= 3


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((96, 128), (32, 43)),
        ((128, 96), (43, 32)),
        ((97, 131), (32, 43)),
        ((24, 70), (24, 70)),
        ((32, 32), (32, 32)),
    ],
)
def test_short_side_shrinks_and_never_grows(tmp_path, size, expected):
    image = picture(*size)
    (small,) = decode(write_video(tmp_path / "a.mp4", [image]), short_side=32)
    assert small.shape == (*expected, 3)
    oracle = cv2.resize(image, expected[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - oracle).max() <= 6  # x264 is worth 5


def test_even_video_is_stored_frame_by_frame(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 12, rate=30)
    encoded = video.encode_video(path, 32)
    images = [np.asarray(Image.open(io.BytesIO(frame))) for frame in encoded.frames]
    assert numbers(images) == list(range(12))
    assert images[0].shape == (32, 43, 3)
    assert encoded.fps == pytest.approx(30, rel=1e-3)


def test_variable_rate_shows_each_frame_at_its_time(tmp_path):
    # 25 frames per second with a pause of five frames after the fourth.
    times = [0, 40, 80, 120, 320, 360, 400, 440]
    path = write_numbered(tmp_path / "a.mkv", 8, times=times)
    encoded = video.encode_video(path)
    images = [np.asarray(Image.open(io.BytesIO(frame))) for frame in encoded.frames]
    assert numbers(images) == [0, 1, 2, 3, 3, 3, 3, 3, 4, 5, 6, 7]
    assert encoded.fps == pytest.approx(25, rel=1e-3)


def test_rounded_times_are_not_variable_rate():
    exact = np.arange(1000) / 29.97
    shown, fps = video.constant_rate([round(t, 3) for t in exact], 25.0)
    assert shown.tolist() == list(range(1000))
    assert fps == pytest.approx(29.97, rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_constant_rate_against_a_search(seed):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.choice([0.02, 0.04, 0.04, 0.04, 0.3], size=60))
    shown, fps = video.constant_rate(times.tolist(), 25.0)
    for i, index in enumerate(shown):
        moment = times[0] + (i + 0.25) / fps
        assert index == max(j for j in range(60) if times[j] <= moment)
    assert len(shown) <= 120


def test_constant_rate_never_more_than_doubles_the_frames():
    times = [0.0, 0.01, 0.02, 0.03, 100.0]
    shown, fps = video.constant_rate(times, 25.0)
    assert len(shown) == 5
    assert fps == pytest.approx(4 / 100)


@pytest.mark.parametrize("times", [[0, 0.1, 1.1], [0, 0.03, 0.2, 0.23, 0.4]])
def test_constant_rate_where_no_interval_is_near_the_median(times):
    """Half of the intervals are short, half are long."""
    shown, fps = video.constant_rate(times, 25.0)
    assert fps == pytest.approx((len(times) - 1) / times[-1])
    assert len(shown) == len(times) and shown[0] == 0 and np.diff(shown).min() >= 0


@pytest.mark.parametrize("times", [[0.0], [None, None], [0.0, 0.0, 0.0]])
def test_constant_rate_without_times_is_the_streams(times):
    shown, fps = video.constant_rate(times, 24.0)
    assert (shown.tolist(), fps) == (list(range(len(times))), 24.0)


def test_jpeg_quality_and_chroma():
    image = picture(40, 56)
    small, large = video.encode_jpeg(image, 50), video.encode_jpeg(image)
    assert len(small) < len(large)
    decoded = Image.open(io.BytesIO(large))
    assert decoded.layer[0][1:3] == (2, 2)  # luma sampled twice as densely: 4:2:0
    assert np.abs(np.asarray(decoded).astype(int) - image).max() <= 8


def test_several_pictures_in_a_file_are_a_video(tmp_path):
    images = [Image.fromarray(picture(48, 64, shift=9 * i)) for i in range(4)]
    for count in (1, 4):
        path = tmp_path / f"{count}.mjpeg"
        with open(path, "wb") as file:
            for image in images[:count]:
                image.save(file, format="JPEG")
    assert len(decode(path)) == len(video.announced_times(path)[0]) == 4
    for read in (decode, video.announced_times):
        with pytest.raises(video.VideoError, match="a picture, not a video"):
            read(tmp_path / "1.mjpeg")


def make_bad(folder, kind):
    path = folder / "bad.mp4"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("this is no video\n" * 50)
    elif kind == "picture":
        Image.new("RGB", (64, 48)).save(path, format="JPEG")
    elif kind == "header":
        whole = write_numbered(folder / "whole.mp4", 20).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "sound":
        import av

        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=16000)
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            frame.rate = 16000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    elif kind == "cut":
        # The header comes first, and says 20 frames: most of them are missing.
        path = folder / "bad.avi"
        frames = np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3), np.uint8)
        whole = write_video(
            folder / "whole.avi", list(frames), codec="mpeg4", pix_fmt="yuv420p"
        )
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", "the file is empty"),
        ("text", "invalid data"),
        ("picture", "a picture, not a video"),
        ("header", "invalid data"),
        ("sound", "no video stream"),
        ("cut", "cut short|invalid data"),
        ("missing", "no such file"),
    ],
)
def test_bad_files_give_one_line(tmp_path, kind, reason):
    with pytest.raises(video.VideoError, match=reason) as caught:
        video.encode_video(make_bad(tmp_path, kind))
    assert "\n" not in str(caught.value)
