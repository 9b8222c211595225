"""What moves output, scrap and energy: known coefficients found again, entangled factors named, silence where data are silent."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from npq_assets.manufacturing.drivers import (
    MOST_VIF,
    TARGETS,
    Factor,
    Target,
    _least_squares,
    driver_rows,
    find_drivers,
)

SCRAP = Target("scrap", "scrap", "Scrap", "points")
FACTORS = [Factor("shift", "shift"), Factor("heat", "a degree more"), Factor("luck", "one more of nothing")]


def runs(n: int = 3000, seed: int = 1, noise: float = 1.0) -> pl.DataFrame:
    """scrap = 3 + 0.8 late + 0.5 heat + noise that grows with heat; `luck` moves nothing."""
    rng = np.random.default_rng(seed)
    late, heat = rng.random(n) < 0.4, rng.normal(0, 1, n)
    scrap = 3.0 + 0.8 * late + 0.5 * heat + noise * (0.5 + 0.5 * np.abs(heat)) * rng.normal(0, 1, n)
    return pl.DataFrame(
        {
            "produced_on": [date(2024, 1, 1) + timedelta(days=int(k * 180 / n)) for k in range(n)],
            "machine_id": [f"m{k % 5}" for k in range(n)],
            "shift": np.where(late, "late", "early"),
            "heat": heat,
            "luck": rng.normal(0, 1, n),
            "scrap": scrap,
        }
    )


def row(findings: pl.DataFrame, factor: str) -> dict[str, object]:
    return findings.filter(pl.col("factor").str.starts_with(factor)).row(0, named=True)


def test_known_coefficients_lie_in_their_intervals() -> None:
    found = find_drivers(runs(), FACTORS, [SCRAP])
    for factor, truth in {"shift late": 0.8, "a degree more": 0.5}.items():
        line = row(found.findings, factor)
        assert line["low"] < truth < line["high"]
        assert line["conclusive"] and line["vif"] < 1.5
        assert "95 %" in line["sentence"] and line["sentence"].startswith("Scrap: ")
    luck = row(found.findings, "one more of nothing")
    assert not luck["conclusive"] and "No conclusion" in luck["sentence"]
    assert luck["contribution"] < row(found.findings, "a degree")["contribution"]
    summary = found.summary.row(0, named=True)
    assert summary["conclusive"] and summary["r2_line"] > 0.1


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """95 % of the intervals under noise that depends on the factor: plain least squares covers far less here."""
    hits = []
    for seed in range(200):
        frame = runs(240, seed)
        x = np.column_stack([(frame["shift"] == "late").to_numpy().astype(float), frame["heat"].to_numpy()])
        _, low, high, _ = _least_squares(frame["scrap"].to_numpy(), x, np.arange(240))[1]
        hits.append(low < 0.5 < high)
    assert np.mean(hits) >= 0.91


def test_factors_that_move_together_are_flagged() -> None:
    frame = runs()
    rng = np.random.default_rng(2)
    frame = frame.with_columns((pl.col("heat") + 0.02 * pl.Series(rng.normal(0, 1, frame.height))).alias("pressure"))
    found = find_drivers(frame, [*FACTORS, Factor("pressure", "a bar more")], [SCRAP]).findings
    for factor in ("a degree", "a bar"):
        line = row(found, factor)
        assert line["vif"] > MOST_VIF and not line["conclusive"] and "moves together" in line["sentence"]
    assert row(found, "shift late")["conclusive"]


def test_what_others_determine_wholly_is_no_conclusion() -> None:
    """A machine's age does not vary within the machine: the log cannot tell it from the machine itself."""
    ages = {f"m{k}": 2.0 + k for k in range(5)}
    frame = runs().with_columns(pl.col("machine_id").replace_strict(ages, return_dtype=pl.Float64).alias("age"))
    factors = [Factor("machine_id", "machine"), *FACTORS, Factor("age", "a year more")]
    line = row(find_drivers(frame, factors, [SCRAP]).findings, "a year")
    assert not line["conclusive"] and line["vif"] is None and "cannot tell it from machine" in line["sentence"]


@pytest.mark.parametrize("frame", [runs(30), runs().clear(), runs().with_columns(pl.lit(2.0).alias("scrap"))])
def test_data_that_carry_no_conclusion_say_so(frame: pl.DataFrame) -> None:
    found = find_drivers(frame, FACTORS, [SCRAP])
    assert found.findings.is_empty()
    assert "carry no conclusion" in found.summary["sentence"][0] and not found.summary["conclusive"][0]


def test_pure_noise_gives_no_finding() -> None:
    noise = runs(2000, 5).with_columns(pl.Series("scrap", np.random.default_rng(9).normal(0, 1, 2000)))
    assert not find_drivers(noise, FACTORS, [SCRAP]).findings["conclusive"].any()


def test_runs_that_share_a_days_luck_are_not_taken_for_independent() -> None:
    """A factor that is the same all day with luck that is the same all day: HC3 alone would call it sure."""
    rng = np.random.default_rng(4)
    days, each = 40, 50
    frame = pl.DataFrame(
        {
            "produced_on": [date(2024, 1, 1) + timedelta(days=k // each) for k in range(days * each)],
            "machine_id": ["m"] * (days * each),
            "heat": np.repeat(rng.normal(0, 1, days), each),
            "scrap": np.repeat(rng.normal(0, 1, days), each) + 0.1 * rng.normal(0, 1, days * each),
        }
    )
    line = row(find_drivers(frame, [FACTORS[1]], [SCRAP]).findings, "a degree")
    assert line["high"] - line["low"] > 0.4


def test_the_log_becomes_targets_of_the_longest_operation_before_the_day() -> None:
    day = date(2024, 5, 1)
    log = pl.DataFrame(
        {
            "produced_on": [day - timedelta(days=1)] * 2 + [day],
            "machine_id": ["m", "k", "m"], "line": ["a", "b", "a"], "product_id": ["p"] * 3, "shift": ["early"] * 3,
            "operation": [1, 2, 1], "is_output": [False, True, False], "good_quantity": [90.0, 90.0, 50.0],
            "scrap_quantity": [10.0, 0.0, 0.0], "run_minutes": [200.0, 50.0, 100.0], "setup_minutes": [25.0, 0.0, 0.0],
            "setups": [1, 0, 0], "down_minutes": [30.0, 0.0, 0.0], "energy_kwh": [45.0, 1.0, 20.0],
            "standard_minutes": [200.0, 45.0, 100.0],
        }
    )  # fmt: skip
    machines = pl.DataFrame({"machine_id": ["m", "k"], "installed_on": [date(2020, 5, 1), None]})
    products = pl.DataFrame({"product_id": ["p"], "family": ["f"]})
    sensors = pl.DataFrame(
        schema={"machine_id": pl.String, "measured_on": pl.Date, "sensor": pl.String, "value": pl.Float64}
    )
    rows, factors = driver_rows(log, machines, products, sensors, day)
    one = rows.row(0, named=True)
    assert rows.height == 1
    # 90 good units at 2 standard minutes in 225 minutes; 10 of 100 scrapped.
    assert one["output"] == pytest.approx(100 * 180 / 225)
    assert one["scrap"] == pytest.approx(10.0) and one["energy"] == pytest.approx(100.0)
    assert one["age"] == pytest.approx(4.0, abs=0.01) and one["standing"] == pytest.approx(0.5)
    assert {f.column for f in factors} >= {"machine_id", "shift", "lot"}
    assert len(find_drivers(rows, factors, TARGETS).summary) == 3


def test_runs_of_which_nothing_was_good_and_standstill_without_a_run_count() -> None:
    """Every fourth late run is all scrap; at night nothing runs and the machine stands."""
    rng = np.random.default_rng(2)
    log = []
    for k in range(120):
        for shift in ("early", "late"):
            bad = shift == "late" and k % 4 == 0
            scrap = 102.0 if bad else float(2.0 + rng.normal(0, 0.3))
            log.append((k, shift, 102.0 - scrap, scrap, 100.0, 0.0, 50.0))
        log.append((k, "night", 0.0, 0.0, 0.0, 60.0 * (k % 3), 0.0))
    schema = ["k", "shift", "good_quantity", "scrap_quantity", "run_minutes", "down_minutes", "energy_kwh"]
    production = pl.DataFrame(log, schema=schema, orient="row").select(
        (pl.lit(date(2024, 1, 1)) + pl.duration(days="k")).alias("produced_on"), pl.lit("m").alias("machine_id"),
        pl.lit("p").alias("product_id"), pl.lit(1).alias("operation"), *schema[1:], pl.lit(0.0).alias("setup_minutes"),
        pl.lit(0).alias("setups"), (pl.col("good_quantity") + pl.col("scrap_quantity")).alias("standard_minutes"),
    )  # fmt: skip
    machines = pl.DataFrame({"machine_id": ["m"], "installed_on": [date(2020, 1, 1)]})
    products = pl.DataFrame({"product_id": ["p"], "family": ["f"]})
    sensors = pl.DataFrame(
        schema={"machine_id": pl.String, "measured_on": pl.Date, "sensor": pl.String, "value": pl.Float64}
    )
    rows, factors = driver_rows(production, machines, products, sensors, date(2024, 5, 1))
    assert rows["standing"].mean() == pytest.approx(1.0)
    late = row(find_drivers(rows, factors).findings.filter(pl.col("target") == "scrap"), "shift late")
    assert late["low"] < 24.5 < late["high"] and late["conclusive"]  # type: ignore[operator]
    worst = rows.filter(pl.col("good_quantity") == 0)
    assert worst.height == 30 and (worst["output"] == 0.0).all() and worst["energy"].null_count() == 30
