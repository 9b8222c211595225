"""From readings to published set-points with meters and sensors that lie: no value leaves its limits, whatever they say."""

import json
import math
import tempfile
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npq_assets.contracts import DECISIONS
from npq_assets.equipment.setpoints import FilePublisher
from npq_assets.manufacturing import approval
from npq_assets.manufacturing.control import ControlDecision
from npq_assets.manufacturing.equipment_checks import judge_equipment
from npq_assets.manufacturing.equipment_output import control_of, skipped
from npq_assets.publishing import write_decisions
from npq_assets.settings import Home
from npq_assets.storage import write_parquet

AS_OF = date(2024, 12, 2)
DAYS = 100
LIMITS = {"heat": (60.0, 90.0, 4.0), "speed": (50.0, 100.0, 8.0)}
TABLE = DECISIONS["manufacturing.machine_settings"]
METERS = ("energy_kwh", "scrap_quantity", "good_quantity", "run_minutes", "standard_minutes")


@cache
def plant() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Log and settings of a machine whose scrap is least at 68 degrees; it stands at 80."""
    rng = np.random.default_rng(3)
    rows: list[tuple[object, ...]] = []
    changes: list[tuple[object, ...]] = []
    heat, speed = 80.0, 70.0
    for k in range(DAYS):
        on = AS_OF - timedelta(days=DAYS - k)
        if k % 7 == 0:
            last = k + 14 >= DAYS
            heat = 80.0 if last else float(rng.uniform(62, 86))
            speed = 70.0 if last else float(rng.uniform(60, 85))
            if k + 7 < DAYS:
                at = datetime.combine(on, datetime.min.time())
                changes += [("m1", "heat", at, heat, None), ("m1", "speed", at, speed, None)]
        for product in ("a", "b"):
            standard = float(rng.uniform(200, 400))
            units = standard * 2
            scrap = units * max(0.0, 0.02 + 0.0006 * (heat - 68) ** 2 + rng.normal(0, 0.004))
            minutes = standard * (1 - 0.002 * (speed - 70) + rng.normal(0, 0.01))
            energy = minutes * (0.4 + 0.004 * (heat - 70)) * (1 + rng.normal(0, 0.02))
            rows.append(
                (on, "m1", product, "early", units - scrap, scrap, minutes, 10.0, 1, 0.0, energy, standard, 1, True)
            )
    names = ["produced_on", "machine_id", "product_id", "shift", "good_quantity", "scrap_quantity", "run_minutes",
             "setup_minutes", "setups", "down_minutes", "energy_kwh", "standard_minutes", "operation", "is_output"]  # fmt: skip
    schema = {"machine_id": pl.String, "setting": pl.String, "changed_at": pl.Datetime("us"), "value": pl.Float64,
              "decision_id": pl.String}  # fmt: skip
    moved = pl.DataFrame(changes, schema=schema, orient="row").with_columns(
        pl.col("changed_at").dt.replace_time_zone("UTC")
    )
    return pl.DataFrame(rows, schema=names, orient="row"), moved


def lay_out(home: Home, log: pl.DataFrame, changes: pl.DataFrame) -> None:
    def put(model: str, frame: pl.DataFrame, domain: str = "manufacturing") -> None:
        write_parquet(frame, home.mart(domain, model))

    put("production_day", log)
    put("setting_changes", changes)
    schema = dict.fromkeys(["machine_id", "setting"], pl.String) | dict.fromkeys(
        ["low", "high", "current", "ramp_limit", "cost_per_unit_change"], pl.Float64
    ) | dict.fromkeys(["scrap_sign", "energy_sign", "minutes_sign"], pl.Int64)  # fmt: skip
    masters = [("m1", name, low, high, 75.0, ramp, 0.1, None, None, None) for name, (low, high, ramp) in LIMITS.items()]
    put("process_settings", pl.DataFrame(masters, schema=schema, orient="row"))
    put("products", pl.DataFrame({"product_id": ["a", "b"], "unit_cost": [3.0, 4.0]}), "common")
    put("machines", pl.DataFrame({"machine_id": ["m1"], "cost_per_minute": [0.5]}))
    hours = pl.Series([datetime.combine(AS_OF, datetime.min.time())]).dt.replace_time_zone("UTC")
    put("energy_prices", pl.DataFrame({"valid_at": hours, "price_per_kwh": [0.2]}))


def in_force(changes: pl.DataFrame, setting: str) -> float:
    return float(changes.filter(pl.col("setting") == setting).sort("changed_at")["value"][-1])


def through_the_door(home: Home, changes: pl.DataFrame) -> list[dict[str, object]]:
    """Decides, checks, approves and publishes to a machine that never answers; returns all messages that left."""
    found, _ = control_of(home, AS_OF)
    if found is None:
        assert skipped(home, AS_OF, "control")
        return []
    assert isinstance(found, ControlDecision)
    assert all(v.passed for v in judge_equipment(None, found, {"quality": "not asked"}))
    assert found.settings.height + found.refusals.height > 0, "proposed, or refused with a reason"
    write_decisions(home, TABLE, AS_OF, found.settings)
    offered = [point.decision_id for point in approval.proposals(home, AS_OF)]
    # What npq proposes passes its own gate: the ramp and the limits of master data.
    assert len(approval.approve(home, AS_OF, offered, "Ada")) == len(offered)
    # A machine that does not answer is set back: both messages count.
    silent = FilePublisher(approval.outbox(home), acknowledges=True)
    approval.publish(home, silent, live=True, seconds=0.0)
    sent = [json.loads(place.read_text()) for place in sorted(approval.outbox(home).glob("*.json"))]
    assert len(sent) == 2 * len(offered)
    for message in sent:
        low, high, ramp = LIMITS[message["setting"]]
        assert math.isfinite(message["value"]) and low <= message["value"] <= high
        assert abs(message["value"] - in_force(changes, message["setting"])) <= ramp + 1e-9
    return sent


def test_sound_meters_lead_to_a_set_point(tmp_path: Path) -> None:
    """The property below is not kept by proposing nothing."""
    log, changes = plant()
    home = Home.at(tmp_path)
    lay_out(home, log, changes)
    sent = through_the_door(home, changes)
    values = [m["value"] for m in sent if m["setting"] == "heat" and m["kind"] == "set"]
    assert values == [pytest.approx(76.0, abs=0.05)]  # towards 68, one ramp from 80


WILD = st.one_of(
    st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e300, 1e18, -5.0, 0.0]),
    st.floats(allow_nan=True, allow_infinity=True),
)
READINGS = pl.col("reading")
LIES = st.one_of(
    st.tuples(st.just("absurd"), WILD),
    st.tuples(st.just("stuck"), st.floats(-1e3, 1e3)),
    st.tuples(st.just("drift"), st.floats(-1e6, 1e6)),
    st.tuples(st.just("units"), st.sampled_from([1000.0, 1 / 1000, 60.0, 1 / 60, -1.0])),
    st.tuples(st.just("fahrenheit"), st.just(0.0)),
)


def lied(frame: pl.DataFrame, column: str, lie: tuple[str, float], first: float, every: int) -> pl.DataFrame:
    """The column lies from a share of the rows on, in every so many of them."""
    kind, number = lie
    row, value = pl.int_range(pl.len()), pl.col(column)
    told = {
        "absurd": pl.lit(number),
        "stuck": pl.lit(number),
        "drift": value + number * row / pl.len(),
        "units": value * number,
        "fahrenheit": value * 1.8 + 32,
    }[kind]
    where = (row >= first * pl.len()) & (row % every == 0)
    return frame.with_columns(pl.when(where).then(told).otherwise(value).alias(column))


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from([*METERS, "value"]), LIES, st.floats(0, 0.99), st.integers(1, 5)),
        min_size=1,
        max_size=3,
    )
)
def test_no_set_point_that_leaves_is_outside_its_limits(
    lies: list[tuple[str, tuple[str, float], float, int]],
) -> None:
    log, changes = plant()
    for column, lie, first, every in lies:
        if column == "value":
            changes = lied(changes, column, lie, first, every)
        else:
            log = lied(log, column, lie, first, every)
    with tempfile.TemporaryDirectory() as folder:
        home = Home.at(Path(folder))
        lay_out(home, log, changes)
        through_the_door(home, changes)


def test_a_wild_meter_is_named_and_does_not_change_the_answer(tmp_path: Path) -> None:
    log, changes = plant()
    home = Home.at(tmp_path)
    lay_out(home, lied(log, "energy_kwh", ("absurd", 1e300), 0.0, 20), changes)
    found, _ = control_of(home, AS_OF)
    assert found is not None and "heat" in found.settings["setting"]
    assert any("10 rows have an amount, energy or run time" in line for line in found.facts["skipped"])


def test_limits_that_were_narrowed_stop_what_was_approved(tmp_path: Path) -> None:
    """Neither the value nor the way back may lie outside the limits of today."""
    log, changes = plant()
    home = Home.at(tmp_path)
    lay_out(home, log, changes)
    found, _ = control_of(home, AS_OF)
    assert found is not None
    write_decisions(home, TABLE, AS_OF, found.settings)
    approval.approve(home, AS_OF, [p.decision_id for p in approval.proposals(home, AS_OF)], "Ada")
    masters = pl.read_parquet(home.mart("manufacturing", "process_settings"))
    narrow = pl.when(pl.col("setting") == "heat").then(78.0).otherwise("high").alias("high")
    write_parquet(masters.with_columns(narrow), home.mart("manufacturing", "process_settings"))
    done = approval.publish(home, FilePublisher(approval.outbox(home), acknowledges=True), live=True, seconds=0.0)
    assert {d.status for d in done} == {"refused"}
    assert any("it could not be set back" in d.detail for d in done)
    assert not list(approval.outbox(home).glob("*.json"))
