"""Retail demand as the forecasting engine sees it: trained when it pays, predicted with the latest day, overridden by planners.

Thin: the engine is `npq_assets.forecasting`; what may be known when is settled in `inputs`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import numpy as np
import polars as pl

from npq_assets.forecasting import FittedModel, ForecastDistribution, baseline, load, train
from npq_assets.forecasting.distribution import QUANTILES
from npq_assets.forecasting.explanation import explain
from npq_assets.forecasting.monitoring import drifted
from npq_assets.forecasting.overrides import moved_quantiles, moved_scenarios
from npq_assets.forecasting.panel import build as build_panel
from npq_assets.periods import known_before
from npq_assets.retail.covariates import with_covariates
from npq_assets.retail.inputs import RetailInputs
from npq_assets.settings import Home, Period
from npq_assets.storage import fingerprint
from npq_assets.version import code_version

RETRAIN_PERIODS = {"day": 14, "week": 1}
"""How often retraining is considered."""
RETRAIN_AT_LEAST = {"day": 56, "week": 4}
"""How often a model is trained anew without any alarm."""
GROWTH = 1.1
"""A history that has grown by this much since is worth a new model."""
_WATCHED = 1_000
_KEYS = ["unique_id", "site_id", "product_id", "family", "period_start", "quantity", "in_stock"]
_MONDAY = date(2000, 1, 3)


@dataclass(frozen=True)
class DemandForecast:
    """Demand of every pair to decide, from the as-of period on.

    Attributes:
        frame: The forecast frame: unique_id, site_id, product_id, ds, cutoff, mean, q…, method; and beside the mean that
            counts: engine_mean, seasonal_naive (demand a season ago) and override (a planner's number; null where none).
        scenarios: Demand per pair (in the order of the inputs' items), scenario and period: (n, S, H).
        model_version: Which model made it.
        model_trained_as_of: The day before which all that it learned from had happened.
        overridden: Rows of `scenarios` that a planner's number moved (k).
        engine_scenarios: The engine's own scenarios of those rows (k, S, H).
    """

    frame: pl.DataFrame
    scenarios: np.ndarray
    model_version: str
    model_trained_as_of: date
    overridden: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    engine_scenarios: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0)))

    @property
    def engine(self) -> DemandForecast:
        """The forecast as it was before planners' overrides (scenarios only)."""
        scenarios = self.scenarios.copy()
        scenarios[self.overridden] = self.engine_scenarios
        return replace(self, scenarios=scenarios)


def training_day(as_of: date, period: Period, retrain_periods: int | None) -> date:
    """The latest day, on a calendar fixed once for all, before which the model of `as_of` learned everything."""
    step = (retrain_periods or RETRAIN_PERIODS[period]) * (7 if period == "week" else 1)
    return as_of - timedelta(days=(as_of - _MONDAY).days % step)


def forecast_demand(inputs: RetailInputs, home: Home | None = None) -> DemandForecast:
    """Demand over the longest protection interval, as quantiles and as scenarios.

    A model already trained on the same rows is loaded from the home rather than trained again.
    """
    settings = inputs.settings
    day = model_day(inputs)
    last = inputs.history["period_start"].max()
    assert isinstance(last, date)
    stale, reach = _reach(inputs, last)
    horizon = stale + reach
    model = _model(home, inputs, inputs.at(day), reach)
    predicted = model.predict(
        _engine_history(inputs.history),
        horizon,
        future=_future(inputs, last, horizon),
        static=_static(_pairs(inputs)),
        available=_available(inputs.history),
        ids=inputs.items["unique_id"].to_list(),
        threads=settings.threads,
    )
    return with_overrides(inputs, _assemble(inputs, predicted, stale, model.version, day))


def explain_demand(inputs: RetailInputs, ids: list[str], home: Home | None = None) -> pl.DataFrame:
    """What moved the forecast of some pairs: unique_id, ds, group, log_effect, percent, units (see `explanation`)."""
    last = inputs.history["period_start"].max()
    assert isinstance(last, date)
    stale, reach = _reach(inputs, last)
    horizon = stale + reach
    found = explain(
        _model(home, inputs, inputs.at(model_day(inputs)), reach),
        _engine_history(inputs.history),
        horizon,
        ids,
        future=_future(inputs, last, horizon),
        static=_static(_pairs(inputs)),
        available=_available(inputs.history),
        threads=inputs.settings.threads,
    )
    return found.filter(pl.col("ds") > known_before(inputs.as_of, inputs.period))


def most_at_stake(inputs: RetailInputs, forecast: DemandForecast, most: int) -> list[str]:
    """The pairs whose demand is worth most: lost-sales cost of the mean over the horizon."""
    total = forecast.frame.group_by("unique_id").agg(pl.col("mean").sum().alias("total"))
    worth = inputs.items.join(total, on="unique_id").with_columns(
        (pl.col("total") * pl.col("shortage_cost")).alias("worth")
    )
    return worth.sort("worth", "unique_id", descending=[True, False])["unique_id"].head(most).to_list()


def model_day(inputs: RetailInputs) -> date:
    """The day before which the model of the as-of day learned everything: retraining when it pays.

    On a coarse calendar fixed once for all; in between, on days of a finer one, when the history has grown by a tenth since,
    or when demand has left what the simple method makes of what the model knew. All of that is computed from rows known before
    the as-of day, so that the day has the same model whenever and wherever it is run. `retrain_periods` in `npq.toml` replaces
    the rule by that calendar.
    """
    settings, period = inputs.settings, inputs.period
    if settings.retrain_periods:
        day = training_day(inputs.as_of, period, settings.retrain_periods)
        return inputs.as_of if inputs.at(day).is_empty() else day
    day = training_day(inputs.as_of, period, RETRAIN_AT_LEAST[period])
    candidate = training_day(inputs.as_of, period, RETRAIN_PERIODS[period])
    step = timedelta(days=RETRAIN_PERIODS[period] * inputs.days)
    days = []
    while candidate > day:
        days.append(candidate)
        candidate -= step
    first = inputs.history["period_start"].min()
    assert isinstance(first, date)
    if inputs.at(day).is_empty():
        known = [d for d in reversed(days) if not inputs.at(d).is_empty()]
        if not known:
            return inputs.as_of
        day = known[0]
    watched = _watched(inputs)
    for candidate in reversed(days):
        if candidate <= day:
            continue
        grown = (candidate - first).days >= GROWTH * max(1, (day - first).days)
        if grown or _left(inputs, watched, day, candidate):
            day = candidate
    return day


def _watched(inputs: RetailInputs) -> pl.DataFrame:
    """History of at most so many pairs, evenly spaced: enough to see what moves the whole."""
    ids = inputs.history["unique_id"].unique().sort()
    return inputs.history.filter(
        pl.col("unique_id").is_in(ids.gather_every(max(1, -(-len(ids) // _WATCHED))).to_list())
    )


def _left(inputs: RetailInputs, watched: pl.DataFrame, day: date, candidate: date) -> bool:
    past = watched.filter(pl.col("period_start") <= known_before(candidate, inputs.period))
    if past.is_empty() or (past["quantity"] > 0).sum() < 100:
        return False
    panel = build_panel(
        past.select("unique_id", pl.col("period_start").alias("ds"), pl.col("quantity").alias("y")),
        inputs.frequency,
        available=_available(past),
    )
    split = panel.shape[1] - (candidate - day).days // inputs.days
    return drifted(panel, split, baseline.seasons_of(panel, None)).rings


def _reach(inputs: RetailInputs, last: date) -> tuple[int, int]:
    """Periods that ended but did not land, and periods ahead that decisions look at."""
    stale = (known_before(inputs.as_of, inputs.period) - last).days // inputs.days
    # An order's leftovers matter until the next order that knows of them arrives: a second lead time.
    return stale, 2 * max(inputs.items["lead_time_periods"].to_list(), default=0) + 1


def frames_of(inputs: RetailInputs, most: int | None = None) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """History, static attributes and availability as the engine takes them; of `most` series at most, evenly spaced."""
    history = inputs.history
    if most is not None:
        ids = history["unique_id"].unique().sort()
        history = history.filter(pl.col("unique_id").is_in(ids.gather_every(max(1, -(-len(ids) // most))).to_list()))
    return _engine_history(history), _static(history), _available(history)


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
    frame = frame.join(_seasonal_naive(inputs, frame["ds"].unique()), on=["unique_id", "ds"], how="left").with_columns(
        pl.col("mean").alias("engine_mean"),
        pl.col("seasonal_naive").fill_null(0.0),
        pl.lit(None, pl.Float64).alias("override"),
    )
    return DemandForecast(frame.sort("unique_id", "ds"), scenarios, version, day)


def _seasonal_naive(inputs: RetailInputs, days: pl.Series) -> pl.DataFrame:
    """Demand a season ago (a week for days, 52 weeks for weeks), else the last known: unique_id, ds, seasonal_naive."""
    season = 52 if inputs.period == "week" else 7
    history = inputs.history.filter(pl.col("in_stock")).select("unique_id", "period_start", "quantity")
    last = history.group_by("unique_id").agg(pl.col("quantity").sort_by("period_start").last().alias("latest"))
    known = known_before(inputs.as_of, inputs.period)
    lags = []
    for day in days.sort():
        cycles = max(1, -(-(day - known).days // (season * inputs.days)))
        lags.append((day, day - timedelta(days=cycles * season * inputs.days)))
    grid = pl.DataFrame(lags, schema={"ds": pl.Date, "period_start": pl.Date}, orient="row")
    return (
        _static(_pairs(inputs))
        .select("unique_id")
        .join(grid, how="cross")
        .join(history, on=["unique_id", "period_start"], how="left")
        .join(last, on="unique_id", how="left")
        .select("unique_id", "ds", pl.coalesce("quantity", "latest").alias("seasonal_naive"))
    )


def with_overrides(inputs: RetailInputs, forecast: DemandForecast) -> DemandForecast:
    """The forecast with planners' numbers in place of the engine's means, quantiles and scenarios moved with them."""
    if inputs.overrides.is_empty():
        return forecast
    asked = inputs.overrides.select("unique_id", pl.col("period_start").alias("ds"), pl.col("quantity").alias("asked"))
    frame = forecast.frame.join(asked, on=["unique_id", "ds"], how="left", maintain_order="left")
    names = [f"q{q:g}" for q in QUANTILES]
    rows = np.nonzero(frame["asked"].is_not_null().to_numpy())[0]
    if not len(rows):
        return forecast
    values = frame.select(names).to_numpy().copy()
    mean, wanted = frame["engine_mean"].to_numpy(), frame["asked"].to_numpy()
    values[rows] = moved_quantiles(values[rows], mean[rows], wanted[rows], np.array(QUANTILES))
    frame = frame.with_columns(
        *[pl.Series(name, values[:, k]) for k, name in enumerate(names)],
        pl.coalesce("asked", "mean").alias("mean"),
        pl.col("asked").alias("override"),
    ).drop("asked")
    row_of = {name: row for row, name in enumerate(inputs.items["unique_id"])}
    scenarios = forecast.scenarios.copy()
    touched = set()
    for unique_id, ds, number in asked.iter_rows():
        step = (ds - inputs.as_of).days // inputs.days
        if step < scenarios.shape[2]:
            row = row_of[unique_id]
            scenarios[row, :, step] = moved_scenarios(scenarios[row, :, step], number)
            touched.add(row)
    overridden = np.array(sorted(touched), int)
    return replace(
        forecast,
        frame=frame,
        scenarios=scenarios,
        overridden=overridden,
        engine_scenarios=forecast.scenarios[overridden],
    )
