"""Sourcing is tied to the production plan and to the stores' orders: what a plant ships it must have or make."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from npq_assets.contracts import DECISIONS
from npq_assets.logistics.marts import opening
from npq_assets.logistics.plan import _sourcing, flow_problem
from npq_assets.logistics.sourcing_inputs import _ordered, _site_demand, read_sourcing, shippable
from npq_assets.logistics.tour_costs import tour_costs
from npq_assets.logistics.ways import Ways
from npq_assets.optimization import network_flow
from npq_assets.optimization.paths import Conditions, Detour
from npq_assets.publishing import write_decisions
from npq_assets.settings import Home, Settings
from npq_assets.storage import write_parquet

DAY = date(2025, 7, 1)


def decided(table: str, rows: list[dict[str, object]]) -> pl.DataFrame:
    shared = {"decision_id": "d", "as_of": DAY, "input_snapshot": "s"}
    return pl.DataFrame([{**row, **shared, "decision_id": f"{table}{k}"} for k, row in enumerate(rows)])


def fleet(*depots: str) -> pl.DataFrame:
    """Vehicles of which each costs 100 a day and 1 a km, some at each depot."""
    numbers = {"capacity": 300.0, "fixed_cost": 100.0, "cost_per_km": 1.0, "cost_per_minute": 0.0, "shift_start": 360.0,
               "shift_end": 1200.0}  # fmt: skip
    rows = [{"vehicle_id": f"{depot}-{k}", "depot_id": depot, **numbers} for depot in depots for k in range(2)]
    return pl.DataFrame(rows).with_columns(pl.lit(None, pl.Float64).alias("max_km"))


def stops(*rows: tuple[str | None, str, float, float], day: date | None = None) -> pl.DataFrame:
    """Deliveries of the day before: site, depot, latitude, quantity; all on one meridian, in no hurry."""
    begins = opening(day or DAY - timedelta(days=1)) + timedelta(hours=8)
    return pl.DataFrame(
        [
            {"delivery_id": f"D{k}", "depot_id": depot, "site_id": site, "latitude": latitude, "longitude": 13.0,
             "quantity": quantity, "ready_at": begins, "due_at": begins + timedelta(hours=9), "service_minutes": 5.0,
             "late_cost_per_minute": 1.0}
            for k, (site, depot, latitude, quantity) in enumerate(rows)
        ]
    ).with_columns(pl.lit(None, pl.String).alias("node_id"), pl.lit(None, pl.Float64).alias("drop_cost"))  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A plant with two machines: 30 units lie there, 40 are made in the week and 50 after it; a unit weighs 2 kg."""
    home = Home.at(tmp_path)
    write_parquet(
        pl.DataFrame({"machine_id": ["M1", "M2"], "site_id": ["PL"] * 2}), home.mart("manufacturing", "machines")
    )
    write_parquet(
        pl.DataFrame({"product_id": ["P"], "operation": [1], "machine_id": ["M1"]}),
        home.mart("manufacturing", "routings"),
    )
    counts = {"counted_on": [DAY - timedelta(days=1), DAY, DAY + timedelta(days=1), DAY], "product_id": ["P", "P", "P", "raw"],
              "on_hand": [99.0, 30.0, 77.0, 500.0]}  # fmt: skip
    write_parquet(pl.DataFrame(counts), home.mart("manufacturing", "plant_stock"))
    write_parquet(pl.DataFrame({"product_id": ["P"], "weight_kg": [2.0]}), home.mart("common", "products"))
    lots: list[dict[str, object]] = [
        {"period_start": DAY + timedelta(days=k), "product_id": "P", "machine_id": m, "quantity": q, "setups": 1.0,
         "overtime_minutes": 0.0, "expected_cost": 1.0}
        for k, m, q in ((0, "M1", 15.0), (6, "M2", 25.0), (7, "M1", 50.0))
    ]  # fmt: skip
    write_decisions(home, DECISIONS["manufacturing.production_plan"], DAY, decided("p", lots))
    return home


def test_a_plant_ships_what_it_has_and_what_its_plan_makes_in_the_week(home: Home) -> None:
    assert shippable(home, DAY) == {"PL": 2.0 * (30.0 + 15.0 + 25.0)}
    # Two days later the plan of the first is still the latest; the first lot is in the stock that was counted since.
    assert shippable(home, DAY + timedelta(days=2)) == {"PL": 2.0 * (77.0 + 25.0 + 50.0)}
    # A plan that is decided later, or too long ago, says nothing.
    assert shippable(home, DAY - timedelta(days=1)) == {} and shippable(home, DAY + timedelta(days=7)) == {}


def test_orders_of_the_week_are_what_sites_need(home: Home) -> None:
    orders: list[dict[str, object]] = [
        {"site_id": "S", "product_id": p, "arrives_on": DAY + timedelta(days=k), "quantity": q, "expected_cost": 0.0,
         "naive_quantity": q, "naive_expected_cost": 0.0, "reason": "r"}
        for p, k, q in (("P", 2, 10.0), ("no weight", 7, 5.0), ("late", 8, 100.0))
    ]  # fmt: skip
    write_decisions(home, DECISIONS["retail.replenishment_orders"], DAY, decided("o", orders))
    assert _ordered(home, DAY).to_dicts() == [{"site_id": "S", "known": 2.0 * 10.0 + 5.0, "days": 2}]


def test_the_production_plan_limits_the_flow(home: Home) -> None:
    class Inputs:
        settings = Settings()
        sources = pl.DataFrame(
            {"source_id": ["PL", "W"], "capacity": [None, None], "handling_cost": [0.0, 0.1], "overflow_cost": [None, None],
             "stock": [shippable(home, DAY)["PL"] / 7, 0.0]},
            schema_overrides={"capacity": pl.Float64, "overflow_cost": pl.Float64},
        )  # fmt: skip
        lanes = pl.DataFrame(
            {"from_id": ["PL", "W"], "to_id": ["W", "S"], "cost_per_unit": [0.1, 0.2], "capacity": [None, None]},
            schema_overrides={"capacity": pl.Float64},
        )
        demand = pl.DataFrame({"site_id": ["S"], "quantity": [200.0]})

    result = network_flow.solve(flow_problem(Inputs()), single_source=False)  # type: ignore[arg-type]
    assert result.flows.filter(pl.col("from_id") == "PL")["quantity"].sum() == pytest.approx(140.0)
    assert result.status == "relaxed" and result.shortage["quantity"].to_list() == pytest.approx([60.0])
    best = result.worth.row(0, named=True)
    assert best["limit"] == "stock" and best["worth_per_unit"] > 1.0


def test_a_site_that_gets_nothing_has_a_row_and_costs_add_up() -> None:
    @dataclass
    class Inputs:
        """Two sites, stock for one; nothing leads to the third."""

        as_of = DAY
        snapshot = "s"
        settings = Settings(sourcing_shortage_cost=30.0)
        sources = pl.DataFrame(
            {"source_id": ["W"], "capacity": [None], "handling_cost": [0.1], "overflow_cost": [None], "stock": [10.0]},
            schema_overrides={"capacity": pl.Float64, "overflow_cost": pl.Float64},
        )
        lanes = pl.DataFrame(
            {"from_id": ["W", "W"], "to_id": ["near", "off"], "cost_per_unit": [1.0, 2.0], "capacity": [None, None],
             "km": [5.0, 9.0]},
            schema_overrides={"capacity": pl.Float64},
        )  # fmt: skip
        demand = pl.DataFrame(
            {"site_id": ["near", "nowhere", "off"], "quantity": [70.0, 5.0, 40.0], "known": [70.0, 0.0, 0.0]}
        )

    rows, _, facts = _sourcing(Inputs())  # type: ignore[arg-type]
    assert dict(rows.select("site_id", "quantity").iter_rows()) == {"near": 70.0, "off": 0.0, "nowhere": 0.0}
    cost = dict(rows.select("site_id", "expected_cost").iter_rows())
    assert cost == pytest.approx({"near": 77.0, "off": 1200.0, "nowhere": 150.0})
    for column, fact in (("expected_cost", "cost"), ("naive_expected_cost", "naive_cost"), ("lower_bound", "bound")):
        assert rows[column].sum() == pytest.approx(facts[f"sourcing_{fact}"])
    assert "cannot be sent, at 30 a unit" in rows.filter(pl.col("site_id") == "off")["reason"][0]


@pytest.mark.parametrize("lane", [True, False])
def test_a_plant_that_no_lane_leads_from_is_named(home: Home, lane: bool) -> None:
    terms = {"site_id": ["PL", "W"], "capacity": [None, 50.0], "handling_cost": [0.1] * 2, "overflow_cost": [None] * 2,
             "stock": [90.0, 2.0]}  # fmt: skip
    numbers = dict.fromkeys(("capacity", "overflow_cost"), pl.Float64)
    write_parquet(pl.DataFrame(terms, schema_overrides=numbers), home.mart("logistics", "depot_terms"))
    lanes = {"from_id": ["PL"], "to_id": ["W"], "cost_per_unit": [0.2], "capacity": [None]}
    write_parquet(pl.DataFrame(lanes, schema_overrides=numbers).head(int(lane)), home.mart("logistics", "lanes"))
    sites = pl.DataFrame(
        {"site_id": ["PL", "S", "W"], "kind": ["plant", "store", "warehouse"], "latitude": [52.0, 52.1, 52.2],
         "longitude": [13.0] * 3}
    )  # fmt: skip
    vehicles = fleet("W")
    deliveries = stops(("S", "W", 52.1, 280.0))
    notes: list[str] = []
    ways = Ways(None, Conditions(), Detour(), "")
    _, found, demand = read_sourcing(home, sites, vehicles, deliveries, DAY, ways, notes)
    # A week has landed at most, so that a seventh is the usual day.
    assert demand["quantity"].to_list() == [280.0] and found.height == 1 + lane
    assert len(notes) == 1 - lane and all("leads from PL" in note for note in notes)


def test_the_usual_day_is_one_of_those_that_have_landed(home: Home) -> None:
    rows = pl.DataFrame(
        {
            "site_id": ["S"] * 10,
            "ready_at": [opening(DAY) - timedelta(days=k + 1) for k in range(10)],
            "quantity": [5.0] * 10,
        }
    )
    assert _site_demand(home, rows, DAY).select("quantity", "mean").row(0) == (35.0, 5.0)
    old = rows.with_columns(pl.col("ready_at") - timedelta(days=18)).head(1)
    assert _site_demand(home, pl.concat([rows, old]), DAY)["mean"][0] == pytest.approx(55 / 19)


def test_the_nearest_source_is_the_nearest_whoever_drives_there(home: Home) -> None:
    none = dict.fromkeys(("capacity", "overflow_cost", "stock"), pl.Float64)
    terms = {"site_id": ["W1", "W2"], "capacity": [None] * 2, "handling_cost": [0.1] * 2, "overflow_cost": [None] * 2,
             "stock": [None] * 2}  # fmt: skip
    write_parquet(pl.DataFrame(terms, schema_overrides=none), home.mart("logistics", "depot_terms"))
    lanes = {"from_id": ["W1", "W2"], "to_id": ["S", "S"], "cost_per_unit": [1.0, 2.0], "capacity": [None] * 2}
    write_parquet(pl.DataFrame(lanes, schema_overrides=none), home.mart("logistics", "lanes"))
    sites = pl.DataFrame(
        {"site_id": ["S", "W1", "W2", "nowhere"], "kind": ["store", "warehouse", "warehouse", "store"],
         "latitude": [52.0, 52.9, 52.2, None], "longitude": [13.0] * 4}
    )  # fmt: skip
    hired = pl.DataFrame(schema={"depot_id": pl.String, "cost_per_km": pl.Float64, "cost_per_minute": pl.Float64})
    rows = pl.DataFrame(
        {"site_id": ["S", "nowhere"], "ready_at": [opening(DAY) - timedelta(days=1)] * 2, "quantity": [7.0] * 2}
    )
    notes: list[str] = []
    sources, found, demand = read_sourcing(home, sites, hired, rows, DAY, Ways(None, Conditions(), Detour(), ""), notes)
    assert found.sort("km")["from_id"].to_list() == ["W2", "W1"] and found["km"].null_count() == 0
    flow, short = network_flow.nearest(
        network_flow.FlowProblem(
            sources, found, demand.select("site_id", "quantity", pl.lit(50.0).alias("shortage_cost"))
        ),
        found,
    )
    assert flow.tolist() == [0.0, 7.0] and short.tolist() == [0.0]
    assert len(notes) == 1 and "nowhere" in notes[0]


def test_a_site_costs_what_its_stop_adds_to_the_tours_of_a_depot() -> None:
    """W2 is nearer, but a vehicle would leave it for this site alone; a tour from W1 goes past its door to a customer behind."""
    depots = pl.DataFrame(
        {"site_id": ["W1", "W2"], "latitude": [52.0, 52.4], "longitude": [13.0] * 2},
    ).with_columns(pl.lit(None, pl.String).alias("node_id"))
    ways = Ways(None, Conditions(), Detour(), "")
    rows = stops(("S", "W2", 52.25, 10.0), (None, "W1", 52.3, 10.0))
    found = tour_costs(rows, depots, fleet("W1", "W2"), ways, DAY, 1.0)
    there = ways.matrix(pl.concat([depots, rows.select(depots.columns[1:])], how="diagonal"))[0]
    assert found["W2", "S"] == pytest.approx((100.0 + 2 * there[1, 2]) / 10.0)
    assert found["W1", "S"] == pytest.approx(0.0, abs=1e-6)
    # Without the customer behind, W1 would need a vehicle too, and has the longer way.
    alone = tour_costs(rows.head(1), depots, fleet("W1", "W2"), ways, DAY, 1.0)
    assert alone["W1", "S"] == pytest.approx((100.0 + 2 * there[0, 2]) / 10.0) and alone["W2", "S"] == found["W2", "S"]
    # Full vehicles take nothing more: one of its own is opened.
    full = rows.with_columns(pl.when(pl.col("site_id").is_null()).then(295.0).otherwise("quantity").alias("quantity"))
    assert tour_costs(full, depots, fleet("W1", "W2"), ways, DAY, 1.0)["W1", "S"] == alone["W1", "S"]


def test_tours_look_at_days_before_only_and_at_depots_with_vehicles() -> None:
    depots = pl.DataFrame({"site_id": ["W1", "W2"], "latitude": [52.0, 52.4], "longitude": [13.0] * 2}).with_columns(
        pl.lit(None, pl.String).alias("node_id")
    )
    ways = Ways(None, Conditions(), Detour(), "")
    past, later = stops(("S", "W1", 52.25, 10.0)), stops(("S", "W1", 52.25, 99.0), day=DAY)
    known = tour_costs(past, depots, fleet("W1"), ways, DAY, 1.0)
    assert list(known) == [("W1", "S")]
    assert tour_costs(pl.concat([past, later]), depots, fleet("W1"), ways, DAY, 1.0) == known
    assert tour_costs(later, depots, fleet("W1"), ways, DAY, 1.0) == {}
