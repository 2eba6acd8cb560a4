"""Where the labels of a picture's points go, so that none of them lies on another label, on a point, or outside.

Each label takes the first free place around its point: near places first, and places that cross no line before those that do.
This is greedy point-feature label placement (Christensen, Marks and Shieber: An Empirical Study of Algorithms for Point-Feature
Label Placement. ACM Transactions on Graphics, 1995).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.report.html.svg import INK

if TYPE_CHECKING:  # it is imported where a picture is drawn: a page without pictures needs none
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

POINT_RADIUS = 7.0  # points: half of a marker, and some air
LINE_WIDTH = 1.5  # points: half of a line's
NEAR = 7.0  # points between a marker's centre and its label
GAPS = (NEAR, 22.0, 44.0, 66.0)  # that are tried; from the second on, a thin line leads to the label
PADDING = 1.15  # the page's font may be wider than the one that is measured


@dataclass(frozen=True)
class Label:
    """A text beside a point (x, y), in the units of the axes."""

    text: str
    x: float
    y: float
    bold: bool = False


def place_labels(
    axes: "Axes",
    labels: Sequence[Label],
    points: Sequence[tuple[float, float]],
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (),
    *,
    must: bool = False,
) -> list[Label]:
    """Write labels into a picture that is drawn otherwise, and return those that have found a place.

    Args:
        axes: their limits do not change any more.
        labels: the important ones first.
        points: what no label may cover.
        lines: ends of lines, level or upright, that a label crosses only where there is no other place for it.
        must: write a label without a free place nevertheless, above its point.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]  # lays the axes out: only then are places known
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    scale = figure.dpi / 72
    taken = [_around(axes, point, POINT_RADIUS * scale) for point in points]
    crossed = []
    for ends in lines:
        (x0, y0), (x1, y1) = axes.transData.transform(ends)
        crossed.append(Bbox.from_extents(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)).padded(LINE_WIDTH * scale))
    room = axes.get_window_extent(renderer).padded(0.02 * figure.bbox.width)
    placed = []
    for label in labels:
        note = axes.annotate(label.text, (label.x, label.y), (0, NEAR), textcoords="offset points", color=INK, ha="center",
                             va="bottom", fontweight="bold" if label.bold else "normal")  # fmt: skip
        size = note.get_window_extent(renderer)
        centre = tuple(map(float, axes.transData.transform((label.x, label.y))))
        width, height = PADDING * size.width, size.height
        place = _free(centre, width, height, scale, room, [*taken, *crossed]) or _free(
            centre, width, height, scale, room, taken
        )
        if place is None and not must:
            note.remove()
            continue
        placed.append(label)
        if place is None:
            taken.append(size)
            continue
        across, up = (place.x0 + place.x1) / 2 - centre[0], (place.y0 + place.y1) / 2 - centre[1]
        note.set(position=(across / scale, up / scale), va="center")
        taken.append(place)
        if max(abs(across) - width / 2, abs(up) - height / 2) > 1.5 * NEAR * scale:
            ends = ((place.x0, place.x1), (place.y0, place.y1))
            nearest = [min(max(0.0, low - own), high - own) for own, (low, high) in zip(centre, ends, strict=True)]
            axes.annotate("", (label.x, label.y), (nearest[0] / scale, nearest[1] / scale), textcoords="offset points",
                          arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.5, "alpha": 0.5})  # fmt: skip
    return placed


def _free(
    centre: Sequence[float], width: float, height: float, scale: float, room: "Bbox", taken: "Sequence[Bbox]"
) -> "Bbox | None":
    """Return the first place around a point for a label of this size, in pixels, that is in the picture and not taken."""
    from matplotlib.transforms import Bbox

    for across, up in _offsets(width, height, scale):
        box = Bbox.from_bounds(centre[0] + across - width / 2, centre[1] + up - height / 2, width, height)
        inside = room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1
        if inside and not any(box.overlaps(other) for other in taken):
            return box
    return None


def _offsets(width: float, height: float, scale: float) -> Iterator[tuple[float, float]]:
    """Yield places of a label's centre, in pixels from its point: right, left, above, below, corners; then further away."""
    for gap in (scale * points for points in GAPS):
        side, over = gap + width / 2, gap + height / 2
        yield from ((side, 0.0), (-side, 0.0), (0.0, over), (0.0, -over))
        yield from ((side, over), (-side, over), (side, -over), (-side, -over))


def _around(axes: "Axes", point: tuple[float, float], radius: float) -> "Bbox":
    from matplotlib.transforms import Bbox

    x, y = axes.transData.transform(point)
    return Bbox.from_bounds(x - radius, y - radius, 2 * radius, 2 * radius)
