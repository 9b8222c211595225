"""Roll-ups of telemetry: only the days that changed are built again, and the result is that of building all of them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl

from npq_assets.contracts import LANDING
from npq_assets.ingestion import ingest
from npq_assets.settings import Home
from npq_assets.warehouse import dbt
from tests.ingestion.test_rules import land

MODELS = ("fqn:npq.staging.manufacturing.stg_manufacturing__telemetry", *(
    f"fqn:npq.marts.manufacturing.sensor_{period}" for period in ("hour", "shift", "day")
))  # fmt: skip
NAME = "manufacturing.telemetry"
BEGIN = datetime(2024, 4, 1, tzinfo=UTC)


def readings(*rows: tuple[int, str, float]) -> str:
    lines = [f"{(BEGIN + timedelta(minutes=m)).strftime('%Y-%m-%dT%H:%M:%SZ')},{who},heat,{v}" for m, who, v in rows]
    return "measured_at,machine_id,sensor,value\n" + "\n".join(lines) + "\n"


def build(home: Home, *more: str) -> dict[str, pl.DataFrame]:
    ingest(home, [LANDING["manufacturing.machines"], LANDING[NAME]])
    dbt.Invocation(home, ("build", *more), MODELS).run()
    with duckdb.connect(str(home.warehouse)) as connection:
        return {
            period: connection.sql(f"select * from marts.sensor_{period} order by all").pl().drop()
            for period in ("hour", "shift", "day")
        }


def marked(home: Home) -> list[str]:
    with duckdb.connect(str(home.warehouse)) as connection:
        rows = connection.sql("select distinct measured_on from marts.sensor_hour where gap_minutes = -1 order by 1")
        return [str(day) for (day,) in rows.fetchall()]


def test_only_days_that_changed_are_built_again(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    land(home, "manufacturing.machines", "1.csv", "machine_id,site_id,minutes_per_day\nm,p,480\nk,p,480\n", mtime=1)
    days = [(1440 * day + 7 * k, "m", float(k % 5)) for day in range(3) for k in range(100)]
    land(home, NAME, "1.csv", readings(*days, (1441, "k", 5.0)))
    first = build(home)
    assert first["hour"].height == 3 * 12 + 1 and first["day"].height == 4
    assert first["day"]["readings"].to_list() == [100, 1, 100, 100]
    with duckdb.connect(str(home.warehouse)) as connection:
        connection.sql("update marts.sensor_hour set gap_minutes = -1")
    # A correction of the second day, a new reading of a machine nobody knows, a late one of the third day.
    land(home, NAME, "2.csv", readings((1441, "k", 6.0), (1500, "x", 1.0), (2 * 1440 + 1000, "m", 9.0)))
    second = build(home)
    assert marked(home) == ["2024-04-01"]
    whole = build(home, "--full-refresh")
    day = pl.col("measured_on") > BEGIN.date()
    assert second["hour"].filter(day).equals(whole["hour"].filter(day))
    assert whole["day"].filter(pl.col("machine_id") == "k")["value"].to_list() == [6.0]
    # Nothing landed: nothing is built.
    with duckdb.connect(str(home.warehouse)) as connection:
        connection.sql("update marts.sensor_hour set gap_minutes = -1")
    build(home)
    assert len(marked(home)) == 3


def test_a_day_that_loses_all_its_rows_is_gone(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    land(home, NAME, "1.csv", readings((0, "m", 1.0), (1440, "x", 2.0)))
    assert build(home)["day"].height == 2
    land(home, "manufacturing.machines", "1.csv", "machine_id,site_id,minutes_per_day\nm,p,480\n", mtime=1)
    assert build(home)["day"]["machine_id"].to_list() == ["m"]
