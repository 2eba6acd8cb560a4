"""Where the labels of a picture's points go, so that none of them lies on another label, on a point, or outside.

Each label takes the first free place around its point, near places first: a greedy form of point-feature label placement
(Christensen, Marks and Shieber, "An Empirical Study of Algorithms for Point-Feature Label Placement", 1995).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from pipeline.report.html.svg import INK

POINT_RADIUS = 7.0  # points: half of a marker, and some air
LINE_WIDTH = 1.5  # points: half of a line's
NEAR, FAR = 7.0, 22.0  # points between a marker's centre and its label
PADDING = 1.15  # the page's font may be wider than the one that is measured


@dataclass(frozen=True)
class Label:
    """A text beside a point (x, y), in the units of the axes."""

    text: str
    x: float
    y: float
    bold: bool = False


def place_labels(
    axes: Axes,
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
        lines: ends of lines, level or upright, that no label may cover either.
        must: write a label without a free place nevertheless, above its point.
    """
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]  # lays the axes out: only then are places known
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    scale = figure.dpi / 72
    taken = [_around(axes, point, POINT_RADIUS * scale) for point in points]
    for ends in lines:
        (x0, y0), (x1, y1) = axes.transData.transform(ends)
        taken.append(Bbox.from_extents(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)).padded(LINE_WIDTH * scale))
    room = axes.get_window_extent(renderer).padded(0.02 * figure.bbox.width)
    placed = []
    for label in labels:
        note = axes.annotate(label.text, (label.x, label.y), (0, NEAR), textcoords="offset points", color=INK, ha="center",
                             va="bottom", fontweight="bold" if label.bold else "normal")  # fmt: skip
        size = note.get_window_extent(renderer)
        width, height = PADDING * size.width, size.height
        centre = axes.transData.transform((label.x, label.y))
        for across, up in _offsets(width, height, scale):
            x, y = centre[0] + across, centre[1] + up
            box = Bbox.from_bounds(x - width / 2, y - height / 2, width, height)
            inside = room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1
            if inside and not any(box.overlaps(other) for other in taken):
                note.set(position=(across / scale, up / scale), va="center")
                if abs(across) + abs(up) > FAR * scale + width / 2:
                    axes.annotate("", (label.x, label.y), (across / scale, up / scale), textcoords="offset points",
                                  arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.5, "alpha": 0.5})  # fmt: skip
                taken.append(box)
                placed.append(label)
                break
        else:
            if must:
                taken.append(note.get_window_extent(renderer))
                placed.append(label)
            else:
                note.remove()
    return placed


def _offsets(width: float, height: float, scale: float) -> Iterator[tuple[float, float]]:
    """Yield places of a label's centre, in pixels from its point: right, left, above, below, corners; then further away."""
    for gap in (NEAR * scale, FAR * scale):
        side, over = gap + width / 2, gap + height / 2
        yield from ((side, 0.0), (-side, 0.0), (0.0, over), (0.0, -over))
        yield from ((side, over), (-side, over), (side, -over), (-side, -over))


def _around(axes: Axes, point: tuple[float, float], radius: float) -> Bbox:
    x, y = axes.transData.transform(point)
    return Bbox.from_bounds(x - radius, y - radius, 2 * radius, 2 * radius)
