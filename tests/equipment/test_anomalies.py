"""Alerts on sensors whose truth is known: found, named, few, and the same however often one looks."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npq_assets.equipment.anomalies import ALERTS, AnomalyParams, Scores, follow, step_hours, watch

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 50
FAULT = 45 * 24  # hour at which something goes wrong
PARAMS = AnomalyParams()
UNTIL = BEGIN + timedelta(days=DAYS)


def machine(name: str = "m", *, seed: int = 0, sensors: int = 3, step: int = 1) -> pl.DataFrame:
    """Sensors with a daily wave, a common slow wander and noise of heavy tails."""
    rng = np.random.default_rng(seed)
    hours = np.arange(0, DAYS * 24, step)
    wander = np.zeros(len(hours))
    for k in range(1, len(hours)):
        wander[k] = 0.9 * wander[k - 1] + rng.normal(0, 0.4)
    frames = []
    for s in range(sensors):
        value = 50 + 10 * s + 3 * np.sin(2 * np.pi * hours / 24) + wander + rng.standard_t(5, len(hours))
        frames.append(
            pl.DataFrame(
                {
                    "machine_id": name,
                    "sensor": f"s{s}",
                    "hour_start": pl.Series(
                        [BEGIN + timedelta(hours=int(h)) for h in hours], dtype=pl.Datetime("us", "UTC")
                    ),
                    "value": value,
                    "lowest": value - 1,
                    "highest": value + 1,
                    "readings": 60,
                    "delay_minutes": pl.Series([None] * len(hours), dtype=pl.Float64),
                }
            )
        )
    return pl.concat(frames)


def at(hour: int) -> datetime:
    return BEGIN + timedelta(hours=hour)


LATER = (pl.col("hour_start") >= at(FAULT)) & (pl.col("sensor") == "s1")


def changed(frame: pl.DataFrame, **values: pl.Expr) -> pl.DataFrame:
    return frame.with_columns(
        [pl.when(LATER).then(expr).otherwise(pl.col(name)).alias(name) for name, expr in values.items()]
    )


def alerts(frame: pl.DataFrame, days: int = 8) -> pl.DataFrame:
    return watch(frame, UNTIL - timedelta(days=days), UNTIL, None, PARAMS)


@pytest.mark.parametrize("seed", range(4))
def test_a_sound_machine_is_left_alone(seed: int) -> None:
    assert alerts(machine(seed=seed), days=14).is_empty()


def test_a_shift_is_found_within_a_day_and_named() -> None:
    [row] = alerts(changed(machine(), value=pl.col("value") + 5)).to_dicts()
    assert (row["kind"], row["closed_at"]) == ("level", None)
    assert at(FAULT) <= row["opened_at"] <= at(FAULT + 24)
    assert row["sensors"].startswith("s1")
    assert "above its usual value" in row["reason"] or "together" in row["reason"]


def test_a_slow_drift_is_found() -> None:
    hours = (pl.col("hour_start") - at(FAULT)).dt.total_hours()
    [row] = alerts(changed(machine(), value=pl.col("value") + 0.06 * hours)).to_dicts()
    assert row["kind"] == "level" and row["opened_at"] < at(FAULT + 96)


def test_sensors_that_part_ways_are_found_though_each_is_usual() -> None:
    """One sensor follows the other until it goes the other way, within the range of both."""
    rng = np.random.default_rng(1)
    frame = machine(sensors=2)
    wave = rng.normal(0, 3, DAYS * 24)
    parted = np.where(np.arange(DAYS * 24) >= FAULT, -wave, wave) + rng.normal(0, 0.3, DAYS * 24)
    value = np.concatenate([50 + wave, 60 + parted])
    frame = frame.with_columns(pl.Series("value", value))
    [row] = alerts(frame).to_dicts()
    assert row["kind"] == "level" and "move together as they usually do not" in row["reason"]


def test_a_contaminated_past_hides_nothing() -> None:
    wrong = (pl.col("hour_start") >= at(20 * 24)) & (pl.col("hour_start") < at(25 * 24)) & (pl.col("sensor") == "s1")
    frame = machine().with_columns(pl.when(wrong).then(pl.col("value") + 40).otherwise("value").alias("value"))
    [row] = alerts(changed(frame, value=pl.col("value") + 6)).to_dicts()
    assert row["kind"] == "level" and row["sensors"].startswith("s1")


def test_a_stuck_sensor_is_found_and_one_that_always_rests_is_not() -> None:
    frozen = changed(machine(), value=pl.lit(60.0), lowest=pl.lit(60.0), highest=pl.lit(60.0))
    found = alerts(frozen)
    assert found.filter(pl.col("kind") == "stuck")["sensors"].to_list() == ["s1"]
    assert found.filter(pl.col("kind") == "stuck")["opened_at"][0] <= at(FAULT + 6)
    # A machine that stands still at night gives the same values every night.
    night = pl.col("hour_start").dt.hour() < 8
    resting = machine().with_columns(
        pl.when(night).then(0.0).otherwise(name).alias(name) for name in ("value", "lowest", "highest")
    )
    assert alerts(resting).filter(pl.col("kind") == "stuck").is_empty()


def test_silence_is_found_for_a_sensor_and_for_a_whole_machine() -> None:
    one = alerts(machine().filter(~LATER))
    assert one.select("kind", "sensors").rows() == [("silent", "s1")]
    assert one["reason"][0] == "s1 was not read for 120 hours" or "s1 was not read for" in one["reason"][0]
    all_of_it = alerts(machine().filter(pl.col("hour_start") < at(FAULT)))
    assert all_of_it["kind"].to_list() == ["silent"] and all_of_it["reason"][0].startswith("no sensor was read for")


def test_a_clock_that_is_behind_is_found_once() -> None:
    frame = machine().with_columns(
        pl.when(pl.col("hour_start") >= at(FAULT)).then(45.0).otherwise(0.1).alias("delay_minutes")
    )
    [row] = alerts(frame).to_dicts()
    assert row["kind"] == "clock" and row["reason"] == "the clock is 45 minutes behind at least"


@pytest.mark.parametrize("step", [6, 24])
def test_coarser_steps(step: int) -> None:
    frame = machine(step=step)
    assert step_hours(frame) == step
    assert alerts(frame).is_empty()
    assert alerts(changed(frame, value=pl.col("value") + 15))["kind"].to_list() == ["level"]


def test_day_by_day_gives_what_one_look_gives() -> None:
    """An alert keeps its name and its opening over the days, whoever looked when."""
    frame = changed(pl.concat([machine("m"), machine("k", seed=3)]), value=pl.col("value") + 5)
    frame = frame.filter((pl.col("machine_id") == "m") | ~LATER)
    whole = alerts(frame)
    state = None
    for back in range(8, 0, -1):
        since = UNTIL - timedelta(days=back)
        state = watch(frame, since, since + timedelta(days=1), state, PARAMS)
    assert state is not None
    names = ["alert_id", "kind", "machine_id", "opened_at", "last_at", "closed_at", "score"]
    assert state.select(names).equals(whole.select(names)) and state.height == 2
    # Rows of the future change nothing.
    begin, end = UNTIL - timedelta(days=8), UNTIL - timedelta(days=2)
    known = frame.filter(pl.col("hour_start") < end)
    assert watch(frame, begin, end, None, PARAMS).equals(watch(known, begin, end, None, PARAMS))


def run(scores: list[float], already: dict[str, object] | None = None) -> list[dict[str, object]]:
    grid = np.array([np.datetime64("2024-01-01T00", "h") + k for k in range(len(scores))])
    column = np.array(scores)[:, None]
    return follow(Scores("m", "level", grid, np.array(scores), ("s",), column, column), already, PARAMS)


def test_an_alert_opens_high_and_closes_low_after_a_while() -> None:
    calm, between, high = 1.0, 4.0, 7.0
    assert run([calm, between] * 20) == []
    [row] = run([high, *[between] * 60])
    assert row["closed_at"] is None and row["opened_at"] == BEGIN
    [row] = run([high, *[calm] * 23, between, *[calm] * 23])
    assert row["closed_at"] is None
    first, second = run([high, *[calm] * 30, high])
    assert first["closed_at"] == at(24) and second["opened_at"] == at(31) and first["alert_id"] != second["alert_id"]
    # Nothing is closed on what nobody has seen.
    [row] = run([high, *[float("nan")] * 60])
    assert row["closed_at"] is None


@given(st.lists(st.sampled_from([0.0, 2.0, 4.0, 7.0, float("nan")]), min_size=1, max_size=80), st.integers(0, 80))
def test_cutting_the_scores_anywhere_changes_nothing(scores: list[float], cut: int) -> None:
    whole = run(scores)
    grid = np.array([np.datetime64("2024-01-01T00", "h") + k for k in range(len(scores))])
    column = np.array(scores)[:, None]

    def part(begin: int, end: int, already: dict[str, object] | None) -> list[dict[str, object]]:
        return follow(
            Scores(
                "m", "level", grid[begin:end], np.array(scores[begin:end]), ("s",), column[begin:end], column[begin:end]
            ),
            already,
            PARAMS,
        )

    first = part(0, cut, None)
    open_now = first[-1] if first and first[-1]["closed_at"] is None else None
    rest = part(cut, len(scores), open_now)
    assert [row for row in first if row is not open_now] + rest == whole


def test_no_rows_no_alerts_and_a_machine_that_vanished_keeps_its_alert() -> None:
    frame = changed(machine(), value=pl.col("value") + 5)
    assert watch(frame.head(0), BEGIN, UNTIL, None, PARAMS).schema == pl.Schema(ALERTS)
    state = alerts(frame)
    assert watch(frame.head(0), UNTIL, UNTIL + timedelta(days=1), state, PARAMS).equals(state)


def test_readings_that_cannot_be_do_not_hide_those_that_can() -> None:
    """One reading in a hundred of the past is a thousand million: the sensor's shift is seen all the same."""
    hour = (pl.col("hour_start") - BEGIN).dt.total_hours()
    shifted = changed(
        machine(), value=pl.col("value") + 15, lowest=pl.col("lowest") + 15, highest=pl.col("highest") + 15
    )
    glitch = (hour % 97 == 5) & (hour < FAULT) & (pl.col("sensor") == "s1")
    wild = shifted.with_columns(pl.when(glitch).then(1e9).otherwise("value").alias("value"))
    for frame in (shifted, wild):
        found = watch(frame, at(FAULT), at(FAULT + 48), None, PARAMS).filter(pl.col("kind") == "level")
        assert found.height == 1 and found["sensors"][0].startswith("s1"), "the first named is the worst"
