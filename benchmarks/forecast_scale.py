"""The forecasting engine at size: landed Parquet to forecast frame, then the next day without retraining.

`python -m benchmarks.forecast_scale --series 3000 30000 --days 1900` makes the sample company's daily sales as landed
Parquet, and for each size runs, each in a process of its own: reading, training and forecasting 28 days in seven quantiles;
the next day with the stored panel and model; and mlforecast with LightGBM, given as many rows, trees and features. It
prints seconds, seconds a thousand series and peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

HORIZON = 28
BLOCK_DAYS = 50


def write_sales(place: Path, series: int, days: int, seed: int) -> None:
    """Daily sales of the sample company: sales.parquet, next_day.parquet, ahead.parquet (discounts), static.parquet."""
    import pyarrow.parquet as pq

    from npq_assets.company.config import CompanyConfig
    from npq_assets.company.demand import Demand
    from npq_assets.company.world import Company

    company = Company(CompanyConfig(scale=series / 400, days=days + 1, seed=seed))
    demand = Demand(company)
    sites, products = np.array(company.store_ids, dtype=object), np.array(company.product_ids, dtype=object)
    site, product = np.repeat(sites, len(products)).astype(str), np.tile(products, len(sites)).astype(str)
    names = np.char.add(np.char.add(site, "|"), product)
    keep = slice(0, series)
    first = company.config.first_day

    def day_frame(day: date, ahead: bool = False) -> pl.DataFrame:
        columns = {
            "unique_id": names[keep],
            "ds": pl.Series([day], dtype=pl.Date).new_from_index(0, len(names[keep])),
            "discount": np.tile(demand.discount(day), len(sites))[keep].astype(np.float32),
        }
        if not ahead:
            columns["y"] = demand.on(day).reshape(-1)[keep].astype(np.float64)
        return pl.DataFrame(columns)

    writer = None
    for low in range(0, days, BLOCK_DAYS):
        block = pl.concat([day_frame(first + timedelta(days=d)) for d in range(low, min(low + BLOCK_DAYS, days))])
        table = block.to_arrow()
        writer = writer or pq.ParquetWriter(place / "sales.parquet", table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    day_frame(first + timedelta(days=days)).write_parquet(place / "next_day.parquet")
    ahead = [day_frame(first + timedelta(days=days + d), ahead=True) for d in range(HORIZON + 1)]
    pl.concat(ahead).write_parquet(place / "ahead.parquet")
    families = company.product_family
    pl.DataFrame(
        {
            "unique_id": names[keep],
            "site_id": site[keep],
            "product_id": product[keep],
            "family": np.tile(families, len(sites))[keep].astype(str),
        }
    ).write_parquet(place / "static.parquet")


def full(place: Path) -> dict[str, float]:
    """Landed Parquet to forecast frame; keeps model and panel for the next day."""
    from npq_assets.forecasting.model import train_panel
    from npq_assets.forecasting.panel import build
    from npq_assets.forecasting.store import save_panel

    start = time.perf_counter()
    panel = build(
        pl.read_parquet(place / "sales.parquet"),
        "D",
        future=pl.read_parquet(place / "ahead.parquet"),
        static=pl.read_parquet(place / "static.parquet"),
        horizon=HORIZON,
    )
    read = time.perf_counter()
    model = train_panel(panel, HORIZON, "D")
    trained = time.perf_counter()
    model.predict_panel(panel, HORIZON).frame().write_parquet(place / "forecast.parquet")
    done = time.perf_counter()
    model.save(place / "model")
    save_panel(panel, place / "panel")
    trees = sum(text.count("Tree=") for text in model.boosters.values())
    return {
        "seconds": done - start,
        "reading": read - start,
        "training": trained - read,
        "forecasting": done - trained,
        "trees": trees,
        "features": len(model.names),
        "keeping": time.perf_counter() - done,
    }


def next_day(place: Path) -> dict[str, float]:
    """The day after: stored panel and model, one more day of rows."""
    from npq_assets.forecasting import load
    from npq_assets.forecasting.store import extended, load_panel, save_panel

    start = time.perf_counter()
    panel = extended(
        load_panel(place / "panel"),
        pl.read_parquet(place / "next_day.parquet"),
        "D",
        future=pl.read_parquet(place / "ahead.parquet"),
        horizon=HORIZON,
    )
    read = time.perf_counter()
    load(place / "model").predict_panel(panel, HORIZON).frame().write_parquet(place / "next_forecast.parquet")
    done = time.perf_counter()
    save_panel(panel, place / "panel_next")
    return {"seconds": done - start, "reading": read - start, "forecasting": done - read}


def rival(place: Path) -> dict[str, float]:
    """mlforecast with LightGBM: point model and two conformal windows; the newest rows, as many as the engine's."""
    import lightgbm as lgb
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMean
    from mlforecast.target_transforms import LocalStandardScaler
    from mlforecast.utils import PredictionIntervals

    start = time.perf_counter()
    told = json.loads((place / "full.json").read_text(encoding="utf-8"))
    frame = pl.read_parquet(place / "sales.parquet").select("unique_id", "ds", "y")
    last = frame["ds"].max()
    assert isinstance(last, date)
    recent = frame.filter(pl.col("ds") > last - timedelta(days=3 * 364 + 91)).sort("unique_id", "ds").to_pandas()
    lags = [*range(1, 15), 21, 28, 35, 42, 56, 364]
    engine = MLForecast(
        models={
            "m": lgb.LGBMRegressor(
                n_estimators=max(50, int(told["trees"]) // 2), learning_rate=0.06, num_leaves=15, verbosity=-1, n_jobs=2
            )
        },
        freq="D",
        lags=lags,
        lag_transforms={lag: [RollingMean(w) for w in (3, 7, 14, 28, 56, 112, 364)] for lag in (1, 7, 14, 28)},
        date_features=["dayofweek", "month", "day", "dayofyear"],
        target_transforms=[LocalStandardScaler()],
    )
    engine.fit(recent, prediction_intervals=PredictionIntervals(n_windows=2, h=HORIZON), static_features=[])
    engine.predict(HORIZON, level=[50, 80, 90])
    return {"seconds": time.perf_counter() - start, "features": len(lags) + 28 + 4}


STAGES = {"full": full, "next": next_day, "rival": rival}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, nargs="+", default=[3000, 30000])
    parser.add_argument("--days", type=int, default=1900)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-rival", action="store_true")
    parser.add_argument("--work", type=Path, help="keep files here; else a temporary folder")
    parser.add_argument("--stage", choices=sorted(STAGES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        found = STAGES[arguments.stage](arguments.work)
        found["memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps(found))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        print(f"{'series':>8}  {'stage':<8}{'seconds':>9}{'s/1000 series':>15}{'peak GB':>9}  details")
        for series in arguments.series:
            place = (arguments.work or Path(temporary)) / str(series)
            place.mkdir(parents=True, exist_ok=True)
            if not (place / "sales.parquet").exists():
                write_sales(place, series, arguments.days, arguments.seed)
            for stage in STAGES:
                if stage == "rival" and arguments.no_rival:
                    continue
                command = [sys.executable, "-m", "benchmarks.forecast_scale", "--stage", stage, "--work", str(place)]
                run = subprocess.run(command, capture_output=True, text=True)
                if run.returncode:
                    print(f"{series:>8}  {stage:<8} failed: {run.stderr.strip().splitlines()[-1:]}", flush=True)
                    continue
                found = json.loads(run.stdout.strip().splitlines()[-1])
                (place / f"{stage}.json").write_text(json.dumps(found), encoding="utf-8")
                details = {k: round(v, 1) for k, v in found.items() if k not in {"seconds", "memory_gb"}}
                seconds = found["seconds"]
                print(
                    f"{series:>8}  {stage:<8}{seconds:>9.1f}{1000 * seconds / series:>15.2f}{found['memory_gb']:>9.2f}  "
                    f"{details}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
