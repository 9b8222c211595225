"""The careful rule, and users' own functions held to account."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from npq_assets.errors import NpqError
from npq_assets.evaluation.policies import FunctionPolicy, OrderUpTo, load_policy, whole_packs


@dataclass
class View:
    """A view made by hand."""

    as_of: date
    period: str
    history: pl.DataFrame
    items: pl.DataFrame
    arrivals: pl.DataFrame


def view(quantities: list[float], *, period: str = "week", in_stock: list[bool] | None = None, on_hand: float = 0.0,
         lead: int = 0, arrivals: list[tuple[int, float]] | None = None, **terms: float) -> View:  # fmt: skip
    days = 7 if period == "week" else 1
    as_of = date(2024, 4, 15)
    n = len(quantities)
    history = pl.DataFrame(
        {
            "unique_id": ["s|p"] * n,
            "site_id": ["s"] * n,
            "product_id": ["p"] * n,
            "period_start": [as_of - timedelta(days=days * (n - k)) for k in range(n)],
            "quantity": quantities,
            "in_stock": in_stock or [True] * n,
        }
    )
    items = pl.DataFrame(
        [{"unique_id": "s|p", "site_id": "s", "product_id": "p", "on_hand": on_hand, "lead_time_periods": lead,
          "holding_cost": 0.2, "shortage_cost": 1.0, "pack_size": 1.0, "min_order": 0.0, **terms}]
    )  # fmt: skip
    coming = pl.DataFrame(
        [("s|p", step, units) for step, units in arrivals or []],
        schema={"unique_id": pl.String, "step": pl.Int64, "quantity": pl.Float64}, orient="row",
    )  # fmt: skip
    return View(as_of, period, history, items, coming)


def order(v: View) -> float:
    return float(OrderUpTo().orders(v)["quantity"][0])


def test_weekly_target_is_mean_plus_safety() -> None:
    # 16 a week, z(1/1.2) = 0.9674: 16 + 0.9674 * 4 = 19.87.
    assert order(view([16.0] * 20)) == 20
    assert order(view([16.0] * 20, on_hand=5)) == 15
    assert order(view([16.0] * 20, on_hand=500)) == 0


def test_weeks_out_of_stock_are_no_demand_of_zero() -> None:
    sold = [16.0] * 10 + [0.0, 0.0, 16.0]
    assert order(view(sold, in_stock=[True] * 10 + [False, False, True])) == 20
    assert order(view(sold)) < 20


def test_stock_is_projected_through_the_lead_time() -> None:
    # 10 on hand, 20 a week: empty after week 0; 30 arrive in week 1, 10 are left for week 2.
    assert order(view([20.0] * 20, on_hand=10, lead=2, arrivals=[(1, 30.0)])) == round(20 + 0.9674 * 20**0.5 - 10)


def test_the_season_of_the_year_moves_the_target() -> None:
    weeks = [10.0 + (10.0 if (k % 52) < 4 else 0.0) for k in range(156)]
    high = order(view(weeks[: 52 * 3]))
    assert high > order(view(weeks[: 52 * 3 - 26]))


def test_days_follow_the_weekday() -> None:
    as_of = date(2024, 4, 15)  # a Monday
    sold = [40.0 if (as_of - timedelta(days=84 - k)).isoweekday() == 1 else 5.0 for k in range(84)]
    assert order(view(sold, period="day")) >= 40
    assert order(view(sold, period="day", lead=1)) <= 60


@pytest.mark.parametrize(
    ("wanted", "pack", "least", "units"),
    [
        (0.0, 6, 0, 0),
        (0.1, 6, 0, 6),
        (6.1, 6, 0, 12),
        (3.4, 1, 0, 3),
        (3.0, 1, 10, 0),
        (6.0, 1, 10, 10),
        (13.0, 6, 20, 18 + 6),
    ],
)
def test_orders_are_whole_packs_above_the_minimum(wanted: float, pack: float, least: float, units: float) -> None:
    assert whole_packs(np.array([wanted]), np.array([pack]), np.array([least]))[0] == units


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (pl.DataFrame({"site_id": ["s"], "product_id": ["p"]}), "no column quantity"),
        (pl.DataFrame({"site_id": ["s"] * 2, "product_id": ["p"] * 2, "quantity": [1, 2]}), "a pair twice"),
        (pl.DataFrame({"site_id": ["s"], "product_id": ["p"], "quantity": [-1.0]}), "quantity -1.0 for p at s"),
        (pl.DataFrame({"site_id": ["x"], "product_id": ["p"], "quantity": [1.0]}), "quantity None for p at s"),
        (pl.DataFrame({"site_id": ["s"], "product_id": ["p"], "quantity": [float("nan")]}), "quantity nan"),
    ],
)
def test_nonsense_from_a_users_policy_is_refused(returned: pl.DataFrame, words: str) -> None:
    with pytest.raises(NpqError, match=words):
        FunctionPolicy("mine:rule", lambda _: returned).orders(view([1.0] * 5))  # type: ignore[arg-type]


def test_policies_are_loaded_by_name() -> None:
    assert load_policy("naive") == OrderUpTo()
    assert load_policy("tests.evaluation.test_policies:order")
    for name, words in (("best", "unknown"), ("no.such:thing", "cannot be loaded"), ("math:pi", "not a function")):
        with pytest.raises(NpqError, match=words):
            load_policy(name)
