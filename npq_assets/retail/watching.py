"""Whether the forecast can still be trusted: its inputs and its past errors under the alarms of `forecasting.monitoring`.

Warnings, which block nothing; when a model is trained anew is decided in `demand`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from npq_assets.forecasting.monitoring import Alarm, coverage, cusum, population_stability, stuck
from npq_assets.periods import DAYS, known_before, period_of
from npq_assets.settings import Home, Period
from npq_assets.verdicts import Verdict

MONITORS = ("input_drift", "error_drift", "interval_coverage")
_NOW = {"day": 28, "week": 8}
_PAST = {"day": 364, "week": 104}
_JUDGED = {"day": 120, "week": 60}


@dataclass(frozen=True)
class Watch:
    """What the alarms said, by monitor.

    Attributes:
        inputs: Alarms on what the model is fed.
        errors: Alarms on lean and loss of past forecasts.
        coverage: Alarms on its intervals.
    """

    inputs: list[Alarm]
    errors: list[Alarm]
    coverage: list[Alarm]

    def verdicts(self) -> list[Verdict]:
        """One verdict a monitor: the alarms that ring, or what was found quiet."""
        out = []
        for name, alarms in zip(MONITORS, (self.inputs, self.errors, self.coverage), strict=True):
            rings = [alarm for alarm in alarms if alarm.rings]
            detail = "; ".join(alarm.detail for alarm in (rings or alarms)) or "nothing to judge yet"
            out.append(Verdict(name, not rings, False, detail))
        return out


def watch(home: Home, as_of: date) -> Watch:
    """Reads demand and earlier forecasts as they were known before `as_of`, and asks every monitor."""
    period = period_of(home)
    place = home.mart("retail", "demand")
    if not place.exists():
        return Watch([], [], [])
    days = DAYS[period]
    demand = (
        pl.scan_parquet(place)
        .filter(
            (pl.col("period_start") <= known_before(as_of, period))
            & pl.col("landed")
            & (pl.col("period_start") > as_of - timedelta(days=days * (_PAST[period] + _NOW[period] + 1)))
        )
        .select("site_id", "product_id", "period_start", "quantity", "in_stock", "price", "promotion")
        .collect()
    )
    judged = past_forecasts(home, demand, as_of, period)
    return Watch(input_alarms(demand, as_of, period), error_alarms(judged), coverage_alarms(judged))


def input_alarms(demand: pl.DataFrame, as_of: date, period: Period) -> list[Alarm]:
    """Compares the last weeks with the same weeks a year before (else with as many just before them), a value a series.

    Args:
        demand: site_id, product_id, period_start, quantity, in_stock, price, promotion; known before `as_of`.
        as_of: The day.
        period: Length of a period.
    """
    if demand.is_empty():
        return []
    days, width = DAYS[period], _NOW[period]
    since = as_of - timedelta(days=days * width)
    year = timedelta(days=364)
    first = demand["period_start"].min()
    assert isinstance(first, date)
    whole_year = first <= since - year
    now = _by_series(demand.filter(pl.col("period_start") >= since))
    then = _by_series(
        demand.filter((pl.col("period_start") >= since - year) & (pl.col("period_start") < as_of - year))
        if whole_year
        else demand.filter(
            (pl.col("period_start") < since) & (pl.col("period_start") >= since - timedelta(days=days * width))
        )
    )
    usual = demand.filter(pl.col("period_start") < since).group_by("site_id", "product_id").agg(
        pl.col("price").median().alias("usual_price")
    )  # fmt: skip
    alarms = []
    for name, column in (("demand of a series", "level"), ("share of periods without a sale", "zeros"),
                         ("share in stock", "stocked"), ("share promoted", "promoted")):  # fmt: skip
        if then[column].drop_nulls().len() and now[column].drop_nulls().len():
            alarms.append(population_stability(_array(then, column), _array(now, column), name=name))
    priced = now.join(usual, on=["site_id", "product_id"], how="inner").filter(
        (pl.col("price") > 0) & (pl.col("usual_price") > 0)
    )
    if priced.height >= 20:
        alarms.append(_price_unit(np.log(priced["price"].to_numpy() / priced["usual_price"].to_numpy())))
    total = demand.group_by("period_start").agg(pl.col("quantity").sum()).sort("period_start")
    alarms.append(stuck(total["quantity"].to_numpy(), name="total sales"))
    return alarms


def _price_unit(logs: np.ndarray) -> Alarm:
    """Prices of most series that jumped by the same large factor: another unit, currency or pack, not a market."""
    middle = float(np.median(logs))
    rings = abs(middle) > np.log(1.5)
    return Alarm(
        "price", abs(middle), float(np.log(1.5)), rings,
        f"price: the median series costs {np.exp(middle):.3g} times its usual price (rings beyond 1.5 either way)",
    )  # fmt: skip


def _by_series(part: pl.DataFrame) -> pl.DataFrame:
    seen = pl.col("in_stock")
    return part.group_by("site_id", "product_id", maintain_order=True).agg(
        (pl.col("quantity").filter(seen).mean() + 0.1).log().alias("level"),
        (pl.col("quantity").filter(seen) == 0).mean().alias("zeros"),
        seen.cast(pl.Float64).mean().alias("stocked"),
        pl.col("promotion").cast(pl.Float64).mean().alias("promoted"),
        pl.col("price").median().alias("price"),
    )


def _array(frame: pl.DataFrame, column: str) -> np.ndarray:
    return frame[column].cast(pl.Float64).fill_null(np.nan).to_numpy()


def past_forecasts(home: Home, demand: pl.DataFrame, as_of: date, period: Period) -> pl.DataFrame:
    """The first forecast period of every earlier as-of day beside what was then sold, periods in stock only."""
    folder = home.root / "forecasts" / "retail"
    parts = []
    for place in sorted(folder.glob("as_of=*/forecast.parquet"))[-_JUDGED[period] - 1 :]:
        day = date.fromisoformat(place.parent.name.removeprefix("as_of="))
        if day >= as_of:
            continue
        frame = pl.read_parquet(place, hive_partitioning=False)
        mean = "engine_mean" if "engine_mean" in frame.columns else "mean"
        parts.append(
            frame.filter(pl.col("ds") < day + timedelta(days=DAYS[period])).select(
                "site_id", "product_id", pl.col("ds").alias("period_start"), pl.col(mean).alias("mean"),
                "q0.1", "q0.25", "q0.5", "q0.75", "q0.9",
            )
        )  # fmt: skip
    if not parts:
        return pl.DataFrame(schema=_JUDGED_SCHEMA)
    known = demand.filter(pl.col("in_stock")).select("site_id", "product_id", "period_start", "quantity")
    return (
        pl.concat(parts)
        .unique(["site_id", "product_id", "period_start"], keep="last", maintain_order=True)
        .join(known, on=["site_id", "product_id", "period_start"], how="inner")
        .sort("period_start", "site_id", "product_id")
    )


_JUDGED_SCHEMA = {
    "site_id": pl.String, "product_id": pl.String, "period_start": pl.Date, "mean": pl.Float64, "q0.1": pl.Float64,
    "q0.25": pl.Float64, "q0.5": pl.Float64, "q0.75": pl.Float64, "q0.9": pl.Float64, "quantity": pl.Float64,
}  # fmt: skip


def error_alarms(judged: pl.DataFrame) -> list[Alarm]:
    """Lean (log of demand over forecast) and scaled pinball loss by period, the last third against what came before."""
    if judged.is_empty():
        return []
    levels = ("0.1", "0.25", "0.5", "0.75", "0.9")
    loss = [
        pl.max_horizontal(
            float(q) * (pl.col("quantity") - pl.col(f"q{q}")), (float(q) - 1) * (pl.col("quantity") - pl.col(f"q{q}"))
        )
        for q in levels
    ]
    by_period = (
        judged.group_by("period_start")
        .agg(
            ((pl.col("quantity").sum() + 1) / (pl.col("mean").sum() + 1)).log().alias("lean"),
            (pl.sum_horizontal(loss).sum() / (pl.col("mean").sum() + 1)).alias("loss"),
        )
        .sort("period_start")
    )
    reference = max(8, 2 * by_period.height // 3)
    return [
        cusum(by_period["lean"].to_numpy(), reference, name="bias of the forecast"),
        cusum(by_period["loss"].to_numpy(), reference, name="pinball loss of the forecast", two_sided=False),
    ]


def coverage_alarms(judged: pl.DataFrame) -> list[Alarm]:
    """Outcomes within the 80 % range over the last forecasts."""
    if judged.is_empty():
        return []
    by_period = (
        judged.with_columns(pl.col("quantity").is_between("q0.1", "q0.9").alias("inside"))
        .group_by("period_start")
        .agg(pl.col("inside").sum(), pl.len())
        .sort("period_start")
    )
    return [coverage(by_period["inside"].to_numpy(), by_period["len"].to_numpy(), name="80 % range")]
