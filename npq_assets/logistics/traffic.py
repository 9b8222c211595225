"""How long legs will take: the usual time, times a factor whose distribution is learned from legs that were driven.

Thin: the model is `npq_assets.forecasting.delay`; what may be known when is settled in `inputs`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import ndtri

from npq_assets.forecasting.delay import DelayModel, DelaySettings, load, train
from npq_assets.logistics.inputs import LogisticsInputs
from npq_assets.settings import Home
from npq_assets.storage import fingerprint, write_json
from npq_assets.version import code_version

Array = NDArray[np.float64]
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
RETRAIN_DAYS = 14
_LEAST_LEGS = 200
_NUMERIC = ["hour", "weekday", "usual", "rain"]
_CATEGORIES = ["depot_id", "region"]
_MONDAY = date(2000, 1, 3)
_ASSUMED = (0.85, 0.9, 0.97, 1.05, 1.2, 1.4, 1.6)


@dataclass(frozen=True)
class Traffic:
    """The distribution of the factor on usual driving times, as of a day.

    Attributes:
        model: The learned quantiles of the factor's logarithm; None: too few legs, a usual spread is assumed.
        together: Share of the spread that legs of one depot and day have in common, 0 to 1.
        trained_as_of: The day before which all that it learned from had happened.
        rows: Legs learned from.
    """

    model: DelayModel | None
    together: float
    trained_as_of: date
    rows: int

    @property
    def version(self) -> str:
        """Identifies the model."""
        return self.model.version if self.model is not None else "assumed spread"

    def quantiles(self, legs: pl.DataFrame) -> Array:
        """Quantiles of the factor at `LEVELS` for legs (hour, weekday, usual, rain, depot_id, region), (n, levels)."""
        if self.model is None:
            return np.tile(np.asarray(_ASSUMED), (legs.height, 1))
        return np.asarray(np.exp(self.model.predict(legs).quantiles))

    def mean(self, legs: pl.DataFrame) -> Array:
        """Mean factor of legs (n), of the distribution that `draw` draws from."""
        z = ndtri((np.arange(400) + 0.5) / 400)
        return np.asarray(np.exp(_spread(np.log(self.quantiles(legs)), np.tile(z, (legs.height, 1)))).mean(axis=1))

    def draw(self, legs: pl.DataFrame, scenarios: int, seed: int) -> Array:
        """Factors of legs in scenarios (n, S); legs of one depot share part of their luck."""
        log = np.log(self.quantiles(legs))
        rng = np.random.default_rng(seed)
        depots = sorted(set(legs["depot_id"].to_list()))
        common = {depot: rng.standard_normal(scenarios) for depot in depots}
        shared = (
            np.stack([common[depot] for depot in legs["depot_id"].to_list()])
            if legs.height
            else np.zeros((0, scenarios))
        )
        own = rng.standard_normal((legs.height, scenarios))
        z = np.sqrt(self.together) * shared + np.sqrt(1.0 - self.together) * own
        return np.exp(_spread(log, z))


def _spread(log: Array, z: Array) -> Array:
    """Values at normal scores `z` (n, S) of rows with quantiles `log` (n, levels): straight between them and beyond."""
    at = ndtri(np.asarray(LEVELS))
    index = np.clip(np.searchsorted(at, z) - 1, 0, len(at) - 2)
    rows = np.arange(len(log))[:, None]
    low, high = log[rows, index], log[rows, index + 1]
    return np.asarray(low + (high - low) * (z - at[index]) / (at[index + 1] - at[index]))


def training_day(as_of: date) -> date:
    """The latest day, on a calendar fixed once for all, before which the model of `as_of` learned everything."""
    return as_of - timedelta(days=(as_of - _MONDAY).days % RETRAIN_DAYS)


def learn(inputs: LogisticsInputs, home: Home | None = None) -> Traffic:
    """The traffic as of the day; a model already trained on the same legs is loaded rather than trained again."""
    day = training_day(inputs.as_of)
    legs = inputs.legs.filter(pl.col("day") < day)
    if legs.height < _LEAST_LEGS:
        day, legs = inputs.as_of, inputs.legs
    if legs.height < _LEAST_LEGS:
        return Traffic(None, 0.2, day, legs.height)
    key = fingerprint(legs, code_version(), {"seed": inputs.settings.seed, "levels": LEVELS})
    place = home.models("logistics") / key if home else None
    if place is not None and (place / "traffic.json").exists():
        stored = load(place)
        if stored is not None:
            stored.settings = replace(stored.settings, threads=inputs.settings.threads)
            return Traffic(
                stored, float(json.loads((place / "traffic.json").read_text())["together"]), day, legs.height
            )
    settings = DelaySettings(
        threshold=None,
        quantiles=LEVELS,
        trees=120,
        learning_rate=0.06,
        leaves=15,
        min_leaf=60,
        seed=inputs.settings.seed,
        threads=inputs.settings.threads,
    )
    rows = legs.with_columns(pl.col("ratio").log().alias("log_ratio"))
    model = train(rows, "log_ratio", _NUMERIC, _CATEGORIES, settings)
    together = _together(model, rows)
    if place is not None:
        model.save(place)
        write_json({"together": together}, place / "traffic.json")
    return Traffic(model, together, day, legs.height)


def _together(model: DelayModel, legs: pl.DataFrame) -> float:
    """Share of the spread that legs of one depot and day have in common: covariance of normal scores within such groups."""
    q = model.predict(legs).quantiles
    at = ndtri(np.asarray(LEVELS))
    y = legs["log_ratio"].to_numpy()
    z = np.array([np.interp(v, row + np.arange(len(at)) * 1e-9, at) for v, row in zip(y, q, strict=True)])
    z = (z - z.mean()) / max(float(z.std()), 1e-9)
    groups = legs.select("day", "depot_id").with_columns(pl.Series("z", z)).group_by("day", "depot_id").agg(
        pl.col("z").sum().alias("sum"), (pl.col("z") ** 2).sum().alias("squares"), pl.len().alias("n")
    ).filter(pl.col("n") > 1)  # fmt: skip
    if groups.is_empty():
        return 0.0
    pairs = (groups["n"] * (groups["n"] - 1)).sum()
    within = float((groups["sum"] ** 2 - groups["squares"]).sum()) / max(float(pairs), 1.0)
    return round(float(np.clip(within, 0.0, 0.9)), 4)


def hours_of_day(inputs: LogisticsInputs, hours: Sequence[float] = tuple(range(5, 18))) -> pl.DataFrame:
    """Legs of a usual length at each hour from each depot in each region it serves, with the day's rain."""
    finite = inputs.minutes[np.isfinite(inputs.minutes) & (inputs.minutes > 0)]
    usual = float(np.median(finite)) if finite.size else 20.0
    pairs = inputs.deliveries.select("depot_id", "region").unique().sort("depot_id", "region")
    grid = pairs.join(pl.DataFrame({"hour": [float(h) for h in hours]}), how="cross")
    return with_day(inputs, grid.with_columns(pl.lit(usual).alias("usual")))


def with_day(inputs: LogisticsInputs, legs: pl.DataFrame) -> pl.DataFrame:
    """Legs (depot_id, region, hour, usual) with the day's weekday and the rain foreseen for their hour."""
    rain = inputs.rain
    values: list[float | None] = []
    for region, hour in legs.select("region", "hour").iter_rows():
        here = rain.filter((pl.col("region") == region) & (pl.col("hour") <= hour)) if rain.height else rain
        values.append(float(here["rain"][-1]) if here.height else None)
    return legs.with_columns(
        pl.lit(inputs.as_of.isoweekday(), pl.Int64).alias("weekday"), pl.Series("rain", values, dtype=pl.Float64)
    )
