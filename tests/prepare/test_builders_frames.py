"""Folders of frames: what is kept as it is, what is encoded anew, what is refused."""

import io

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ctp_jax.prepare import frames, video
from tests.prepare.make_videos import numbers, picture

LUMA = np.array([0.299, 0.587, 0.114])  # chroma is halved


def jpeg(pixels, **options) -> bytes:
    buffer = io.BytesIO()
    options = {"quality": 90, **options}
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def grey(number: int) -> np.ndarray:
    """A frame that `numbers` reads."""
    return np.full((48, 64, 3), 20 + 8 * number, np.uint8)


def write(folder, files: dict[str, bytes]):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def markers(data: bytes) -> list[int]:
    """Second bytes of the segments before the picture itself."""
    found, position = [], 2
    while data[position + 1] != 0xDA:
        found.append(data[position + 1])
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return found


def shown(encoded: video.EncodedVideo) -> list[np.ndarray]:
    """The frames, each decoded as training does it: a part of it at a time."""
    images = []
    for data in encoded.frames:
        assert 0xC0 in markers(data)  # baseline
        height, width = cv2.imdecode(np.frombuffer(data, np.uint8), 1).shape[:2]
        half = width // 2
        boxes = [0, 0, height, half], [0, half, height, width - half]
        parts = [tf.io.decode_and_crop_jpeg(data, box, channels=3) for box in boxes]
        images.append(np.concatenate(parts, axis=1))
    return images


def test_small_jpeg_files_keep_their_bytes_and_their_numeric_order(tmp_path):
    files = {f"{i}.jpg": jpeg(grey(i)) for i in range(1, 13)}
    others = {"notes.txt": b"x", "._1.jpg": b"what a Mac leaves behind"}
    folder = write(tmp_path, files | others)
    encoded = frames.encode_frames(folder, 12.0, short_side=48)
    assert encoded.frames == [files[f"{i}.jpg"] for i in range(1, 13)]
    assert encoded.fps == 12.0
    assert numbers(shown(encoded)) == list(range(1, 13))


@pytest.mark.parametrize("short_side", [40, 30])
def test_larger_frames_are_averaged_over_areas(tmp_path, short_side):
    pixels = picture(60, 90)
    pixels[20:40, 30:60] = 255 - pixels[20:40, 30:60]
    original = jpeg(pixels, quality=95, subsampling="4:4:4")
    folder = write(tmp_path, {"img_00001.JPG": original, "img_00002.JPG": original})
    encoded = frames.encode_frames(folder, 12.0, short_side, quality=95)
    decoded = cv2.imdecode(np.frombuffer(original, np.uint8), 1)[..., ::-1]
    size = (90 * short_side // 60, short_side)
    expected = cv2.resize(decoded, size, interpolation=cv2.INTER_AREA)
    for image in shown(encoded):
        assert image.shape == expected.shape
        assert np.abs(image @ LUMA - expected @ LUMA).mean() < 2


EXIF = Image.Exif()
EXIF[0x0112] = 6  # to be turned clockwise by a quarter


@pytest.mark.parametrize(
    ("options", "turn", "grey_scale"),
    [
        ({"progressive": True}, 0, False),
        ({"exif": EXIF}, -1, False),
        ({}, 0, True),
    ],
)
def test_other_jpeg_files_are_encoded_anew(tmp_path, options, turn, grey_scale):
    pixels = picture(40, 60)
    original = jpeg(pixels[..., 0] if grey_scale else pixels, **options)
    assert (0xC2 in markers(original)) == ("progressive" in options)
    encoded = frames.encode_frames(write(tmp_path, {"1.jpg": original}), 12.0)
    assert encoded.frames != [original]
    expected = np.repeat(pixels[..., :1], 3, axis=-1) if grey_scale else pixels
    expected = np.rot90(expected, turn)
    (image,) = shown(encoded)
    assert image.shape == expected.shape
    assert np.abs(image @ LUMA - expected @ LUMA).mean() < 3


@pytest.mark.parametrize(("form", "mode"), [("PNG", "RGBA"), ("JPEG", "CMYK")])
def test_other_formats_and_colours(tmp_path, form, mode):
    buffer = io.BytesIO()
    Image.fromarray(picture(40, 60)).convert(mode).save(buffer, form)
    folder = write(tmp_path, {f"7.{form.lower()}": buffer.getvalue()})
    (image,) = shown(frames.encode_frames(folder, 12.0, first=None))
    assert np.abs(image @ LUMA - picture(40, 60) @ LUMA).mean() < 3


def test_a_file_without_its_end_mark_is_not_stored_as_it_is(tmp_path):
    original = jpeg(picture(40, 60))
    folder = write(tmp_path, {"1.jpg": original + b"\0\0"})
    encoded = frames.encode_frames(folder, 12.0)
    assert encoded.frames[0].endswith(b"\xff\xd9")
    assert not encoded.frames[0].endswith(b"\0")


def deep() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


GOOD = jpeg(picture(40, 60))
BAD = [
    ({}, "no frame in the folder"),
    ({"1.jpg": GOOD, "2.jpg": GOOD, "4.jpg": GOOD}, "frame 3 is missing, 4.jpg comes"),
    ({"2.jpg": GOOD, "3.jpg": GOOD}, "frame 1 is missing, 2.jpg comes"),
    ({"1.jpg": GOOD, "001.jpg": GOOD}, "001.jpg and 1.jpg have the same number"),
    ({"1.jpg": GOOD, "cover.jpg": GOOD}, "cover.jpg: no number"),
    ({"1.jpg": GOOD, "2.jpg": b""}, "2.jpg: the file is empty"),
    ({"1.jpg": GOOD, "2.jpg": GOOD[:-300]}, "2.jpg: cannot be decoded .*truncated"),
    ({"1.jpg": GOOD, "2.jpg": b"no picture"}, "2.jpg: neither JPEG nor PNG"),
    ({"1.jpg": GOOD, "2.jpg": jpeg(picture(42, 60))}, "2.jpg: has 60x42 .* 60x40"),
    ({"1.png": deep()}, "1.png: needs 8 bits"),
]


@pytest.mark.parametrize(("files", "message"), BAD, ids=[text for _, text in BAD])
def test_bad_folders(tmp_path, files, message):
    with pytest.raises(video.VideoError, match=message) as caught:
        frames.encode_frames(write(tmp_path, files), 12.0)
    assert "\n" not in str(caught.value)


def test_no_folder_and_any_first_number(tmp_path):
    with pytest.raises(video.VideoError, match="No such file"):
        frames.list_frames(tmp_path / "nowhere")
    folder = write(tmp_path, {f"{i:03d}.jpg": GOOD for i in (8, 9, 10)})
    assert frames.list_frames(folder, first=None) == ["008.jpg", "009.jpg", "010.jpg"]
    assert frames.list_frames(folder, first=8) == ["008.jpg", "009.jpg", "010.jpg"]


def test_boxes_shrink_with_the_frames(tmp_path):
    folder = write(tmp_path, {"1.jpg": GOOD, "2.jpg": GOOD})  # 60 x 40
    boxes = np.array([[6, 4, 30, 20], [0, 0, 60, 40]], np.float32)
    # To 14 x 9 pixels: 60 * 9 / 40 is 13.5.
    encoded = frames.encode_frames(
        folder, 30.0, 9, annotate=lambda *_: {"boxes": boxes}
    )
    assert encoded.annotations["boxes"].dtype == np.float32
    np.testing.assert_allclose(
        encoded.annotations["boxes"], [[1.4, 0.9, 7, 4.5], [0, 0, 14, 9]], rtol=1e-6
    )
    kept = frames.encode_frames(folder, 30.0, annotate=lambda *_: {"boxes": boxes})
    np.testing.assert_array_equal(kept.annotations["boxes"], boxes)
    with pytest.raises(video.VideoError, match="1 boxes for 2 frames"):
        frames.encode_frames(folder, 30.0, annotate=lambda *_: {"boxes": boxes[:1]})
