"""The one entry to forecasting: frames in, forecast frames out, pandas or polars as given.

How forecasts are made does not belong here.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from npq_assets.forecasting.distribution import QUANTILES, ForecastDistribution, check_quantiles
from npq_assets.forecasting.model import train
from npq_assets.forecasting.panel import Frame


def forecast(
    history: Frame,
    horizon: int,
    freq: str,
    *,
    season_length: int | None = None,
    quantiles: Sequence[float] = QUANTILES,
    future: Frame | None = None,
    static: Frame | None = None,
    available: Frame | None = None,
    threads: int | None = None,
    seed: int = 0,
) -> Frame:
    """Probabilistic forecasts of every series for the periods after the last in `history`.

    Args:
        history: unique_id, ds, y (+ covariates that are known ahead: numbers, booleans or words).
        horizon: Periods ahead.
        freq: `D`, `W`, `W-MON` … `W-SUN`, `MS`, `ME`, `QS`, `QE`.
        season_length: Periods of the season; default: the natural ones of `freq`; 1 = none.
        quantiles: Levels in (0, 1).
        future: unique_id, ds and the same covariates (without unique_id: the same for all).
        static: unique_id and attributes (site, product, family, …).
        available: unique_id, ds, in_stock; absent rows are in stock. Demand out of stock is never zero: sales of a
            day are its lower bound, of longer periods they say nothing.
        threads: Threads (default 2).
        seed: Seed; the same inputs and seed give the same bytes.

    Returns:
        unique_id, ds, cutoff, method, mean, q0.05 …; sorted, non-crossing, non-negative where demand was.

    Raises:
        NpqError: Duplicate keys, y not finite, dates off the grid, missing columns.
    """
    check_quantiles(quantiles)
    found = _distribution(history, horizon, freq, season_length, future, static, available, threads, seed)
    return _as_given(found.frame(quantiles), history)


def cumulative(
    history: Frame,
    horizon: int,
    freq: str,
    *,
    season_length: int | None = None,
    quantiles: Sequence[float] = QUANTILES,
    future: Frame | None = None,
    static: Frame | None = None,
    available: Frame | None = None,
    threads: int | None = None,
    seed: int = 0,
    n_samples: int = 1000,
) -> Frame:
    """Demand summed from the next period through each ds: the row at `horizon` is the protection interval's demand.

    Arguments and errors as for `forecast`; `n_samples` scenarios stand behind the quantiles.
    """
    check_quantiles(quantiles)
    found = _distribution(history, horizon, freq, season_length, future, static, available, threads, seed)
    return _as_given(found.cumulative(quantiles, n_samples, seed), history)


def sample_paths(
    history: Frame,
    horizon: int,
    freq: str,
    *,
    n_samples: int = 200,
    season_length: int | None = None,
    future: Frame | None = None,
    static: Frame | None = None,
    available: Frame | None = None,
    threads: int | None = None,
    seed: int = 0,
) -> Frame:
    """Coherent scenarios: unique_id, sample, ds, value; one sample is one future of all series together.

    Arguments and errors as for `forecast`.
    """
    found = _distribution(history, horizon, freq, season_length, future, static, available, threads, seed)
    return _as_given(found.path_frame(n_samples, seed), history)


def _distribution(
    history: Frame,
    horizon: int,
    freq: str,
    season_length: int | None,
    future: Frame | None,
    static: Frame | None,
    available: Frame | None,
    threads: int | None,
    seed: int,
) -> ForecastDistribution:
    model = train(
        history,
        horizon,
        freq,
        season_length=season_length,
        future=future,
        static=static,
        available=available,
        threads=threads,
        seed=seed,
    )
    return model.predict(history, horizon, future=future, static=static, available=available, threads=threads)


def _as_given(table: pl.DataFrame, given: Frame) -> Frame:
    """pandas for pandas (dates as timestamps), polars for polars (dates of the type given)."""
    if isinstance(given, pl.DataFrame | pl.LazyFrame):
        kind = given.collect_schema()["ds"]
        days = [c for c in ("ds", "cutoff") if c in table.columns]
        return table.with_columns(pl.col(days).cast(kind)) if isinstance(kind, pl.Datetime) else table
    days = [c for c in ("ds", "cutoff") if c in table.columns]
    return table.with_columns(pl.col(days).cast(pl.Datetime("ns"))).to_pandas()
