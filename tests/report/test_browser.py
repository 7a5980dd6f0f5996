"""The pages in a real browser: on a phone and on a desktop, light and dark.

Screenshots are left in the folder of the test (`pytest --basetemp=DIR`).
"""

import html
import json
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from ctp_jax import report, visualize
from tests.report import make_runs

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BROWSER is None, reason="no Chromium here: apt install chromium"
    ),
]
PHONE, DESKTOP = 390, 1280
DARK, LIGHT = 0, 1

# What a page looks like at a width, as the browser has laid it out.
MEASURE = """
function measure(frame) {
  const page = frame.contentDocument, root = page.documentElement;
  const style = (e) => frame.contentWindow.getComputedStyle(e);
  const colours = {}, clipped = [], small = [];
  for (const kind of ["better", "worse", "even"]) {
    const tile = page.querySelector(".tile." + kind);
    if (tile) colours[kind] = [style(tile).backgroundColor,
                               style(tile.querySelector(".value")).color];
  }
  for (const e of page.querySelectorAll("h1,h2,h3,p,dt,dd,pre,td,th,figcaption,li")) {
    if (!e.getClientRects().length) continue;
    // A table may be scrolled: what is in it may be wide, but not cut.
    if (e.scrollWidth > e.clientWidth + 1 && style(e).display !== "inline"
        && !e.closest("summary")) clipped.push(e.tagName + " " + e.textContent.slice(0, 40));
    const box = e.getBoundingClientRect();
    if (!e.closest(".scroll") && box.right > root.clientWidth + 1)
      clipped.push("outside " + e.tagName + " " + e.textContent.slice(0, 40));
    if (parseFloat(style(e).fontSize) < 11) small.push(e.textContent.slice(0, 40));
  }
  return {title: page.title, width: root.clientWidth, content: root.scrollWidth,
          colours, clipped, small, text: style(page.body).color,
          paper: style(page.body).backgroundColor,
          open: page.querySelectorAll("details[open]").length,
          folded: page.querySelectorAll("details").length};
}
window.onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(measure);
  document.body.textContent = JSON.stringify(found);
};
"""


def browse(page, *flags, dark=False):
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu"]
    command += [f"--blink-settings=preferredColorScheme={DARK if dark else LIGHT}"]
    command += ["--hide-scrollbars", f"--user-data-dir={page.parent / 'profile'}"]
    done = subprocess.run(
        [*command, *flags, page.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


def frame(source, width, height=4000):
    """A page at a width of its own: windows have a least width, frames have none."""
    return (
        f'<iframe style="width:{width}px;height:{height}px;border:0" srcdoc="{source}">'
    )


def measured(folder, sources, dark):
    frames = "</iframe>".join(
        frame(html.escape(source), width)
        for source in sources
        for width in (PHONE, DESKTOP)
    )
    page = folder / "measure.html"
    page.write_text(f"<!doctype html><script>{MEASURE}</script>{frames}</iframe>")
    shown = browse(page, "--dump-dom", "--virtual-time-budget=10000", dark=dark)
    text = re.search(r"<body>(.*)</body>", shown, re.DOTALL)[1]
    return json.loads(html.unescape(text))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of a run that is better and worse than its baselines, and a comparison."""
    folder = tmp_path_factory.mktemp("pages")
    make_runs.recognition(folder / "run", top1=0.75, init_from="runs/pre")
    lines = make_runs.train_lines()
    names = ("top1", "knn_top1", "retrieval_top1")
    values = dict(zip(names, (0.75, 0.1, 0.4), strict=True), eval_loss=0.8)
    chance = {f"{name}_chance": 0.4 for name in names}
    videos = {f"{kind}videos": 100 for kind in ("", "knn_", "retrieval_")}
    lines += make_runs.eval_lines(**values, **chance, **videos)
    make_runs.write_metrics(folder / "run", lines)
    make_runs.write_command(folder / "run", f"--config=configs/{'long' * 30}.py")
    clips = np.random.default_rng(0).integers(0, 255, (4, 3, 56, 56, 3), np.uint8)
    boxes = np.tile(np.float32([2, 3, 40, 50]), (4, 2, 3, 1))
    drawn = visualize.Drawn(clips, boxes, boxes + 1, [*"abcd"], "title", original=clips)
    visualize.save(drawn, folder / "run")
    make_runs.recognition(folder / ("name_of_a_run_" * 5), top1=0.5, seed=1)
    runs = [path.parent for path in folder.glob("*/config.json")]
    made = [report.write(folder / "run"), report.compare(runs, folder / "all.html")]
    return [pathlib.Path(path).read_text() for path in made]


def contrast(one, two):
    """Of two CSS colours, WCAG 2."""
    light = []
    for colour in (one, two):
        parts = np.array(re.findall(r"[\d.]+", colour)[:3], float) / 255
        linear = np.where(
            parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4
        )
        light.append(linear @ [0.2126, 0.7152, 0.0722])
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_pages_fit_and_can_be_read(pages, tmp_path):
    found = {dark: measured(tmp_path, pages, dark) for dark in (False, True)}
    for dark, layouts in found.items():
        assert [each["width"] for each in layouts] == [PHONE, DESKTOP] * 2
        for each in layouts:
            where = (dark, each["title"], each["width"])
            assert each["content"] <= each["width"], where
            assert each["clipped"] == [], where
            assert each["small"] == [], where
            assert each["folded"] > each["open"] == 0
            assert contrast(each["text"], each["paper"]) >= 7, where
        assert (
            layouts[0]["title"] == "run: recognition on toy, top-1 accuracy 75.0\u00a0%"
        )
        assert layouts[2]["title"].startswith("2 runs of recognition: ")
        colours = layouts[0]["colours"]
        assert set(colours) == {"better", "worse", "even"}
        assert len({background for background, _ in colours.values()}) == 3
        for background, text in colours.values():
            assert contrast(background, text) >= 4.5
    light, dark = (found[each][0] for each in (False, True))
    assert contrast(light["paper"], dark["paper"]) > 10
    for kind, colours in light["colours"].items():
        assert colours[0] != dark["colours"][kind][0]
        assert colours[1] != dark["colours"][kind][1]


@pytest.mark.parametrize("width, dark", [(PHONE, True), (DESKTOP, False)])
def test_screenshots(pages, tmp_path, width, dark):
    source = frame(html.escape(pages[0]), width, 2000)
    page, picture = tmp_path / "page.html", tmp_path / "screenshot.png"
    page.write_text(f'<body style="margin:0">{source}</iframe>')
    size = f"--window-size={max(width, 600)},2000"
    browse(page, f"--screenshot={picture}", size, dark=dark)
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"), float)[:, :width]
    paper = pixels[-1, 2].mean()
    assert paper < 60 if dark else paper > 200
    # The page has something to see from top to bottom, and its margins are empty.
    rows = (np.abs(pixels - pixels[:, :1]) > 30).any(axis=(1, 2))
    assert rows[:1200].mean() > 0.3
    assert np.ptp(pixels[:, :4]) < 30 and np.ptp(pixels[:, -4:]) < 30
