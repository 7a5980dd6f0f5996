"""Numbers and durations as text."""

import re

import numpy as np
import pytest

from ctp_jax import formatting


@pytest.mark.parametrize(
    "value, text",
    [
        (0.70405, "0.704"),
        (0.0, "0.000"),
        (-0.25, "-0.250"),
        (1.5e-5, "1.50e-05"),
        (12345.0, "1.23e+04"),
        (12345, "12345"),
    ],
)
def test_number(value, text):
    assert formatting.number(value) == text


@pytest.mark.parametrize(
    "seconds,text",
    [(1.25, "1.2s"), (42, "42s"), (250, "4m10s"), (11100, "3h05m"), (183600, "2d03h")],
)
def test_duration(seconds, text):
    assert formatting.duration(seconds) == text


def test_counts_agree_with_their_noun():
    said = [formatting.count(n, "video") for n in (0, 1, np.int64(1), 1250)]
    assert said == ["0 videos", "1 video", "1 video", "1,250 videos"]
    assert formatting.count(2, "class", "classes") == "2 classes"


def test_parts_are_wrapped_and_never_broken():
    parts = ["step 1", "x" * 30, "loss 2.5 (part 1)", "y" * 12]
    lines = formatting.wrapped(parts, width=40).split("\n")
    assert lines == ["step 1  " + "x" * 30, "    loss 2.5 (part 1)  " + "y" * 12]
    assert formatting.wrapped([], width=40) == ""


def test_folded_lines_keep_their_words():
    path = "/a" * 60
    words = "some words of a sentence " * 9
    for short in ("", "  one   two\n", f"  label     {path}"):
        assert formatting.folded(short) == short
    first, *rest = formatting.folded(f"short\n  note: {words}{path} is").split("\n")
    assert first == "short" and rest[0].startswith("  note: some")
    assert all(re.match(r"    \S", line) for line in rest[1:])
    assert " ".join(rest).split() == ["note:", *words.split(), path, "is"]
    assert [line.split()[-1] for line in rest if len(line) > 100] == [path]
