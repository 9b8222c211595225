"""Pictures for the Dagster UI: Markdown with an embedded SVG, small enough for an event log."""

from __future__ import annotations

import base64

import polars as pl

from npq_assets.reporting.svg import STYLE, Fan, bar_chart, fan_chart


def forecast_plot(history: pl.DataFrame, forecast: pl.DataFrame, periods: int = 60) -> str:
    """All series together: past demand and the sum of the forecast means, beside the largest series' fan.

    Args:
        history: unique_id, ds, y, in_stock.
        forecast: The forecast frame.
        periods: Past periods shown.
    """
    if forecast.is_empty() or history.is_empty():
        return "nothing to show"
    largest = forecast.group_by("unique_id").agg(pl.col("mean").sum()).sort("mean", "unique_id")["unique_id"][-1]
    fan = fan_of(history, forecast, str(largest), periods)
    return _markdown(fan_chart(fan), fan.title)


def fan_of(
    history: pl.DataFrame, forecast: pl.DataFrame, unique_id: str, periods: int = 60, marker: int | None = None
) -> Fan:
    """The picture of one series."""
    past = history.filter(pl.col("unique_id") == unique_id).sort("ds").tail(periods)
    ahead = forecast.filter(pl.col("unique_id") == unique_id).sort("ds")
    values = [y if known else None for y, known in zip(past["y"], past["in_stock"], strict=True)]
    labels = [str(day) for day in [*past["ds"], *ahead["ds"]]]
    bands = [
        (ahead[low].to_list(), ahead[high].to_list())
        for low, high in (("q0.05", "q0.95"), ("q0.1", "q0.9"), ("q0.25", "q0.75"))
        if low in ahead.columns
    ]
    return Fan(unique_id.replace("|", " / "), values, labels, bands, ahead["q0.5"].to_list(), marker)


def cost_plot(expected: float, naive: float, bound: float) -> str:
    """What the plan, the naive rule and the bound cost."""
    bars = [("this plan", expected, "npq"), ("naive rule", naive, "naive"), ("proven bound", bound, "bound")]
    return _markdown(bar_chart(bars, title="expected cost"), "expected cost")


def _markdown(svg: str, title: str) -> str:
    styled = svg.replace(">", f"><style>{STYLE}</style>", 1)
    encoded = base64.b64encode(styled.encode("utf-8")).decode()
    return f"![{title}](data:image/svg+xml;base64,{encoded})"
