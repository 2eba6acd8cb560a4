"""The pictures of a page, by matplotlib. Each one is drawn to be read at the width of a phone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from pipeline.measure.benchmark_result import Speedup
from pipeline.report.html.label_places import Label, place_labels
from pipeline.report.html.language import tr
from pipeline.report.html.svg import (
    BASELINE,
    BETTER,
    GRID,
    INK,
    MUTED,
    QUANTIZED,
    WORSE,
    drawable,
    drawing,
    inline,
    picture,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Mel = npt.NDArray[np.float32]

WIDTH = 4.3  # inches: with the font's 10 points, text is as large on a phone as the page's
SHOWN = 2.5  # times the fastest that was measured: where a picture of speed-ups ends, whatever their intervals
DIFFERENCE_LIMIT = 1.0  # nat, 8.7 dB: where the colours of a difference end
LOUDER, QUIETER = (0.90, 0.45, 0.13), (0.22, 0.53, 0.90)  # orange and blue: told apart by colour-blind readers too


@dataclass(frozen=True)
class Range:
    """A measured value with its interval, as one row of a picture; no interval: low and high are the value."""

    label: str
    value: float
    low: float
    high: float


def speedup_range(label: str, speedup: Speedup) -> Range:
    """Return a speed-up as one row of a picture."""
    return Range(label, speedup.median, speedup.low, speedup.high)


@picture
def speedups(rows: Sequence[Range], name: str, description: str) -> Markup:
    """Draw speed-ups as points with their intervals, against the line at which a model is as fast as fp32."""
    from matplotlib.ticker import MaxNLocator

    with drawing():
        figure, axes = _canvas(0.55 + 0.36 * len(rows))
        axes.axvline(1.0, color=MUTED, linewidth=1.2)
        for y, row in enumerate(rows):
            colour = BETTER if row.low > 1 else WORSE if row.high < 1 else MUTED
            axes.plot([row.low, row.high], [y, y], color=colour, linewidth=5, alpha=0.35, solid_capstyle="round")
            axes.plot([row.value], [y], "o", color=colour, markersize=7)
        _rows(axes, [row.label for row in rows])
        low, high = _shown(rows)
        margin = 0.08 * max(high - low, 0.1)
        axes.set_xlim(low - margin, high + margin)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.set_xlabel(drawable(tr("times as fast as fp32 (the line: as fast)")))
        return inline(figure, name, description)


def _shown(rows: Sequence[Range]) -> tuple[float, float]:
    """Return the speed-ups that a picture of these and of 1 reaches from and to; an interval that tells nothing is cut."""
    low, high = min(1.0, *(row.low for row in rows)), max(1.0, *(row.high for row in rows))
    return low, min(high, SHOWN * max(1.0, *(row.value for row in rows)))


@picture
def pairs(labels: Sequence[str], before: Sequence[float], after: Sequence[float], unit: str, name: str,
          description: str) -> Markup:  # fmt: skip
    """Draw pairs of bars, fp32 above quantized, with their values."""
    with drawing():
        figure, axes = _canvas(0.55 + 0.52 * len(labels))
        y = np.arange(len(labels))
        for offset, values, colour in ((-0.2, before, BASELINE), (0.2, after, QUANTIZED)):
            axes.barh(y + offset, values, height=0.34, color=colour)
            for row, value in zip(y + offset, values, strict=True):
                if value == 0:
                    continue
                digits = "{:.3g}" if value > 0.01 * max(*before, *after) else "{:.1g}"
                axes.annotate(
                    digits.format(value), (value, row), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=9
                )
        _rows(axes, labels)
        axes.set_xlim(0, 1.14 * max(*before, *after))
        axes.set_xlabel(drawable(unit))
        return inline(figure, name, description)


@picture
def along_graph(
    values: Sequence[float], quantized: Sequence[bool], unit: str, name: str, description: str, *, top: float
) -> Markup:
    """Draw an error per node, in the order of the graph; nodes that were quantized stand out, values above `top` are cut."""
    with drawing():
        figure, axes = _canvas(2.3, width=5.0)
        x, chosen = np.arange(len(values)), np.asarray(quantized, dtype=bool)
        y = np.minimum(np.asarray(values, dtype=np.float64), top)
        size = 4.5 if len(values) < 150 else 2.5
        axes.plot(x, y, color=MUTED, linewidth=0.6, alpha=0.35)
        axes.plot(x[~chosen], y[~chosen], "o", color=BASELINE, markersize=0.7 * size)
        axes.plot(x[chosen], y[chosen], "o", color=QUANTIZED, markersize=size)
        axes.grid(axis="y")
        axes.margins(x=0.01)
        axes.tick_params(length=0, labelcolor=MUTED)
        axes.set_xlabel(drawable(tr("nodes, in the order of the graph")))
        axes.set_ylabel(drawable(unit))
        return inline(figure, name, description)


@picture
def spectrogram(mel: Mel, step_s: float, top_hz: float, limits: tuple[float, float], name: str, description: str) -> Markup:
    """Draw a natural-log mel spectrogram (bands, frames)."""
    with drawing():
        figure, axes = _mel_axes(mel, step_s, top_hz)
        axes.imshow(mel, origin="lower", aspect="auto", cmap="magma", vmin=limits[0], vmax=limits[1],
                    extent=(0, mel.shape[1] * step_s, 0, len(mel)), interpolation="nearest")  # fmt: skip
        return inline(figure, name, description)


@picture
def spectrogram_difference(gap: Mel, step_s: float, top_hz: float, name: str, description: str) -> Markup:
    """Draw a difference of mels (bands, frames): nothing where there is none, so that it fits a light and a dark page."""
    with drawing():
        figure, axes = _mel_axes(gap, step_s, top_hz)
        pixels = np.empty((*gap.shape, 4), dtype=np.float32)
        pixels[..., :3] = np.where(gap[..., None] > 0, LOUDER, QUIETER)
        pixels[..., 3] = np.clip(np.abs(gap) / DIFFERENCE_LIMIT, 0, 1) ** 0.6  # small differences are seen too
        axes.imshow(pixels, origin="lower", aspect="auto", extent=(0, gap.shape[1] * step_s, 0, len(gap)),
                    interpolation="nearest")  # fmt: skip
        return inline(figure, name, description)


@dataclass(frozen=True)
class Dot:
    """One run in the picture of speed and quality; `own` is the one that the page is about."""

    label: str
    speedup: Range
    quality: Range
    on_front: bool
    own: bool = False


@picture
def front(dots: Sequence[Dot], quality: str, better: str, name: str, description: str) -> Markup:
    """Draw speed against quality, with intervals; runs of the front are filled.

    Later dots lie above earlier ones. Labels cover neither each other nor a dot; one without room for it is left out, of an
    earlier dot rather than of a later one.

    Args:
        dots: runs.
        quality: the metric.
        better: its direction, in words.
        name: prefix of ids.
        description: what a reader who cannot see it is told.
    """
    with drawing():
        figure, axes = _canvas(3.2)
        axes.axvline(1.0, color=MUTED, linewidth=1.0)
        for dot in dots:
            x, y, colour = dot.speedup, dot.quality, QUANTIZED if dot.own else BETTER if dot.on_front else MUTED
            axes.plot([x.low, x.high], [y.value, y.value], color=colour, linewidth=3, alpha=0.35)
            axes.plot([x.value, x.value], [y.low, y.high], color=colour, linewidth=3, alpha=0.35)
            filled = dot.on_front or dot.own
            axes.plot([x.value], [y.value], "o", color=colour, markersize=8, fillstyle="full" if filled else "none")
        axes.grid()
        axes.margins(0.12)
        low, high = _shown([dot.speedup for dot in dots])
        axes.set_xlim(low - 0.12 * (high - low), high + 0.12 * (high - low))
        axes.tick_params(length=0)
        axes.set_xlabel(drawable(tr("times as fast as fp32, right is better")))
        axes.set_ylabel(drawable(f"{quality}, {better}"))
        axes.tick_params(axis="y", labelcolor=MUTED)
        points = [(dot.speedup.value, dot.quality.value) for dot in dots]
        labels = [Label(drawable(dot.label), *point, bold=dot.own) for dot, point in zip(dots, points, strict=True)]
        lines = [
            line
            for dot, (x, y) in zip(dots, points, strict=True)
            for line in (((dot.speedup.low, y), (dot.speedup.high, y)), ((x, dot.quality.low), (x, dot.quality.high)))
        ]
        place_labels(axes, [label for label in reversed(labels) if label.text], points, lines)
        return inline(figure, name, description)


@dataclass(frozen=True)
class CandidatePoint:
    """One model that a search has considered."""

    speedup: float
    loss: float
    size_bytes: float
    measured: bool
    on_front: bool
    chosen: bool


@picture
def search_front(points: Sequence[CandidatePoint], loss: str, name: str, description: str) -> Markup:
    """Draw speed-up against loss; size is the file's, measured ones are filled, a line joins the front."""
    with drawing():
        figure, axes = _canvas(3.2)
        axes.axvline(1.0, color=MUTED, linewidth=1.0)
        largest = max(point.size_bytes for point in points) or 1.0
        line = sorted((point.speedup, point.loss) for point in points if point.on_front)
        axes.plot([x for x, _ in line], [y for _, y in line], color=BETTER, linewidth=1.2, alpha=0.6)
        for point in sorted(points, key=lambda point: point.chosen):
            x, colour = point.speedup, QUANTIZED if point.chosen else BETTER if point.on_front else MUTED
            size = 4.0 + 8.0 * float(np.sqrt(point.size_bytes / largest))
            style = "full" if point.measured else "none"
            axes.plot([x], [point.loss], "o", color=colour, markersize=size, fillstyle=style)
            if point.chosen:
                axes.plot([x], [point.loss], "o", color=colour, markersize=size + 7, fillstyle="none")
        axes.grid()
        axes.margins(0.12)
        axes.tick_params(length=0)
        axes.tick_params(axis="y", labelcolor=MUTED)
        axes.set_xlabel(drawable(tr("times as fast as fp32, right is better")))
        axes.set_ylabel(drawable(tr("loss: {metric}", metric=loss)))
        chosen = [Label(drawable(tr("chosen")), point.speedup, point.loss, bold=True) for point in points if point.chosen]
        place_labels(axes, chosen, [(point.speedup, point.loss) for point in points], must=True)
        return inline(figure, name, description)


def _canvas(height: float, width: float = WIDTH) -> "tuple[Figure, Any]":
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    return figure, figure.add_subplot()


def _rows(axes: "Axes", labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), [drawable(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)


def _mel_axes(mel: Mel, step_s: float, top_hz: float) -> "tuple[Figure, Any]":
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    figure, axes = _canvas(1.9, width=3.0)
    marks = [hz for hz in (500, 1000, 2000, 4000, 8000) if hz <= top_hz]
    highest = _slaney(top_hz)
    axes.set_yticks([len(mel) * _slaney(hz) / highest for hz in marks])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda _, index: f"{marks[index] / 1000:g} kHz"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelcolor=MUTED, color=GRID)
    axes.set_xlabel(drawable(tr("seconds")))
    axes.set_xlim(0, mel.shape[1] * step_s)
    return figure, axes


def _slaney(hz: float) -> float:
    """Return a frequency on Slaney's mel scale, the one of `log_mel`: linear below 1 kHz, logarithmic above."""
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * float(np.log(hz / 1000) / np.log(6.4))
