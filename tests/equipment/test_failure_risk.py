"""Risks from a plant whose parts show their end: what is learned from few failures, and what is not unlearned."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from npq_assets.equipment.failure_risk import DAILY, failure_risk
from npq_assets.equipment.maintenance import MachineHistory
from npq_assets.errors import NpqError

FIRST, DAYS = datetime(2024, 1, 1), 300


def plant(machines: int = 8, taken_out: bool = False, seed: int = 0) -> tuple[MachineHistory, pl.DataFrame]:
    """A part lasts 60 to 100 days; its sensor rises over the last six. `taken_out`: most are replaced two days before."""
    rng = np.random.default_rng(seed)
    readings, replaced, failed, lives = [], [], [], []
    for m in range(machines):
        name, start = f"m{m}", 0
        while start < DAYS:
            life = int(rng.integers(60, 100))
            early = taken_out and rng.uniform() < 0.7
            end = start + life - (2 if early else 0)
            for day in range(start, min(end, DAYS)):
                left = start + life - day
                value = 10.0 + max(0.0, 7.0 - left) + rng.normal(0, 0.3)
                readings.append((name, FIRST + timedelta(days=day), value))
            done = end < DAYS
            if done:
                replaced.append((name, "pump", FIRST + timedelta(days=end)))
                if not early:
                    failed.append((name, "pump", FIRST + timedelta(days=end)))
            lives.append((name, "pump", float(min(end, DAYS) - start), int(done and not early), not done, True))
            start = end
    schema = {"machine": pl.String, "component": pl.String, "date": pl.Datetime("us")}
    history = MachineHistory(
        pl.DataFrame(
            readings, schema={"machine": pl.String, "date": pl.Datetime("us"), "heat": pl.Float64}, orient="row"
        ),
        pl.DataFrame(schema={"machine": pl.String, "date": pl.Datetime("us"), "error": pl.String}),
        pl.DataFrame(replaced, schema=schema, orient="row"),
        pl.DataFrame(failed, schema=schema, orient="row"),
        pl.DataFrame(
            {"machine": [f"m{m}" for m in range(machines)], "machine_age": [float(m) for m in range(machines)]}
        ),
    )
    columns = ["machine", "component", "days", "failed", "running", "age_known"]
    return history, pl.DataFrame(lives, schema=columns, orient="row")


def at(history: MachineHistory, day: int) -> MachineHistory:
    """The history as known before a day opened."""
    when = FIRST + timedelta(days=day)
    cut = [frame.filter(pl.col("date") < when) for frame in
           (history.telemetry, history.errors, history.replacements, history.failures)]  # fmt: skip
    return MachineHistory(*cut, history.machines)


def last_days(history: MachineHistory) -> list[tuple[str, int]]:
    """Machines and days, two days before their failure, of the last third of the log."""
    days = [(m, (d - FIRST).days) for m, _, d in history.failures.iter_rows()]
    return [(m, d - 2) for m, d in days if d > 200]


@pytest.mark.parametrize("taken_out", [False, True])
def test_parts_at_their_end_are_seen_also_by_those_who_always_acted_on_the_signs(taken_out: bool) -> None:
    history, _ = plant(machines=14 if taken_out else 8, taken_out=taken_out)
    seen = []
    for machine, day in last_days(history)[:4]:
        known = at(history, day)
        running = pl.DataFrame(
            {
                "machine": [machine],
                "component": ["pump"],
                "days": [80.0],
                "failed": [0],
                "running": [True],
                "age_known": [True],
            }
        )
        past = pl.DataFrame({"machine": ["x"] * 6, "component": ["pump"] * 6, "days": [70.0, 75, 80, 85, 90, 95],
                             "failed": [1] * 6, "running": [False] * 6, "age_known": [True] * 6})  # fmt: skip
        rows = failure_risk(known, pl.concat([past, running]), FIRST + timedelta(days=day), trees=40).rows
        assert rows["method"][0] in ("penalized regression", "boosted trees")
        seen.append(float(rows["p"][0]))
        assert rows["p"][0] == pytest.approx(rows.select(pl.sum_horizontal(DAILY)).item(), abs=1e-9)
    assert seen and np.median(seen) > 0.6


def test_later_events_change_nothing() -> None:
    history, lives = plant()
    known = failure_risk(at(history, 250), lives, FIRST + timedelta(days=250), trees=30).rows
    twice = failure_risk(at(history, 250), lives, FIRST + timedelta(days=250), trees=30).rows
    assert known.equals(twice)


def test_a_machine_that_says_nothing_is_judged_by_age_and_the_reader_is_told() -> None:
    history, lives = plant()
    silent = history.telemetry.with_columns(
        pl.when((pl.col("machine") == "m1") & (pl.col("date") >= FIRST + timedelta(days=DAYS - 5))).then(None)
        .otherwise(pl.col("heat")).alias("heat")
    )  # fmt: skip
    changed = MachineHistory(silent, history.errors, history.replacements, history.failures, history.machines)
    rows = failure_risk(changed, lives, FIRST + timedelta(days=DAYS), trees=30).rows
    methods = dict(rows.select("machine", "method").iter_rows())
    assert methods["m1"].startswith("age (no reading since") and not methods["m2"].startswith("age")


def test_without_failures_there_is_nothing_to_learn_from() -> None:
    history, lives = plant()
    with pytest.raises(NpqError, match="no component failed 3 times"):
        failure_risk(history, lives.with_columns(failed=pl.lit(0)), FIRST + timedelta(days=DAYS))
