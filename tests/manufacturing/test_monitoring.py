"""A plant whose stream goes wrong in every way: nothing lost, nothing invented, one clear alarm each, the same on every day."""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from npq_assets.contracts import DECISIONS, LANDING
from npq_assets.errors import Unavailable
from npq_assets.evaluation.trace import explain
from npq_assets.ingestion import balances, ingest
from npq_assets.manufacturing.monitoring import (
    Monitoring,
    MonitoringInputs,
    judge_monitoring,
    monitor,
    read_monitoring,
    save_monitoring,
)
from npq_assets.publishing import conform, write_decisions
from npq_assets.reporting.report import Section
from npq_assets.settings import Home
from npq_assets.warehouse import dbt

TABLE = DECISIONS["manufacturing.machine_alerts"]
BEGIN, DAYS = datetime(2024, 1, 1, tzinfo=UTC), 40
AS_OF = BEGIN.date() + timedelta(days=DAYS)
FAULT = BEGIN + timedelta(days=37, hours=5)
MACHINES = {"sound": 1.0, "hot": 2.0, "frozen": 1.0, "mute": 1.0, "late": 1.0}
MODELS = (
    "fqn:npq.staging.manufacturing.stg_manufacturing__telemetry",
    "fqn:npq.staging.manufacturing.stg_manufacturing__machines",
    "fqn:npq.marts.manufacturing.machines",
    *(f"fqn:npq.marts.manufacturing.sensor_{period}" for period in ("hour", "shift", "day")),
)


def readings() -> pl.DataFrame:
    """Two sensors of each machine every half hour, faults from `FAULT` on, and a machine that nobody knows."""
    rng = np.random.default_rng(5)
    n = DAYS * 48
    moments = pl.Series([BEGIN + timedelta(minutes=30 * k) for k in range(n)], dtype=pl.Datetime("us", "UTC"))
    later = np.array([m >= FAULT for m in moments])
    frames = []
    for name in [*MACHINES, "nobody"]:
        for s, sensor in enumerate(("heat", "wear")):
            value = 70 - 20 * s + np.sin(np.arange(n) / 7) + rng.normal(0, 1, n)
            if name == "hot" and sensor == "heat":
                value[later] += 9
            if name == "frozen" and sensor == "wear":
                value[later] = 50.0
            frame = pl.DataFrame(
                {"measured_at": moments, "machine_id": name, "sensor": sensor, "value": value.round(4)}
            )
            if name == "mute":
                frame = frame.filter(pl.col("measured_at") < FAULT)
            if name == "nobody":
                frame = frame.filter(pl.col("measured_at") >= FAULT)
            delay = (
                pl.duration(minutes=pl.lit(pl.Series(np.where(later, 50, 0))))
                if name == "late"
                else pl.duration(seconds=2)
            )
            frames.append(frame.with_columns((pl.col("measured_at") + delay).alias("received_at")))
    return pl.concat(frames).sort("measured_at", "machine_id", "sensor")


@dataclass
class Plant:
    home: Home
    sent: pl.DataFrame


def put(home: Home, table: str, name: str, frame: pl.DataFrame) -> None:
    place = home.landing / table.replace(".", "/") / name
    place.parent.mkdir(parents=True, exist_ok=True)
    frame.write_csv(place, datetime_format="%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    home = Home.at(tmp_path_factory.mktemp("plant"))
    machines = {"machine_id": list(MACHINES), "site_id": "P", "minutes_per_day": 480.0, "line": "one"}
    put(home, "manufacturing.machines", "a.csv", pl.DataFrame(machines | {"cost_per_minute": list(MACHINES.values())}))
    costs = {"component": ["pump"], "planned_cost": [100.0], "failure_cost": [900.0], "planned_minutes": [60.0]}
    put(home, "manufacturing.component_costs", "a.csv", pl.DataFrame(costs | {"failure_minutes": [260.0]}))
    broken = {
        "replaced_at": [BEGIN + timedelta(days=3)],
        "machine_id": ["sound"],
        "component": ["pump"],
        "cause": ["failure"],
    }
    put(home, "manufacturing.component_replacements", "a.csv", pl.DataFrame(broken))
    sent = readings()
    put(home, "manufacturing.telemetry", "history.csv", sent)
    # Messages that come twice, a clock of the next century, payloads that are none.
    put(home, "manufacturing.telemetry", "twice.csv", sent.tail(40))
    odd = sent.filter(pl.col("machine_id") == "sound").head(5)
    put(home, "manufacturing.telemetry", "ahead.csv", odd.with_columns(pl.col("measured_at").dt.offset_by("100y")))
    ingest(home, [table for table in LANDING.values() if table.domain == "manufacturing"])
    dbt.Invocation(home, ("build",), MODELS).run()
    names = [model.rsplit(".", 1)[1] for model in MODELS[2:]]
    dbt.export_marts(home, {f"manufacturing/{name}": f'"marts"."{name}"' for name in names})
    return Plant(home, sent)


@pytest.fixture(scope="module")
def inputs(plant: Plant) -> MonitoringInputs:
    return read_monitoring(plant.home, AS_OF)


@pytest.fixture(scope="module")
def found(inputs: MonitoringInputs) -> Monitoring:
    return monitor(inputs)


def test_nothing_is_lost_and_nothing_invented(plant: Plant) -> None:
    balance = balances(plant.home)["manufacturing.telemetry"]
    nobody = plant.sent.filter(pl.col("machine_id") == "nobody").height
    known = plant.sent.height - nobody
    assert balance.holds and balance.landed == plant.sent.height + 45
    assert balance.accepted == known and balance.quarantined == nobody + 5
    raw = pl.read_parquet(plant.home.raw_table("manufacturing", "telemetry")).select(plant.sent.columns)
    order = ["measured_at", "machine_id", "sensor"]
    assert raw.sort(order).equals(plant.sent.filter(pl.col("machine_id") != "nobody").sort(order))


def test_one_clear_alarm_for_each_thing_that_is_wrong(found: Monitoring) -> None:
    rows = {row["machine_id"]: row for row in conform(found.rows, TABLE).iter_rows(named=True)}
    assert {name: row["kind"] for name, row in rows.items()} == {
        "hot": "level", "frozen": "stuck", "mute": "silent", "late": "clock", "nobody": "unknown_machine"
    }  # fmt: skip
    assert len(rows) == found.rows.height
    assert rows["hot"]["action"] == "look at heat of hot" and rows["hot"]["owner"] == "maintenance, line one"
    assert "above its usual value" in rows["hot"]["reason"]
    assert rows["frozen"]["sensors"] == "wear" and rows["frozen"]["owner"] == "instrumentation, line one"
    assert rows["nobody"]["action"].startswith("land nobody in manufacturing.machines")
    assert "readings of a machine that master data do not know wait in quarantine" in rows["nobody"]["reason"]
    assert all(FAULT - timedelta(hours=1) <= row["opened_at"] <= FAULT + timedelta(hours=24) for row in rows.values())


def test_the_first_failure_on_record_is_not_one_a_day(plant: Plant) -> None:
    """Five machines, forty days of record, one failure: yesterday or long ago, a week's chance is 7 of 200 machine-days."""
    inputs = read_monitoring(plant.home, AS_OF)
    assert inputs.recorded_since == BEGIN
    mute = "mute"
    for at in (BEGIN + timedelta(days=3), inputs.until - timedelta(hours=12)):
        alerts = monitor(replace(inputs, failures=inputs.failures.with_columns(pl.lit(at).alias("at")))).state
        risk = alerts.filter((pl.col("machine_id") == mute) & (pl.col("kind") == "silent"))["money_at_risk"][0]
        assert risk == pytest.approx(7 / (41 * 5) * (800 + 200 * 1), rel=0.03)


def test_ranked_by_money_at_risk_by_hand(found: Monitoring) -> None:
    assert found.rows["money_at_risk"].is_sorted(descending=True)
    [hot] = found.rows.filter(pl.col("machine_id") == "hot").to_dicts()
    # One in five alerts announces a failure; it costs 800 more, and 200 minutes at 2.
    assert hot["money_at_risk"] == pytest.approx(0.2 * (800 + 200 * 2))
    assert hot["expected_minutes"] == pytest.approx(0.2 * 260)


def test_every_check_holds_and_a_lost_alert_is_noticed(found: Monitoring, inputs: MonitoringInputs) -> None:
    assert all(passed for _, passed, _ in judge_monitoring(found, inputs))
    earlier = found.state.with_columns(pl.lit("gone").alias("alert_id")).filter(pl.col("kind") == "level")
    verdicts = {name: passed for name, passed, _ in judge_monitoring(found, replace(inputs, before=earlier))}
    assert not verdicts["nothing_lost"]


def test_a_short_list_sums_up_the_rest_and_forgets_none(found: Monitoring, inputs: MonitoringInputs) -> None:
    short = monitor(replace(inputs, shown=2))
    assert short.rows["kind"].to_list()[:2] == found.rows["kind"].to_list()[:2] and short.rows.height == 3
    rest = short.rows.row(2, named=True)
    assert rest["kind"] == "others" and rest["reason"].startswith("3 further alerts: ")
    assert short.rows["money_at_risk"].sum() == pytest.approx(found.rows["money_at_risk"].sum())
    assert short.state.equals(found.state)
    conform(short.rows, TABLE)


def test_an_alert_keeps_name_and_age_over_the_days_and_the_same_inputs_give_the_same_rows(plant: Plant) -> None:
    seen: dict[str, Any] = {}
    for back in (2, 1, 0):
        day = AS_OF - timedelta(days=back)
        inputs = read_monitoring(plant.home, day)
        found = monitor(inputs)
        assert monitor(inputs).rows.equals(found.rows)
        save_monitoring(plant.home, day, found, inputs.snapshot)
        for row in found.rows.iter_rows(named=True):
            name, opened = seen.setdefault(row["machine_id"], (row["alert_id"], row["opened_at"]))
            assert (row["alert_id"], row["opened_at"]) == (name, opened)
            hours = (datetime.combine(day, datetime.min.time(), UTC) - opened).total_seconds() / 3600
            assert row["age_hours"] == pytest.approx(hours, abs=0.01)
    assert set(seen) == {*MACHINES, "nobody"} - {"sound"}
    for back in (2, 1, 0):
        (plant.home.root / "plans").joinpath("manufacturing", f"as_of={AS_OF - timedelta(days=back)}").exists()
    import shutil

    shutil.rmtree(plant.home.root / "plans")


def test_evidence_moves_what_an_alert_is_taken_for(inputs: MonitoringInputs, found: Monitoring) -> None:
    """Ten alerts that a failure followed say that the next one is serious."""
    opened = [inputs.until - timedelta(days=20 + k) for k in range(10)]
    blank = (
        found.state.filter(pl.col("kind") == "level").head(1).drop("opened_at", "closed_at", "alert_id", "machine_id")
    )
    past = pl.concat(
        [
            blank.with_columns(
                pl.lit(f"a{k}").alias("alert_id"),
                pl.lit("sound").alias("machine_id"),
                pl.lit(at).cast(pl.Datetime("us", "UTC")).alias("opened_at"),
                pl.lit(at + timedelta(days=1)).cast(pl.Datetime("us", "UTC")).alias("closed_at"),
            )
            for k, at in enumerate(opened)
        ]
    ).select(found.state.columns)
    failures = pl.DataFrame(
        {"machine_id": ["sound"] * 10, "component": ["pump"] * 10, "at": [at + timedelta(days=2) for at in opened]},
        schema=inputs.failures.schema,
    ).sort("at")
    told = monitor(replace(inputs, before=past, failures=failures))
    assert told.facts["evidence"] == 10 and told.facts["right"] == pytest.approx(11 / 15)
    assert "sound" not in told.rows["machine_id"].to_list()


def test_no_telemetry_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no telemetry before 2024-01-01; land manufacturing.telemetry"):
        read_monitoring(Home.at(tmp_path), date(2024, 1, 1))


def test_explained_and_shown(plant: Plant, inputs: MonitoringInputs, found: Monitoring) -> None:
    from npq_assets.manufacturing.showing import sections

    save_monitoring(plant.home, AS_OF, found, inputs.snapshot)
    write_decisions(plant.home, TABLE, AS_OF, found.rows)
    for row in found.rows.iter_rows(named=True):
        text = explain(plant.home, row["decision_id"])
        assert row["reason"] in text and f"snapshot {row['input_snapshot']}" in text
        if row["kind"] != "silent":
            assert "manufacturing/telemetry/history.csv:" in text
    [shown] = [part for part in sections(plant.home, AS_OF) if isinstance(part, Section)]
    assert shown.title == "Machines that need a look" and shown.table.height == 5
    assert shown.lead.startswith("5 alerts are open")


def test_the_sensor_starts_what_new_telemetry_touches(tmp_path: Path) -> None:
    from npq_assets.build import build_defs
    from npq_assets.orchestration import HomeResource

    definitions = build_defs()
    repository = definitions.get_repository_def()
    home = Home.at(tmp_path)

    def tick(name: str, cursor: str | None) -> Any:
        with dg.build_sensor_context(
            cursor=cursor, repository_def=repository, resources={"home": HomeResource(root=str(tmp_path))}
        ) as context:
            result = repository.get_sensor_def(name).evaluate_tick(context)
            return result.run_requests or [], result.cursor

    row = pl.DataFrame({"measured_at": [BEGIN], "machine_id": ["m"], "sensor": ["heat"], "value": [1.0]})
    put(home, "manufacturing.telemetry", "live/2024-01-01/a.csv", row)
    [request], cursor = tick("new_telemetry", None)
    keys = {key.to_user_string() for key in request.asset_selection}
    assert {
        "raw/manufacturing/telemetry", "staging/manufacturing/stg_manufacturing__telemetry", "marts/manufacturing/sensor_hour",
        "marts/manufacturing/sensor_day", "plan/manufacturing/machine_monitoring", "decisions/manufacturing/machine_alerts",
    } <= keys  # fmt: skip
    assert not any(
        key.startswith(("forecast", "retail")) or "production_plan" in key or "/retail/" in key for key in keys
    )
    assert request.partition_key == date.today().isoformat()
    # Asked for once; other sensors leave it alone.
    assert tick("new_telemetry", cursor)[0] == []
    for _ in range(2):
        requests, _ = tick("new_landing_files", None)
        assert requests == []
    ingest(home, [LANDING["manufacturing.machines"], LANDING["manufacturing.telemetry"]])
    assert tick("new_telemetry", cursor)[0] == []
    # A file that is not the listener's must look the same twice.
    put(home, "manufacturing.telemetry", "b.csv", row.with_columns(pl.lit(2.0).alias("value")))
    requests, cursor = tick("new_telemetry", cursor)
    assert requests == []
    [request], cursor = tick("new_telemetry", cursor)
    assert request.partition_key == "2024-01-02"


def test_a_clock_that_is_ahead_is_an_alert_as_long_as_it_sends(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    put(
        home,
        "manufacturing.machines",
        "a.csv",
        pl.DataFrame({"machine_id": ["m", "k"], "site_id": "P", "minutes_per_day": 480}),
    )
    row = pl.DataFrame(
        {"measured_at": [datetime.now(UTC) + timedelta(days=900)], "machine_id": ["k"], "sensor": ["m heat"]}
    )
    put(home, "manufacturing.telemetry", "a.csv", row.with_columns(pl.lit(1.0).alias("value")))
    ingest(home, [table for table in LANDING.values() if table.domain == "manufacturing"])
    home.mart("manufacturing", "machines").parent.mkdir(parents=True)
    pl.DataFrame({"machine_id": ["m", "k"], "line": "a", "cost_per_minute": 1.0}).write_parquet(
        home.mart("manufacturing", "machines")
    )
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    inputs = read_monitoring(home, tomorrow)
    [alert] = monitor(inputs).rows.to_dicts()
    assert (alert["machine_id"], alert["kind"], alert["action"]) == ("k", "clock_ahead", "set the clock of k")
    assert alert["reason"] == "1 readings with a time that cannot be were quarantined in the last days"
    save_monitoring(home, tomorrow, monitor(inputs), inputs.snapshot)
    [again] = monitor(read_monitoring(home, tomorrow + timedelta(days=1))).rows.to_dicts()
    assert (again["alert_id"], again["opened_at"]) == (alert["alert_id"], alert["opened_at"])
    # Days of the past know nothing of it, and later nothing comes any more.
    for day in (tomorrow - timedelta(days=5), tomorrow + timedelta(days=5)):
        with pytest.raises(Unavailable):
            read_monitoring(home, day)
