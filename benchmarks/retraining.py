"""What does it cost not to retrain: the loss of forecasts from fresh history by models of different ages.

`python -m benchmarks.retraining --data DIR --out DIR` with DIR as for `benchmarks.forecast`. Models are trained at evenly spaced
days, each forecasts at its own and at all later ones; a model of age 0 is what retraining at every run would have used.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl

from npq_assets.evaluation.statistics import paired_difference
from npq_assets.forecasting.distribution import QUANTILES
from npq_assets.forecasting.model import Settings, train_panel
from npq_assets.forecasting.panel import build
from npq_assets.forecasting.promotion import pinball


def main() -> None:
    """Prints a row a set and age, and writes retraining.parquet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", default="vn2,m5_280,walmart")
    parser.add_argument("--points", type=int, default=6, help="Days at which models are trained.")
    parser.add_argument("--series", type=int, default=300, help="Series at most, evenly spaced.")
    parser.add_argument("--rows", type=int, default=30_000, help="Training rows at most.")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    protocol = json.loads((arguments.data / "protocol.json").read_text())
    rows = []
    print(f"{'set':<12}{'age':>6}{'forecasts':>11}{'loss':>9}{'fresh':>9}{'change':>9}   95 % interval")
    for name in arguments.sets.split(","):
        for row in measure(arguments.data / name, protocol[name], arguments):
            rows.append({"set": name, **row})
            print(
                f"{name:<12}{row['age']:>6}{row['origins']:>11}{row['loss']:>9.4f}{row['fresh']:>9.4f}"
                f"{row['change']:>+9.2%}   [{row['low']:+.2%}, {row['high']:+.2%}]",
                flush=True,
            )
    arguments.out.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows).write_parquet(arguments.out / "retraining.parquet")


def measure(folder: Path, protocol: dict[str, object], arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Weighted quantile loss by age of the model in periods, beside the fresh model's at the same origins."""
    history = pl.read_parquet(folder / "history.parquet").with_columns(pl.col("ds").cast(pl.Date))
    ids = history["unique_id"].unique().sort()
    history = history.filter(
        pl.col("unique_id").is_in(ids.gather_every(max(1, -(-len(ids) // arguments.series))).to_list())
    )
    available = None
    if "weight" in history.columns:
        available = history.select("unique_id", "ds", pl.col("weight").alias("in_stock"))
        history = history.drop("weight")
    ahead, static = folder / "known_ahead.parquet", folder / "static.parquet"
    freq, horizon = str(protocol["freq"]), int(str(protocol["horizon"]))
    panel = build(
        history,
        freq,
        future=pl.read_parquet(ahead).with_columns(pl.col("ds").cast(pl.Date)) if ahead.exists() else None,
        static=pl.read_parquet(static) if static.exists() else None,
        available=available,
        horizon=horizon,
    )
    step = {"D": 28, "W": 4, "M": 3, "Q": 2}[panel.calendar.unit]
    length = panel.shape[1]
    origins = [length - horizon - step * k for k in range(arguments.points)][::-1]
    losses: dict[tuple[int, int], np.ndarray] = {}
    demand = {}
    for i, trained in enumerate(origins):
        model = train_panel(
            panel.until(trained), horizon, freq, threads=arguments.threads, settings=Settings(max_rows=arguments.rows)
        )
        for origin in origins[i:]:
            later = slice(origin, origin + horizon)
            truth, known = panel.y[:, later], panel.observed[:, later]
            losses[origin, origin - trained] = pinball(
                model, panel.until(origin), horizon, truth, known, QUANTILES, arguments.threads
            )
            demand[origin] = np.abs(truth * known).sum(1)
    out = []
    for age in sorted({age for _, age in losses}):
        shared = [origin for origin in origins if (origin, age) in losses]
        ours = sum(losses[origin, age] for origin in shared)
        fresh = sum(losses[origin, 0] for origin in shared)
        total = float(sum(demand[origin].sum() for origin in shared))
        found = paired_difference(ours, fresh, np.arange(len(ours)))
        out.append(
            {
                "age": age, "origins": len(shared), "loss": float(ours.sum()) / total, "fresh": float(fresh.sum()) / total,
                "change": found.ratio - 1, "low": found.ratio_low - 1, "high": found.ratio_high - 1,
            }
        )  # fmt: skip
    return out


if __name__ == "__main__":
    main()
