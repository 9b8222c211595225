"""Delays of transports: `python -m benchmarks.delay --data DIR --out DIR`.

Learns from trips with an outcome, predicts those without: the calibrated probability of arriving more than 30 minutes late
and the quantiles of the delay. With `--hold-out 9` the given months of the history are predicted instead, from earlier ones,
and scored here beside rivals from the same run: the base rate, the same model told the schedule only, and with the level of
its training (else the level follows what was seen of the days before each).

What is told of a trip was known an hour before its scheduled departure: the airports' state of that moment and before, weather
observed in an hour that was over by then, and the published schedule. Neither the order of the rows nor `row_id` is told: both
follow the actual departures.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from npq_assets.forecasting.delay import (
    DelayForecast,
    DelayModel,
    DelaySettings,
    follow_level,
    train,
)

SCHEDULE = ["minute", "hour", "weekday", "distance", "block", "night_gap", "padding"]
BUSY = ["departures_hour", "departures_carrier_hour", "departures_before", "rotation", "turn_minutes", "from_start"]
STATE = ["st60", "st180", "nd60", "st_change"]
BEFORE = [f"{name}_{back}h_ago" for back in (1, 2, 4) for name in ("st60", "nd60")] + ["st_worst"]
WEATHER = ["temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib", "wind_x", "wind_y",
           "precip_3h", "visib_3h", "pressure_change"]  # fmt: skip
CATEGORIES = ["carrier", "origin", "dest", "carrier_flight", "origin_dest", "carrier_origin_hour", "dest_hour"]


def features(trips: pl.DataFrame, state: pl.DataFrame, weather: pl.DataFrame) -> pl.DataFrame:
    """What is known of a trip an hour before departure, a row a trip; nothing looks at its own or a later outcome.

    Columns `seen_...` are the exception: what the airport's state tells of the trip up to three hours afterwards, for
    hindsight on earlier days only.
    """
    frame = trips.with_columns(pl.col("carrier", "origin", "dest").cast(pl.String)).join(
        state.select("row_id", "st60", "st180", "nd60"), on="row_id", how="left"
    )
    air = weather.with_columns(pl.col("time_hour").str.to_datetime(time_zone="UTC").dt.cast_time_unit("us").alias("th"))
    air = (
        air.unique(["origin", "th"], keep="first", maintain_order=True)
        .sort("origin", "th")
        .with_columns(
            pl.col("precip").rolling_sum(3, min_samples=1).over("origin").alias("precip_3h"),
            pl.col("visib").rolling_min(3, min_samples=1).over("origin").alias("visib_3h"),
            (pl.col("pressure") - pl.col("pressure").shift(3).over("origin")).alias("pressure_change"),
            (pl.col("wind_speed") * (pl.col("wind_dir") * np.pi / 180).sin()).alias("wind_x"),
            (pl.col("wind_speed") * (pl.col("wind_dir") * np.pi / 180).cos()).alias("wind_y"),
            # An hour before departure the departure's own hour has not begun, and the one before it is not over.
            pl.col("th") + pl.duration(hours=2),
        )
    )
    frame = frame.join(air.select("origin", "th", *list(WEATHER)), on=["origin", "th"], how="left")
    start, end = pl.col("sched_dep_time"), pl.col("sched_arr_time")
    minute = (start // 100) * 60 + start % 100
    block = ((end // 100) * 60 + end % 100 - minute) % 1440
    frame = frame.with_columns(
        minute.alias("minute"),
        (start // 100).alias("hour"),
        pl.date("year", "month", "day").alias("date"),
        block.alias("block"),
        (block - pl.col("distance") / 7.5).alias("night_gap"),
        (pl.col("st60") - pl.col("st180")).alias("st_change"),
        (pl.col("carrier") + pl.col("flight").cast(pl.String)).alias("carrier_flight"),
        (pl.col("origin") + pl.col("dest")).alias("origin_dest"),
        (pl.col("carrier") + pl.col("origin") + (start // 100).cast(pl.String)).alias("carrier_origin_hour"),
        (pl.col("dest") + (start // 300).cast(pl.String)).alias("dest_hour"),
    ).sort("sched", "carrier", "flight", "origin")
    same = ["date", "origin"]
    frame = frame.with_columns(
        pl.col("date").dt.weekday().alias("weekday"),
        # Minutes that the published schedule gives this trip beyond what it gives others on the same way.
        (pl.col("block") - pl.col("block").median().over("origin_dest")).alias("padding"),
        pl.len().over([*same, "hour"]).alias("departures_hour"),
        pl.len().over([*same, "hour", "carrier"]).alias("departures_carrier_hour"),
        pl.col("minute").rank("min").over(same).alias("departures_before"),
        pl.when(pl.col("tailnum").is_not_null())
        .then(pl.col("minute").rank("min").over("date", "tailnum"))
        .alias("rotation"),
        (pl.col("minute") - 300).alias("from_start"),
        # Minutes since the same aircraft's last scheduled departure that day: short turns carry delays on.
        pl.when(pl.col("tailnum").is_not_null())
        .then(pl.col("minute") - pl.col("minute").shift(1).over("date", "tailnum"))
        .alias("turn_minutes"),
        pl.col("st60").cum_max().over(same).alias("st_worst"),
    )
    return _clock(frame)


def _clock(frame: pl.DataFrame) -> pl.DataFrame:
    """The airports' states at other moments of the same day: before at this airport, now at the others, and afterwards."""
    clock = (
        frame.select("origin", "date", "sched", "st60", "nd60")
        .unique(["origin", "sched"], keep="first", maintain_order=True)
        .sort("sched")
    )
    for hours in (-1, -2, -4, 1, 2, 3):
        ask = frame.with_row_index("row").select(
            "row", "origin", "date", (pl.col("sched") + pl.duration(hours=hours)).alias("at")
        )
        told = clock.rename({"sched": "at"})
        got = ask.sort("at").join_asof(told, on="at", by=["origin", "date"], check_sortedness=False).sort("row")
        names = {n: f"seen_{n}_{hours}h" if hours > 0 else f"{n}_{-hours}h_ago" for n in ("st60", "nd60")}
        frame = frame.with_columns(got[n].alias(name) for n, name in names.items())
    for k, origin in enumerate(sorted(clock["origin"].unique())):
        ask = frame.with_row_index("row").select("row", "date", pl.col("sched").alias("at"))
        told = clock.filter(pl.col("origin") == origin).drop("origin").rename({"sched": "at"})
        got = ask.sort("at").join_asof(told, on="at", by="date", check_sortedness=False).sort("row")
        frame = frame.with_columns(got["st60"].alias(f"st60_at_{k}"), got["nd60"].alias(f"nd60_at_{k}"))
    whole = (pl.col("st60") * pl.col("nd60")).sum() / pl.col("nd60").sum().clip(1)
    return frame.with_columns(whole.over("date", "origin").alias("seen_day"))


def learn(frame: pl.DataFrame, numeric: list[str], categories: list[str], settings: DelaySettings) -> DelayModel:
    """A model of arrival delay from the rows whose outcome is known."""
    return train(frame.filter(pl.col("arr_delay").is_not_null()), "arr_delay", numeric, categories, settings)


def known_ahead(frame: pl.DataFrame) -> list[str]:
    """Numeric features that a forecast may use."""
    elsewhere = [name for name in frame.columns if name.startswith(("st60_at_", "nd60_at_"))]
    return [*SCHEDULE, *BUSY, *STATE, *BEFORE, *elsewhere, *WEATHER]


def follow(known: pl.DataFrame, target: pl.DataFrame, fixed: DelayForecast, settings: DelaySettings) -> DelayForecast:
    """The forecast with its level following what was seen of the days before each; no outcome of the target is looked at."""
    seen = [name for name in known.columns if name.startswith("seen_")]
    numeric = [*SCHEDULE, "rotation", "st60", "nd60", *seen]
    quick = replace(settings, trees=settings.trees // 2, learning_rate=settings.learning_rate * 1.5)
    hindsight = learn(known, numeric, ["carrier", "origin", "dest", "origin_dest"], quick).predict(target)
    return follow_level(fixed, hindsight, target["date"].to_physical().to_numpy().astype(np.int64))


def score(y: np.ndarray, forecast: DelayForecast, threshold: float) -> dict[str, float]:
    """The figures by which the forecasts are judged."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    late, p = y > threshold, forecast.late
    rank = np.argsort(np.argsort(p, kind="stable"), kind="stable") * 10 // len(p)
    gaps = [(rank == b).mean() * abs(p[rank == b].mean() - late[rank == b].mean()) for b in range(10)]
    error = y[:, None] - forecast.quantiles
    level = np.asarray(forecast.levels)
    pinball = np.maximum(level * error, (level - 1) * error).mean(axis=0)
    return {
        "auc": float(roc_auc_score(late, p)) if np.ptp(p) > 0 else 0.5,
        "pr_auc": float(average_precision_score(late, p)),
        "brier": float(((p - late) ** 2).mean()),
        "calibration": float(sum(gaps)),
        "pinball": float(pinball.mean()),
        "cover_80": float(((error[:, 0] >= 0) & (error[:, -1] <= 0)).mean()),
    }


def base_rate(y: np.ndarray, count: int, settings: DelaySettings) -> DelayForecast:
    """The history's share and quantiles for everybody."""
    share = float((y > (settings.threshold or 0.0)).mean())
    return DelayForecast(
        np.full(count, share), np.tile(np.quantile(y, settings.quantiles), (count, 1)), settings.quantiles
    )


def main() -> None:
    """Predicts, writes, and where outcomes are known, scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hold-out", type=str, default="", help="Months of the history to predict instead, e.g. 8,9.")
    parser.add_argument("--trees", type=int, default=DelaySettings.trees)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    settings = DelaySettings(trees=arguments.trees, seed=arguments.seed)
    began = time.monotonic()
    train_rows = pl.read_parquet(arguments.data / "train.parquet")
    states = pl.read_parquet(arguments.data / "train_airport_state_Tminus1h.parquet")
    asked = train_rows.head(0)
    if (arguments.data / "test_features.parquet").exists():
        asked = pl.read_parquet(arguments.data / "test_features.parquet")
        states = pl.concat([states, pl.read_parquet(arguments.data / "test_airport_state_Tminus1h.parquet")])
    weather = pl.read_parquet(arguments.data / "weather.parquet")
    both = pl.concat(
        [f.with_columns(pl.col("carrier", "origin", "dest").cast(pl.String)) for f in (train_rows, asked)],
        how="diagonal",
    )
    frame = features(both, states.unique("row_id"), weather)
    if arguments.hold_out:
        months = [int(word) for word in arguments.hold_out.split(",")]
        known = frame.filter(pl.col("row_id").is_in(train_rows["row_id"].implode()) & (pl.col("month") < min(months)))
        target = frame.filter(pl.col("row_id").is_in(train_rows["row_id"].implode()) & pl.col("month").is_in(months))
        target = target.filter(pl.col("arr_delay").is_not_null())
    else:
        known = frame.filter(pl.col("row_id").is_in(train_rows["row_id"].implode()))
        target = frame.filter(pl.col("row_id").is_in(asked["row_id"].implode()))
    fixed = learn(known, known_ahead(frame), CATEGORIES, settings).predict(target)
    forecast = follow(known, target, fixed, settings)
    arguments.out.mkdir(parents=True, exist_ok=True)
    out = pl.DataFrame(
        {"row_id": target["row_id"], "p": forecast.late}
        | {f"q{round(100 * level)}": forecast.quantiles[:, k] for k, level in enumerate(forecast.levels)}
    ).sort("row_id")
    out.write_parquet(arguments.out / "delay.parquet")
    print(f"{known.height:,} trips learned from, {target.height:,} predicted, {time.monotonic() - began:.0f} s")
    if arguments.hold_out:
        _judge(known, target, fixed, forecast, settings, arguments.out)


def _judge(
    known: pl.DataFrame,
    target: pl.DataFrame,
    fixed: DelayForecast,
    forecast: DelayForecast,
    settings: DelaySettings,
    out: Path,
) -> None:
    y = target["arr_delay"].to_numpy()
    past = known["arr_delay"].drop_nulls().to_numpy()
    quick = DelaySettings(trees=200, seed=settings.seed)
    plain = learn(known, SCHEDULE, ["carrier", "origin", "dest", "carrier_flight"], quick)
    threshold = settings.threshold or 0.0
    table: dict[str, dict[str, Any]] = {
        "npq": score(y, forecast, threshold),
        "level as trained": score(y, fixed, threshold),
        "schedule only": score(y, plain.predict(target), threshold),
        "base rate": score(y, base_rate(past, target.height, settings), threshold),
    }
    print(f"{'':<16}" + "".join(f"{name:>13}" for name in table["npq"]))
    for name, row in table.items():
        print(f"{name:<16}" + "".join(f"{value:>13.4f}" for value in row.values()))
    target.select("row_id", "arr_delay").write_parquet(out / "actuals.parquet")
    (out / "delay.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
