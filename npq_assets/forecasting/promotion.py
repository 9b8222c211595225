"""Champion and challenger: a model replaces another only if it is significantly better on periods that neither has seen.

Which models compete, and what serves meanwhile, does not belong here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.evaluation.statistics import Difference, paired_difference
from npq_assets.forecasting.censoring import raised
from npq_assets.forecasting.distribution import QUANTILES
from npq_assets.forecasting.model import FittedModel
from npq_assets.forecasting.panel import Panel

LEAST_SERIES = 10


@dataclass(frozen=True)
class Judgement:
    """The verdict on two models.

    Attributes:
        champion: Version of the model in service.
        challenger: Version of its rival.
        champion_loss: Weighted quantile loss on the periods judged: twice the mean pinball loss over demand.
        challenger_loss: The rival's.
        low: Lower end of the confidence interval of the difference, challenger less champion, on the same scale.
        high: Upper end.
        periods: Periods judged, from the first that neither model has seen.
        series: Series judged.
        promoted: Whether the challenger is significantly better.
        reason: The verdict in words.
    """

    champion: str
    challenger: str
    champion_loss: float
    challenger_loss: float
    low: float
    high: float
    periods: int
    series: int
    promoted: bool
    reason: str

    def frame(self) -> pl.DataFrame:
        """One row with these columns."""
        return pl.DataFrame([vars(self)], schema=SCHEMA)


SCHEMA = {
    "champion": pl.String, "challenger": pl.String, "champion_loss": pl.Float64, "challenger_loss": pl.Float64,
    "low": pl.Float64, "high": pl.Float64, "periods": pl.Int64, "series": pl.Int64, "promoted": pl.Boolean,
    "reason": pl.String,
}  # fmt: skip


def simple_method(model: FittedModel) -> FittedModel:
    """The model reduced to the seasonal mean, with the same spread: the rival that no model may lose to."""
    return replace(model, boosters={}, forms=("seasonal_mean",), weights=np.ones((len(model.weights), 1)))


def judge(
    champion: FittedModel,
    challenger: FittedModel,
    panel: Panel,
    horizon: int,
    *,
    origins: int = 4,
    quantiles: Sequence[float] = QUANTILES,
    confidence: float = 0.95,
    threads: int | None = None,
) -> Judgement:
    """Compares two models on the part of `panel` that is later than what either was trained on.

    Both forecast from the same origins, the last period that either has seen and later ones, as they would have in service:
    with the history up to the origin. The difference of pinball losses is summed by series, and the interval of its total
    is clustered by series, since the periods of a series share their luck (see `evaluation.statistics`).

    Args:
        champion: In service.
        challenger: Its rival, trained by any means on any earlier stretch.
        panel: Demand with at least one period after both cutoffs.
        horizon: Periods ahead to judge.
        origins: Rolling origins at most, evenly spaced.
        quantiles: Levels whose pinball losses are averaged.
        confidence: Of the interval; the challenger is promoted if all of it is below zero.
        threads: Threads.
    """
    # Judged by periods in stock alone, the model that expects too little would win.
    panel = raised(panel)
    names = champion.version, challenger.version
    length = panel.shape[1]
    seen = max(int(panel.calendar.index(pl.Series([m.cutoff], dtype=pl.Date))[0]) for m in (champion, challenger))
    first = max(seen + 1 - panel.start, 1)
    if first >= length:
        return _undecided(names, 0, 0, "no period is later than what the models were trained on")
    last = max(first, length - horizon)
    starts = np.unique(np.linspace(first, last, min(origins, last - first + 1)).astype(int))
    ours, theirs, demand = np.zeros(panel.shape[0]), np.zeros(panel.shape[0]), np.zeros(panel.shape[0])
    for origin in starts:
        reach = min(horizon, length - int(origin))
        truth, known = panel.y[:, origin : origin + reach], panel.observed[:, origin : origin + reach]
        for model, losses in ((challenger, ours), (champion, theirs)):
            losses += pinball(model, panel.until(int(origin)), reach, truth, known, quantiles, threads)
        demand += np.where(known, np.abs(truth), 0.0).sum(1)
    judged = demand > 0
    if judged.sum() < LEAST_SERIES:
        return _undecided(
            names, length - first, int(judged.sum()), f"{int(judged.sum())} series with demand are too few"
        )
    total = float(demand.sum())
    found = paired_difference(ours, theirs, np.arange(len(ours)), confidence)
    return Judgement(
        *names,
        float(theirs.sum()) / total,
        float(ours.sum()) / total,
        found.low / total,
        found.high / total,
        length - first,
        int(judged.sum()),
        found.high < 0,
        _words(found),
    )


def pinball(
    model: FittedModel,
    past: Panel,
    reach: int,
    truth: NDArray[np.float64],
    known: np.ndarray,
    quantiles: Sequence[float],
    threads: int | None,
) -> NDArray[np.float64]:
    """Twice the pinball loss, averaged over quantiles and summed over the known periods, by series (n)."""
    levels = np.asarray(quantiles, float)[None, :, None]
    values = model.predict_panel(past, reach, threads=threads).quantile(levels)
    error = truth[:, None, :] - values
    loss = 2 * np.maximum(levels * error, (levels - 1) * error).mean(1)
    return np.asarray(np.where(known, loss, 0.0).sum(1))


def _words(found: Difference) -> str:
    change = f"{found.ratio - 1:+.1%} [{found.ratio_low - 1:+.1%}, {found.ratio_high - 1:+.1%}]"
    if found.high < 0:
        return f"promoted: loss {change}"
    if found.low > 0:
        return f"kept: the challenger is worse, loss {change}"
    return f"kept: the difference is not significant, loss {change}"


def _undecided(names: tuple[str, str], periods: int, series: int, why: str) -> Judgement:
    nan = float("nan")
    return Judgement(*names, nan, nan, nan, nan, periods, series, False, f"kept: {why}")
