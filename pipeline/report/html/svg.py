"""A matplotlib figure as SVG inside of a page: its colours are the page's, in light and in dark."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure

# Colours that are drawn as such and become variables of the style sheet: matplotlib knows no CSS.
INK, MUTED, GRID, BASELINE, QUANTIZED, WORSE, BETTER = (f"#0102{number:02x}" for number in range(7))
_VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "line", BASELINE: "fp32", QUANTIZED: "quantized", WORSE: "worse", BETTER: "better",
}  # fmt: skip
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: readable by machines, in the page's font
    "svg.hashsalt": "page",  # the same ids every time
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}


# matplotlib lays text out with its own font, which has no Chinese; what the page's font will draw is stood in for by characters
# that it has, about as wide, and that no text holds.
_STAND_INS = (*range(0x4DC0, 0x4E00), *range(0x1F030, 0x1F094))  # hexagrams, dominoes: in DejaVu Sans, regular and bold
FIRST_OF_EAST_ASIA = 0x2E80
_stood_in: dict[str, str] = {}


def drawable(text: str) -> str:
    """Return a text that matplotlib can lay out; `inline` puts the page's own characters back."""
    return "".join(map(_stand_in, text))


def _stand_in(character: str) -> str:
    if ord(character) < FIRST_OF_EAST_ASIA:  # Latin, Greek, signs, ...
        return character
    if character not in _stood_in and len(_stood_in) < len(_STAND_INS):
        _stood_in[character] = chr(_STAND_INS[len(_stood_in)])
    return _stood_in.get(character, "□")


@contextmanager
def drawing() -> Iterator[None]:
    """Draw one figure in the page's style; the settings of other users of matplotlib stay as they are."""
    _stood_in.clear()
    with mpl.rc_context(_STYLE):
        yield


def inline(figure: Figure, name: str, description: str) -> Markup:
    """Return a figure as an SVG element.

    Args:
        figure: drawn inside of `drawing`.
        name: prefix of every id in it; no other picture of the page may have the same.
        description: what a reader who cannot see it is told.
    """
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r"<defs>\s*<style.*?</defs>\s*", "", text, count=1, flags=re.DOTALL)  # it would hold for the whole page
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)  # the family is the page's
    text = text.translate({ord(stand_in): character for character, stand_in in _stood_in.items()})
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    view = re.search(r'viewBox="([^"]+)"', text)
    assert view is not None
    width = view[1].split()[2]
    head = (
        f'<svg class="plot" style="max-width: {float(width) * 1.4:.0f}px" viewBox="{view[1]}" role="img" '
        f'aria-labelledby="{name}-title" xmlns:xlink="http://www.w3.org/1999/xlink">\n<title id="{name}-title">'
        f"{escape(description)}</title>"
    )
    return Markup(head + text[text.index(">") + 1 :])  # matplotlib escapes what it draws
