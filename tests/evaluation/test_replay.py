"""The past lived again: by hand, without looking ahead, and never cheaper than foresight."""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npq_assets.errors import NpqError
from npq_assets.evaluation.policies import OrderUpTo
from npq_assets.evaluation.replay import FLOOR, replay
from npq_assets.periods import known_before

FIRST = date(2023, 1, 2)


@dataclass(frozen=True)
class Past:
    """A past made by hand: one site and product, weekly unless said otherwise."""

    as_of: date
    history: pl.DataFrame
    items: pl.DataFrame
    arrivals: pl.DataFrame
    period: Literal["day", "week"] = "week"

    def turned_back(self, as_of: date, on_hand: np.ndarray, coming: np.ndarray) -> "Past":
        row, step = np.nonzero(coming > 0)
        ids = self.items["unique_id"].to_list()
        arrivals = pl.DataFrame(
            [(ids[r], int(k), float(coming[r, k])) for r, k in zip(row, step, strict=True)],
            schema={"unique_id": pl.String, "step": pl.Int64, "quantity": pl.Float64}, orient="row",
        )  # fmt: skip
        return replace(
            self,
            as_of=as_of,
            history=self.history.filter(pl.col("period_start") <= known_before(as_of, self.period)),
            items=self.items.with_columns(pl.Series("on_hand", on_hand)),
            arrivals=arrivals,
        )


def past(
    demand: list[float],
    lead: int = 1,
    in_stock: list[bool] | None = None,
    period: Literal["day", "week"] = "week",
) -> Past:
    n, long = len(demand), timedelta(days=7 if period == "week" else 1)
    history = pl.DataFrame(
        {
            "unique_id": ["s|p"] * n,
            "site_id": ["s"] * n,
            "product_id": ["p"] * n,
            "period_start": [FIRST + k * long for k in range(n)],
            "quantity": demand,
            "in_stock": in_stock or [True] * n,
        }
    )
    items = pl.DataFrame(
        [{"unique_id": "s|p", "site_id": "s", "product_id": "p", "on_hand": 0.0, "lead_time_periods": lead,
          "holding_cost": 0.5, "shortage_cost": 2.0, "pack_size": 1.0, "min_order": 0.0}]
    )  # fmt: skip
    empty = pl.DataFrame(schema={"unique_id": pl.String, "step": pl.Int64, "quantity": pl.Float64})
    return Past(FIRST + n * long, history, items, empty, period)


class Always:
    """Orders the same every week."""

    def __init__(self, quantity: float) -> None:
        self.quantity = quantity
        self.seen: list[tuple[date, date]] = []

    def orders(self, view: Past) -> pl.DataFrame:
        last = view.history["period_start"].max()
        assert isinstance(last, date)
        self.seen.append((view.as_of, last))
        return view.items.select("site_id", "product_id").with_columns(quantity=pl.lit(self.quantity))


def test_a_window_by_hand() -> None:
    # 13 weeks of 4 to start from: 4 on hand. Week 0 (warm-up): sells 3 of 4. Then 5 arrive each week for demand 7, 2.
    p = past([4.0] * 13 + [3.0, 7.0, 2.0])
    result = replay(p, {"naive": Always(5.0)}, windows=1, periods=2)
    row = result.costs.filter(pl.col("policy") == "naive").row(0, named=True)
    assert row["lost_sales"] == 2.0 * (7 - 6)
    assert row["holding"] == 0.5 * (5 - 2)
    assert (row["demand"], row["sold"]) == (9.0, 8.0)


def test_a_policy_sees_nothing_of_the_week_it_decides() -> None:
    policy = Always(4.0)
    replay(past([4.0] * 40), {"naive": policy}, windows=3, periods=4)
    assert all(last + timedelta(weeks=1) <= as_of for as_of, last in policy.seen)


def test_what_came_later_changes_no_earlier_window() -> None:
    demand = [float(3 + k % 4) for k in range(60)]
    base = replay(past(demand), {"naive": OrderUpTo()}, windows=4, periods=5)
    other = replay(past([*demand[:-6], *[50.0] * 6]), {"naive": OrderUpTo()}, windows=4, periods=5)
    keep = pl.col("window") < base.costs["window"].max()
    assert base.costs.filter(keep).equals(other.costs.filter(keep))


def test_unknown_demand_is_not_charged() -> None:
    flags = [True] * 15 + [False] * 2
    row = replay(past([4.0] * 17, in_stock=flags), {"naive": Always(0.0)}, windows=1, periods=2).costs.row(
        0, named=True
    )
    assert (row["holding"], row["lost_sales"], row["demand"]) == (0.0, 0.0, 0.0)


def sold_out(days: int, seed: int = 3) -> tuple[Past, list[float], list[bool]]:
    """Days of a demand of 6 on average and 5 on the shelf: whatever was wanted beyond is not in the history."""
    wanted = np.random.default_rng(seed).poisson(6.0, days).astype(float)
    sold, flags = np.minimum(wanted, 5.0).tolist(), (wanted <= 5.0).tolist()
    return past(sold, in_stock=flags, period="day"), sold, flags


def test_a_day_that_sold_out_has_one_draw_for_all_policies_and_is_charged() -> None:
    p, sold, flags = sold_out(120)
    result = replay(p, {"naive": OrderUpTo(), "none": Always(0.0), "same": Always(0.0)}, windows=3, periods=10)
    by_policy = {name: rows["demand"].to_list() for (name,), rows in result.costs.sort("window").group_by("policy")}
    assert len(by_policy) == 4 and all(demand == by_policy["none"] for demand in by_policy.values())
    # Every day of the scored ones is charged, with at least what was sold, and beyond on days that ran out.
    scored = [k for window in range(3) for k in range(120 - 33 + 11 * window + 1, 120 - 33 + 11 * (window + 1))]
    assert any(not flags[k] for k in scored)
    least = sum(sold[k] for k in scored)
    assert sum(by_policy["none"]) > least
    lost = result.costs.filter(pl.col("policy") == "none")
    # A shelf that gets nothing is empty soon: what it does not sell of the draws is lost.
    assert lost["lost_sales"].sum() == pytest.approx(2.0 * (lost["demand"] - lost["sold"]).sum())
    same = result.costs.filter(pl.col("policy") == "same").drop("policy")
    assert same.equals(lost.drop("policy"))
    assert any("sold an item out" in line for line in result.skipped)
    assert not any("not charged" in line for line in result.skipped)


class Watching(Always):
    """Keeps what it saw."""

    def orders(self, view: Past) -> pl.DataFrame:
        self.views = [*getattr(self, "views", []), view.history]
        return super().orders(view)


def test_policies_do_not_see_the_draws() -> None:
    p, _, _ = sold_out(120)
    policy = Watching(4.0)
    replay(p, {"naive": policy}, windows=2, periods=8)
    for seen in policy.views:
        assert seen.equals(p.history.head(seen.height))
    assert not policy.views[-1]["in_stock"].all()


def test_an_empty_day_that_sold_nothing_is_not_charged() -> None:
    n = 80
    flags = [True] * (n - 2) + [False] * 2
    sold = [4.0 + k % 3 for k in range(n - 2)] + [0.0, 3.0]
    result = replay(past(sold, in_stock=flags, period="day"), {"naive": Always(0.0)}, windows=1, periods=2)
    row = result.costs.filter(pl.col("policy") == "naive").row(0, named=True)
    assert row["demand"] >= 3.0 and row["lost_sales"] == pytest.approx(2.0 * (row["demand"] - row["sold"]))
    assert [("sold an item out" in line, "and sold nothing" in line) for line in result.skipped] == [
        (True, False),
        (False, True),
    ]


@settings(deadline=None, max_examples=25)
@given(demand=st.lists(st.integers(0, 12), min_size=20, max_size=26), lead=st.integers(0, 3), fixed=st.integers(0, 9))
def test_nothing_beats_foresight(demand: list[int], lead: int, fixed: int) -> None:
    p = past([4.0] * 13 + [float(d) for d in demand], lead)
    result = replay(p, {"naive": OrderUpTo(), "fixed": Always(float(fixed))}, windows=2, periods=3)
    totals = dict(result.table().select("policy", "total").iter_rows())
    assert totals[FLOOR] <= min(totals["naive"], totals["fixed"]) + 1e-9


def test_too_short_a_past_is_refused() -> None:
    with pytest.raises(NpqError, match="too short to replay"):
        replay(past([4.0] * 10), {"naive": OrderUpTo()}, windows=1, periods=4)


def test_results_read_as_text_and_json() -> None:
    result = replay(
        past([4.0 + k % 3 for k in range(50)]), {"naive": OrderUpTo(), "mine": Always(5.0)}, windows=2, periods=4
    )
    text = result.as_text()
    assert "mine against naive" in text and FLOOR in text
    assert set(result.as_json()["policies"]) == {"naive", "mine", FLOOR}
