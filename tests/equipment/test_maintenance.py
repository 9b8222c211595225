"""No look into the future, plans of least cost by enumeration, limits kept, replay by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from npq_assets.equipment.maintenance import (
    HORIZON,
    MachineHistory,
    MaintenanceParams,
    by_age,
    failed_ahead,
    features,
    follow,
    plan,
    probabilities,
    replay,
)
from npq_assets.errors import NpqError

START = datetime(2015, 1, 1)


def day(count: int) -> datetime:
    return START + timedelta(days=count)


def history(days: int = 160, machines: int = 12) -> MachineHistory:
    """Each component fails the day after its error; visits every ten days."""
    rng = np.random.default_rng(0)
    keys = [(m, day(d)) for m in range(1, machines + 1) for d in range(days)]
    telemetry = pl.DataFrame(keys, schema=["machine", "date"], orient="row").with_columns(
        volt=pl.Series(rng.normal(170, 3, len(keys)))
    )
    failures, errors, replaced = [], [], []
    for m, d in itertools.product(range(1, machines + 1), range(10, days, 10)):
        component = f"comp{1 + (m + d // 10) % 2}"
        replaced.append((m, component, day(d)))
        if rng.random() < 0.4:
            failures.append((m, component, day(d)))
            errors.append((m, day(d - 1), f"error_{component}"))
    return MachineHistory(
        telemetry,
        pl.DataFrame(errors, schema=["machine", "date", "error"], orient="row"),
        pl.DataFrame(replaced, schema=["machine", "component", "date"], orient="row"),
        pl.DataFrame(failures, schema=["machine", "component", "date"], orient="row"),
        pl.DataFrame({"machine": range(1, machines + 1), "model": ["a", "b"] * (machines // 2)}),
    )


def until(h: MachineHistory, last: datetime) -> MachineHistory:
    known = pl.col("date") <= last
    return MachineHistory(
        h.telemetry.filter(known),
        h.errors.filter(known),
        h.replacements.filter(known),
        h.failures.filter(known),
        h.machines,
    )


def test_features_of_a_day_are_the_same_whether_later_events_are_known_or_not() -> None:
    whole = history()
    now = pl.col("date") <= day(100)
    seen, early = features(whole).filter(now), features(until(whole, day(100)))
    assert seen.select(early.columns).equals(early)


def test_ages_count_from_the_last_replacement() -> None:
    table = features(history()).filter(pl.col("machine") == 1).sort("date")
    # Machine 1 replaces comp1 on days 10, 30, 50 … and comp2 on days 20, 40 …
    assert table["comp1_age"].to_list()[9:13] == [None, 0.0, 1.0, 2.0]
    assert table["comp1_age"].to_list()[29:31] == [19.0, 0.0]
    assert table["visit_due"].to_list()[25] == 5.0


def test_probabilities_do_not_know_later_failures_and_find_the_signal() -> None:
    whole = history()
    found = probabilities(whole, day(120), trees=30)
    blind = probabilities(replace(whole, failures=whole.failures.filter(pl.col("date") < day(120))), day(120), trees=30)
    assert found.equals(blind)
    y = np.concatenate(
        [failed_ahead(found.filter(component=c), whole.failures, c, 1, 1) for c in ("comp1", "comp2")]
    )  # fmt: skip
    p = found.sort("component", maintain_order=True)["p1"].to_numpy()
    assert p[y == 1].mean() > 0.6 and p[y == 0].mean() < 0.05
    assert found.select((pl.col("p") <= pl.sum_horizontal([f"p{h}" for h in range(1, 8)]) + 1e-9).all()).item()


def test_too_few_failures_are_named() -> None:
    whole = history()
    with pytest.raises(NpqError, match="comp1 failed 0 times"):
        probabilities(replace(whole, failures=whole.failures.head(0)), day(120))


def risk(p: np.ndarray) -> pl.DataFrame:
    keys = pl.DataFrame({"machine": range(len(p)), "component": ["c"] * len(p), "date": [START] * len(p)})
    return keys.with_columns(pl.Series(f"p{h}", p[:, h - 1]) for h in range(1, HORIZON + 1))


def cost(p: np.ndarray, days: tuple[int | None, ...], params: MaintenanceParams) -> float:
    later = params.caught * params.planned + (1 - params.caught) * params.failure
    total = 0.0
    for row, t in zip(p, days, strict=True):
        total += params.planned * (t is not None)
        for h in range(1, HORIZON + 1):
            covered = t is not None and t < h <= t + params.protects
            total += 0.0 if covered else row[h - 1] * (params.failure if h <= params.lead else later)
    return total


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("lead", "crew", "protects"), [(1, None, 7), (1, 1, 3), (2, 1, 7)])
def test_plan_is_the_cheapest_of_all_plans(seed: int, lead: int, crew: int | None, protects: int) -> None:
    p = np.random.default_rng(seed).dirichlet(np.full(8, 0.3), 3)[:, :HORIZON]
    params = MaintenanceParams(lead=lead, crew=crew, protects=protects, caught=0.4)
    choices = (None, *range(lead - 1, HORIZON))
    allowed = [
        d
        for d in itertools.product(choices, repeat=3)
        if crew is None or all(d.count(t) <= crew for t in choices if t is not None)
    ]
    best = min(cost(p, d, params) for d in allowed)
    found = plan(risk(p), params)
    done = dict(found.actions.select("machine", "day").iter_rows())
    assert cost(p, tuple(done.get(i) for i in range(3)), params) == pytest.approx(found.objective)
    assert found.objective == pytest.approx(best, abs=1e-5)
    assert found.bound <= found.objective + 1e-9 and found.objective <= found.run_to_failure + 1e-9


def test_crew_has_a_price_and_none_means_nothing() -> None:
    p = np.zeros((3, HORIZON))
    p[:, 0] = [0.9, 0.8, 0.7]
    found = plan(risk(p), MaintenanceParams(crew=1))
    assert found.actions["machine"].to_list() == [0] and found.crew_price[0] == pytest.approx(3.0, abs=0.51)
    assert plan(risk(p), MaintenanceParams(crew=0)).actions.height == 0
    assert plan(risk(p * 0.1), MaintenanceParams()).actions.height == 0


def test_nothing_is_replaced_twice_while_the_first_protects() -> None:
    p = np.zeros((1, HORIZON))
    p[0, 1] = 0.9
    days = [day(d) for d in range(5)]
    every = pl.concat([risk(p).with_columns(date=pl.lit(d)) for d in days])
    assert follow(every, days, MaintenanceParams(caught=0.0)).height == 1


def test_replay_by_hand_and_fixed_interval() -> None:
    days = [day(d) for d in range(10)]
    failures = pl.DataFrame({"machine": [1, 1, 2], "component": ["c"] * 3, "date": [day(3), day(10), day(4)]})
    actions = pl.DataFrame({"machine": [1, 2], "component": ["c"] * 2, "date": [day(1), day(4)]})
    found = replay(actions, failures, days, 2, MaintenanceParams())
    # Machine 1 is saved on day 3 and fails on day 10; machine 2 is replaced on the evening after it failed.
    assert (found["averted"], found["failures"]) == (1, 3)
    assert found["cost"] == pytest.approx((2 * 1 + 2 * 5) / (2 * 10 / 365))
    whole = history()
    table = by_age(whole, [day(d) for d in range(60, 100)], 15)
    assert table.height > 0 and table.is_unique().all()
