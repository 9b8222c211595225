"""Decisions leave npq in the columns of the contract, or not at all; and once."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from npq_assets.contracts import DECISIONS
from npq_assets.errors import RunError
from npq_assets.publishing import DryRun, FilePublisher, conform, read_decisions, write_decisions
from npq_assets.settings import Home

ORDERS = DECISIONS["retail.replenishment_orders"]
DAY = date(2024, 4, 15)


def orders(**changes: object) -> pl.DataFrame:
    row = {
        "site_id": "s",
        "product_id": "p",
        "arrives_on": date(2024, 4, 29),
        "quantity": 3,
        "expected_cost": 1.5,
        "naive_quantity": 4.0,
        "naive_expected_cost": 2.0,
        "reason": "=because",
        "decision_id": "id1",
        "as_of": DAY,
        "input_snapshot": "abc",
        "not_in_the_contract": 1,
    }
    return pl.DataFrame([{**row, **changes}])


def test_written_columns_are_the_contracts(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    place = write_decisions(home, ORDERS, DAY, orders())
    assert (
        place
        == tmp_path.resolve() / "decisions/retail/replenishment_orders/as_of=2024-04-15/replenishment_orders.parquet"
    )
    assert read_decisions(home, ORDERS, DAY).schema == pl.Schema(ORDERS.schema)
    assert "'=because" in place.with_suffix(".csv").read_text(encoding="utf-8-sig")


def test_the_same_decisions_are_the_same_bytes(tmp_path: Path) -> None:
    both = pl.concat([orders(), orders(site_id="a", decision_id="id2")])
    one = write_decisions(Home.at(tmp_path / "1"), ORDERS, DAY, both)
    two = write_decisions(Home.at(tmp_path / "2"), ORDERS, DAY, both.reverse())
    assert one.read_bytes() == two.read_bytes()
    assert one.with_suffix(".csv").read_bytes() == two.with_suffix(".csv").read_bytes()


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (orders().drop("reason"), "column reason is missing"),
        (orders(reason=None), "reason is empty for site_id=s, product_id=p"),
        (orders(expected_cost=float("nan")), "expected_cost is not a finite number"),
        (pl.concat([orders(), orders()]), "site_id=s, product_id=p is there twice"),
    ],
)
def test_unsound_decisions_are_refused(frame: pl.DataFrame, words: str) -> None:
    with pytest.raises(RunError, match=words):
        conform(frame, ORDERS)


def test_an_order_is_handed_on_once(tmp_path: Path) -> None:
    publisher = FilePublisher(tmp_path)
    decided = conform(orders(), ORDERS)
    assert publisher.publish(ORDERS, DAY, decided) == ["id1"]
    assert publisher.publish(ORDERS, DAY, decided) == []
    more = pl.concat([decided, conform(orders(site_id="t", decision_id="id2"), ORDERS)])
    assert publisher.publish(ORDERS, DAY, more) == ["id2"]


def test_a_dry_run_hands_nothing_on(tmp_path: Path) -> None:
    assert DryRun().publish(ORDERS, DAY, conform(orders(), ORDERS)) == []
