"""Decisions about equipment from marts small enough to see through: point in time, stuck sensors, the gate before machines."""

from collections.abc import Callable
from datetime import UTC as ZONE
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from npq_assets.contracts import DECISIONS
from npq_assets.equipment.maintenance import HORIZON
from npq_assets.equipment.maintenance_program import MaintenanceProblem, solve
from npq_assets.errors import NpqError, Unavailable
from npq_assets.evaluation.ledger import ledger_rows
from npq_assets.manufacturing import approval
from npq_assets.manufacturing.equipment_inputs import read_control, read_maintenance, read_quality
from npq_assets.manufacturing.equipment_outcome import realized_cost
from npq_assets.manufacturing.equipment_output import control_of, load, maintenance_of, quality_of, skipped
from npq_assets.manufacturing.inputs import STOPS_FILE, _calendar, plan_folder
from npq_assets.manufacturing.maintenance import _sharing_windows, _Standstill, plan_maintenance
from npq_assets.manufacturing.quality_outcome import realized_cost as quality_cost
from npq_assets.manufacturing.quality_outcome import settle_quality
from npq_assets.publishing import read_decisions, write_decisions
from npq_assets.settings import Home
from npq_assets.storage import write_parquet
from tests.conftest import Company

AS_OF = date(2024, 12, 2)
DAYS = 260
MACHINES = ["m1", "m2", "m3", "m4", "m5"]
UTC = "UTC"


def put(home: Home, model: str, frame: pl.DataFrame, domain: str = "manufacturing") -> None:
    write_parquet(frame, home.mart(domain, model))


def lay_out(home: Home, until: int = DAYS, seed: int = 4) -> None:
    """Marts of five machines whose belt lasts 50 to 70 days and heats up over its last week."""
    rng = np.random.default_rng(seed)
    first = AS_OF - timedelta(days=DAYS)
    lives, readings = [], []
    for machine in MACHINES:
        start, number = 0, 1
        while start < until:
            life = int(rng.integers(50, 70))
            end = start + life
            for day in range(start, min(end, until)):
                heat = 60.0 + max(0, 8 - (end - day)) + rng.normal(0, 0.2)
                readings.append((first + timedelta(days=day), machine, "heat", 4, heat, heat - 0.3, heat + 0.3))
            ended = first + timedelta(days=end) if end < until else None
            lives.append((machine, "belt", number, first + timedelta(days=start), ended, "failure" if ended else None))
            start, number = end, number + 1
    schema = {"machine_id": pl.String, "component": pl.String, "part_number": pl.Int64, "started_on": pl.Date,
              "ended_on": pl.Date, "ended_by": pl.String}  # fmt: skip
    put(home, "component_life", pl.DataFrame(lives, schema=schema, orient="row"))
    columns = ["measured_on", "machine_id", "sensor", "readings", "value", "lowest", "highest"]
    put(home, "sensor_day", pl.DataFrame(readings, schema=columns, orient="row"))
    put(home, "component_costs", pl.DataFrame({"component": ["belt"], "planned_cost": [100.0], "failure_cost": [900.0],
                                               "planned_minutes": [60.0], "failure_minutes": [240.0]}))  # fmt: skip
    schema = {"occurred_on": pl.Date, "machine_id": pl.String, "error_code": pl.String, "errors": pl.Int64}
    put(home, "machine_error_day", pl.DataFrame(schema=schema))
    put(home, "machines", pl.DataFrame({
        "machine_id": MACHINES, "minutes_per_day": [480.0] * 5, "cost_per_minute": [1.0] * 5,
        "installed_on": [date(2020, 1, 1)] * 5,
    }))  # fmt: skip
    put(home, "machine_calendar", pl.DataFrame(
        [("m1", AS_OF + timedelta(days=k), 0.0, 0.0, None) for k in range(2)],
        schema={"machine_id": pl.String, "calendar_on": pl.Date, "minutes": pl.Float64, "overtime_minutes": pl.Float64,
                "maintenance_minutes": pl.Float64}, orient="row",
    ))  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Home:
    at = Home.at(tmp_path)
    lay_out(at)
    return at


def ending(home: Home, within: int) -> set[str]:
    """Machines whose belt shows that it ends within so many days."""
    last = pl.read_parquet(home.mart("manufacturing", "sensor_day")).filter(
        pl.col("measured_on") == AS_OF - timedelta(days=1)
    )
    return set(last.filter(pl.col("value") > 60.0 + 8 - within - 1 + 0.8)["machine_id"])


def test_parts_at_their_end_are_replaced_on_open_days_and_the_rest_is_left_alone(home: Home) -> None:
    found = None
    for seed in range(4, 40):  # a day on which some belt is at its end
        lay_out(home, seed=seed)
        if ending(home, 2):
            found = plan_maintenance(read_maintenance(home, AS_OF))
            break
    assert found is not None
    assert ending(home, 2) <= set(found.plan["machine_id"])
    sound = pl.read_parquet(home.mart("manufacturing", "sensor_day")).filter(
        pl.col("measured_on") == AS_OF - timedelta(days=1)
    )
    sound = sound.filter(pl.col("value") < 60.7)["machine_id"]
    assert not set(sound) & set(found.plan["machine_id"])
    closed = found.plan.filter((pl.col("machine_id") == "m1") & (pl.col("planned_on") < AS_OF + timedelta(days=2)))
    assert closed.is_empty()
    facts = found.facts
    assert facts["lower_bound"] <= facts["expected_cost"] + 1e-6
    assert facts["expected_cost"] <= min(facts["run_to_failure_cost"], facts["fixed_interval_cost"]) + 1e-6
    assert (found.plan["cost"] >= 160.0 - 1e-9).all()  # 60 minutes at the machine's own price


def test_what_happens_later_changes_nothing(home: Home) -> None:
    early = AS_OF - timedelta(days=40)
    before = plan_maintenance(read_maintenance(home, early))
    for model, column in (("component_life", "started_on"), ("sensor_day", "measured_on")):
        frame = pl.read_parquet(home.mart("manufacturing", model)).filter(pl.col(column) < early)
        if model == "component_life":
            later = pl.col("ended_on") >= early
            frame = frame.with_columns(
                pl.when(~later).then("ended_on").alias("ended_on"), pl.when(~later).then("ended_by").alias("ended_by")
            )
        put(home, model, frame)
    after = plan_maintenance(read_maintenance(home, early))
    assert before.accounts.equals(after.accounts) and before.risks.equals(after.risks)


def test_a_stuck_sensor_is_silenced_named_and_does_not_decide(home: Home) -> None:
    frame = pl.read_parquet(home.mart("manufacturing", "sensor_day"))
    stuck = (pl.col("machine_id") == "m3") & (pl.col("measured_on") >= AS_OF - timedelta(days=5))
    frame = frame.with_columns(
        pl.when(stuck).then(99.0).otherwise(pl.col(c)).alias(c) for c in ("value", "lowest", "highest")
    )
    put(home, "sensor_day", frame)
    found = plan_maintenance(read_maintenance(home, AS_OF))
    assert any("sensor heat of m3 has not moved" in line for line in found.facts["skipped"])
    methods = dict(found.risks.select("machine_id", "method").iter_rows())
    assert methods["m3"].startswith("age")


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("value", [-1.7e308, 1e15])
def test_absurd_readings_are_named_and_count_as_missing(home: Home, value: float) -> None:
    """Neither the machine itself nor any other is judged by them; nor are the days around them."""
    frame = pl.read_parquet(home.mart("manufacturing", "sensor_day"))
    mad = (pl.col("machine_id") == "m2") & pl.col("measured_on").is_between(
        AS_OF - timedelta(days=5), AS_OF - timedelta(days=3)
    )
    put(home, "sensor_day", frame.filter(~mad))
    without = plan_maintenance(read_maintenance(home, AS_OF))
    put(home, "sensor_day", frame.with_columns(pl.when(mad).then(value).otherwise(pl.col("value")).alias("value")))
    found = plan_maintenance(read_maintenance(home, AS_OF))
    numbers = ["machine_id", "component", "failure_probability", "remaining_days", "method", "reason"]
    assert found.risks.select(numbers).equals(without.risks.select(numbers))
    said = [line for line in found.facts["skipped"] if "which cannot be: not used" in line]
    assert len(said) == 1 and said[0].startswith("sensor heat of m2 read ")


def test_without_what_is_needed_the_decision_is_skipped_with_its_reason(home: Home) -> None:
    put(home, "component_costs", pl.read_parquet(home.mart("manufacturing", "component_costs")).clear())
    with pytest.raises(Unavailable, match="component_costs"):
        read_maintenance(home, AS_OF)
    assert maintenance_of(home, AS_OF)[0] is None
    assert "component_costs" in (skipped(home, AS_OF, "maintenance") or "")
    schema = {"unit_id": pl.String, "feature": pl.String, "value": pl.Float64, "machine_id": pl.String,
              "product_id": pl.String, "measured_at": pl.Datetime("us", UTC), "inspected_at": pl.Datetime("us", UTC),
              "is_inspected": pl.Boolean, "defect": pl.String}  # fmt: skip
    put(home, "unit_quality", pl.DataFrame(schema=schema))
    assert quality_of(home, AS_OF) == (None, skipped(home, AS_OF, "quality"))
    put(home, "process_settings", pl.DataFrame(schema={"machine_id": pl.String}))
    assert control_of(home, AS_OF)[0] is None and load(home, AS_OF, "control") is None


def test_the_plans_standstill_is_taken_from_the_machines_time(home: Home) -> None:
    stops = pl.DataFrame(
        {"machine_id": ["m1", "m2"], "on": [AS_OF, AS_OF + timedelta(days=1)], "minutes": [60.0, 60.0]}
    )
    write_parquet(stops, plan_folder(home, AS_OF) / STOPS_FILE)
    machines = pl.read_parquet(home.mart("manufacturing", "machines"))
    rows = {(m, d): (minutes, more) for m, d, minutes, more in _calendar(home, machines, AS_OF).iter_rows()}
    assert rows["m2", AS_OF + timedelta(days=1)] == (420.0, None)
    assert rows["m1", AS_OF][0] == 0.0


def test_a_stop_longer_than_a_days_work_goes_on_when_work_would(home: Home) -> None:
    """Two replacements take 600 minutes of a day of 480; the next is closed, and the one after has the rest."""
    calendar = pl.read_parquet(home.mart("manufacturing", "machine_calendar"))
    closed = pl.DataFrame([("m2", AS_OF + timedelta(days=2), 0.0, 0.0, None)], schema=calendar.schema, orient="row")
    put(home, "machine_calendar", pl.concat([calendar, closed]))
    on = AS_OF + timedelta(days=1)
    stops = pl.DataFrame({"machine_id": ["m2"], "on": [on], "minutes": [600.0]})
    write_parquet(stops, plan_folder(home, AS_OF) / STOPS_FILE)
    machines = pl.read_parquet(home.mart("manufacturing", "machines"))
    rows = {(m, d): minutes for m, d, minutes, _ in _calendar(home, machines, AS_OF).iter_rows()}
    assert [rows["m2", on + timedelta(days=k)] for k in range(3)] == [0.0, 0.0, 360.0]
    assert ("m2", on + timedelta(days=3)) not in rows


def test_a_replacement_that_fits_into_no_day_is_named(home: Home) -> None:
    costs = pl.read_parquet(home.mart("manufacturing", "component_costs"))
    put(home, "component_costs", costs.with_columns(pl.lit(700.0).alias("planned_minutes")))
    found = plan_maintenance(read_maintenance(home, AS_OF))
    assert found.plan.is_empty()
    assert any("belt: a replacement of 700 minutes fits into no day" in line for line in found.facts["skipped"])


def test_a_week_is_settled_at_the_plans_own_prices(home: Home) -> None:
    accounts = pl.DataFrame(
        {"machine_id": ["m1", "m2"], "component": ["belt"] * 2, "decision_id": ["a", "b"], "planned_price": [100.0] * 2,
         "failure_price": [900.0] * 2}
    )  # fmt: skip
    lives = pl.DataFrame(
        {"machine_id": ["m1", "m1", "m2"], "component": ["belt"] * 3,
         "ended_on": [AS_OF, AS_OF + timedelta(days=3), AS_OF + timedelta(days=7)],
         "ended_by": ["planned", "failure", "failure"]}
    )  # fmt: skip
    assert realized_cost(lives, accounts, AS_OF)["realized_cost"].to_list() == [1000.0, 0.0]


def test_two_replacements_do_not_use_the_crews_window_twice(home: Home) -> None:
    """Belt and chain of a machine need an hour each, and the crew has one hour a day: the second stops production."""
    for seed in range(4, 40):
        lay_out(home, seed=seed)
        if ending(home, 2):
            break
    lives, costs = (pl.read_parquet(home.mart("manufacturing", name)) for name in ("component_life", "component_costs"))
    chain = pl.lit("chain").alias("component")
    put(home, "component_life", pl.concat([lives, lives.with_columns(chain)]))
    put(home, "component_costs", pl.concat([costs, costs.with_columns(chain)]))
    calendar = pl.read_parquet(home.mart("manufacturing", "machine_calendar"))
    days = [(m, AS_OF + timedelta(days=k), 480.0, 0.0, 60.0) for m in MACHINES for k in range(7)]
    put(home, "machine_calendar", pl.DataFrame(days, schema=calendar.schema, orient="row"))
    found = plan_maintenance(read_maintenance(home, AS_OF))
    together = found.plan.group_by("machine_id", "planned_on").agg(
        pl.col("minutes", "lost_minutes").sum(), pl.col("cost").sum()
    )
    both = together.filter(pl.col("minutes") == 120.0)
    assert both.height and (both["lost_minutes"] == 60.0).all() and (both["cost"] == 260.0).all()
    assert found.stops["minutes"].sum() == both["lost_minutes"].sum()
    assert found.facts["expected_cost"] == pytest.approx(found.accounts["expected_cost"].sum())
    assert found.facts["lower_bound"] < found.facts["expected_cost"] and found.facts["status"] == "feasible"


def test_two_replacements_go_to_days_of_their_own_where_that_costs_less() -> None:
    rows = pl.DataFrame({"machine": ["m", "m"], "component": ["belt", "chain"], "planned_minutes": [60.0, 60.0]})
    probability, money = np.full((2, HORIZON), 0.05), np.full((2, HORIZON), 100.0)
    problem = MaintenanceProblem(probability, money, np.full(2, 1000.0), np.ones((2, HORIZON), bool))
    window, none = np.full((2, HORIZON), 60.0), np.zeros((2, HORIZON))
    found, beyond = _sharing_windows(problem, rows, _Standstill(none, window, np.full((2, HORIZON), 50.0)))
    assert len(set(found.day.tolist())) == 2 and not beyond.any()
    assert found.bound <= found.expected.sum() < solve(problem).expected.sum() + 60 * 50.0


def units(home: Home, defects: bool = True) -> None:
    """Units of one machine, 12 a day; those whose seal is below 20 leak; every second was inspected a day later."""
    rng = np.random.default_rng(0)
    rows = []
    for k in range(60):
        for u in range(12):
            at = datetime(2024, 12, 2) - timedelta(days=60 - k) + timedelta(hours=6, minutes=u)
            seal = rng.normal(24, 2)
            looked = at + timedelta(days=1) if u % 2 == 0 and k < 59 else None
            defect = "leak" if looked and seal < 20 and defects else None
            rows.append((f"u{k:02d}-{u:02d}", "seal", seal, "m1", "p", at, looked, looked is not None, defect))
    schema = {"unit_id": pl.String, "feature": pl.String, "value": pl.Float64, "machine_id": pl.String,
              "product_id": pl.String, "measured_at": pl.Datetime("us"), "inspected_at": pl.Datetime("us"),
              "is_inspected": pl.Boolean, "defect": pl.String}  # fmt: skip
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    zoned = [pl.col(c).dt.replace_time_zone(UTC) for c in ("measured_at", "inspected_at")]
    put(home, "unit_quality", frame.with_columns(zoned))
    schema = {"product_id": pl.String, "inspection_cost": pl.Float64, "miss_cost": pl.Float64}
    put(home, "quality_costs", pl.DataFrame([(None, 1.0, 30.0)], schema=schema, orient="row"))


def test_units_that_leak_are_alerted_with_the_measurement_that_says_so(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    units(home)
    found, how = quality_of(home, AS_OF)
    assert found is not None and how == "new"
    seal = pl.read_parquet(home.mart("manufacturing", "unit_quality"))
    opened = read_quality(home, AS_OF).open
    assert opened.join(seal.filter("is_inspected"), on="unit_id", how="semi").is_empty()
    leaking = set(opened.filter(pl.col("seal") < 19.7)["unit_id"])
    assert leaking <= set(found.alerts["unit_id"])
    assert not set(opened.filter(pl.col("seal") > 21)["unit_id"]) & set(found.alerts["unit_id"])
    assert all("seal" in reason for reason in found.alerts["reason"])
    assert found.facts["cost_per_unit_held_out"] <= min(1.0, found.facts["cost_per_unit_none_inspected"])
    assert quality_of(home, AS_OF)[1] == "stored"
    assert (found.accounts["lower_bound"] <= found.accounts["expected_cost"] + 1e-9).all()


def test_a_unit_measured_at_two_stations_is_one_unit(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    units(home)
    seal = pl.read_parquet(home.mart("manufacturing", "unit_quality"))
    later = seal.with_columns(
        pl.lit("width").alias("feature"), pl.lit(5.0).alias("value"), pl.lit("m2").alias("machine_id"),
        pl.col("measured_at") + timedelta(minutes=9),
    )  # fmt: skip
    put(home, "unit_quality", pl.concat([seal, later]))
    inputs = read_quality(home, AS_OF)
    for rows in (inputs.open, inputs.learned):
        assert (
            rows["unit_id"].is_unique().all() and not rows.select("seal", "width").null_count().sum_horizontal().item()
        )
    assert set(inputs.open["machine_id"]) == {"m2"}
    found, _ = quality_of(home, AS_OF)
    assert found is not None and found.facts["learned_units"] == inputs.learned.height


def test_inspections_that_cost_nothing_are_made(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    units(home)
    schema = {"product_id": pl.String, "inspection_cost": pl.Float64, "miss_cost": pl.Float64}
    put(home, "quality_costs", pl.DataFrame([(None, 0.0, 30.0)], schema=schema, orient="row"))
    found, _ = quality_of(home, AS_OF)
    assert found is not None and found.facts["alerts"] == found.facts["open_units"] > 0


def test_a_unit_that_waits_is_alerted_again_but_booked_once(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    units(home)
    frame = pl.read_parquet(home.mart("manufacturing", "unit_quality"))
    waits = pl.col("measured_at").dt.date() == AS_OF - timedelta(days=2)
    unseen = [pl.when(~waits).then(c).alias(c) for c in ("inspected_at", "defect")]
    frame = frame.with_columns(*unseen, (pl.col("is_inspected") & ~waits).alias("is_inspected"))
    leaks = pl.when(waits).then(17.0).otherwise(pl.col("value")).alias("value")
    put(home, "unit_quality", frame.with_columns(leaks))
    first, _ = quality_of(home, AS_OF - timedelta(days=1))
    again, _ = quality_of(home, AS_OF)
    assert first is not None and again is not None
    waiting = set(first.alerts["unit_id"])
    assert len(waiting) == 12 and waiting <= set(again.alerts["unit_id"])
    booked = again.alerts.filter(pl.col("decision_id").is_in(again.accounts["decision_id"].implode()))
    assert set(first.alerts["decision_id"]) <= set(first.accounts["decision_id"])
    assert not waiting & set(booked["unit_id"])


def test_alerts_and_what_was_let_pass_are_settled_by_what_inspection_found(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    units(home)
    leaks = pl.when(pl.col("unit_id").is_in(["u59-01", "u59-02"])).then(17.0).otherwise(pl.col("value")).alias("value")
    put(home, "unit_quality", pl.read_parquet(home.mart("manufacturing", "unit_quality")).with_columns(leaks))
    found, _ = quality_of(home, AS_OF)
    assert found is not None
    ledger = ledger_rows("manufacturing", "quality_alerts", found.accounts, found.facts)
    write_decisions(home, DECISIONS["all.ledger"], AS_OF, ledger)
    alerted, passed = (found.units.filter(pl.col("is_alerted") == on) for on in (True, False))
    share, rest = found.facts["usually_inspected"], passed["decision_id"][0]
    assert alerted.height == 2 and 0.4 < share < 0.6

    def inspect(unit: str, defect: str | None, days: int = 0) -> None:
        at = datetime.combine(AS_OF + timedelta(days=days), datetime.min.time()).replace(hour=9, tzinfo=ZONE)
        mine = pl.col("unit_id") == unit
        frame = pl.read_parquet(home.mart("manufacturing", "unit_quality"))
        put(home, "unit_quality", frame.with_columns(
            pl.when(mine).then(pl.lit(at)).otherwise("inspected_at").cast(frame["inspected_at"].dtype).alias("inspected_at"),
            pl.when(mine).then(pl.lit(defect)).otherwise("defect").alias("defect"),
            (mine | pl.col("is_inspected")).alias("is_inspected"),
        ))  # fmt: skip

    def row(decision: str) -> dict[str, object]:
        rows = read_decisions(home, DECISIONS["all.ledger"], AS_OF)
        return rows.filter(pl.col("decision_id") == decision).row(0, named=True)

    tomorrow, gone = AS_OF + timedelta(days=1), AS_OF + timedelta(days=3)
    assert settle_quality(home, tomorrow) == {}, "nothing was inspected, so nothing is known"
    inspect(alerted["unit_id"][0], "leak")
    assert settle_quality(home, AS_OF) == {}, "not known before it happened"
    assert settle_quality(home, tomorrow) == {AS_OF: 1}
    mine = row(alerted["decision_id"][0])
    assert (mine["realized_cost"], mine["hindsight_cost"], mine["basis"]) == (1.0, 1.0, "observed")
    assert mine["naive_realized_cost"] == pytest.approx(share * 1.0 + (1 - share) * 30.0)
    assert settle_quality(home, tomorrow) == {}
    # A unit let pass leaks: a miss, and the others count as they were booked.
    inspect(passed["unit_id"][0], "leak", 2)
    assert settle_quality(home, gone - timedelta(days=1)) == {}, "it has not left yet"
    assert settle_quality(home, gone) == {AS_OF: 1}
    others = float(passed["booked_probability"][1:].sum()) * 30.0
    assert row(rest)["realized_cost"] == pytest.approx(30.0 + others)
    assert row(rest)["basis"] == "expected" and settle_quality(home, gone) == {}
    # Further inspections land late: what they found takes the place of what was expected.
    for unit in passed["unit_id"][1:]:
        inspect(unit, None, 20)
    late = AS_OF + timedelta(days=25)
    assert settle_quality(home, late) == {AS_OF: 1}
    final = row(rest)
    assert (final["realized_cost"], final["hindsight_cost"], final["basis"]) == (30.0, 1.0, "observed")
    assert final["naive_realized_cost"] == pytest.approx(share * passed.height + (1 - share) * 30.0)
    assert settle_quality(home, late) == {}


def test_a_unit_that_a_later_alert_caught_cost_its_inspection_and_no_miss(tmp_path: Path) -> None:
    rows = pl.DataFrame({"decision_id": ["d"] * 2, "unit_id": ["a", "b"], "is_alerted": [False] * 2,
                         "inspection_cost": [1.0] * 2, "miss_cost": [30.0] * 2, "booked_probability": [0.1] * 2})  # fmt: skip
    found = pl.DataFrame({"unit_id": ["a", "b"], "is_defective": [1.0, 1.0]})
    assert quality_cost(rows, 0.5, found, {"a"}, left=True)["realized_cost"].to_list() == [31.0]
    assert quality_cost(rows, 0.5, found.clear(), {"a"}, left=True).is_empty(), "nothing known of any of them"


def test_quality_decided_before_units_were_kept_is_read_and_stays_open(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    units(home)
    found, _ = quality_of(home, AS_OF)
    assert found is not None
    ledger = ledger_rows("manufacturing", "quality_alerts", found.accounts, found.facts)
    write_decisions(home, DECISIONS["all.ledger"], AS_OF, ledger)
    (plan_folder(home, AS_OF) / "quality_units.parquet").unlink()
    assert load(home, AS_OF, "quality").units.is_empty()
    assert settle_quality(home, AS_OF + timedelta(days=9)) == {}


def test_the_usual_share_is_that_of_the_last_weeks_before_alerts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second unit was inspected until four weeks ago, every fourth since; npq has alerted in the last week."""
    monkeypatch.setattr("npq_assets.manufacturing.equipment_inputs.RULE_UNITS", 12 * 12)
    home = Home.at(tmp_path)
    units(home)
    frame = pl.read_parquet(home.mart("manufacturing", "unit_quality"))
    dropped = (pl.col("measured_at").dt.date() >= AS_OF - timedelta(days=28)) & (
        pl.col("unit_id").str.slice(-2).cast(pl.Int64) % 4 != 0
    )
    seen = pl.col("is_inspected") & ~dropped
    unseen = [pl.when(seen).then(c).alias(c) for c in ("inspected_at", "defect")]
    frame = frame.with_columns(*unseen, seen.alias("is_inspected"))
    put(home, "unit_quality", frame)
    assert read_quality(home, AS_OF).inspected_share == 0.25
    # Inspections that follow alerts are not the rule.
    alerted = frame["measured_at"].dt.date() >= AS_OF - timedelta(days=9)
    kept = pl.Series(frame["is_inspected"] & ~alerted)
    put(home, "unit_quality", frame.with_columns(
        kept, pl.when(kept).then("inspected_at").alias("inspected_at"), pl.when(kept).then("defect").alias("defect"),
    ))  # fmt: skip
    assert read_quality(home, AS_OF).inspected_share < 0.25
    table = DECISIONS["manufacturing.quality_alerts"]
    write_decisions(home, table, AS_OF - timedelta(days=8), table.empty())
    row = {"unit_id": ["u51-01"], "defect_probability": [0.9], "likely_defect": ["leak"], "action": ["hold and inspect"],
           "machine_id": ["m1"], "product_id": ["p"], "threshold": [0.1], "expected_saving": [3.0], "reason": ["seal"],
           "decision_id": ["d"], "as_of": [AS_OF - timedelta(days=6)], "input_snapshot": ["s"]}  # fmt: skip
    write_decisions(home, table, AS_OF - timedelta(days=6), pl.DataFrame(row))
    assert read_quality(home, AS_OF).inspected_share == 0.25


def test_without_defects_the_charts_still_speak(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    units(home, defects=False)
    frame = pl.read_parquet(home.mart("manufacturing", "unit_quality"))
    shifted = pl.when(pl.col("measured_at").dt.date() == AS_OF - timedelta(days=1)).then(pl.col("value") - 8.0)
    put(home, "unit_quality", frame.with_columns(shifted.otherwise(pl.col("value")).alias("value")))
    found, _ = quality_of(home, AS_OF)
    assert found is not None and found.alerts.is_empty()
    assert "a point beyond 3 sigma" in set(found.signals["rule"])
    assert any("needed to learn from" in line for line in found.facts["skipped"])


# --- The gate ------------------------------------------------------------------------------------------------------------------


def proposed(home: Home, value: float = 72.0, current: float = 75.0) -> None:
    put(home, "process_settings", pl.DataFrame(
        {"machine_id": ["m1"], "setting": ["heat"], "low": [60.0], "high": [90.0], "ramp_limit": [4.0]}
    ))  # fmt: skip
    row = {"machine_id": ["m1"], "setting": ["heat"], "current": [current], "proposed": [value], "low": [60.0], "high": [90.0],
           "expected_saving": [3.0], "decision_id": ["d1"], "as_of": [AS_OF], "input_snapshot": ["s"]}  # fmt: skip
    write_decisions(home, DECISIONS["manufacturing.machine_settings"], AS_OF, pl.DataFrame(row))


def test_nothing_leaves_before_a_person_approved_and_said_live(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    proposed(home)
    publisher = approval.file_publisher(home)
    assert approval.publish(home, publisher, live=True) == []
    with pytest.raises(NpqError, match="needs a name"):
        approval.approve(home, AS_OF, ["d1"], " ")
    with pytest.raises(NpqError, match="no proposal"):
        approval.approve(home, AS_OF, ["other"], "Ada")
    assert [p.decision_id for p in approval.approve(home, AS_OF, ["d1"], "Ada")] == ["d1"]
    assert approval.approve(home, AS_OF, ["d1"], "Ada") == []
    assert [d.status for d in approval.publish(home, publisher)] == ["dry_run"]
    assert not list(approval.outbox(home).glob("*.json"))
    assert [d.status for d in approval.publish(home, publisher, live=True)] == ["sent"]
    assert len(list(approval.outbox(home).glob("*.json"))) == 1
    assert approval.publish(home, publisher, live=True) == []
    assert approval.listing(home, AS_OF)[0]["standing"] == "sent"
    with pytest.raises(NpqError, match="never sent"):
        approval.roll_back(home, ["other"], publisher)
    back = approval.roll_back(home, ["d1"], publisher)
    assert back[0].status == "dry_run" and "set back" in back[0].detail


@pytest.mark.parametrize("value, words", [(80.0, "a step of 5"), (95.0, "outside"), (59.0, "outside")])
def test_what_must_not_be_sent_cannot_be_approved(tmp_path: Path, value: float, words: str) -> None:
    home = Home.at(tmp_path)
    proposed(home, value)
    with pytest.raises(NpqError, match=words):
        approval.approve(home, AS_OF, ["d1"], "Ada")
    assert approval.approvals(home) == []


def test_a_proposal_from_another_value_than_is_in_force_goes_nowhere(tmp_path: Path) -> None:
    """Within its ramp from 75 degrees; somebody has set 62 since, and from there it is a leap."""
    home = Home.at(tmp_path)
    proposed(home)
    publisher = approval.file_publisher(home)
    approval.approve(home, AS_OF, ["d1"], "Ada")
    by_hand = {"machine_id": ["m1"] * 2, "setting": ["heat"] * 2, "value": [75.0, 62.0],
               "changed_at": [datetime(2024, 11, 1), datetime(2024, 12, 2, 9)], "decision_id": [None, None]}  # fmt: skip
    put(home, "setting_changes", pl.DataFrame(by_hand))
    [refused] = approval.publish(home, publisher, live=True)
    assert refused.status == "refused" and "62 now, not 75" in refused.detail
    assert not list(approval.outbox(home).glob("*.json"))
    other = Home.at(tmp_path / "other")
    proposed(other)
    put(other, "setting_changes", pl.DataFrame(by_hand))
    with pytest.raises(NpqError, match="62 now, not 75"):
        approval.approve(other, AS_OF, ["d1"], "Ada")


# --- The whole graph -----------------------------------------------------------------------------------------------------------


def test_the_sample_company_decides_about_equipment(company: Company) -> None:
    home, day = company.home, company.as_of
    risks = read_decisions(home, DECISIONS["manufacturing.component_risks"], day)
    assert risks.height and risks["failure_probability"].is_between(0, 1).all()
    assert (risks["remaining_low"] <= risks["remaining_days"]).all()
    ledger = read_decisions(home, DECISIONS["all.ledger"], day)
    assert {"maintenance_plan", "quality_alerts"} <= set(ledger["kind"])
    alerts = read_decisions(home, DECISIONS["manufacturing.quality_alerts"], day)
    assert (alerts["defect_probability"] >= alerts["threshold"]).all()
    # A unit that waits was booked on the day after it was measured.
    new = alerts.join(read_quality(home, day).open.filter("is_new"), on="unit_id", how="semi")
    assert set(new["decision_id"]) <= set(ledger["decision_id"])
    settings = read_decisions(home, DECISIONS["manufacturing.machine_settings"], day)
    assert settings.filter((pl.col("proposed") < pl.col("low")) | (pl.col("proposed") > pl.col("high"))).is_empty()
    page = home.report(day).read_text(encoding="utf-8")
    for word in ("Components at risk", "Units and processes", "Settings of machines", "How processes fit"):
        assert word in page
    assert read_control(home, day).rows["on"].max() < day


def test_later_rows_change_no_earlier_decision_about_equipment(copied: Callable[[], Company]) -> None:
    from npq_assets.runs import Runner

    company = copied()
    home, day = company.home, company.as_of
    before = {part: load(home, day, part) for part in ("maintenance", "quality", "control")}
    machine = pl.read_parquet(home.mart("manufacturing", "machines"))["machine_id"][0]
    unit = (
        pl.read_parquet(home.mart("manufacturing", "unit_quality")).filter(~pl.col("is_inspected")).row(0, named=True)
    )
    moment = f"{day + timedelta(days=1)}T10:00:00Z"
    for table, rows in {
        "component_replacements": f"replaced_at,machine_id,component,cause\n{moment},{machine},bearing,failure\n",
        "machine_errors": f"occurred_at,machine_id,error_code\n{moment},{machine},E010\n",
        "telemetry": f"measured_at,machine_id,sensor,value\n{moment},{machine},vibration,99\n",
        "setting_changes": f"machine_id,setting,changed_at,value\n{machine},speed,{moment},61\n",
        "inspections": "unit_id,inspected_at,machine_id,product_id,defect\n"
        f"{unit['unit_id']},{moment},{unit['machine_id']},{unit['product_id']},leak\n",
    }.items():
        (home.landing / "manufacturing" / table / "later.csv").write_text(rows)
    Runner(home).run("transform").raise_for_failure()
    for part, decide in (("maintenance", maintenance_of), ("quality", quality_of), ("control", control_of)):
        after, how = decide(home, day)
        assert how == "stored", part
        assert before[part] is not None and after.accounts.equals(before[part].accounts)
