"""Retail demand as the forecasting engine sees it: trained on a fixed calendar, predicted with the latest day.

Thin: the engine is `npq_assets.forecasting`; what may be known when is settled in `inputs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from npq_assets.forecasting import FittedModel, ForecastDistribution, load, train
from npq_assets.forecasting.distribution import QUANTILES
from npq_assets.periods import known_before
from npq_assets.retail.covariates import with_covariates
from npq_assets.retail.inputs import RetailInputs
from npq_assets.settings import Home, Period
from npq_assets.storage import fingerprint
from npq_assets.version import code_version

RETRAIN_PERIODS = {"day": 14, "week": 1}
_KEYS = ["unique_id", "site_id", "product_id", "family", "period_start", "quantity", "in_stock"]
_MONDAY = date(2000, 1, 3)


@dataclass(frozen=True)
class DemandForecast:
    """Demand of every pair to decide, from the as-of period on.

    Attributes:
        frame: The forecast frame: unique_id, site_id, product_id, ds, cutoff, mean, q…, method.
        scenarios: Demand per pair (in the order of the inputs' items), scenario and period: (n, S, H).
        model_version: Which model made it.
        model_trained_as_of: The day before which all that it learned from had happened.
    """

    frame: pl.DataFrame
    scenarios: np.ndarray
    model_version: str
    model_trained_as_of: date


def training_day(as_of: date, period: Period, retrain_periods: int | None) -> date:
    """The latest day, on a calendar fixed once for all, before which the model of `as_of` learned everything."""
    step = (retrain_periods or RETRAIN_PERIODS[period]) * (7 if period == "week" else 1)
    return as_of - timedelta(days=(as_of - _MONDAY).days % step)


def forecast_demand(inputs: RetailInputs, home: Home | None = None) -> DemandForecast:
    """Demand over the longest protection interval, as quantiles and as scenarios.

    A model already trained on the same rows is loaded from the home rather than trained again.
    """
    settings = inputs.settings
    day = training_day(inputs.as_of, inputs.period, settings.retrain_periods)
    learned = inputs.at(day)
    if learned.is_empty():
        day, learned = inputs.as_of, inputs.history
    last = inputs.history["period_start"].max()
    assert isinstance(last, date)
    stale = (known_before(inputs.as_of, inputs.period) - last).days // inputs.days
    # An order's leftovers matter until the next order that knows of them arrives: a second lead time.
    reach = 2 * max(inputs.items["lead_time_periods"].to_list(), default=0) + 1
    horizon = stale + reach
    model = _model(home, inputs, learned, reach)
    predicted = model.predict(
        _engine_history(inputs.history),
        horizon,
        future=_future(inputs, last, horizon),
        static=_static(_pairs(inputs)),
        available=_available(inputs.history),
        ids=inputs.items["unique_id"].to_list(),
        threads=settings.threads,
    )
    return _assemble(inputs, predicted, stale, model.version, day)


def _covariates(frame: pl.DataFrame) -> list[str]:
    return [name for name in frame.columns if name not in _KEYS]


def _engine_history(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        "unique_id", pl.col("period_start").alias("ds"), pl.col("quantity").alias("y"), *_covariates(frame)
    )


def _available(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select("unique_id", pl.col("period_start").alias("ds"), "in_stock")


def _static(frame: pl.DataFrame) -> pl.DataFrame:
    columns = ["unique_id", "site_id", "product_id", "family"]
    return frame.select(columns).unique("unique_id", keep="first", maintain_order=True).sort("unique_id")


def _pairs(inputs: RetailInputs) -> pl.DataFrame:
    """Every pair that sold or is to be decided, also those that never sold."""
    columns = ["unique_id", "site_id", "product_id", "family"]
    return pl.concat([inputs.items.select(columns), inputs.history.select(columns).unique("unique_id")])


def _future(inputs: RetailInputs, last: date, horizon: int) -> pl.DataFrame:
    dates = [last + timedelta(days=inputs.days * step) for step in range(1, horizon + 1)]
    pairs = _static(_pairs(inputs))
    grid = pairs.join(pl.DataFrame({"period_start": dates}, schema={"period_start": pl.Date}), how="cross")
    known = with_covariates(grid, inputs.promotions, inputs.events, inputs.sites, inputs.period)
    return known.select("unique_id", pl.col("period_start").alias("ds"), *_covariates(known)).sort("unique_id", "ds")


def _model(home: Home | None, inputs: RetailInputs, learned: pl.DataFrame, horizon: int) -> FittedModel:
    settings = inputs.settings
    key = fingerprint(
        learned, code_version(), {"frequency": inputs.frequency, "horizon": horizon, "seed": settings.seed}
    )
    place = home.models("retail") / key if home else None
    if place is not None and (place / "model.json").exists():
        return load(place)
    model = train(
        _engine_history(learned),
        horizon,
        inputs.frequency,
        static=_static(learned),
        available=_available(learned),
        threads=settings.threads,
        seed=settings.seed,
    )
    if place is not None:
        model.save(place)
    return model


def _assemble(
    inputs: RetailInputs, predicted: ForecastDistribution, stale: int, version: str, day: date
) -> DemandForecast:
    frame = predicted.frame(QUANTILES)
    names = _static(_pairs(inputs)).select("unique_id", "site_id", "product_id")
    frame = frame.join(names, on="unique_id", how="left").filter(
        pl.col("ds") > known_before(inputs.as_of, inputs.period)
    )
    paths = predicted.paths(inputs.settings.scenarios, seed=inputs.settings.seed)[:, :, stale:]
    row_of = {str(name): row for row, name in enumerate(predicted.ids)}
    scenarios = paths[[row_of[name] for name in inputs.items["unique_id"]]]
    return DemandForecast(frame.sort("unique_id", "ds"), scenarios, version, day)
