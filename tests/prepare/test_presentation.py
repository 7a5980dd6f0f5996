"""What of a file is shown, against the ffmpeg command, frame by frame."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from ctp_jax.prepare import video
from tests.prepare.ffmpeg_command import (
    COUNT,
    HEIGHT,
    SOURCE,
    WIDTH,
    X264,
    decoded,
    ffmpeg,
    number,
    shown_by_ffmpeg,
    stored,
    write_source,
)
from tests.prepare.make_videos import write_video

FORMATS = {
    # container: codecs. The first of each has B-frames if the codec has any.
    "mp4": [
        f"{X264} -bf 3",
        f"{X264} -bf 0",
        f"{X264} -bf 3 -movflags frag_keyframe+empty_moov",
        "-c:v libx265 -x265-params log-level=none -crf 8 -bf 3",
        "-c:v mpeg4 -q:v 2 -bf 2",
        "-c:v libvpx-vp9 -b:v 3M -deadline realtime -cpu-used 8",
    ],
    "mov": [f"{X264} -bf 3", "-c:v prores_ks", "-c:v mjpeg -q:v 2", "-c:v png"],
    "m4v": ["-c:v mpeg4 -q:v 2 -bf 2"],
    "3gp": ["-c:v mpeg4 -q:v 2"],
    "mkv": [f"{X264} -bf 3", f"{X264} -bf 0", "-c:v ffv1"],
    "webm": ["-c:v libvpx -b:v 3M -auto-alt-ref 1 -lag-in-frames 10"],
    "avi": [
        f"{X264} -bf 3",
        "-c:v mpeg4 -q:v 2 -bf 2",
        "-c:v mpeg4 -q:v 2 -bf 0",
        "-c:v mjpeg -q:v 2",
        "-c:v rawvideo -pix_fmt bgr24",
    ],
    "flv": [f"{X264} -bf 3", "-c:v flv -q:v 2"],
    "ts": [f"{X264} -bf 3", "-c:v mpeg2video -q:v 2 -bf 2"],
    "m2ts": [f"{X264} -bf 0"],
    "mpg": ["-c:v mpeg2video -q:v 2 -bf 2", "-c:v mpeg1video -q:v 2"],
    "ogv": ["-c:v libtheora -q:v 10"],
    "wmv": ["-c:v wmv2 -q:v 2"],
}
COLOURS = {
    "bt709": f"{X264} -vf scale=out_color_matrix=bt709 -colorspace bt709",
    "full": f"{X264} -vf scale=out_range=full -color_range pc",
    "jpeg": f"{X264} -pix_fmt yuvj420p",
    "bt2020": f"{X264} -vf scale=out_color_matrix=bt2020 -colorspace bt2020nc",
    "10bit": f"{X264} -pix_fmt yuv420p10le",
    "422": f"{X264} -pix_fmt yuv422p",
    "grey": f"{X264} -pix_fmt gray",
    "alpha": "-c:v prores_ks -profile:v 4444 -pix_fmt yuva444p10le",
    "rgb": "-c:v qtrle -pix_fmt argb",
    "odd": f"{X264} -vf scale=95:63 -pix_fmt yuv444p",
    "larger": f"{X264} -vf scale=190:130",
}
FILES = [
    (container, codec) for container, codecs in FORMATS.items() for codec in codecs
]


def check_as_ffmpeg(path, numbers=None):
    """Every frame as ffmpeg shows it, and stored once."""
    ours = decoded(path)
    theirs = shown_by_ffmpeg(path, ours.shape[1:3])
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).max() <= 3
    expected = [number(image) for image in theirs]
    assert numbers is None or expected == list(numbers)
    assert stored(path) == (expected, pytest.approx(25, rel=1e-3))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the files of `FILES` and `COLOURS`, and what they are made of."""
    folder = tmp_path_factory.mktemp("videos")
    write_source(folder / "source.mkv")
    outputs = []
    for i, (container, codec) in enumerate(FILES):
        pixels = "" if "-pix_fmt" in codec else "-pix_fmt yuv420p"
        for default in ("ffv1", "prores", "mjpeg", "png"):
            pixels = "" if default in codec else pixels
        outputs += [f"{codec} {pixels}", folder / f"{i}.{container}"]
    for name, codec in COLOURS.items():
        outputs += [codec, folder / f"{name}.mov"]
    ffmpeg("-i", folder / "source.mkv", *outputs)
    return folder


@pytest.mark.parametrize("index", range(len(FILES)), ids=[" ".join(f) for f in FILES])
def test_containers_and_codecs(made, index):
    check_as_ffmpeg(made / f"{index}.{FILES[index][0]}", range(COUNT))


@pytest.mark.parametrize("name", COLOURS)
def test_colours_and_sizes(made, name):
    check_as_ffmpeg(made / f"{name}.mov", None if name == "grey" else range(COUNT))


@pytest.mark.parametrize("ending", ["mp4", "mov"])
@pytest.mark.parametrize("group", [5, 100])
@pytest.mark.parametrize("cut", ["-ss 0.3", "-t 0.5", "-ss 0.5 -t 0.3"])
def test_what_an_edit_list_hides_is_not_missing(made, tmp_path, ending, group, cut):
    whole, path = tmp_path / "whole.mp4", tmp_path / f"cut.{ending}"
    ffmpeg("-i", made / "source.mkv", f"{X264} -pix_fmt yuv420p -g {group}", whole)
    ffmpeg(cut, "-i", whole, "-c copy", path)
    check_as_ffmpeg(path)


@pytest.mark.parametrize(
    ("ending", "options"),
    [("ts", ""), ("mpg", ""), ("ts", "-output_ts_offset 100"), ("m2ts", "")],
)
def test_joined_files_begin_anew(made, tmp_path, ending, options):
    parts = [tmp_path / f"{i}.{ending}" for i in range(2)]
    codec = "-c:v mpeg2video -q:v 2 -bf 0"
    ffmpeg("-i", made / "source.mkv", codec, parts[0], codec, options, parts[1])
    joined = tmp_path / f"joined.{ending}"
    joined.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    check_as_ffmpeg(joined, 2 * list(range(COUNT)))


def with_streams(made, path, *options):
    """A file of a video, a small video of other frames, a cover and sound."""
    small, cover = path.parent / "small.mkv", path.parent / "cover.png"
    source = made / "source.mkv"
    ffmpeg("-i", source, "-vf scale=48:32,reverse -c:v ffv1", small)
    ffmpeg("-f lavfi -i color=red:s=300x300 -frames:v 1", cover)
    sound = "-f lavfi -i sine=d=2"
    codecs = f"{X264} -pix_fmt yuv420p -c:a aac"
    ffmpeg("-i", source, "-i", small, "-i", cover, sound, codecs, *options, path)
    return path


@pytest.mark.parametrize("order", [(0, 2, 3), (2, 0, 3), (3, 2, 0), (3, 2)])
@pytest.mark.parametrize("ending", ["mp4", "m4v", "mkv"])
def test_covers_are_no_videos(made, tmp_path, ending, order):
    path = tmp_path / f"a.{ending}"
    at = [i for i in order if i != 3].index(2)
    options = [f"-c:v:{at} png -pix_fmt:v:{at} rgb24 -disposition:v:{at} attached_pic"]
    if ending == "mkv":  # its covers are attachments
        order = [i for i in order if i != 2]
        options = [
            "-attach",
            tmp_path / "cover.png",
            "-metadata:s:t mimetype=image/png",
        ]
    with_streams(made, path, *(f"-map {i}" for i in order), *options)
    if 0 in order:
        check_as_ffmpeg(path, range(COUNT))
    else:
        with pytest.raises(video.VideoError, match="no video stream, only a picture"):
            video.encode_video(path)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_stream_of_one_picture_is_no_video(made, tmp_path, ending):
    path = with_streams(made, tmp_path / f"a.{ending}", "-map 2 -map 0")
    assert stored(path)[0] == list(range(COUNT))


@pytest.mark.parametrize("default", [(), (0,), (1,), (2,), (0, 1), (1, 2)])
def test_the_default_stream_is_shown_else_the_largest(made, tmp_path, default):
    # Small, large (as ffmpeg's own choice by size), small.
    flags = [f"-disposition:v:{i} {'default' * (i in default) or 0}" for i in range(3)]
    maps = "-map 1 -map 0 -map 1"
    path = with_streams(made, tmp_path / "a.mkv", maps, " ".join(flags))
    large = not default or 1 in default
    assert decoded(path).shape == (COUNT, *((64, 96) if large else (32, 48)), 3)
    assert stored(path)[0] == list(range(COUNT))[:: 1 if large else -1]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "flv", "ts", "wmv"])
@pytest.mark.parametrize("late", ["0", "0.5"])
def test_sound_may_be_longer_and_the_video_late(made, tmp_path, ending, late):
    path = tmp_path / f"a.{ending}"
    codec = "flv" if ending == "flv" else "mpeg4"
    codecs = f"-fps_mode passthrough -c:v {codec} -q:v 2 -c:a aac"
    sound = "-f lavfi -i sine=d=5"
    ffmpeg(f"-itsoffset {late}", "-i", made / "source.mkv", sound, codecs, path)
    check_as_ffmpeg(path, range(COUNT))


@pytest.mark.parametrize(
    ("aspect", "degrees"),
    [*itertools.product(["1", "3/4"], [0, 90, 180, 270]), ("2", 0), ("1000", 0)],
)
def test_upright_in_all_orientations_with_square_pixels(tmp_path, degrees, aspect):
    wide = {"1": 96, "2": 192, "3/4": 72, "1000": 96}[aspect]  # the last is absurd
    size = (HEIGHT, wide) if degrees % 180 == 0 else (wide, HEIGHT)
    for flips in itertools.product([False, True], repeat=2):
        path = tmp_path / "a.mov"
        turned = {"rotation": degrees, "flips": flips, "aspect": Fraction(aspect)}
        write_video(path, SOURCE[:3], **turned)
        ours = decoded(path)
        theirs = shown_by_ffmpeg(path, size)
        assert ours.shape == theirs.shape == (3, *size, 3)
        assert np.abs(ours.astype(int) - theirs).max() <= 5  # other places of chroma


@pytest.mark.parametrize("codec", ["mpeg2video -q:v 2", "libx264 -crf 8"])
def test_interlaced_frames_are_deinterlaced(tmp_path, codec):
    path = tmp_path / "a.mkv"
    moving = "-f lavfi -i testsrc2=d=0.5:s=96x64:r=50 -vf interlace -pix_fmt yuv420p"
    ffmpeg(moving, f"-c:v {codec} -flags +ilme+ildct", path)
    ours = decoded(path)
    combed = shown_by_ffmpeg(path, (64, 96))
    theirs = shown_by_ffmpeg(path, (64, 96), "bwdif=mode=send_frame:deint=interlaced")
    assert ours.shape == theirs.shape == combed.shape
    # At the edge of the first frame, versions of the filter differ.
    assert np.abs(ours[1:].astype(int) - theirs[1:]).max() <= 3
    assert np.abs(ours.astype(int) - combed).mean() > 1


def test_frames_that_were_dropped_at_recording_are_not_missing(made, tmp_path):
    # AVI has a fixed rate: a pause is a row of empty chunks, which are counted.
    path = tmp_path / "a.avi"
    pause = "-vf select=not(between(n\\,5\\,14)) -fps_mode passthrough"
    ffmpeg("-i", made / "source.mkv", pause, "-c:v mpeg4 -q:v 2", path)
    expected = [*range(5), *10 * [4], *range(15, COUNT)]
    assert stored(path) == (expected, pytest.approx(25, rel=1e-3))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "flv", "avi", "wmv", "gif"])
def test_a_few_frames(made, tmp_path, ending, count):
    path = tmp_path / f"a.{ending}"
    ffmpeg("-i", made / "source.mkv", f"-frames:v {count}", path)
    numbers, fps = stored(path)
    assert len(numbers) == count
    assert fps == pytest.approx(25, rel=0.01)


def test_the_size_may_change(made, tmp_path):
    parts = [tmp_path / f"{i}.ts" for i in range(2)]
    codec = "-c:v mpeg2video -q:v 2"
    ffmpeg(
        "-i", made / "source.mkv", codec, parts[0], "-vf scale=48:32", codec, parts[1]
    )
    joined = tmp_path / "joined.ts"
    joined.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    theirs = shown_by_ffmpeg(joined, (HEIGHT, WIDTH))  # without the frame of the change
    assert decoded(joined).shape == theirs.shape
    differences = np.subtract(stored(joined)[0], [number(image) for image in theirs])
    assert np.abs(differences).max() <= 1
