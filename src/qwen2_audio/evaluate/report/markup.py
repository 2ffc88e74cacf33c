"""HTML and SVG by hand: escaping, a page, and the small pictures of the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

WIDTH, HEIGHT = 190, 26  # pixels of an interval's picture
BAR_WIDTH, BAR_HEIGHT = 560, 22


def text(value: object) -> str:
    """Anything as text that a page can hold; a lone half of a character is written out."""
    return escape(str(value).encode("utf-8", "backslashreplace").decode())


def tag(name: str, content: str, class_: str = "", **attributes: object) -> str:
    """An element around `content`, which is HTML already."""
    given = {**({"class": class_} if class_ else {}), **attributes}
    inside = "".join(f' {key}="{text(value)}"' for key, value in given.items())
    return f"<{name}{inside}>{content}</{name}>"


def page(title: str, body: str) -> str:
    """A whole page, which fetches nothing."""
    style = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'media-src data:">\n'
        f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def table(head: Sequence[tuple[str, str]], rows: Iterable[str], class_: str = "") -> str:
    """A table from (heading, class) pairs and whole <tr> elements, which scrolls where it is too wide."""
    cells = "".join(tag("th", text(name), kind) for name, kind in head)
    return tag("div", tag("table", tag("thead", tag("tr", cells)) + tag("tbody", "".join(rows)), class_), "wide")


def interval(
    figure: tuple[float, float, float], goldens: Sequence[tuple[str, float]], scale: tuple[float, float]
) -> str:
    """A run's figure (value, low, high) as a dot on its interval, published ones as strokes, on a `scale`."""
    value, low, high = figure
    first, last = scale
    room = (last - first) * 0.04 or max(abs(value) * 0.1, 0.5)

    def x(number: float) -> float:
        return round((number - first + room) / (last - first + 2 * room) * WIDTH, 1)

    middle = HEIGHT / 2
    parts = [f'<line class="axis" x1="0" x2="{WIDTH}" y1="{middle}" y2="{middle}"/>']
    parts += [f'<line class="band" x1="{x(low)}" x2="{x(high)}" y1="{middle}" y2="{middle}"/>']
    for name, golden in goldens:
        stroke = f'x1="{x(golden)}" x2="{x(golden)}" y1="{middle - 8}" y2="{middle + 8}"'
        parts.append(f'<line class="golden" {stroke}><title>{text(name)}: {golden:g}</title></line>')
    parts.append(f'<circle class="point" cx="{x(value)}" cy="{middle}" r="4.5"><title>{value:g}</title></circle>')
    return f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="interval">{"".join(parts)}</svg>'


def bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """Horizontal bars: (label, length, what stands behind it)."""
    longest = max((value for _, value, _ in rows), default=0.0) or 1.0
    left, room = 78, 150
    parts = []
    for number, (label, value, behind) in enumerate(rows):
        top = number * BAR_HEIGHT
        width = round(value / longest * (BAR_WIDTH - left - room), 1)
        parts.append(f'<text x="{left - 10}" y="{top + 15}" text-anchor="end">{text(label)}</text>')
        parts.append(f'<rect class="bar" x="{left}" y="{top + 4}" width="{max(width, 1)}" height="14" rx="2"/>')
        parts.append(f'<text x="{left + width + 8}" y="{top + 15}">{text(behind)}</text>')
    height = len(rows) * BAR_HEIGHT
    return f'<svg width="{BAR_WIDTH}" height="{height}" role="img" aria-label="bars">{"".join(parts)}</svg>'


def matrix(labels: Sequence[str], said: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Counts, one row for each true label; a cell is the darker the larger its share of the row."""
    head = tag("tr", tag("th", "") + "".join(tag("th", text(name)) for name in said))
    rows = []
    for label, row in zip(labels, counts, strict=True):
        total = sum(row) or 1
        cells = "".join(
            tag(
                "td",
                str(count) if count else "",
                style=f"background: color-mix(in srgb, var(--accent) {count / total * 70:.0f}%, transparent)",
            )
            for count in row
        )
        rows.append(tag("tr", tag("th", text(label)) + cells))
    return tag("div", tag("table", head + "".join(rows), "matrix"), "wide")
