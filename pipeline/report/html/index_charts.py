"""The pictures of the index, as small SVG: made after every run, they must cost nothing, and their points are links."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from pipeline.report.html.language import tr

WIDTH, HEIGHT = 430, 250
LEFT, RIGHT, TOP, BOTTOM = 72, 12, 14, 44  # margins
TICKS = 4  # about so many on an axis


@dataclass(frozen=True)
class ChartPoint:
    """A run in a picture: `id` is that of its row in the table, `interval` the 95 % one of its value."""

    id: str
    link: str | None
    title: str
    speedup: float | None
    value: float
    interval: tuple[float, float] | None
    front: bool


def speed_and_quality(points: Sequence[ChartPoint], metric: str, description: str) -> Markup:
    """Draw speed-up (to the right) against a metric (upwards)."""
    return _chart([point.speedup or 0.0 for point in points], points, tr("times as fast as fp32, right is better"), metric,
                  description, mark=1.0)  # fmt: skip


def over_time(points: Sequence[ChartPoint], metric: str, description: str) -> Markup:
    """Draw a metric of runs in their order; the oldest is the first."""
    places = [float(number) for number in range(1, len(points) + 1)]
    return _chart(places, points, tr("runs, in their order"), metric, description, whole=True)


def ticks_between(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Return round numbers within a range, about four of them: 1, 2 or 5 times a power of ten apart."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / TICKS))
    step = next((factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= TICKS + 2), 10 * power)
    step = max(1.0, round(step)) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _chart(
    across: Sequence[float], points: Sequence[ChartPoint], x_title: str, y_title: str, description: str, *,
    mark: float | None = None, whole: bool = False,
) -> Markup:  # fmt: skip
    ends = [end for point in points for end in (point.interval or (point.value, point.value)) if math.isfinite(end)]
    xs = _Scale([*across, *([] if mark is None else [mark])], LEFT, WIDTH - RIGHT)
    ys = _Scale([*ends, *(point.value for point in points)], HEIGHT - BOTTOM, TOP)
    parts = [Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, description)]
    for value in ticks_between(xs.low, xs.high, whole=whole):
        text = Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>')
        parts.append(text.format(xs.of(value), HEIGHT - BOTTOM + 16, f"{value:.4g}"))
    for value in ticks_between(ys.low, ys.high):
        line = Markup('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>')
        parts.append(line.format(LEFT, WIDTH - RIGHT, y=ys.of(value)))
        text = Markup('<text x="{}" y="{}" text-anchor="end">{}</text>')
        parts.append(text.format(LEFT - 6, round(ys.of(value) + 4, 1), f"{value:.3g}"))
    if mark is not None:
        line = Markup('<line class="fp32-line" x1="{x}" x2="{x}" y1="{}" y2="{}"/>')
        parts.append(line.format(TOP, HEIGHT - BOTTOM, x=xs.of(mark)))
    x_label = Markup('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>')
    parts.append(x_label.format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_title))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    y_label = Markup('<text class="axis" transform="translate(13 {}) rotate(-90)" text-anchor="middle">{}</text>')
    parts.append(y_label.format(middle, y_title))
    parts += [_point(point, xs.of(x), ys) for x, point in zip(across, points, strict=True)]
    return Markup("\n").join([*parts, Markup("</svg>")])


def _point(point: ChartPoint, x: float, ys: "_Scale") -> Markup:
    bar = Markup("")
    if point.interval is not None and all(map(math.isfinite, point.interval)):
        line = Markup('<line class="interval" x1="{x}" x2="{x}" y1="{}" y2="{}"/>')
        bar = line.format(ys.of(point.interval[0]), ys.of(point.interval[1]), x=x)
    inside = Markup('{}<circle cx="{}" cy="{}" r="5"><title>{}</title></circle>').format(
        bar, x, ys.of(point.value), point.title
    )
    kind = " front" if point.front else ""
    if point.link is None:
        return Markup('<g class="dot{}" data-run="{}">{}</g>').format(kind, point.id, inside)
    link = Markup('<a class="dot{}" data-run="{}" href="{}" aria-label="{}">{}</a>')
    return link.format(kind, point.id, point.link, escape(point.title), inside)


class _Scale:
    """Numbers to places along an axis, with some air at both ends."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        air = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
        self.low, self.high = low - air, high + air
        self._start, self._end = start, end

    def of(self, value: float) -> float:
        return round(self._start + (value - self.low) / (self.high - self.low) * (self._end - self._start), 1)
