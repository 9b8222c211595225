"""Remaining useful life on C-MAPSS: `python -m benchmarks.useful_life --data DIR --out DIR`.

The folder holds `train_<set>.parquet` and `test_sensors_<set>.parquet`. The learner is chosen by cross-validation over the training
engines; the test engines' lives are not looked at. Writes `useful_life.parquet` (dataset, unit, rul_pred and quantiles).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import polars as pl

from npq_assets.equipment.useful_life import CAP, predict


def mean_life(train: pl.DataFrame, asked: pl.DataFrame) -> np.ndarray:
    """The rival without sensors: mean life of the engines that lived longer than the one asked about, less its age."""
    lives = train.group_by("unit", maintain_order=True).agg(pl.col("cycle").max())["cycle"].to_numpy()
    ages = asked.group_by("unit", maintain_order=True).agg(pl.col("cycle").max())["cycle"].to_numpy()
    longer = [lives[lives > a] for a in ages]
    return np.array([min(CAP, (more.mean() - a) if len(more) else 0.0) for a, more in zip(ages, longer, strict=True)])


def main() -> None:
    """Predicts every set and prints the cross-validated errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    paths = sorted(arguments.data.glob("train_*.parquet"))
    if not paths:
        raise SystemExit(f"{arguments.data}: no train_<set>.parquet")
    arguments.out.mkdir(parents=True, exist_ok=True)
    frames = []
    print(
        f"{'set':>8} {'learner':>20} {'RMSE held out':>14} {'lean':>5} {'RMSE':>6} {'NASA per 100':>13} "
        f"{'upright':>8} {'coverage of 90 %':>17} {'s':>6}  candidates"
    )
    for path in paths:
        name, began = path.stem.removeprefix("train_"), time.monotonic()
        keep = pl.all().exclude("__index_level_0__")
        train, asked = (
            pl.read_parquet(path).select(keep),
            pl.read_parquet(arguments.data / f"test_sensors_{name}.parquet").select(keep),
        )
        found = predict(train, asked)
        frames.append(found.prediction.with_columns(dataset=pl.lit(name)))
        losses = ", ".join(f"{k} {v:.2f}" for k, v in found.losses.items())
        print(
            f"{name:>8} {found.chosen:>20} {found.losses[found.chosen]:>14.2f} {found.lean:>5.2f} {found.rmse:>6.2f} "
            f"{found.nasa:>13.0f} {found.nasa_upright:>8.0f} {found.coverage:>17.2f} "
            f"{time.monotonic() - began:>6.1f}  {losses}",
            flush=True,
        )
        gap = float(np.sqrt(np.mean((mean_life(train, asked) - found.prediction["rul_pred"].to_numpy()) ** 2)))
        print(f"{'':>8} without sensors (mean life by age) the answers differ by {gap:.1f} cycles (root mean square)")
    pl.concat(frames).select("dataset", pl.all().exclude("dataset")).write_parquet(
        arguments.out / "useful_life.parquet"
    )


if __name__ == "__main__":
    main()
