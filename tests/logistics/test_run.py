"""Logistics in the whole graph: what drivers, customer service and the ledger get of a small company's day."""

from datetime import timedelta

import polars as pl
import pytest

from npq_assets.company.config import CompanyConfig
from npq_assets.company.demand import Demand
from npq_assets.company.fleet import Fleet
from npq_assets.company.world import Company as SampleCompany
from npq_assets.contracts import DECISIONS
from npq_assets.logistics.checks import judge_plan
from npq_assets.logistics.inputs import known_closures, read_inputs
from npq_assets.logistics.marts import opening
from npq_assets.logistics.output import load_picture, load_plan
from npq_assets.logistics.plan import plan_day
from npq_assets.logistics.traffic import Traffic
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


def test_a_day_with_works_by_the_hour_is_planned_on_the_roads_that_drivers_and_planner_see(company: Company) -> None:
    config = CompanyConfig(scale=0.1, days=200, seed=5, as_of=company.as_of)
    sample = SampleCompany(config)
    fleet = Fleet(sample, Demand(sample))
    for back in range(1, 200):
        day = company.as_of - timedelta(days=back)
        known = [c for c in fleet.closures.on(day) if c.known < 0]
        planned = fleet.detours.planned(known, 270.0, 1080.0)
        nodes = [fleet.roads.node_ids.index(f"N-{name}") for name in (*sample.warehouse_ids, *sample.store_ids)]
        hours = planned[2]
        if hours is not None and not hours.alike[nodes][:, nodes].all():
            break
    else:
        pytest.fail("no day with works by the hour that concern a store")
    # What landed and was known is what was true and known.
    landed = known_closures(company.home, opening(day)).filter(
        (pl.col("closed_from") < opening(day) + timedelta(days=2)) & (pl.col("closed_until") > opening(day))
    )
    name = fleet.roads.node_ids
    assert sorted(landed.select("from_node", "to_node", "closed_from", "factor").rows()) == sorted(
        (name[c.start], name[c.end], opening(day) + timedelta(minutes=c.begins), c.factor) for c in known
    )
    inputs = read_inputs(company.home, day)
    assert inputs.hours is not None and hours is not None and "at times" in inputs.ways
    where = dict(
        pl.read_parquet(company.home.mart("logistics", "deliveries")).select("delivery_id", "node_id").iter_rows()
    )
    at = [name.index(where.get(place) or f"N-{place}") for place in inputs.places["name"].to_list()]
    for clock in (280.0, 500.0, 640.0, 900.0):
        for i, a in enumerate(at):
            for j, b in enumerate(at):
                ours, planners = (
                    found.leg(clock, *pair, 1.1) for found, pair in ((inputs.hours, (i, j)), (hours, (a, b)))
                )
                assert ours[0] == pytest.approx(planners[0], abs=0.05) and ours[1] == pytest.approx(
                    planners[1], abs=0.05
                )
    plan = plan_day(inputs, Traffic(None, 0.3, day, 0))
    frames = {kind: getattr(plan, kind) for kind in ("routes", "dropped", "risks", "alerts", "sourcing", "tours")}
    assert all(verdict.passed for verdict in judge_plan(frames, plan.facts, inputs) if verdict.blocking)
    assert plan.facts["expected_cost"] <= plan.facts["naive_cost"] + 1e-6
