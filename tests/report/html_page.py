"""Reads a page as a browser would, to look at what it says."""

import html.parser
import re
import xml.etree.ElementTree as ET

_VOID = {"meta", "img", "input", "br", "link"}


class Page(html.parser.HTMLParser):
    """A parsed page; fails where tags are not closed in the order they were opened.

    Attributes:
        tags: [(name, {attribute: value})], in order.
        tables: [[[text of a cell, ...] of a row, ...] of a table, ...].
        strong: texts of <strong>.
        text: everything that is shown, by single spaces.
    """

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.source = source
        self.tags, self.tables, self.strong = [], [], []
        self._open, self._text = [], []
        self.feed(source)
        self.close()
        assert not self._open, f"not closed: {self._open}"
        self.text = squeeze("".join(self._text))
        self.strong = [squeeze(text) for text in self.strong]
        self.tables = [
            [[squeeze(cell) for cell in row] for row in table] for table in self.tables
        ]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in _VOID:
            return
        self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "strong":
            self.strong.append("")
        self.handle_data(" ")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if "script" in self._open or "style" in self._open:
            return
        self._text.append(data)
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] += data
        if "strong" in self._open:
            self.strong[-1] += data

    def table(self, *header):
        """Rows of the one table whose header begins like this."""
        found = [t for t in self.tables if tuple(t[0][: len(header)]) == header]
        assert len(found) == 1, (header, [t[0] for t in self.tables])
        return found[0][1:]

    def figures(self):
        """{title: root of the SVG}, each one well-formed XML."""
        sources = re.findall(r'<svg role="img".*?</svg>', self.source, re.DOTALL)
        roots = [ET.fromstring(source) for source in sources]
        return {root.get("aria-label"): root for root in roots}


def squeeze(text):
    return " ".join(text.split())


def lines(root, colour):
    """Points of the lines that have this colour: [[(x, y), ...], ...] on the paper."""
    paths = []
    for path in root.iter("{http://www.w3.org/2000/svg}path"):
        style = path.get("style", "")
        # Marks are filled, lines are not.
        if "fill: none" in style and f"stroke: var(--c{colour})" in style:
            numbers = [float(n) for n in re.findall(r"-?[\d.]+", path.get("d"))]
            paths.append(list(zip(numbers[::2], numbers[1::2], strict=True)))
    return paths


def curve(root, colour):
    """Points of the longest of `lines`."""
    return max(lines(root, colour), key=len)


def assert_self_contained(source):
    """Nothing is fetched: no address in anything that a browser would load from."""
    page = Page(source)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        for name, value in attributes.items():
            if name in ("src", "srcset", "href", "xlink:href", "poster", "data"):
                assert value.startswith(("data:", "#")), (tag, name, value[:80])
            if name == "style":
                assert "http" not in value
    for address in re.findall(r"url\(([^)]*)\)", source):
        assert address.startswith("#"), address
    assert "@import" not in source
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    return page
