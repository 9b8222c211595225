"""What the plant will have to make in the coming weeks and months, by product and line: y = f(history, orders in hand) + e.

The forecasting engine tells demand by week from history alone. Orders in hand for a week h ahead replace the share of it that
is usually in hand by then, and the engine's forecast stands for the rest (Bornhuetter & Ferguson, The actuary and IBNR, 1972):
y = o_h + (1 - c_h) f(x). Whether that is worth anything is not believed but tried on past Mondays; where it does not lose less,
for sure, orders in hand are left out. Which plan follows does not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.evaluation.statistics import Difference, paired_difference
from npq_assets.forecasting import train
from npq_assets.forecasting.distribution import QUANTILES

Array = NDArray[np.float64]

# Weeks ahead: a quarter; a shorter history carries less.
WEEKS = 13
# The back-test: so many past Mondays, a week apart, each with so many weeks ahead.
ORIGINS = 6
JUDGED_WEEKS = 4
LEAST_WEEKS = 16
# Habit of all products that a product's own habit of ordering ahead is mixed with, as a share of its quantity.
_PRIOR = 0.1
_HABIT_WEEKS = 26
Q = [f"q{level:g}" for level in QUANTILES]


@dataclass(frozen=True)
class Backtest:
    """What orders in hand were worth on past Mondays.

    Attributes:
        rows: origin, week_start, step, product_id, actual, in_hand, loss_with, loss_without: mean pinball loss (units).
        by_step: step, loss_with, loss_without as shares of the demand that came.
        difference: Of the losses' sums, with less without, clustered by product.
        earned: Whether orders in hand lose less, the whole interval below zero.
    """

    rows: pl.DataFrame
    by_step: pl.DataFrame
    difference: Difference
    earned: bool

    @classmethod
    def of(cls, rows: pl.DataFrame) -> Backtest:
        """The verdict on the rows."""
        demand = pl.col("actual").sum()
        by_step = rows.group_by("step").agg(
            (pl.col("loss_with").sum() / demand).alias("loss_with"),
            (pl.col("loss_without").sum() / demand).alias("loss_without"),
        )
        difference = paired_difference(
            rows["loss_with"].to_numpy(), rows["loss_without"].to_numpy(), rows["product_id"].to_numpy()
        )
        return cls(rows, by_step.sort("step"), difference, bool(difference.high < 0))

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        d, weeks = self.difference, self.rows["origin"].n_unique()
        verdict = "they are used" if self.earned else "that is within chance or worse, so they are left out"
        return (
            f"Orders in hand change the pinball loss by {d.ratio - 1:+.1%} (95 %: {d.ratio_low - 1:+.1%} to "
            f"{d.ratio_high - 1:+.1%}) on {weeks} past Mondays, {JUDGED_WEEKS} weeks ahead, {d.clusters} products: {verdict}."
        )


@dataclass(frozen=True)
class ProductionForecast:
    """The forecast as of a Monday.

    Attributes:
        weeks: product_id, line, week_start, step, in_hand, mean, q0.05 … q0.95 (units due in the week).
        lines: line, week_start, in_hand, mean, q0.1, q0.9: sums of the products'; the interval is the line's own forecast's,
            since quantiles do not add up.
        backtest: None where the history is too short for one.
        skipped: Why there is none; empty if there is.
    """

    weeks: pl.DataFrame
    lines: pl.DataFrame
    backtest: Backtest | None
    skipped: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """What is kept beside the frames."""
        b = self.backtest
        found: dict[str, Any] = {"skipped": self.skipped, "sentence": "" if b is None else b.sentence}
        if b is not None:
            d = b.difference
            found |= {"earned": b.earned, "ratio": d.ratio, "ratio_low": d.ratio_low, "ratio_high": d.ratio_high,
                      "origins": b.rows["origin"].n_unique(), "products": d.clusters}  # fmt: skip
        return found


def forecast_production(orders: pl.DataFrame, line_of: dict[str, str], monday: date) -> ProductionForecast:
    """Forecasts units due by product and week from a Monday on, with orders in hand where they earned their place.

    Args:
        orders: Orders that came in before the Monday opened: product_id, quantity, ordered_on, due_on.
        line_of: The line that makes each product; only these products count.
        monday: The first week forecast begins here.
    """
    known = orders.filter((pl.col("ordered_on") < monday) & pl.col("product_id").is_in(list(line_of)))
    first = known["due_on"].min()
    weeks = (monday - _monday(first)).days // 7 if isinstance(first, date) else 0
    if weeks < LEAST_WEEKS:
        return ProductionForecast(
            pl.DataFrame(), pl.DataFrame(), None,
            f"{weeks} weeks of orders are known before {monday}, and {LEAST_WEEKS} are needed for a production forecast",
        )  # fmt: skip
    horizon = min(WEEKS, weeks // 3)
    backtest = _backtest(known, line_of, monday, weeks)
    earned = backtest is not None and backtest.earned
    history = _history(known, line_of, monday)
    found = train(history, horizon, "W-MON", season_length=1, threads=1).predict(history, horizon).frame(QUANTILES)
    ahead = _steps(found, monday)
    products = ahead.filter(pl.col("unique_id").str.starts_with("p:")).with_columns(
        pl.col("unique_id").str.strip_prefix("p:").alias("product_id")
    )
    products = _in_hand(products, known, monday)
    values = ["mean", *Q]
    if earned:
        products = _completed(products, known, monday, values)
    products = products.with_columns(pl.col("product_id").replace_strict(line_of, return_dtype=pl.String).alias("line"))
    lines = products.group_by("line", "week_start").agg(pl.col("in_hand").sum(), pl.col("mean").sum())
    own = ahead.filter(pl.col("unique_id").str.starts_with("l:")).select(
        pl.col("unique_id").str.strip_prefix("l:").alias("line"),
        "week_start",
        pl.col("mean").alias("own"),
        "q0.1",
        "q0.9",
    )
    # The line's interval stands around the sum of its products, as wide as what is not in hand yet leaves open.
    open_share = pl.when(pl.lit(earned)).then((1.0 - pl.col("in_hand") / pl.col("mean")).clip(0.0, 1.0)).otherwise(1.0)
    lines = (
        lines.join(own, on=["line", "week_start"])
        .with_columns(open_share.fill_nan(1.0).alias("open"))
        .with_columns(
            ((pl.col(q) - pl.col("own")) * pl.col("open") + pl.col("mean")).clip(lower_bound=0.0).alias(q)
            for q in ("q0.1", "q0.9")
        )
        .select("line", "week_start", "in_hand", "mean", "q0.1", "q0.9")
        .sort("line", "week_start")
    )
    columns = ["product_id", "line", "week_start", "step", "in_hand", *values]
    return ProductionForecast(products.select(columns).sort("product_id", "week_start"), lines, backtest)


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _history(orders: pl.DataFrame, line_of: dict[str, str], monday: date) -> pl.DataFrame:
    """unique_id (`p:` product or `l:` line), ds, y: units due by week before the Monday, without gaps."""
    past = orders.filter(pl.col("due_on") < monday).with_columns(
        pl.col("due_on").dt.truncate("1w").alias("ds"),
        pl.col("product_id").replace_strict(line_of, return_dtype=pl.String).alias("line"),
    )
    start = past["ds"].min()
    assert isinstance(start, date)
    weeks = pl.DataFrame({"ds": pl.date_range(start, monday - timedelta(days=7), "1w", eager=True)})
    frames = []
    for mark, column in (("p:", "product_id"), ("l:", "line")):
        sums = past.group_by(pl.format(mark + "{}", column).alias("unique_id"), "ds").agg(
            pl.col("quantity").sum().alias("y")
        )
        grid = sums.select("unique_id").unique().join(weeks, how="cross")
        frames.append(grid.join(sums, on=["unique_id", "ds"], how="left").with_columns(pl.col("y").fill_null(0.0)))
    return pl.concat(frames).sort("unique_id", "ds")


def _steps(found: Any, monday: date) -> pl.DataFrame:
    """The engine's frame with week_start (date) and step (1 is the week from the Monday on)."""
    week = pl.col("ds").cast(pl.Date)
    return pl.DataFrame(found).with_columns(
        week.alias("week_start"), ((week - monday).dt.total_days() // 7 + 1).cast(pl.Int64).alias("step")
    )


def _in_hand(frame: pl.DataFrame, orders: pl.DataFrame, monday: date) -> pl.DataFrame:
    """`frame` with in_hand: units of orders that had come in before the Monday and are due in the week."""
    book = (
        orders.filter((pl.col("ordered_on") < monday) & (pl.col("due_on") >= monday))
        .group_by("product_id", pl.col("due_on").dt.truncate("1w").alias("week_start"))
        .agg(pl.col("quantity").sum().alias("in_hand"))
    )
    return frame.join(book, on=["product_id", "week_start"], how="left").with_columns(pl.col("in_hand").fill_null(0.0))


def completion(orders: pl.DataFrame, monday: date, steps: int) -> pl.DataFrame:
    """Which share of a week's quantity is usually in hand when the week `step` - 1 weeks before it opens.

    Learnt from weeks that are over when the Monday opens; the product's own habit is mixed with all products'.

    Returns:
        product_id, step, share.
    """
    past = orders.filter((pl.col("due_on") < monday) & (pl.col("due_on") >= monday - timedelta(weeks=_HABIT_WEEKS)))
    week = pl.col("due_on").dt.truncate("1w")
    total = past.group_by("product_id").agg(pl.col("quantity").sum().alias("all"))
    frames = []
    for step in range(1, steps + 1):
        early = past.filter(pl.col("ordered_on") < week - pl.duration(weeks=step - 1))
        mine = early.group_by("product_id").agg(pl.col("quantity").sum().alias("early"))
        usual = float(early["quantity"].sum()) / max(float(past["quantity"].sum()), 1e-9)
        frames.append(
            total.join(mine, on="product_id", how="left").select(
                "product_id",
                pl.lit(step, pl.Int64).alias("step"),
                ((pl.col("early").fill_null(0.0) + _PRIOR * pl.col("all") * usual) / ((1 + _PRIOR) * pl.col("all")))
                .fill_nan(usual)
                .clip(0.0, 1.0)
                .alias("share"),
            )
        )
    return pl.concat(frames)


def _completed(frame: pl.DataFrame, orders: pl.DataFrame, monday: date, values: list[str]) -> pl.DataFrame:
    """Values as orders in hand and the part of the engine's forecast that is usually not in hand yet."""
    shares = completion(orders, monday, int(frame["step"].max() or 1))  # type: ignore[arg-type]
    open_share = 1.0 - pl.col("share").fill_null(0.0)
    return (
        frame.join(shares, on=["product_id", "step"], how="left")
        .with_columns((pl.col("in_hand") + open_share * pl.col(v)).alias(v) for v in values)
        .drop("share")
    )


def _backtest(orders: pl.DataFrame, line_of: dict[str, str], monday: date, weeks: int) -> Backtest | None:
    """Tries orders in hand on past Mondays: the engine learns before the first of them, and sees at each what was known then."""
    origins = [monday - timedelta(weeks=JUDGED_WEEKS + k) for k in range(ORIGINS)][::-1]
    origins = [o for o in origins if (o - monday).days // 7 + weeks >= LEAST_WEEKS - JUDGED_WEEKS]
    if len(origins) < 2:
        return None
    actual = (
        orders.filter((pl.col("due_on") >= origins[0]) & (pl.col("due_on") < monday))
        .group_by("product_id", pl.col("due_on").dt.truncate("1w").alias("week_start"))
        .agg(pl.col("quantity").sum().alias("actual"))
    )
    model, tried = None, []
    for origin in origins:
        then = orders.filter(pl.col("ordered_on") < origin)
        history = _history(then, line_of, origin)
        if model is None:
            model = train(history, JUDGED_WEEKS, "W-MON", season_length=1, threads=1)
        ahead = _steps(model.predict(history, JUDGED_WEEKS).frame(QUANTILES), origin)
        products = ahead.filter(pl.col("unique_id").str.starts_with("p:")).with_columns(
            pl.col("unique_id").str.strip_prefix("p:").alias("product_id")
        )
        without = _in_hand(products, then, origin)
        both = without.join(actual, on=["product_id", "week_start"], how="left").with_columns(
            pl.col("actual").fill_null(0.0), pl.lit(origin).alias("origin")
        )
        with_orders = _completed(both, then, origin, Q)
        keys = ["origin", "week_start", "step", "product_id", "actual", "in_hand"]
        tried.append(
            both.select(*keys, _pinball().alias("loss_without")).join(
                with_orders.select("product_id", "step", _pinball().alias("loss_with")), on=["product_id", "step"]
            )
        )
    return Backtest.of(pl.concat(tried).sort("origin", "product_id", "step"))


def _pinball() -> pl.Expr:
    """Mean quantile loss over the levels (units)."""
    parts = []
    for level, name in zip(QUANTILES, Q, strict=True):
        off = pl.col("actual") - pl.col(name)
        parts.append(pl.max_horizontal(level * off, (level - 1.0) * off))
    return pl.mean_horizontal(parts)
