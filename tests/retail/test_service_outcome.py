"""What staffing did cost: a worked week, and when it settles."""

from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npq_assets.evaluation.ledger import LEDGER, ledger_rows
from npq_assets.retail.customer_output import save
from npq_assets.retail.service_outcome import came_in, realized, settle_staffing
from npq_assets.settings import Home
from npq_assets.storage import write_parquet

DAY = date(2025, 7, 1)
TERMS: dict[str, Any] = {
    "shifts": ["08-16"], "agent_cost_per_hour": 10.0, "answers_per_hour": 2.0, "waiting_cost": 1.0, "left_cost": 30.0,
    "waiting": 0.0, "most": 5,
}  # fmt: skip


def plan(agents: int = 1, naive: int = 2) -> pl.DataFrame:
    return pl.DataFrame(
        {"decision_id": [f"d{k}" for k in range(7)], "agents": [agents] * 7, "naive_agents": [naive] * 7, "as_of": [DAY] * 7,
         "expected_cost": [90.0] * 7, "naive_expected_cost": [160.0] * 7, "lower_bound": [80.0] * 7, "input_snapshot": ["x"] * 7}
    )  # fmt: skip


def cases(*moments: tuple[int, int]) -> pl.DataFrame:
    """Requests by day after DAY and hour."""
    return pl.DataFrame(
        {"opened_on": [DAY + timedelta(days=d) for d, _ in moments], "opened_hour": [h for _, h in moments]},
        schema={"opened_on": pl.Date, "opened_hour": pl.Int32},
    )


def test_a_worked_week() -> None:
    arrivals = np.zeros(168)
    arrivals[9] = 5  # two are answered at once, two an hour later, the last after two hours
    found = realized(plan(), TERMS, arrivals)
    assert found["realized_cost"].to_list() == pytest.approx([80.0 + 3 + 1] + [80.0] * 6)
    assert found["naive_realized_cost"].to_list() == pytest.approx([160.0 + 1] + [160.0] * 6)
    assert found["hindsight_cost"].sum() == pytest.approx(84.0)  # one person on that day, nobody after


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=168, max_size=168), st.integers(0, 3))
def test_the_best_in_hindsight_costs_no_more(arrivals: list[int], agents: int) -> None:
    found = realized(plan(agents), TERMS, np.array(arrivals))
    assert found["hindsight_cost"].sum() <= found["realized_cost"].sum() + 1e-6


def test_a_week_counts_once_it_has_landed() -> None:
    week = cases((0, 9), (6, 23), (7, 1), (-1, 5))
    found = came_in(week, DAY, DAY + timedelta(days=7))
    assert found is not None and found.sum() == 2 and found[9] == found[6 * 24 + 23] == 1
    assert came_in(week, DAY, DAY + timedelta(days=6)) is None
    early = cases((0, 9))
    assert came_in(early, DAY, DAY + timedelta(days=8)) is None  # the rest may be late
    assert came_in(early, DAY, DAY + timedelta(days=14)) is not None
    assert came_in(cases(), DAY, DAY + timedelta(days=30)) is None


def test_accounts_settle_once_and_plans_without_terms_stay_open(tmp_path: Any) -> None:
    home = Home.at(tmp_path)
    facts = {"solver": "HiGHS", "status": "optimal", "model_version": "service-load"}
    ledger = ledger_rows("retail", "service_staffing", plan(), facts)
    place = home.decisions(LEDGER.domain, LEDGER.name, DAY)
    write_parquet(ledger, place)
    write_parquet(cases((0, 9), (6, 10)), home.mart("retail", "service_cases"))
    save(home, DAY, "service_staffing", plan(), facts)
    week = DAY + timedelta(days=7)
    assert settle_staffing(home, week) == {}
    save(home, DAY, "service_staffing", plan(), {**facts, "terms": TERMS})
    assert settle_staffing(home, week - timedelta(days=1)) == {}
    assert settle_staffing(home, week) == {DAY: 7}
    settled = pl.read_parquet(place, hive_partitioning=False)
    assert settled["realized_cost"].sum() == pytest.approx(7 * 80.0) and settled["basis"].unique().to_list() == [
        "observed"
    ]
    assert settle_staffing(home, week) == {}
