"""What orders did cost: by hand, and only where it is known."""

from datetime import date

import polars as pl
import pytest

from npq_assets.evaluation.ledger import decision_id, ledger_rows, realized, settle

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
    assert row == {"decision_id": "d", "realized_cost": 0.5, "naive_realized_cost": 6.0, "hindsight_cost": 1.5}


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


def test_ids_depend_on_inputs_alone() -> None:
    one = decision_id(DAY, "retail", "replenishment_orders", ("s", "p"), "snapshot")
    assert one == decision_id(DAY, "retail", "replenishment_orders", ("s", "p"), "snapshot")
    assert one != decision_id(DAY, "retail", "replenishment_orders", ("sp", ""), "snapshot")
    assert one != decision_id(DAY, "retail", "replenishment_orders", ("s", "p"), "other")
