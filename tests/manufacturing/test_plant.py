"""The manufacturing graph on a small plant: what holds of plan and schedule, and a planner's questions to the outputs."""

import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from npq_assets.contracts import DECISIONS
from npq_assets.deciding import Decider
from npq_assets.errors import NpqError
from npq_assets.manufacturing.inputs import ManufacturingInputs, read_inputs
from npq_assets.manufacturing.output import load_findings, load_forecast, load_plan, load_schedule
from npq_assets.manufacturing.plan import ProductionPlan
from npq_assets.manufacturing.schedule import JobSchedule
from npq_assets.manufacturing.what_if import move_order
from npq_assets.publishing import read_decisions
from npq_assets.settings import Home
from tests.manufacturing.small import AS_OF, BIG, PRODUCTS, land, write
from tests.test_cli import npq


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The small plant, decided once. Tests must not change it."""
    root = tmp_path_factory.mktemp("plant")
    (root / "npq.toml").write_text("solver_seconds = 5\n")
    at = Home.at(root)
    land(at.landing)
    Decider(at, "manufacturing").decide(AS_OF)
    return at


@pytest.fixture(scope="module")
def inputs(home: Home) -> ManufacturingInputs:
    return read_inputs(home, AS_OF)


@pytest.fixture(scope="module")
def plan(home: Home) -> ProductionPlan:
    found = load_plan(home, AS_OF)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def schedule(home: Home) -> JobSchedule:
    found = load_schedule(home, AS_OF)
    assert found is not None
    return found


def decided(home: Home, table: str) -> pl.DataFrame:
    return read_decisions(home, DECISIONS[f"manufacturing.{table}"], AS_OF)


def test_every_decision_lands_with_ledger_rows_and_a_page(home: Home) -> None:
    plan, schedule = decided(home, "production_plan"), decided(home, "job_schedule")
    ledger = read_decisions(home, DECISIONS["all.ledger"], AS_OF)
    assert set(plan["decision_id"]) | set(schedule["decision_id"]) <= set(ledger["decision_id"])
    assert set(ledger["kind"]) >= {"production_plan", "job_schedule"}
    assert (ledger["lower_bound"] <= ledger["expected_cost"] + 1e-6).all()
    page = home.report(AS_OF).read_text(encoding="utf-8")
    for word in ("Job schedule", "Orders that will be late", "What an hour of a machine is worth", "What moves output",
                 "What will have to be made", "<svg", BIG):  # fmt: skip
        assert word in page


def test_stock_made_and_delivered_balance(plan: ProductionPlan, inputs: ManufacturingInputs) -> None:
    for product in PRODUCTS:
        rows = plan.stock.filter(pl.col("product_id") == product).sort("period_start")
        start = inputs.products.filter(pl.col("product_id") == product)["on_hand"][0]
        stock = start + np.cumsum((rows["made"] - rows["delivered"]).to_numpy())
        assert stock == pytest.approx(rows["stock"].to_numpy(), abs=0.01)
        lots = plan.lots.filter(pl.col("product_id") == product)["quantity"].sum()
        assert lots == pytest.approx(rows["made"].sum(), abs=0.01)


def test_no_machine_works_more_than_it_may(plan: ProductionPlan, inputs: ManufacturingInputs) -> None:
    load = plan.load.with_columns((pl.col("regular_minutes") + pl.col("overtime_minutes")).alias("allowed"))
    assert (load["used_minutes"] <= load["allowed"] + 0.01).all()
    assert (load["overtime_minutes"] <= 60.0 + 0.01).all()


def test_bound_and_rule_enclose_the_plan(plan: ProductionPlan) -> None:
    facts = plan.facts
    assert facts["lower_bound"] <= facts["expected_cost"] + 1e-6 <= facts["naive_cost"] + 1e-3
    assert facts["expected_cost"] == pytest.approx(plan.accounts["expected_cost"].sum())


def test_the_schedule_does_one_thing_at_a_time_and_costs_no_more_than_due_dates(schedule: JobSchedule) -> None:
    for _, rows in schedule.jobs.sort("start").group_by("machine_id"):
        assert (rows["end"][:-1] <= (rows["start"] - rows["setup_minutes"].fill_null(0))[1:]).all()
    assert schedule.facts["expected_cost"] <= schedule.facts["naive_cost"] + 1e-6
    assert schedule.facts["lower_bound"] <= schedule.facts["expected_cost"] + 1e-6


def test_each_machine_has_its_dispatch_list(home: Home, schedule: JobSchedule) -> None:
    folder = home.decisions("manufacturing", "job_schedule", AS_OF).parent / "dispatch"
    for machine, rows in schedule.rows.group_by("machine_id"):
        listed = pl.read_csv(folder / f"{machine[0]}.csv")
        assert listed.height == rows.height
        assert listed["starts_at"].is_sorted()


def test_why_an_order_is_late_and_what_forcing_it_costs(home: Home) -> None:
    late = decided(home, "late_orders").filter(pl.col("order_id") == BIG)
    assert late.height == 1
    order = late.row(0, named=True)
    assert order["late_days"] >= 1 and order["late_cost"] > 0
    assert "M1" in order["reason"]
    # 2,400 cakes cannot be made in four days of 540 minutes: no money forces that, and the table says so.
    assert order["cost_to_force"] is None and "cannot be in time" in order["force_note"]


def test_an_hour_of_the_full_machine_is_worth_more_than_one_of_the_other(home: Home) -> None:
    worth = decided(home, "capacity_worth")
    by_machine = dict(worth.group_by("machine_id").agg(pl.col("worth_per_hour").max()).iter_rows())
    assert by_machine["M1"] > 60.0  # an hour of overtime costs 60 and is used up
    assert by_machine["M1"] > by_machine["M2"]
    assert worth["method"].str.contains("dual|re-solve").all()


def test_moving_the_order_that_is_late_frees_the_plan(inputs: ManufacturingInputs, plan: ProductionPlan) -> None:
    moved = move_order(inputs, plan, BIG, AS_OF + timedelta(days=12))
    assert moved.cost < moved.cost_before and moved.bound <= moved.cost + 1e-6
    assert BIG in moved.late["order_id"].to_list() and "less" in moved.sentence
    with pytest.raises(NpqError, match="not in hand"):
        move_order(inputs, plan, "no such order", AS_OF)
    with pytest.raises(NpqError, match="lies before the as-of day"):
        move_order(inputs, plan, BIG, AS_OF - timedelta(days=1))


def test_a_planner_asks_by_command(home: Home, inputs: ManufacturingInputs) -> None:
    due = AS_OF + timedelta(days=12)
    before = {place: place.read_bytes() for place in (home.root / "plans").rglob("*") if place.is_file()}
    said = npq("move-order", BIG, "--due", str(due), "--home", str(home.root)).stdout
    assert said.startswith(f"Order {BIG} (cake) due {due} instead of") and "proven at least" in said and " -> " in said
    assert before == {place: place.read_bytes() for place in (home.root / "plans").rglob("*") if place.is_file()}
    assert "is not a date" in npq("move-order", BIG, "--due", "Friday", "--home", str(home.root), code=2).stderr


def test_what_landed_is_set_against_the_plan(home: Home, plan: ProductionPlan, tmp_path: Path) -> None:
    at = Home.at(tmp_path / "next")
    shutil.copytree(home.root, at.root)
    wanted = (
        plan.lots.filter(pl.col("period_start") == AS_OF)
        .group_by("machine_id", "product_id")
        .agg(pl.col("quantity").sum())
    )
    first = wanted.sort("machine_id", "product_id").row(0, named=True)
    log = wanted.with_columns(
        pl.lit(AS_OF).alias("produced_on"),
        (pl.col("quantity") * pl.when(pl.col("product_id") == first["product_id"]).then(0.5).otherwise(1.0)).alias("good_quantity"),
        pl.lit(0.0).alias("scrap_quantity"), pl.lit(100.0).alias("run_minutes"), pl.lit(0.0).alias("down_minutes"),
    ).drop("quantity")  # fmt: skip
    write(at.landing, "manufacturing/production_log", log, name="today")
    Decider(at, "manufacturing").decide(AS_OF + timedelta(days=1))
    found = pl.read_parquet(at.mart("manufacturing", "plan_adherence"))
    assert set(found["as_of"]) == {AS_OF}, "tomorrow's plan is judged when tomorrow has landed"
    halved = found.filter(pl.col("product_id") == first["product_id"])
    assert halved["adherence"].to_list() == pytest.approx([0.5] * halved.height)
    assert found.filter(pl.col("product_id") != first["product_id"])["adherence"].to_list() == pytest.approx(
        [1.0] * (found.height - halved.height)
    )
    assert "What became of the plans" in at.report(AS_OF + timedelta(days=1)).read_text(encoding="utf-8")


def test_findings_and_forecast_are_there(home: Home) -> None:
    found = load_findings(home, AS_OF)
    assert found is not None
    late = found.findings.filter((pl.col("target") == "output") & pl.col("factor").str.starts_with("shift late")).row(
        0, named=True
    )
    # The late shift takes 10 % longer: 100 of 110 at the same scrap.
    assert late["conclusive"] and late["effect"] == pytest.approx(-100 * (1 - 1 / 1.1) * 0.96, abs=1.5)
    assert decided(home, "driver_findings").height == found.findings.height
    ahead = load_forecast(home, AS_OF)
    assert ahead is not None and ahead.backtest is not None
    assert set(ahead.lines["line"]) == {"one", "two"}


def test_the_next_day_keeps_the_plan_where_news_do_not_strain_it(home: Home, plan: ProductionPlan) -> None:
    """Nothing happened that the plan did not foresee: lots that stand in both plans are the same."""
    from npq_assets.manufacturing.plan import plan_production

    tomorrow = read_inputs(home, AS_OF + timedelta(days=1))
    again = plan_production(tomorrow)
    assert {c["cell"] for c in again.facts["cells"]} == {c["cell"] for c in plan.facts["cells"]}
    for cell in again.facts["cells"]:
        assert cell["kept"] or cell["saving_of_change"] > 0
    assert again.worth.height > 0
