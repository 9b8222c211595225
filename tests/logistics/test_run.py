"""Logistics in the whole graph: what drivers, customer service and the ledger get of a small company's day."""

import polars as pl

from npq_assets.contracts import DECISIONS
from npq_assets.logistics.output import load_picture, load_plan
from npq_assets.publishing import read_decisions
from tests.conftest import Company


def test_every_delivery_of_the_day_is_driven_once_or_dropped(company: Company) -> None:
    routes, dropped = (
        read_decisions(company.home, DECISIONS[f"logistics.{name}"], company.as_of)
        for name in ("routes", "dropped_deliveries")
    )
    wanted = pl.read_parquet(company.home.mart("logistics", "deliveries")).filter(
        pl.col("ready_at").dt.date() == company.as_of
    )
    assert wanted.height > 0
    assert sorted([*routes["delivery_id"], *dropped["delivery_id"]]) == sorted(wanted["delivery_id"])
    for _, tour in routes.sort("stop").group_by("vehicle_id"):
        assert tour["stop"].to_list() == list(range(1, tour.height + 1))
        assert (tour["arrives_at"].diff().drop_nulls().dt.total_seconds() > 0).all()


def test_the_ledger_accounts_for_routes_and_sourcing(company: Company) -> None:
    ledger = read_decisions(company.home, DECISIONS["all.ledger"], company.as_of).filter(
        pl.col("domain") == "logistics"
    )
    for kind in ("routes", "sourcing"):
        ids = read_decisions(company.home, DECISIONS[f"logistics.{kind}"], company.as_of)["decision_id"]
        assert set(ids) <= set(ledger.filter(pl.col("kind") == kind)["decision_id"])
    assert (ledger["lower_bound"] <= ledger["expected_cost"] + 1e-6).all()
    found = load_plan(company.home, company.as_of)
    assert found is not None
    rows = ledger.filter(pl.col("kind") != "sourcing")
    assert abs(rows["expected_cost"].sum() - found[1]["expected_cost"]) < 1e-6 * (1 + found[1]["expected_cost"])
    assert found[1]["expected_cost"] <= found[1]["naive_cost"]


def test_there_are_dispatch_lists_and_a_map(company: Company) -> None:
    folder = company.home.decision_folder("logistics", "dispatch") / f"as_of={company.as_of}"
    routes = read_decisions(company.home, DECISIONS["logistics.routes"], company.as_of)
    assert {f.stem for f in folder.glob("*.csv")} == set(routes["vehicle_id"])
    assert (folder / "dispatch.html").exists()
    assert load_picture(company.home, company.as_of).startswith("<svg")
