"""Telemetry from landing files to roll-ups: `python -m benchmarks.telemetry [--readings N] [--kind parquet|csv.gz|both]`.

One reading a minute of 100 machines with 10 sensors each, in a file a day that holds all machines in the order of time, as a
historian exports them; 50 million readings are 35 days. A day in a hundred repeats readings of the day before, one reading in
ten thousand comes from a machine that nobody knows, one from a clock in the future, one is no number.

The product's own intake and dbt models, each in a process of its own, with its peak memory; then one more file of a minute, and
nothing new. Beside them DuckDB alone on the same files: the same roll-up without contract, keys, quarantine or memory of what
was done, which does everything again for every new file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

MACHINES, SENSORS = 100, 10
FIRST = datetime(2024, 1, 1, tzinfo=UTC)


def day_of(day: int, minutes: int, rng: np.random.Generator, first: int = 0) -> pl.DataFrame:
    """The readings of `minutes` minutes of a day."""
    series = MACHINES * SENSORS
    at = np.repeat(np.arange(first, first + minutes), series)
    which = np.tile(np.arange(series), minutes)
    base = 50 + 3 * (which % 17)
    value = base + np.sin(at / 229.0) + rng.normal(0, 1, len(at))
    begin = np.datetime64((FIRST + timedelta(days=day)).replace(tzinfo=None), "us")
    return pl.DataFrame(
        {
            "measured_at": pl.Series(begin + (at * 60_000_000).astype("timedelta64[us]")).dt.replace_time_zone("UTC"),
            "machine_id": pl.Series([f"M{k:03d}" for k in range(MACHINES)])[which // SENSORS],
            "sensor": pl.Series([f"sensor_{k}" for k in range(SENSORS)])[which % SENSORS],
            "value": np.round(value, 3),
        }
    )


def with_faults(frame: pl.DataFrame, before: pl.DataFrame | None, day: int) -> tuple[pl.DataFrame, int]:
    """The day's file and how many of its rows break the contract or wait."""
    n = frame.height
    unknown, ahead = frame.gather_every(10_000), frame.gather_every(10_000, 1)
    parts = [
        frame,
        unknown.with_columns(pl.lit("NOBODY").alias("machine_id")),
        ahead.with_columns(pl.col("measured_at").dt.offset_by("100y")),
        frame.gather_every(10_000, 2).with_columns(
            pl.lit(float("nan")).alias("value"), pl.col("measured_at").dt.offset_by("1s")
        ),
    ]
    faults = sum(part.height for part in parts[1:])
    if before is not None and day % 10 == 0:
        parts.append(before.head(n // 100))
    return pl.concat(parts), faults


def write(folder: Path, kind: str, readings: int) -> dict[str, int]:
    """Writes the landing folder; returns what must become of the rows."""
    rng = np.random.default_rng(0)
    place = folder / "manufacturing" / "telemetry"
    place.mkdir(parents=True)
    (folder / "manufacturing" / "machines").mkdir()
    pl.DataFrame(
        {"machine_id": [f"M{k:03d}" for k in range(MACHINES)], "site_id": "P", "minutes_per_day": 1440.0}
    ).write_csv(folder / "manufacturing" / "machines" / "a.csv")
    left, day, before = readings, 0, None
    told = {"landed": 0, "accepted": 0, "superseded": 0, "quarantined": 0}
    while left > 0:
        minutes = min(1440, -(-left // (MACHINES * SENSORS)))
        frame = day_of(day, minutes, rng)
        dirty, faults = with_faults(frame, before, day)
        told["landed"] += dirty.height
        told["quarantined"] += faults
        told["superseded"] += dirty.height - frame.height - faults
        put(dirty, place / f"{FIRST + timedelta(days=day):%Y-%m-%d}", kind)
        before, left, day = frame, left - minutes * MACHINES * SENSORS, day + 1
    told["accepted"] = told["landed"] - told["superseded"] - told["quarantined"]
    return told


def put(frame: pl.DataFrame, place: Path, kind: str) -> None:
    """One landing file."""
    if kind == "parquet":
        frame.write_parquet(f"{place}.parquet", compression="snappy")
        return
    import gzip

    text = frame.write_csv(datetime_format="%Y-%m-%dT%H:%M:%SZ")
    with gzip.open(f"{place}.csv.gz", "wb", compresslevel=1) as file:
        file.write(text.encode())


_INTAKE = """
import json, sys
from npq_assets.contracts import LANDING
from npq_assets.ingestion import ingest
from npq_assets.settings import Home
home = Home.at(sys.argv[1])
names = ["manufacturing.machines", "manufacturing.telemetry"]
found = ingest(home, [LANDING[name] for name in names])[names[1]]
assert found.holds, found
told = {"landed": found.landed, "accepted": found.accepted, "superseded": found.superseded,
        "quarantined": found.quarantined}
print(json.dumps(told))
"""
_ROLL_UP = """
import sys
from npq_assets.settings import Home
from npq_assets.warehouse import dbt
home = Home.at(sys.argv[1])
models = ["fqn:npq.staging.manufacturing.stg_manufacturing__telemetry"]
names = [f"sensor_{period}" for period in ("hour", "shift", "day")]
models += [f"fqn:npq.marts.manufacturing.{name}" for name in names]
dbt.Invocation(home, ("build",), tuple(models)).run()
dbt.export_marts(home, {f"manufacturing/{name}": f'"marts"."{name}"' for name in names})
"""
_DUCKDB = """
import sys
import duckdb
folder, kind = sys.argv[1:3]
reader = "read_parquet" if kind == "parquet" else "read_csv"
duckdb.sql("set memory_limit = '4GB'")
duckdb.sql("set threads = 2")
duckdb.sql(f'''copy (
    select date_trunc('hour', measured_at) as hour_start, machine_id, sensor, count(*) as readings, avg(value) as value,
        min(value) as lowest, max(value) as highest, stddev_samp(value) as spread, arg_max(value, measured_at) as last_value
    from {reader}('{folder}/manufacturing/telemetry/*.{kind}')
    group by all) to '{folder}/../hours.parquet' (format parquet)''')
"""


def timed(script: str, *words: str) -> tuple[float, float, float, str]:
    """Seconds by the clock, processor seconds, peak memory (GB) and output of a script in a process of its own."""
    meter = (
        "import resource,subprocess,sys,time;b=time.monotonic();"
        "p=subprocess.run([sys.executable,'-c',*sys.argv[1:]],stdout=subprocess.PIPE,text=True);"
        "u=resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(p.stdout.strip());print(p.returncode,time.monotonic()-b,u.ru_utime+u.ru_stime,u.ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", meter, script, *words], check=True, capture_output=True, text=True)
    *said, last = done.stdout.strip().split("\n")
    code, clock, processor, peak = last.split()
    if code != "0":
        raise SystemExit(done.stderr)
    return float(clock), float(processor), float(peak) / 1e6, "\n".join(said)


def main() -> None:
    """Prints a table for each kind of file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=50_000_000)
    parser.add_argument("--kind", choices=("parquet", "csv.gz", "both"), default="parquet")
    parser.add_argument("--folder", type=Path, help="where to work; else a temporary folder")
    arguments = parser.parse_args()
    for kind in ("parquet", "csv.gz") if arguments.kind == "both" else (arguments.kind,):
        with tempfile.TemporaryDirectory(prefix="npq-telemetry-", dir=arguments.folder) as folder:
            measure(Path(folder), kind, arguments.readings)


def measure(home: Path, kind: str, readings: int) -> None:
    """All steps on one kind of file."""
    began = time.monotonic()
    told = write(home / "landing", kind, readings)
    files = list((home / "landing/manufacturing/telemetry").iterdir())
    size = sum(f.stat().st_size for f in files) / 1e9
    print(
        f"{told['landed']:,} readings in {len(files)} {kind} files, {size:.2f} GB (written in {time.monotonic() - began:.0f} s)"
    )
    print(f"  {'step':<46}{'seconds':>9}{'of processor':>14}{'peak GB':>9}", flush=True)

    def show(name: str, script: str, *words: str) -> tuple[float, str]:
        clock, processor, peak, said = timed(script, *words)
        print(f"  {name:<46}{clock:>9.1f}{processor:>14.1f}{peak:>9.2f}", flush=True)
        return clock, said

    landed, said = show("npq: landed", _INTAKE, str(home))
    if json.loads(said) != told:
        raise SystemExit(f"the balance is {said}, and should be {json.dumps(told)}")
    rolled, _ = show("npq: rolled up by hour, shift, day", _ROLL_UP, str(home))
    alone, _ = show("DuckDB: hours from the files, no contract", _DUCKDB, str(home / "landing"), kind)
    print(f"  together {landed + rolled:.1f} s, {(landed + rolled) / alone:.1f} times DuckDB; balance: {said}")
    days = len(files)
    fresh = day_of(days - 1, 1, np.random.default_rng(1), first=1439)
    put(fresh, home / "landing/manufacturing/telemetry/zzz-fresh", kind)
    landed, said = show("npq: one more file of a minute, landed", _INTAKE, str(home))
    rolled, _ = show("npq: rolled up", _ROLL_UP, str(home))
    again, _ = show("DuckDB: everything once more", _DUCKDB, str(home / "landing"), kind)
    print(f"  together {landed + rolled:.1f} s, {(landed + rolled) / again:.2f} times DuckDB")
    show("npq: nothing new, landed", _INTAKE, str(home))


if __name__ == "__main__":
    main()
