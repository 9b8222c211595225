"""Settings from a log whose answer is known: found where the log carries it, refused where not, never outside a limit."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npq_assets.equipment.control import MachineLog, SettingLimits, fit_surface, propose, withdraw, within
from npq_assets.errors import NpqError

AS_OF = date(2024, 12, 1)
PRICES = {"scrap": 2.0, "energy": 0.15, "minutes": 0.2}
LIMITS = [
    SettingLimits("heat", 60.0, 90.0, 80.0, 4.0, 0.5, {"energy": 1}),
    SettingLimits("speed", 50.0, 100.0, 70.0, 8.0, 0.1, {"minutes": -1}),
]


def log(days: int = 260, held: int = 9, noise: float = 1.0, seed: int = 0, wander: float = 1.0) -> MachineLog:
    """Scrap is least at 72 degrees; energy rises with heat; a unit takes less time with speed."""
    rng = np.random.default_rng(seed)
    rows, heat, speed = [], 80.0, 70.0
    for k in range(days):
        if k % held == 0:
            heat, speed = 75.0 + wander * rng.uniform(-6, 6), 70.0 + wander * rng.uniform(-8, 8)
        for product in ("a", "b"):
            standard = float(rng.uniform(200, 400))
            units = round(standard * (2.0 if product == "a" else 1.0))
            share = 0.02 + 0.0015 * (heat - 72.0) ** 2 / 10 + noise * rng.normal(0, 0.004)
            minutes = standard * (1.0 - 0.002 * (speed - 70.0) + noise * rng.normal(0, 0.01))
            energy = minutes * (0.4 + 0.004 * (heat - 70.0)) * (1 + noise * rng.normal(0, 0.02))
            on = AS_OF - timedelta(days=days - k)
            rows.append((on, product, k % 2, 1, units, standard, units * max(share, 0.0), energy, minutes, heat, speed))
    columns = ["on", "product", "late", "setups", "units", "standard", "scrap", "energy", "minutes", "heat", "speed"]
    return MachineLog(pl.DataFrame(rows, schema=columns, orient="row"), PRICES, 600.0)


def test_the_surface_finds_what_made_the_log() -> None:
    surface = fit_surface(log(), LIMITS)
    scaled = (72.0 - 75.0) / 15.0
    linear, square = surface.by_response["scrap"]
    assert -linear[0] / (2 * square[0]) == pytest.approx(scaled, abs=0.08)
    assert surface.by_response["minutes"][0][1] == pytest.approx(-0.002 * 25.0, rel=0.15)


def test_the_proposal_goes_down_the_slope_by_one_step_and_says_what_it_saves() -> None:
    found = propose(log(), LIMITS, None, AS_OF)
    assert found.kind == "improve"
    assert found.values["heat"] == pytest.approx(76.0, abs=0.01)  # a ramp of 4 from 80
    assert 70.0 < found.values["speed"] <= 78.0
    assert 0 < found.low < found.saving < found.high
    assert "kWh" in found.reason


def test_where_settings_do_nothing_hardly_a_change_is_proposed() -> None:
    """The optimum follows luck; its interval knows that: of 20 logs without any effect at most three may deceive."""
    rng = np.random.default_rng(1)
    deceived = 0
    for seed in range(20):
        base = log(days=120, seed=seed)
        count = base.rows.height
        rows = base.rows.with_columns(
            pl.Series("scrap", base.rows["units"] * 0.03 * rng.uniform(0.2, 1.8, count)),
            pl.Series("minutes", base.rows["standard"] * rng.normal(1.0, 0.02, count)),
            pl.Series("energy", base.rows["standard"] * 0.4 * rng.normal(1.0, 0.05, count)),
        )
        deceived += bool(propose(MachineLog(rows, PRICES, 600.0), LIMITS, None, AS_OF).values)
    assert deceived <= 3


def test_recent_changes_short_logs_and_settings_that_never_moved_are_refused_with_the_reason() -> None:
    fixed = propose(log(wander=0.0), LIMITS, None, AS_OF)
    assert not fixed.values and "varied" in fixed.reason
    recent = propose(log(), LIMITS, AS_OF - timedelta(days=3), AS_OF)
    assert not recent.values and "left alone" in recent.reason
    with pytest.raises(NpqError, match="days with known settings"):
        fit_surface(log(days=20), LIMITS)


def test_a_sign_that_the_engineer_fixed_is_never_crossed() -> None:
    # The engineer says that heat never lowers scrap: then no surface may say that less heat costs scrap.
    signed = [SettingLimits("heat", 60.0, 90.0, 74.0, 4.0, 0.5, {"scrap": 1, "energy": 1}), LIMITS[1]]
    surface = fit_surface(log(), signed)
    linear, square = surface.by_response["scrap"]
    for end in surface.seen[0]:
        assert linear[0] + 2 * square[0] * end >= -1e-6


hostile = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([1e300, -1e300, 0.0, 80.0, float("nan"), 90.0001])
)


@settings(max_examples=25)
@given(
    hostile, hostile, st.integers(0, 3), st.sampled_from(["values", "energy", "scrap", "minutes"]), st.floats(-1e6, 1e6)
)
def test_no_set_point_leaves_its_limits_whatever_sensors_say(
    heat: float, speed: float, seed: int, broken: str, drift: float
) -> None:
    """Values in force that are absurd, and a log whose meter drifts or has gone wild: inside the limits, or refused."""
    base = log(days=80, seed=seed)
    ramp = pl.int_range(pl.len()) / pl.len()
    column = "heat" if broken == "values" else broken
    rows = base.rows.with_columns((pl.col(column) + drift * ramp).alias(column))
    now = [
        SettingLimits("heat", 60.0, 90.0, heat, 4.0, 0.5, {"energy": 1}),
        SettingLimits("speed", 50.0, 100.0, speed, 8.0, 0.1),
    ]
    found = propose(MachineLog(rows, PRICES, 600.0), now, None, AS_OF)
    for limit in now:
        value = found.values.get(limit.name)
        if value is not None:
            assert limit.low <= value <= limit.high
            assert abs(value - limit.current) <= limit.ramp + 1e-9
    back = withdraw(
        MachineLog(rows, PRICES, 600.0), now, AS_OF - timedelta(days=8), {"heat": heat, "speed": speed}, AS_OF
    )
    for limit in now:
        if back is not None and limit.name in back.values:
            assert limit.low <= back.values[limit.name] <= limit.high


@given(hostile, st.floats(60.0, 90.0), st.floats(0.0, 50.0))
def test_the_last_line_holds_for_any_number(value: float, current: float, ramp: float) -> None:
    limit = SettingLimits("heat", 60.0, 90.0, current, ramp)
    kept = within(limit, value)
    assert limit.low <= kept <= limit.high and abs(kept - current) <= ramp + 1e-9


def test_a_change_that_made_things_worse_goes_back_and_one_that_did_not_stays() -> None:
    base = log(days=120, wander=0.0)
    changed = AS_OF - timedelta(days=10)
    worse = base.rows.with_columns(
        pl.when(pl.col("on") >= changed).then(pl.col("energy") * 1.3).otherwise(pl.col("energy")).alias("energy")
    )
    back = withdraw(MachineLog(worse, PRICES, 600.0), LIMITS, changed, {"heat": 78.0}, AS_OF)
    assert back is not None and back.kind == "withdraw" and back.values == {"heat": 78.0} and back.low > 0
    assert withdraw(base, LIMITS, changed, {"heat": 78.0}, AS_OF) is None
    assert withdraw(MachineLog(worse, PRICES, 600.0), LIMITS, AS_OF - timedelta(days=2), {"heat": 78.0}, AS_OF) is None
