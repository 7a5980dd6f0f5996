"""Draws curves as SVG for a page: text stays text, colours are those of the page."""

import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

ID = "figure-id-"
"""Prefix of the ids of an SVG, which each figure of a page replaces by its own."""

GREY = -1
COLOURS = 6  # --c0 to --c5 of the style sheet
_DASHES = ("", "5 2.5", "1.5 2")
# Placeholders for colours of the page, which has a light and a dark theme.
_INK, _FAINT, _COLOUR = "#010203", "#020304", "#0a0b0{}"
_SIZE = (4.6, 2.9)  # inches: on a phone, 10 points come to about 10 pixels

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ctp_jax",
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.linewidth": 0.6,
    "lines.markersize": 3.6,
    "path.simplify_threshold": 0.5,
    **dict.fromkeys(("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), _INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), _FAINT),
    **dict.fromkeys(("xtick.color", "ytick.color"), _FAINT),
}


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a figure.

    Attributes:
        label: its name in the legend; '' for none.
        x, y: points; the line is interrupted where y is None or nan.
        colour: number of a colour of the page, or `GREY`.
        dash: number of a pattern; 0 for a solid line.
        low, high: ends of a bar through every point, or ().
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: int = 0
    dash: int = 0
    low: Sequence[float] = ()
    high: Sequence[float] = ()


class Drawing(NamedTuple):
    """A figure with its title, caption and legend, [(label, colour, dashes)]."""

    title: str
    svg: Markup
    caption: str
    legend: list[tuple[str, str, str]]


def draw(
    title: str,
    lines: Sequence[Line],
    *,
    caption: str,
    xlabel: str = "step",
    percent: bool = False,
    from_zero: bool = False,
    x_shares: Sequence[float] = (),
) -> Drawing | None:
    """A figure of lines, or None if there are none.

    Args:
        title: a few words, shown above the picture.
        lines: with at least one point each.
        caption: text below the picture.
        xlabel: label of the x axis.
        percent: y is a share and is written as percent.
        from_zero: the y axis begins at 0.
        x_shares: if given, x is a share and has only these values.
    """
    if not lines:
        return None
    title = title[:1].upper() + title[1:]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        keys = [_add(axes, line) for line in lines]
        axes.set(xlabel=xlabel)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if percent:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))
        if from_zero:
            axes.set_ylim(bottom=0)
        if x_shares:
            if max(x_shares) >= 20 * min(x_shares):
                axes.set_xscale("log")
            axes.set_xticks(x_shares, [f"{100 * share:g} %" for share in x_shares])
            axes.minorticks_off()
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True)
    legend = [key for key in keys if key[0]]
    return Drawing(title, _for_page(file.getvalue(), title), caption, legend)


def _add(axes, line: Line) -> tuple[str, str, str]:
    grey, number = line.colour == GREY, line.colour % COLOURS
    dashes = _DASHES[line.dash % len(_DASHES)]
    colour = _INK if grey else _COLOUR.format(number)
    style = {"color": colour, "linewidth": 1.8, "alpha": 0.6 if grey else 1.0}
    if dashes:
        pattern = tuple(map(float, dashes.split()))
        style |= {"dashes": pattern, "dash_capstyle": "butt", "linewidth": 1.3}
    y = np.array([np.nan if v is None else v for v in line.y], float)
    few = len(y) == 1 or (len(y) <= 12 and not dashes)
    axes.plot(line.x, y, marker="o" if few else None, **style)
    if len(line.low):
        axes.vlines(line.x, line.low, line.high, color=colour)
    return (line.label, f"var(--{'quiet' if grey else f'c{number}'})", dashes)


def _for_page(text: str, title: str) -> Markup:
    """An SVG file as an element of a page, with its ids and colours replaced."""
    body = text[text.index('<g id="figure_1">') :]
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{ID}", body)
    for number in range(COLOURS):
        body = body.replace(_COLOUR.format(number), f"var(--c{number})")
    body = body.replace(_INK, "currentColor").replace(_FAINT, "var(--rule)")
    width, height = (72 * side for side in _SIZE)
    opening = Markup(
        '<svg role="img" aria-label="{}" viewBox="0 0 {:g} {:g}" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    ).format(title, width, height)
    return opening + Markup(body)
