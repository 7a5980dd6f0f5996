"""Files that cannot be used, or only just: damage, missing decoders, what is no file."""

import functools
import os
import socket

import av
import pytest

from ctp_jax.prepare import frames, video
from tests.prepare.ffmpeg_command import (
    COUNT,
    HEIGHT,
    WIDTH,
    X264,
    decoded,
    ffmpeg,
    number,
    shown_by_ffmpeg,
    write_source,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("source") / "source.mkv")


CUT = {
    "mp4": "-c:v mpeg4 -q:v 2 -movflags +faststart",
    "mov": f"{X264} -g 5 -movflags +faststart",
    "mkv": "-c:v mpeg4 -q:v 2",
    "webm": "-c:v libvpx -b:v 2M -deadline realtime -cpu-used 8",
    "avi": "-c:v mpeg4 -q:v 2",
    "flv": "-c:v flv -q:v 2",
    "wmv": "-c:v wmv2 -q:v 2",
    "asf": "-c:v mpeg4 -q:v 2",
}
"""Formats that announce how long the video is."""


@pytest.mark.parametrize("sound", ["", "-f lavfi -i sine=d=2 -c:a aac"])
@pytest.mark.parametrize("ending", CUT)
def test_a_tenth_missing_is_damage(tmp_path, ending, sound):
    whole, cut = tmp_path / f"whole.{ending}", tmp_path / f"cut.{ending}"
    codec = sound.replace("aac", "libopus") if ending == "webm" else sound
    noise = "-f lavfi -i testsrc2=d=2:s=96x64:r=25"
    ffmpeg(noise, codec, "-shortest", CUT[ending], whole)
    data = whole.read_bytes()
    assert len(video.encode_video(whole).frames) >= 49
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(video.VideoError, match="^cut short: .* can be decoded$"):
        video.encode_video(cut)
    # Indices are at the end of some.
    end = len(data) - (data[-4000:].find(b"idx1") + 1 and 4000)
    cut.write_bytes(data[: int(0.97 * end)])
    assert 45 <= len(video.encode_video(cut).frames) <= 50


@pytest.mark.parametrize(("damaged", "usable"), [(2, True), (4, False)])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_tenth_undecodable_is_damage(source, tmp_path, ending, damaged, usable):
    path = tmp_path / f"a.{ending}"
    ffmpeg("-i", source, f"{X264} -g 1 -pix_fmt yuv420p", path)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size][10 : 10 + damaged]
        for packet in packets:
            at = data.find(bytes(packet))
            data[at : at + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    if usable:
        whole = [i for i in range(COUNT) if not 10 <= i < 10 + damaged]
        theirs = shown_by_ffmpeg(path, (HEIGHT, WIDTH))
        assert (
            [number(i) for i in decoded(path)] == [number(i) for i in theirs] == whole
        )
    else:
        with pytest.raises(video.VideoError, match=f"cut short: 21 of {COUNT} frames"):
            video.encode_video(path)


@pytest.mark.parametrize("tag", [b"zzzz", b"encv"])
def test_the_codec_without_a_decoder_is_named(source, tmp_path, tag):
    path = tmp_path / "a.mp4"
    ffmpeg("-i", source, f"{X264} -pix_fmt yuv420p", path)
    path.write_bytes(path.read_bytes().replace(b"avc1", tag))
    with pytest.raises(video.VideoError, match=f"no decoder .*, {tag.decode()}$"):
        video.encode_video(path)


@pytest.mark.parametrize("kind", ["fifo", "socket", "folder", "device"])
def test_what_is_no_file_is_not_waited_for(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # the names of sockets must be short
    with socket.socket(socket.AF_UNIX) as bound:
        {
            "fifo": os.mkfifo,
            "socket": bound.bind,
            "folder": os.mkdir,
            "device": functools.partial(os.symlink, "/dev/zero"),
        }[kind]("1.jpg")
        with pytest.raises(video.VideoError, match="^not a file, but a"):
            video.encode_video("1.jpg")
        with pytest.raises(video.VideoError, match="^1.jpg: not a file, but a"):
            frames.encode_frames(".", 12.0)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "out of memory"),
        (ValueError("Unexpected\nformat"), "unexpected format"),
        (ImportError("No module"), "no module"),
        (KeyError(), "KeyError"),
    ],
)
def test_whatever_a_file_raises_concerns_that_file(source, monkeypatch, error, reason):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(video, "encode_jpeg", fail)
    with pytest.raises(video.VideoError, match=f"^{reason}$"):
        video.encode_video(source)
