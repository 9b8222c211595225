"""What orders did cost: by hand, and only where it is known."""

from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npq_assets.evaluation.ledger import (
    LEDGER,
    decision_id,
    given_sold,
    ledger_rows,
    override_credit,
    realized,
    settle,
    with_basis,
)
from npq_assets.optimization.costs import InventoryCost

DAY = date(2024, 4, 15)


def orders(**changes: object) -> pl.DataFrame:
    row = {
        "decision_id": "d", "site_id": "s", "product_id": "p", "arrives_on": DAY, "quantity": 6.0, "naive_quantity": 2.0,
        "holding_cost": 0.5, "shortage_cost": 2.0, "pack_size": 4.0, "min_order": 0.0,
    }  # fmt: skip
    return pl.DataFrame([{**row, **changes}])


def actual(**changes: object) -> pl.DataFrame:
    row = {
        "site_id": "s",
        "product_id": "p",
        "arrives_on": DAY,
        "available": 9.0,
        "received": 6.0,
        "demand": 8.0,
        "known": True,
    }
    return pl.DataFrame([{**row, **changes}])


def test_outcome_by_hand() -> None:
    # 3 there before, 6 received, 8 wanted: 1 left. The naive rule's 2 would have lost 3. In hindsight one pack of 4 loses 1 (2.0),
    # two packs leave 3 (1.5).
    [row] = realized(orders(), actual()).to_dicts()
    assert row == {
        "decision_id": "d",
        "realized_cost": 0.5,
        "naive_realized_cost": 6.0,
        "hindsight_cost": 1.5,
        "basis": "observed",
    }


def test_unknown_demand_settles_nothing() -> None:
    assert realized(orders(), actual(known=False)).is_empty()


def test_settled_rows_stay_settled() -> None:
    decisions = pl.DataFrame(
        [
            {
                "decision_id": "d",
                "as_of": DAY,
                "expected_cost": 2.0,
                "naive_expected_cost": 3.0,
                "lower_bound": 1.5,
                "input_snapshot": "x",
            }
        ]
    )
    ledger = ledger_rows(
        "retail", "replenishment_orders", decisions, {"solver": "a", "status": "b", "model_version": "m"}
    )
    assert ledger["gap"][0] == pytest.approx(0.25)
    filled = settle(ledger, realized(orders(), actual()))
    assert filled["realized_cost"][0] == 0.5
    again = settle(filled, realized(orders(), actual(known=False)))
    assert again.equals(filled)
    # A file from before there was a basis.
    old = ledger.drop("basis")
    assert settle(old, realized(orders(), actual())).equals(filled)
    assert with_basis(filled.drop("basis")).select(filled.columns).equals(filled)
    assert settle(filled.drop("basis"), realized(orders(), actual(known=False))).equals(filled)
    # Outcomes that say nothing of a basis were observed.
    assert settle(ledger, realized(orders(), actual()).drop("basis")).equals(filled)
    assert filled.columns == list(LEDGER.schema)


def draws(*demand: float) -> pl.DataFrame:
    return pl.DataFrame(
        {"decision_id": ["d"], "demand": [list(demand)]}, schema_overrides={"demand": pl.Array(pl.Float64, len(demand))}
    )


def test_an_empty_shelf_is_priced_on_the_scenarios_that_wanted_what_was_sold() -> None:
    # 3 there before, 6 received, all 9 sold. Of eight scenarios six wanted 9 or more: 9, 9, 11, 11, 13, 13. Lost 0, 2, 4 at 2.0.
    found = realized(orders(), actual(demand=9.0, known=False), draws(1, 8, 9, 9, 11, 11, 13, 13)).row(0, named=True)
    assert found["basis"] == "expected"
    assert found["realized_cost"] == pytest.approx(2.0 * 2)
    # The naive rule's 2 make 5: lost 4, 6, 8.
    assert found["naive_realized_cost"] == pytest.approx(2.0 * 6)
    # Beside the 3, packs of 4 make 7 or 11 or 15: for 9 best is what came (0), for 11 two packs (0), for 13 three (1.0).
    assert found["hindsight_cost"] == pytest.approx((0 + 0 + 1.0) / 3)


def test_a_forecast_that_was_too_low_counts_as_wanting_what_was_sold() -> None:
    # Two scenarios reach the 9 sold, with 1 and 3 beyond; three more count as wanting just 9.
    found = realized(orders(), actual(demand=9.0, known=False), draws(0, 1, 2, 3, 4, 5, 10, 12))
    assert found["realized_cost"][0] == pytest.approx(2.0 * (1 + 3) / 5)
    none = realized(orders(), actual(demand=9.0, known=False), draws(0, 1, 2, 3, 4, 5, 6, 7)).row(0, named=True)
    assert (none["realized_cost"], none["naive_realized_cost"]) == (0.0, 2.0 * 4)


def test_a_shelf_that_never_had_anything_met_the_plain_forecast() -> None:
    bare = actual(available=0.0, received=0.0, demand=0.0, known=False)
    row = realized(orders(), bare, draws(0, 0, 2, 4, 4, 8)).row(0, named=True)
    assert row["realized_cost"] == pytest.approx(2.0 * 3)
    # Its 2 would have left 2, 2, 0 and lost 0, 2, 2, 6.
    assert row["naive_realized_cost"] == pytest.approx((2 * 1.0 + 0 + 2 * 4.0 + 12.0) / 6)


def test_units_that_lay_there_unsold_are_held_under_any_order() -> None:
    # 9 by count, 7 sold before the shelf was empty to customers: 2 lay there.
    row = realized(orders(naive_quantity=4.0), actual(demand=7.0, known=False), draws(*[8.0] * 6)).row(0, named=True)
    assert row["realized_cost"] == pytest.approx(0.5 * 2 + 2.0 * 1)
    assert row["naive_realized_cost"] == pytest.approx(0.5 * 2 + 2.0 * 3)


@settings(deadline=None, max_examples=200)
@given(
    demand=st.lists(st.integers(0, 40), min_size=1, max_size=30),
    before=st.integers(0, 20),
    packs=st.integers(0, 6),
    naive=st.integers(0, 6),
    sold=st.integers(0, 40),
    least=st.integers(0, 3),
)
def test_expectations_are_ordered(
    demand: list[int], before: int, packs: int, naive: int, sold: int, least: int
) -> None:
    size = 4.0
    available = before + packs * size
    naive_quantity = float(max(naive, least)) * size if naive else 0.0
    order = orders(quantity=packs * size, naive_quantity=naive_quantity, pack_size=size, min_order=least * size)
    shelf = actual(available=available, received=packs * size, demand=float(min(sold, available)), known=False)
    row = realized(order, shelf, draws(*[float(d) for d in demand])).row(0, named=True)
    assert row["hindsight_cost"] <= row["realized_cost"] + 1e-9
    assert row["hindsight_cost"] <= row["naive_realized_cost"] + 1e-9
    least_possible = InventoryCost.of(0.5, 2.0).value(available, min(sold, available))
    assert row["realized_cost"] >= float(least_possible) - 1e-9


def test_scenarios_given_what_was_sold_are_never_below_it() -> None:
    demand, counts = given_sold(np.array([[1.0, 9.0, 5.0, 7.0, 2.0, 6.0, 8.0]]), np.array([6.0]))
    assert demand.min() == 6.0
    assert counts.tolist() == [[0, 1, 1, 1, 0, 1, 1]]  # four reach it; the highest of the others makes five


def test_overrides_of_an_empty_shelf_are_judged_on_both_forecasts() -> None:
    # The planner says 12, the engine 6; 9 were there and sold, so that only the planner's scenarios remain.
    both = draws(*[12.0] * 6, *[6.0] * 6)
    row = override_credit(orders(quantity=6.0, engine_quantity=0.0), actual(demand=9.0, known=False), both).row(
        0, named=True
    )
    assert (row["override_realized_cost"], row["engine_realized_cost"]) == (2.0 * 3, 2.0 * 9)
    assert (row["basis"], row["demand"], row["credit"]) == ("expected", 12.0, 12.0)
    # With nothing sold, both count alike.
    bare = actual(available=0.0, received=0.0, demand=0.0, known=False)
    row = override_credit(orders(quantity=6.0, engine_quantity=0.0), bare, both).row(0, named=True)
    assert row["demand"] == 9.0 and row["credit"] == pytest.approx(2.0 * 9 - 2.0 * 3)


def test_ids_depend_on_inputs_alone() -> None:
    one = decision_id(DAY, "retail", "replenishment_orders", ("s", "p"), "snapshot")
    assert one == decision_id(DAY, "retail", "replenishment_orders", ("s", "p"), "snapshot")
    assert one != decision_id(DAY, "retail", "replenishment_orders", ("sp", ""), "snapshot")
    assert one != decision_id(DAY, "retail", "replenishment_orders", ("s", "p"), "other")
