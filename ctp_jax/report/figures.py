"""Curves as SVG that stands in the page: its text is text, its colours follow it."""

import dataclasses
import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ctp_jax.pictures import COLOURS

# Without the yellow, which white paper swallows; the strong ones first.
PALETTE = tuple(COLOURS[i] for i in (6, 2, 3, 4, 5, 1))
DASHES = ("", "5 2.5", "1.5 2")
# Stand for colours of the page, which differ by day and by night.
_INK, _FAINT = "#010203", "#020304"
_PREFIX = "figure-number-"
_MAX_POINTS = 400
_SIZE = (4.6, 2.9)  # inches: on a phone, 10 points come to about 10 pixels

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ctp_jax",
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "lines.linewidth": 1.8,
    "axes.formatter.useoffset": False,
}


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a figure.

    Attributes:
        label: its name in the legend; '' for none.
        x, y: points; y may have None or nan, where the line breaks.
        colour: number in `PALETTE`, or -1 for grey.
        dash: number in `DASHES`.
        width: points.
        low, high: ends of a bar through every point, or ().
        dots: mark the points; None: if they are few.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: int = 0
    dash: int = 0
    width: float = 1.8
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dots: bool | None = None

    @property
    def css(self) -> str:
        """The colour as the page has it."""
        return f"var(--c{self.colour % len(PALETTE)})" if self.colour >= 0 else _GREY

    @property
    def dash_array(self) -> str:
        """For `stroke-dasharray`."""
        return DASHES[self.dash % len(DASHES)]


_GREY = "var(--quiet)"


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure with what stands around it."""

    title: str
    svg: Markup
    caption: str
    legend: tuple[Line, ...] = ()


def thin(
    x: Sequence[float], y: Sequence[float | None]
) -> tuple[list[float], list[float], int]:
    """Means over equal numbers of neighbours, so that not too many points are left.

    Returns:
        x, y and how many points went into each.
    """
    size = -(-len(x) // _MAX_POINTS) or 1
    if size == 1:
        return list(x), [np.nan if v is None else v for v in y], 1
    bins = [slice(i, i + size) for i in range(0, len(x), size)]
    xs, ys = [], []
    for part in bins:
        values = [v for v in y[part] if v is not None]
        xs.append(float(np.mean(x[part])))
        ys.append(float(np.mean(values)) if values else np.nan)
    return xs, ys, size


def draw(
    title: str,
    lines: Sequence[Line],
    *,
    xlabel: str,
    ylabel: str = "",
    caption: str = "",
    percent: bool = False,
    from_zero: bool = False,
    x_shares: Sequence[float] = (),
    always_legend: bool = False,
) -> Drawing:
    """A figure of lines.

    Args:
        title: a few words; stands in the page, not in the picture.
        lines: with a `label` each, unless there is only one.
        xlabel: with its unit; likewise `ylabel`.
        caption: what is shown.
        percent: y is a share, to be written as percent.
        from_zero: y begins at 0.
        x_shares: x is a share, and has these values and no others.
        always_legend: even for a single line.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for line in lines:
            _add(axes, line)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if percent:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))
        if from_zero:
            axes.set_ylim(bottom=0)
        if x_shares:
            _mark_shares(axes, x_shares)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    named = tuple(line for line in lines if line.label)
    legend = named if len(named) > 1 or always_legend else ()
    return Drawing(title, _for_page(file.getvalue(), title), caption, legend)


def numbered(svg: Markup, number: int) -> Markup:
    """The SVG with ids that no other figure of the page has."""
    return Markup(svg.replace(_PREFIX, f"f{number}-"))


def _add(axes, line: Line) -> None:
    colour = PALETTE[line.colour % len(PALETTE)] if line.colour >= 0 else _INK
    y = np.asarray([np.nan if v is None else v for v in line.y], float)
    dots = line.dots if line.dots is not None else len(y) <= 30
    dash = tuple(float(v) for v in line.dash_array.split())
    style = {"color": colour, "linewidth": line.width}
    if line.colour < 0:
        style["alpha"] = 0.6
    if dash:
        style |= {"dashes": dash, "dash_capstyle": "butt"}
    size = 6.0 if len(y) == 1 else 3.6
    axes.plot(line.x, y, marker="o" if dots else None, markersize=size, **style)
    if len(line.low):
        axes.vlines(line.x, line.low, line.high, color=colour, linewidth=1.4)


def _mark_shares(axes, shares: Sequence[float]) -> None:
    """A tick for every share, on a logarithmic axis where they span much."""
    if max(shares) >= 20 * min(shares):
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(shares)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.4g} %"))


def _for_page(text: str, title: str) -> Markup:
    """Cuts a whole SVG file down to what stands inside a page.

    Its ids get a prefix (see `numbered`); its colours become those of the page; its
    size is left to the page.
    """
    svg = text[text.index("<svg") :]
    svg = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL
    )
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'\bid="', f'id="{_PREFIX}', svg)
    svg = re.sub(r'href="#', f'href="#{_PREFIX}', svg)
    svg = re.sub(r"url\(#", f"url(#{_PREFIX}", svg)
    for number, colour in enumerate(PALETTE):
        svg = svg.replace(colour, f"var(--c{number})")
    svg = svg.replace(_INK, "currentColor").replace(_FAINT, "var(--rule)")
    opening = Markup('<svg role="img" aria-label="{}"').format(title)
    return Markup(svg.replace("<svg", opening, 1))
