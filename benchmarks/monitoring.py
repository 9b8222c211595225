"""Alerts on machines: `python -m benchmarks.monitoring --data DIR [--out DIR]`.

The folder holds telemetry_daily and failures (Parquet, as for `benchmarks.maintenance`). Every day's alerts are made as the
product makes them, from what was known then. The thresholds are judged on the first half of the failures' time and reported on
the second. An alert counts as right if the machine fails within seven days of its opening; the days between are its notice, of
which the median is shown. Beside it the share of random moments that would be right, and a plain three-sigma rule on each sensor.
Then faults put into simulated sensors, whose truth is known.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from npq_assets.equipment.anomalies import AnomalyParams, watch

WITHIN = timedelta(days=7)


def read(data: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sensors by hour (one a day), and failures."""
    wide = pl.read_parquet(data / "telemetry_daily.parquet")
    sensors = [name for name in wide.columns if name not in ("date", "machineID", "__index_level_0__")]
    hours = wide.unpivot(sensors, index=["date", "machineID"], variable_name="sensor", value_name="value").select(
        pl.format("M{}", "machineID").alias("machine_id"),
        "sensor",
        pl.col("date").dt.replace_time_zone("UTC").alias("hour_start"),
        pl.col("value").cast(pl.Float64),
        (pl.col("value") - 1).cast(pl.Float64).alias("lowest"),
        (pl.col("value") + 1).cast(pl.Float64).alias("highest"),
        pl.lit(24).alias("readings"),
        pl.lit(None, pl.Float64).alias("delay_minutes"),
    )
    failures = pl.read_parquet(data / "failures.parquet").select(
        pl.format("M{}", "machineID").alias("machine_id"), pl.col("datetime").dt.replace_time_zone("UTC").alias("at")
    )
    return hours, failures.unique().sort("machine_id", "at")


def judge(
    opened: pl.DataFrame, failures: pl.DataFrame, begin: datetime, end: datetime, machines: int
) -> dict[str, float]:
    """opened: machine_id, opened_at. Alerts a machine-week, share that was right, share of failures announced, days ahead."""
    inside = opened.filter(pl.col("opened_at").is_between(begin, end - WITHIN, closed="left"))
    broken = failures.filter(pl.col("at").is_between(begin + WITHIN, end, closed="left"))
    pairs = inside.join(failures, on="machine_id").filter(
        (pl.col("at") > pl.col("opened_at")) & (pl.col("at") <= pl.col("opened_at") + WITHIN)
    )
    right = pairs.select("machine_id", "opened_at").unique().height
    told = pairs.join(broken, on=["machine_id", "at"], how="semi").group_by("machine_id", "at").agg(
        # Of several alerts before a failure the first one gave the notice.
        (pl.col("at").first() - pl.col("opened_at").min()).dt.total_hours().alias("hours")
    )  # fmt: skip
    weeks = machines * (end - WITHIN - begin).days / 7
    lead = told["hours"].median()
    return {
        "alerts a machine-week": inside.height / weeks,
        "right": right / max(inside.height, 1),
        "failures announced": told.height / max(broken.height, 1),
        "days ahead": float(lead) / 24 if isinstance(lead, int | float) else float("nan"),
    }


def by_chance(failures: pl.DataFrame, begin: datetime, end: datetime, machines: int) -> float:
    """Share of random moments with a failure of the machine within seven days."""
    times: dict[str, list[datetime]] = {}
    for machine, at in failures.iter_rows():
        times.setdefault(machine, []).append(at)
    days = (end - WITHIN - begin).days
    hits = sum(
        any(begin + timedelta(days=k) < at <= begin + timedelta(days=k) + WITHIN for at in found)
        for found in times.values()
        for k in range(days)
    )
    return hits / (machines * days)


def three_sigma(hours: pl.DataFrame, high: float) -> pl.DataFrame:
    """A sensor's value so many standard deviations from the mean of the 56 days before; a day after an alarm is silent."""
    rows = hours.sort("machine_id", "sensor", "hour_start").with_columns(
        pl.col("value").shift(1).rolling_mean(56, min_samples=14).over("machine_id", "sensor").alias("mean"),
        pl.col("value").shift(1).rolling_std(56, min_samples=14).over("machine_id", "sensor").alias("std"),
    )
    off = rows.filter((pl.col("value") - pl.col("mean")).abs() >= high * pl.col("std"))
    off = off.select("machine_id", pl.col("hour_start").alias("opened_at")).unique().sort("machine_id", "opened_at")
    again = pl.col("opened_at").diff().over("machine_id") <= timedelta(days=1)
    return off.filter(~again.fill_null(False))


def opened(hours: pl.DataFrame, begin: datetime, end: datetime, params: AnomalyParams) -> pl.DataFrame:
    """All alerts that opened; known at the end of the day of their opening."""
    found = watch(hours, begin, end, None, params)
    return found.with_columns(pl.col("opened_at").dt.offset_by("1d"))


def simulated(seed: int) -> tuple[pl.DataFrame, dict[str, tuple[str, datetime]]]:
    """Sixty days of forty machines with six sensors by the hour; sixteen get a fault on day 45, of four kinds."""
    rng = np.random.default_rng(seed)
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    n, sensors = 60 * 24, 6
    hour = np.arange(n)
    faults: dict[str, tuple[str, datetime]] = {}
    frames = []
    for m in range(40):
        machine, common = f"S{m:02d}", np.zeros(n)
        for k in range(1, n):
            common[k] = 0.9 * common[k - 1] + rng.normal(0, 0.4)
        value = np.empty((n, sensors))
        for s in range(sensors):
            value[:, s] = 50 + 10 * s + 3 * np.sin(2 * np.pi * hour / 24 + s) + common + rng.standard_t(4, n)
        spread = np.ones_like(value)
        start = 45 * 24 + int(rng.integers(0, 24))
        kind = ("shift", "drift", "stuck", "silent", "")[m % 5 if m < 20 else 4]
        if kind:
            faults[machine] = (kind, begin + timedelta(hours=start))
        if kind == "shift":
            value[start:, 2] += 6
        elif kind == "drift":
            value[start:, 2] += 0.04 * (hour[start:] - start)
        elif kind == "stuck":
            value[start:, 2], spread[start:, 2] = value[start, 2], 0
        frame = pl.DataFrame(
            {
                "machine_id": machine,
                "hour_start": pl.Series([begin + timedelta(hours=int(h)) for h in np.repeat(hour, sensors)]),
                "sensor": [f"s{s}" for s in range(sensors)] * n,
                "value": value.ravel(),
                "spread": spread.ravel(),
                "readings": 60,
            },
            schema_overrides={"hour_start": pl.Datetime("us", "UTC")},
        )
        if kind == "silent":
            frame = frame.filter((pl.col("sensor") != "s2") | (pl.col("hour_start") < faults[machine][1]))
        frames.append(frame)
    rows = pl.concat(frames)
    return rows.with_columns(
        (pl.col("value") - pl.col("spread")).alias("lowest"),
        (pl.col("value") + pl.col("spread")).alias("highest"),
        pl.lit(None, pl.Float64).alias("delay_minutes"),
    ), faults


def main() -> None:
    """Prints three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    began = time.monotonic()
    hours, failures = read(arguments.data)
    machines = hours["machine_id"].n_unique()
    first = hours["hour_start"].min() + timedelta(days=30)  # type: ignore[operator]
    last = failures["at"].max() + timedelta(days=1)  # type: ignore[operator]
    middle = first + (last - first) / 2
    middle = middle.replace(hour=0, minute=0, second=0)
    base = AnomalyParams()
    for name, begin, end in (("first half", first, middle), ("second half", middle, last)):
        print(
            f"{name}, {begin:%Y-%m-%d} to {end:%Y-%m-%d}; right by chance: {by_chance(failures, begin, end, machines):.3f}"
        )
        print(f"  {'rule':<34}{'alerts a machine-week':>22}{'right':>8}{'failures announced':>20}{'days ahead':>12}")
        for high in (5.0, 6.0, 7.0):
            found = opened(hours, begin, end, replace(base, high=high))
            show(
                f"npq, opens at {high:g}{' (the default)' if high == base.high else ''}",
                judge(found, failures, begin, end, machines),
            )
            if high == base.high and arguments.out:
                arguments.out.mkdir(parents=True, exist_ok=True)
                found.write_parquet(arguments.out / f"alerts_{name.split()[0]}.parquet")
        for high in (3.0, 4.0):
            show(f"{high:g} sigma on each sensor", judge(three_sigma(hours, high), failures, begin, end, machines))
    print("simulated faults on day 45 of 60 (40 machines, 6 sensors by the hour, 4 of each kind)")
    rows, faults = simulated(0)
    end = datetime(2024, 3, 1, tzinfo=UTC)
    found = watch(rows, datetime(2024, 2, 4, tzinfo=UTC), end, None, base)
    print(f"  {'fault':<10}{'found':>8}{'hours until the alert, median':>32}")
    for kind in ("shift", "drift", "stuck", "silent"):
        wanted = "level" if kind in ("shift", "drift") else kind
        late = []
        for machine, (what, at) in faults.items():
            if what == kind:
                mine = found.filter(
                    (pl.col("machine_id") == machine) & (pl.col("kind") == wanted) & (pl.col("opened_at") >= at)
                )
                late += [(t - at).total_seconds() / 3600 for t in mine["opened_at"].head(1)]
        print(f"  {kind:<10}{len(late):>5}/4{np.median(late) if late else float('nan'):>32.0f}")
    sound = found.filter(~pl.col("machine_id").is_in(list(faults)))
    years = 24 * 26 / 365
    print(f"  false alerts on the sound machines: {sound.height} in 26 days, {sound.height / years:.1f} a machine-year")
    print(f"{time.monotonic() - began:.0f} s")


def show(name: str, found: dict[str, float]) -> None:
    """A row."""
    print(
        f"  {name:<34}{found['alerts a machine-week']:>22.2f}{found['right']:>8.2f}{found['failures announced']:>20.2f}"
        f"{found['days ahead']:>12.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
