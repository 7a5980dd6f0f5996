"""Sheets of neighbours: positions and colours of their parts."""

import numpy as np
from PIL import ImageColor

from ctp_jax import pictures
from ctp_jax.evaluators import neighbour_sheet
from tests.test_pictures import colour_of

GREEN, RED = (ImageColor.getrgb(colour) for colour in ("#009e73", "#d55e00"))


def make_sheet(correct, sizes=((120, 160),), title="a title"):
    q, k = correct.shape
    size = iter(sizes * (q * (k + 1)))
    number = iter(range(1, 30))

    def frame():
        return np.full((*next(size), 3), colour_of(next(number)), np.uint8)

    queries = [frame() for _ in range(q)]
    neighbours = [[frame() for _ in range(k)] for _ in range(q)]
    return neighbour_sheet.draw(
        queries,
        neighbours,
        correct,
        query_names=["a class"] * q,
        neighbour_names=[["a class"] * k] * q,
        title=title,
    )


def centre(sheet, colour):
    """x and y of the middle of all pixels of one colour."""
    found = np.argwhere((np.asarray(sheet) == colour).all(-1))
    return (found.min(0) + found.max(0))[::-1] / 2


def test_frames_stand_in_rows_behind_their_queries():
    sheet = make_sheet(np.ones((3, 2), bool))
    numbers = [[1, 4, 5], [2, 6, 7], [3, 8, 9]]
    places = np.array([[centre(sheet, colour_of(n)) for n in row] for row in numbers])
    x, y = places[..., 0], places[..., 1]
    assert (np.diff(x, axis=1) > 160).all() and (np.ptp(x, axis=0) == 0).all()
    assert (np.diff(y, axis=0) > 120).all() and (np.ptp(y, axis=1) == 0).all()


def test_rims_say_which_neighbours_are_right():
    correct = np.array([[True, False, True]])
    pixels = np.asarray(make_sheet(correct))
    for number, right in zip((2, 3, 4), correct[0], strict=True):
        x, y = centre(pixels, colour_of(number)).astype(int)
        for column, row in ((x - 83, y), (x + 83, y), (x, y - 63), (x, y + 63)):
            assert tuple(pixels[row, column]) == (GREEN if right else RED)
    x, y = centre(pixels, colour_of(1)).astype(int)
    assert tuple(pixels[y, x - 83]) not in (GREEN, RED)


def test_the_marks_differ_without_their_colours():
    tick, cross = (
        np.asarray(make_sheet(np.array([[right]])).convert("L")) > 250
        for right in (True, False)
    )
    # All else is the same in both; white strokes differ.
    assert 20 < (tick != cross).sum() < 200


def test_frames_of_any_shape_are_fitted_and_long_names_are_cut():
    for size in ((10, 400), (400, 10), (1, 1), (120, 160)):
        sheet = make_sheet(np.ones((2, 3), bool), sizes=(size,))
        assert sheet.size == make_sheet(np.ones((2, 3), bool)).size
    assert neighbour_sheet._two_lines("run", 100) == "run"
    long = "videos/a_long_name_of_one"
    assert neighbour_sheet._two_lines(long, 100).replace("\n", "") == long
    first, second = neighbour_sheet._two_lines(3 * long, 100).split("\n")
    assert f"{3 * long}".startswith(first + second.removesuffix(".."))
    assert second.endswith("..")
    assert all(80 < pictures.font().getlength(line) <= 100 for line in (first, second))
    wide = make_sheet(np.ones((1, 1), bool), title="a title that is long " * 10)
    assert wide.width > make_sheet(np.ones((1, 1), bool)).width
