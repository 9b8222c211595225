"""Small pictures as inline SVG, without any library or network: a forecast fan, and costs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Fan:
    """A series' past and its forecast.

    Attributes:
        title: What is shown.
        past: Quantity by period; None where the shelf was empty.
        labels: Period starts, past and future.
        bands: Pairs of lower and upper quantiles by future period, widest first.
        middle: Median by future period.
        marker: Index of the future period in which the order arrives; None for no marker.
    """

    title: str
    past: Sequence[float | None]
    labels: Sequence[str]
    bands: Sequence[tuple[Sequence[float], Sequence[float]]]
    middle: Sequence[float]
    marker: int | None = None


def fan_chart(fan: Fan, width: int = 460, height: int = 150) -> str:
    """The past as a line, periods without stock as hollow marks, the forecast as bands around its median."""
    left, right, top, bottom = 34, 8, 10, 20
    n_past, n_next = len(fan.past), len(fan.middle)
    known = [value for value in fan.past if value is not None]
    highest = max([1.0, *known, *(v for _, upper in fan.bands for v in upper)])
    steps = max(n_past + n_next - 1, 1)

    def x(index: float) -> float:
        return left + (width - left - right) * index / steps

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - value / highest)

    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(fan.title, quote=True)}" '
        'xmlns="http://www.w3.org/2000/svg" class="fan">'
    ]
    for share in (0.0, 0.5, 1.0):
        level = highest * share
        parts.append(
            f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(level):.1f}" y2="{y(level):.1f}"/>'
            f'<text class="axis" x="{left - 4}" y="{y(level) + 3:.1f}" text-anchor="end">{level:.3g}</text>'
        )
    for lower, upper in fan.bands:
        forward = [f"{x(n_past + k):.1f},{y(v):.1f}" for k, v in enumerate(upper)]
        back = [f"{x(n_past + k):.1f},{y(v):.1f}" for k, v in reversed(list(enumerate(lower)))]
        if n_next == 1:
            parts.append(
                f'<line class="whisker" x1="{x(n_past):.1f}" x2="{x(n_past):.1f}" '
                f'y1="{y(lower[0]):.1f}" y2="{y(upper[0]):.1f}"/>'
            )
        else:
            parts.append(f'<polygon class="band" points="{" ".join(forward + back)}"/>')
    run: list[str] = []
    for k, value in enumerate([*fan.past, None]):
        if value is not None:
            run.append(f"{x(k):.1f},{y(value):.1f}")
        elif run:
            parts.append(f'<polyline class="past" points="{" ".join(run)}"/>')
            run = []
    parts += [
        f'<circle class="empty" cx="{x(k):.1f}" cy="{y(0):.1f}" r="2.2"><title>{escape(fan.labels[k])}: out of stock</title>'
        "</circle>"
        for k, value in enumerate(fan.past)
        if value is None
    ]
    parts.append(
        '<polyline class="middle" points="'
        + " ".join(f"{x(n_past + k):.1f},{y(v):.1f}" for k, v in enumerate(fan.middle))
        + '"/>'
    )
    if fan.marker is not None and n_next:
        at = x(n_past + min(fan.marker, n_next - 1))
        parts.append(
            f'<line class="arrival" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{height - bottom}"/>'
            f'<text class="axis" x="{at - 3:.1f}" y="{top + 8}" text-anchor="end">order arrives</text>'
        )
    if fan.labels:
        parts.append(f'<text class="axis" x="{left}" y="{height - 5}">{escape(fan.labels[0])}</text>')
        parts.append(
            f'<text class="axis" x="{width - right}" y="{height - 5}" text-anchor="end">{escape(fan.labels[-1])}</text>'
        )
    return "".join([*parts, "</svg>"])


def bar_chart(bars: Sequence[tuple[str, float, str]], width: int = 460, title: str = "costs") -> str:
    """Horizontal bars with their values: label, value, CSS class."""
    row, left = 28, 120
    height = row * len(bars) + 6
    highest = max([1e-9, *(value for _, value, _ in bars)])
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title, quote=True)}" '
        'xmlns="http://www.w3.org/2000/svg" class="bars">'
    ]
    for k, (label, value, kind) in enumerate(bars):
        length = max(1.0, (width - left - 90) * max(value, 0.0) / highest)
        parts.append(
            f'<text x="{left - 8}" y="{k * row + 20}" text-anchor="end">{escape(label)}</text>'
            f'<rect class="{kind}" x="{left}" y="{k * row + 8}" width="{length:.1f}" height="17" rx="2"/>'
            f'<text x="{left + length + 6:.1f}" y="{k * row + 20}">{value:,.0f}</text>'
        )
    return "".join([*parts, "</svg>"])


STYLE = (
    ".grid{stroke:#8884;stroke-width:.6}.axis{font:9px sans-serif;fill:#888}.band{fill:#2a7f9e;opacity:.22}"
    ".whisker{stroke:#2a7f9e;stroke-width:7;opacity:.3}.past{fill:none;stroke:#667;stroke-width:1.3}"
    ".empty{fill:none;stroke:#c2521f}.middle{fill:none;stroke:#2a7f9e;stroke-width:1.8}"
    ".arrival{stroke:#c2521f;stroke-dasharray:3 2}.bars text{font:12px sans-serif;fill:#667}"
    ".npq{fill:#2a7f9e}.naive{fill:#b9b2a3}.bound{fill:#7a9a5b}"
)
