"""Bars with their values: a picture that needs no matplotlib, so that a run which only inspects stays quick."""

from collections.abc import Sequence

from markupsafe import Markup

WIDTH = 310  # of the other pictures: text has their size
ROW, BAR, GAP = 22, 13, 6
LETTER = 5.8  # about the width of one, in the units of WIDTH
LONGEST_LABEL = 130

_SVG = Markup(
    '<svg class="plot" style="max-width: {width}px" viewBox="0 0 {box} {height}" role="img" aria-labelledby="{name}-title" '
    'font-size="10">\n<title id="{name}-title">{description}</title>\n{rows}\n{unit}\n</svg>'
)
_BAR = Markup('<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height}" style="fill: var(--fp32)"/>')
_TEXT = Markup('<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill: var(--{colour})">{text}</text>')


def bar_chart(labels: Sequence[str], values: Sequence[float], unit: str, name: str, description: str) -> Markup:
    """Return one horizontal bar per label, with its value, as an SVG element.

    Args:
        labels: from the top.
        values: of each, not negative.
        unit: of the values; written below.
        name: prefix of every id in it; no other picture of the page may have the same.
        description: what a reader who cannot see it is told.
    """
    shown = [f"{value:.3g}" for value in values]
    left = min(LETTER * max(len(label) for label in labels), LONGEST_LABEL) + GAP
    room = WIDTH - left - GAP - LETTER * max(len(text) for text in shown)
    longest = max(values) or 1.0
    rows: list[Markup] = []
    for row, (label, value, text) in enumerate(zip(labels, values, shown, strict=True)):
        top, long = row * ROW + (ROW - BAR) / 2, room * value / longest
        y = top + BAR - 3
        rows += [
            _TEXT.format(x=left - GAP, y=y, anchor="end", colour="ink", text=label),
            _BAR.format(left=left, top=top, width=long, height=BAR),
            _TEXT.format(x=left + long + GAP, y=y, anchor="start", colour="ink", text=text),
        ]
    height = len(labels) * ROW + ROW
    return _SVG.format(
        width=round(1.4 * WIDTH), box=WIDTH, height=height, name=name, description=description, rows=Markup("\n").join(rows),
        unit=_TEXT.format(x=left + room / 2, y=height - 7, anchor="middle", colour="muted", text=unit),
    )  # fmt: skip
