"""The forecasting engine on folders of series, beside strong rivals in the same run.

`python -m benchmarks.forecast --data DIR --out DIR` reads DIR/<set>/history.parquet (unique_id, ds, y [, weight: 0 = out of
stock]), and where they are there known_ahead.parquet, static.parquet and *_keys.parquet (unique_id, ds, cutoff); DIR may be
one set itself. It writes <set>.parquet to --out: unique_id, ds, cutoff, quantiles, mean for all keys, each cutoff forecast
without sight of what follows it, and prints the weighted quantile loss of the cutoffs whose actuals are in the history.
One configuration of the engine for all sets.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from npq_assets.errors import NpqError
from npq_assets.forecasting import forecast
from npq_assets.forecasting.distribution import QUANTILES

LEVELS = np.array(QUANTILES)
NAMES = [f"q{q:g}" for q in QUANTILES]
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
SAMPLE = 60  # series on which slow rivals are fitted; npq is shown on the same ones


@dataclass(frozen=True)
class Series:
    """One set: history, what is known ahead, attributes, and what is to be forecast."""

    name: str
    history: pl.DataFrame
    known: pl.DataFrame | None
    static: pl.DataFrame | None
    keys: pl.DataFrame
    freq: str
    season: int

    def past(self, cutoff: date) -> pl.DataFrame:
        """Rows up to the cutoff."""
        return self.history.filter(pl.col("ds") <= cutoff)


def read(folder: Path) -> Series:
    """Reads a set; frequency and season come from protocol.json, else from the dates."""
    history = _dated(pl.read_parquet(folder / "history.parquet"))
    keys = [_dated(pl.read_parquet(file)) for file in sorted(folder.glob("*_keys.parquet"))]
    if not keys:
        raise NpqError(f"{folder}: no *_keys.parquet, so nothing says what to forecast")
    known, static = folder / "known_ahead.parquet", folder / "static.parquet"
    protocol: dict[str, Any] = {}
    for place in (folder / "protocol.json", folder.parent / "protocol.json"):
        if place.exists():
            found = json.loads(place.read_text(encoding="utf-8"))
            protocol = found.get(folder.name, found if "freq" in found else {})
            break
    freq = protocol.get("freq") or _frequency(history["ds"])
    natural = {"D": 7, "W": 52, "M": 12, "Q": 4}[freq[0]]
    return Series(
        folder.name,
        history,
        _dated(pl.read_parquet(known)) if known.exists() else None,
        pl.read_parquet(static) if static.exists() else None,
        pl.concat([k.select("unique_id", "ds", "cutoff") for k in keys]).unique(maintain_order=True),
        freq,
        int(protocol.get("season", natural)),
    )


def _dated(frame: pl.DataFrame) -> pl.DataFrame:
    days = [c for c in ("ds", "cutoff") if c in frame.columns]
    names = [pl.col("unique_id").cast(pl.String)] if "unique_id" in frame.columns else []
    return frame.with_columns(pl.col(days).cast(pl.Date), *names)


def _frequency(dates: pl.Series) -> str:
    days = dates.unique().sort()
    gap = int(days.diff().dt.total_days().drop_nulls().min() or 1)
    if gap < 7:
        return "D"
    if gap < 28:
        return f"W-{WEEKDAYS[days[0].weekday()]}"
    return "MS" if gap < 80 else "QS"


def steps_of(data: Series, cutoff: date) -> int:
    """Periods from the cutoff to the last key."""
    last = data.keys.filter(pl.col("cutoff") == cutoff)["ds"].max()
    assert isinstance(last, date)
    if data.freq == "D" or data.freq.startswith("W"):
        return (last - cutoff).days // (1 if data.freq == "D" else 7)
    months = (last.year - cutoff.year) * 12 + last.month - cutoff.month
    return months // (3 if data.freq.startswith("Q") else 1)


def ours(data: Series, cutoff: date, threads: int) -> pl.DataFrame:
    """The engine's forecast frame for the keys of a cutoff."""
    past = data.past(cutoff)
    history, future, available = past.select("unique_id", "ds", "y"), None, None
    if data.known is not None:
        on = ["unique_id", "ds"] if "unique_id" in data.known.columns else ["ds"]
        history = history.join(data.known, on=on, how="left")
        future = data.known.filter(pl.col("ds") > cutoff)
    if "weight" in past.columns:
        available = past.select("unique_id", "ds", (pl.col("weight") > 0).alias("in_stock"))
    horizon = steps_of(data, cutoff)
    # The cutoff is the last known period, also where every series happens to end before it.
    found: pl.DataFrame = forecast(
        history, horizon, data.freq, future=future, static=data.static, available=available, threads=threads
    )
    return found.with_columns(pl.lit(cutoff).alias("cutoff")).drop("method")


def score(frame: pl.DataFrame, data: Series) -> dict[str, float]:
    """Weighted quantile loss, coverage and bias of the rows whose actual is known."""
    rows = frame.join(data.history, on=["unique_id", "ds"], how="inner")
    if "weight" in rows.columns:
        rows = rows.filter(pl.col("weight") > 0)
    if rows.is_empty():
        return {}
    y, q = rows["y"].to_numpy()[:, None], rows.select(NAMES).to_numpy()
    loss = 2 * np.maximum(LEVELS * (y - q), (LEVELS - 1) * (y - q))
    inside = lambda low, high: float(((y[:, 0] >= q[:, low]) & (y[:, 0] <= q[:, high])).mean())  # noqa: E731
    total = max(float(np.abs(y).sum()), 1e-12)
    return {
        "wql": float((loss.sum(0) / total).mean()),
        "cov80": inside(1, 5),
        "cov90": inside(0, 6),
        "crossing": float((np.diff(q, axis=1) < -1e-9).any(1).mean()),
    }


def seasonal_naive(data: Series, cutoff: date) -> pl.DataFrame:
    """Last season's value, with the empirical quantiles of its past errors."""
    return _empirical(data, cutoff, data.season)


def moving_average(data: Series, cutoff: date) -> pl.DataFrame:
    """Mean of the last half season or four weeks, with the empirical quantiles of its past errors."""
    return _empirical(data, cutoff, None)


def _empirical(data: Series, cutoff: date, season: int | None) -> pl.DataFrame:
    """The same point forecast at many past cutoffs gives the errors whose quantiles are added (scaled by series)."""
    horizon = steps_of(data, cutoff)
    past = data.past(cutoff)
    if "weight" in past.columns:
        past = past.with_columns(pl.when(pl.col("weight") > 0).then(pl.col("y")).otherwise(None).alias("y"))
    wide = past.pivot(on="unique_id", index="ds", values="y", sort_columns=True).sort("ds")
    names = [c for c in wide.columns if c != "ds"]
    values = wide.select(names).to_numpy().astype(float).T
    length = values.shape[1]
    window = max(4, {7: 28, 12: 6}.get(data.season, 13))

    def point(end: int) -> np.ndarray:
        steps = np.arange(horizon)
        if season and end >= season:
            found = values[:, end - season + steps % season]
            mean = _mean(values[:, max(0, end - window) : end])
            return np.where(np.isfinite(found), found, mean[:, None])
        return np.repeat(_mean(values[:, max(0, end - window) : end])[:, None], horizon, 1)

    errors = []
    for end in range(max(season or 0, window) + 1, length - horizon + 1, max(1, horizon // 4)):
        errors.append(values[:, end : end + horizon] - point(end))
    now = point(length)
    spread = np.concatenate(errors[-40:], 1) if errors else np.zeros((len(names), 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        shift = np.nan_to_num(np.nanquantile(spread, LEVELS, axis=1)).T
    quantiles = now[:, :, None] + shift[:, None, :]
    if np.nanmin(values) >= 0:
        quantiles = np.maximum(quantiles, 0)
    return _frame(names, quantiles, now, data, cutoff)


def _mean(values: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nan_to_num(np.nanmean(values, 1))


def _frame(names: list[str], quantiles: np.ndarray, mean: np.ndarray, data: Series, cutoff: date) -> pl.DataFrame:
    days = data.keys.filter(pl.col("cutoff") == cutoff)["ds"].unique().sort()
    steps = quantiles.shape[1]
    table = pl.DataFrame(
        {
            "unique_id": np.repeat(np.array(names, dtype=object), steps).astype(str),
            "ds": pl.Series(list(days[:steps]) * len(names), dtype=pl.Date),
            **{name: quantiles[:, :, i].reshape(-1) for i, name in enumerate(NAMES)},
            "mean": mean.reshape(-1),
        }
    )
    return table.with_columns(pl.lit(cutoff).alias("cutoff"))


def local_rival(kind: str) -> Callable[[Series, date], pl.DataFrame]:
    """AutoETS or AutoTheta with their own intervals, on a sample of the series."""

    def run(data: Series, cutoff: date) -> pl.DataFrame:
        from statsforecast import StatsForecast
        from statsforecast.models import AutoETS, AutoTheta

        season = data.season if data.season <= 24 else 1
        model = (AutoETS if kind == "AutoETS" else AutoTheta)(season_length=season, alias="m")
        past = data.past(cutoff).filter(pl.col("unique_id").is_in(sample_of(data))).select("unique_id", "ds", "y")
        table = past.sort("unique_id", "ds").group_by("unique_id", maintain_order=True).tail(420)
        found = StatsForecast(models=[model], freq=data.freq, n_jobs=1).forecast(
            df=table.to_pandas(), h=steps_of(data, cutoff), level=[50, 80, 90]
        )
        columns = ["m-lo-90", "m-lo-80", "m-lo-50", "m", "m-hi-50", "m-hi-80", "m-hi-90"]
        frame = pl.from_pandas(found.reset_index(drop=True)).with_columns(pl.col("ds").cast(pl.Date))
        return frame.select(
            "unique_id",
            "ds",
            *[pl.col(c).clip(lower_bound=0).alias(n) for c, n in zip(columns, NAMES, strict=True)],
            pl.col("m").alias("mean"),
            pl.lit(cutoff).alias("cutoff"),
        )

    return run


def ml_rival(data: Series, cutoff: date) -> pl.DataFrame:
    """mlforecast with LightGBM: lags, rolling means, calendar, per-series scaling, conformal intervals."""
    import lightgbm as lgb
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMean
    from mlforecast.target_transforms import LocalStandardScaler
    from mlforecast.utils import PredictionIntervals

    horizon, season = steps_of(data, cutoff), data.season
    past = data.past(cutoff).select("unique_id", "ds", "y").sort("unique_id", "ds")
    past = past.filter(pl.len().over("unique_id") > 4 * horizon + season)
    engine = MLForecast(
        models={"m": lgb.LGBMRegressor(n_estimators=200, learning_rate=0.06, num_leaves=31, verbosity=-1, n_jobs=2)},
        freq=data.freq,
        lags=sorted({1, 2, 3, 4, 7, 13, season, season + 1} if season < 52 else {1, 2, 3, 4, 8, 13, 26, 51, 52, 53}),
        lag_transforms={1: [RollingMean(4), RollingMean(13 if season > 7 else 28)]},
        date_features=["month"] if not data.freq.startswith("D") else ["dayofweek", "month"],
        target_transforms=[LocalStandardScaler()],
    )
    engine.fit(past.to_pandas(), prediction_intervals=PredictionIntervals(n_windows=2, h=horizon), static_features=[])
    found = pl.from_pandas(engine.predict(horizon, level=[50, 80, 90])).with_columns(pl.col("ds").cast(pl.Date))
    columns = ["m-lo-90", "m-lo-80", "m-lo-50", "m", "m-hi-50", "m-hi-80", "m-hi-90"]
    return found.select(
        "unique_id",
        "ds",
        *[pl.col(c).clip(lower_bound=0).alias(n) for c, n in zip(columns, NAMES, strict=True)],
        pl.col("m").alias("mean"),
        pl.lit(cutoff).alias("cutoff"),
    )


def sample_of(data: Series) -> list[str]:
    """Series on which slow rivals are fitted: evenly through the names."""
    names = data.keys["unique_id"].unique().sort().to_list()
    return names[:: max(1, len(names) // SAMPLE)][:SAMPLE]


RIVALS: dict[str, Callable[[Series, date], pl.DataFrame]] = {
    "seasonal naive": seasonal_naive,
    "moving average": moving_average,
    "mlforecast": ml_rival,
    "AutoETS (sample)": local_rival("AutoETS"),
    "AutoTheta (sample)": local_rival("AutoTheta"),
}
FAST = ("seasonal naive", "moving average")


def run(folder: Path, out: Path, rivals: list[str], threads: int) -> list[dict[str, Any]]:
    """Forecasts one set and returns the table's rows."""
    data = read(folder)
    written, rows = [], []
    for cutoff in data.keys["cutoff"].unique().sort():
        keys = data.keys.filter(pl.col("cutoff") == cutoff)
        start = time.perf_counter()
        frame = ours(data, cutoff, threads)
        seconds = time.perf_counter() - start
        frame = keys.select("unique_id", "ds").join(frame, on=["unique_id", "ds"], how="left")
        lacking = frame.filter(pl.col("mean").is_null())
        if lacking.height:
            raise NpqError(
                f"{folder.name}: {lacking.height} keys of {cutoff} have no forecast, such as {lacking.row(0)[:2]}"
            )
        written.append(frame.select("unique_id", "ds", "cutoff", *NAMES, "mean"))
        found = score(frame, data)
        if not found:
            continue
        rows.append({"set": data.name, "cutoff": cutoff, "method": "npq", "seconds": seconds, **found})
        chosen = sample_of(data)
        if any("sample" in rival for rival in rivals):
            few = score(frame.filter(pl.col("unique_id").is_in(chosen)), data)
            rows.append({"set": data.name, "cutoff": cutoff, "method": "npq (sample)", "seconds": seconds, **few})
        for rival in rivals:
            start = time.perf_counter()
            try:
                theirs = keys.select("unique_id", "ds").join(RIVALS[rival](data, cutoff), on=["unique_id", "ds"])
            except Exception as error:
                print(f"{data.name} {cutoff} {rival}: failed ({type(error).__name__}: {error})", file=sys.stderr)
                continue
            taken = time.perf_counter() - start
            rows.append(
                {
                    "set": data.name,
                    "cutoff": cutoff,
                    "method": rival,
                    "seconds": taken,
                    **score(theirs.drop_nulls(), data),
                }
            )
    pl.concat(written).write_parquet(out / f"{data.name}.parquet")
    return rows


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", help="only these sets")
    parser.add_argument("--rivals", choices=("all", "fast", "none"), default="all")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if (arguments.data / "history.parquet").exists():
        folders = [arguments.data]
    else:
        folders = [f for f in sorted(arguments.data.glob("*")) if (f / "history.parquet").exists()]
    if arguments.sets:
        folders = [f for f in folders if f.name in arguments.sets]
    if not folders:
        print(f"{arguments.data}: no <set>/history.parquet; give --data a folder of sets", file=sys.stderr)
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    rivals = {"all": list(RIVALS), "fast": list(FAST), "none": []}[arguments.rivals]
    print(f"{'set':<12}{'cutoff':<12}{'method':<20}{'wql':>9}{'cov80':>8}{'cov90':>8}{'seconds':>9}")
    every: list[dict[str, Any]] = []
    for folder in folders:
        try:
            rows = run(folder, arguments.out, rivals, arguments.threads)
        except NpqError as error:
            print(error, file=sys.stderr)
            return 2
        for r in rows:
            print(
                f"{r['set']:<12}{r['cutoff']!s:<12}{r['method']:<20}{r['wql']:>9.4f}{r['cov80']:>8.1%}{r['cov90']:>8.1%}"
                f"{r['seconds']:>9.1f}",
                flush=True,
            )
        every += rows
    if every:
        mean = pl.DataFrame(every).group_by("set", "method", maintain_order=True).agg(pl.col("wql").mean())
        mean = mean.with_columns(pl.col("method").str.contains("sample").alias("few"))
        theirs = mean.filter(~pl.col("method").str.contains("npq"))
        best = theirs.group_by("set", "few").agg(pl.col("wql").min().alias("best"))
        print("\nmean over cutoffs, beside the best rival on the same series")
        for row in mean.join(best, on=["set", "few"], how="left", maintain_order="left").to_dicts():
            beside = f"{row['wql'] / row['best']:>8.3f}" if row["best"] else ""
            print(f"{row['set']:<12}{row['method']:<20}{row['wql']:>9.4f}{beside}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
