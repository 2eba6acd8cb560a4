"""A matplotlib figure as SVG inside of a page: its colours are the page's, in light and in dark."""

import importlib.util
import inspect
import io
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from markupsafe import Markup, escape

from pipeline.extras import how_to_install

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")

log = logging.getLogger(__name__)

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


@cache
def can_draw() -> bool:
    """Return whether matplotlib is installed, and say so once where it is not.

    It is imported where a picture is drawn: that takes a second, and most commands draw none.
    """
    if importlib.util.find_spec("matplotlib") is not None:
        return True
    log.warning("The pictures of the page are given as text, since matplotlib is not installed: %s.", how_to_install("report"))
    return False


def picture(draw: Callable[P, Markup]) -> Callable[P, Markup]:
    """Make a function that draws give its argument `description` as text where matplotlib is not installed."""
    signature = inspect.signature(draw)

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Markup:
        if can_draw():
            return draw(*args, **kwargs)
        said = signature.bind(*args, **kwargs).arguments["description"]
        return Markup('<p class="note">{} (As text, since matplotlib is not installed.)</p>').format(said)

    return drawn


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
    import matplotlib as mpl

    _stood_in.clear()
    with mpl.rc_context(_STYLE):
        yield


def inline(figure: "Figure", name: str, description: str) -> Markup:
    """Return a figure as an SVG element.

    Args:
        figure: drawn inside of `drawing`.
        name: prefix of every id in it; no other picture of the page may have the same.
        description: what a reader who cannot see it is told.
    """
    import matplotlib as mpl

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
