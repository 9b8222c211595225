"""The manufacturing graph on a small plant: what holds of plan and schedule, and a planner's questions to the outputs."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from npq_assets.contracts import DECISIONS
from npq_assets.deciding import Decider
from npq_assets.errors import NpqError
from npq_assets.manufacturing.inputs import ManufacturingInputs, read_inputs
from npq_assets.manufacturing.outcome import realized_cost
from npq_assets.manufacturing.output import (
    load_findings,
    load_forecast,
    load_plan,
    load_schedule,
    write_dispatch_lists,
)
from npq_assets.manufacturing.plan import (
    SETUPS,
    Cell,
    ProductionPlan,
    _continued,
    cells_of,
    plan_production,
    production_of,
)
from npq_assets.manufacturing.schedule import JobSchedule, _by_job, _closed, peg, problem_of, schedule_jobs
from npq_assets.manufacturing.what_if import move_order
from npq_assets.optimization.job_shop import dispatch
from npq_assets.optimization.lot_sizing import LotSizingProblem, Production, price
from npq_assets.publishing import read_decisions
from npq_assets.settings import Home
from npq_assets.storage import write_parquet
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


# --- What did not land, or lands by week ---------------------------------------------------------------------------------------


def other(home: Home, root: Path, toml: str = "") -> Home:
    """A home with the small plant's marts, to be changed."""
    shutil.copytree(home.root / "marts", root / "marts")
    (root / "npq.toml").write_text(f"solver_seconds = 5\n{toml}")
    return Home.at(root)


def edit(home: Home, model: str, change: Callable[[pl.DataFrame], pl.DataFrame], domain: str = "manufacturing") -> None:
    write_parquet(change(pl.read_parquet(home.mart(domain, model))), home.mart(domain, model))


@pytest.mark.parametrize("given", [None, 0.0])
def test_orders_without_any_price_are_made_all_the_same(home: Home, tmp_path: Path, given: float | None) -> None:
    at = other(home, tmp_path)
    edit(at, "products", lambda f: f.clear(), "common")
    edit(at, "customer_orders", lambda f: f.with_columns(pl.lit(given, pl.Float64).alias("late_cost_per_day")))
    inputs = read_inputs(at, AS_OF)
    assert (inputs.orders["late_rate"] > 0).all()
    assert any("a set-up of their product a day assumed" in line for line in inputs.skipped)
    # At no price for lateness the cheapest plan made nothing, and was called optimal.
    made = plan_production(inputs).lots.group_by("product_id").agg(pl.col("quantity").sum())
    assert set(made["product_id"]) == set(PRODUCTS)


def test_an_old_count_of_a_component_loses_what_was_drawn_and_gains_what_came(home: Home, tmp_path: Path) -> None:
    at = other(home, tmp_path)
    counted = AS_OF - timedelta(days=30)
    old = pl.col("product_id").is_in(["flour", "pie"])

    def recount(f: pl.DataFrame) -> pl.DataFrame:
        return f.with_columns(
            pl.when(old).then(counted).otherwise("counted_on").cast(pl.Date).alias("counted_on"),
            pl.when(old).then(5000.0).otherwise("on_hand").alias("on_hand"),
        )

    def one_more(f: pl.DataFrame) -> pl.DataFrame:
        return pl.concat([f, f.head(1).with_columns(product_id=pl.lit("soup"), component_id=pl.lit("pie"))])

    edit(at, "plant_stock", recount)
    edit(at, "bills_of_material", one_more)  # half a pie goes into a soup as well
    came = [(counted + timedelta(days=k), 100.0) for k in (-1, 0, 29, 30, 31)]
    edit(at, "component_receipts", lambda f: pl.DataFrame(
        [("flour", day, units, None, "x", k) for k, (day, units) in enumerate(came)], schema=f.schema, orient="row"
    ))  # fmt: skip
    inputs = read_inputs(at, AS_OF)
    log = pl.read_parquet(at.mart("manufacturing", "production_day")).filter(pl.col("produced_on") >= counted)
    units = dict(
        log.group_by("product_id")
        .agg((pl.col("good_quantity") + pl.col("scrap_quantity")).sum().alias("n"))
        .iter_rows()
    )
    good = log.filter(pl.col("product_id") == "pie")["good_quantity"].sum()
    gone = (
        pl.read_parquet(at.mart("manufacturing", "customer_orders"))
        .filter((pl.col("product_id") == "pie") & (pl.col("delivered_on") >= counted))["quantity"]
        .sum()
    )
    assert inputs.components["on_hand"].to_list() == pytest.approx([5000.0 + 200.0 - 0.5 * units["cake"]])
    assert sorted(inputs.receipts["arrives_on"]) == [AS_OF, AS_OF + timedelta(days=1)]
    pie = inputs.products.filter(pl.col("product_id") == "pie")["on_hand"][0]
    assert pie == pytest.approx(5000.0 + good - gone - 0.5 * units["soup"])
    assert any("component counts are older" in line for line in inputs.skipped)


def test_a_week_of_work_is_due_at_the_weeks_end_and_late_in_the_next(home: Home, tmp_path: Path) -> None:
    at = other(home, tmp_path, 'period = "week"\n')
    inputs = read_inputs(at, AS_OF)
    plan = plan_production(inputs)
    found = schedule_jobs(inputs, plan)
    first = found.jobs.filter(pl.col("end") <= 7 * 1440)
    assert first.height == found.jobs.height, "a week's lots fit into the week"
    late = _by_job(problem_of(inputs, plan, peg(inputs, plan)), dispatch(problem_of(inputs, plan, peg(inputs, plan))))
    assert sum(late.values()) <= 4 * 15.0, "set-ups only: nothing is late on the second day of its week"
    assert found.facts["expected_cost"] <= 4 * 15.0
    # Twice what the week can hold, due in its middle: complete in the next week, which is late.
    edit(at, "customer_orders", lambda f: f.with_columns(
        pl.when(pl.col("order_id") == BIG).then(6000.0).otherwise("quantity").alias("quantity")
    ))  # fmt: skip
    inputs = read_inputs(at, AS_OF)
    plan = plan_production(inputs)
    row = plan.late.filter(pl.col("order_id") == BIG).row(0, named=True)
    assert row["delivered_on"] is None or row["delivered_on"] >= AS_OF + timedelta(days=7)
    assert row["late_days"] > 0 and row["late_cost"] > 0


def test_a_plan_overtime_of_a_week_is_worked_within_each_days_limit(home: Home, tmp_path: Path) -> None:
    at = other(home, tmp_path, 'period = "week"\n')
    inputs = read_inputs(at, AS_OF)
    plan = plan_production(inputs)
    much = pl.when(pl.col("period_start") == AS_OF).then(150.0).otherwise(0.0).alias("overtime_minutes")
    closed = _closed(inputs, replace(plan, load=plan.load.with_columns(much)), ("M1",))["M1"]
    assert [a % 1440 for a, _ in closed[:9]] == [540, 540, 510, 480, 480, 480, 480, 480, 480]


def test_what_plans_cost_is_booked_where_it_is_known_and_nowhere_else(home: Home, tmp_path: Path) -> None:
    first = AS_OF - timedelta(days=20)
    end = first + timedelta(days=14)

    def counts(days: int, products: tuple[str, ...] = ("cake", "pie")) -> Callable[[pl.DataFrame], pl.DataFrame]:
        rows = [(first + timedelta(days=k), p, 10.0, "x", k) for k in range(1, days + 1) for p in products]
        return lambda f: pl.DataFrame(rows, schema=f.schema, orient="row")

    at = other(home, tmp_path / "day")
    edit(at, "plant_stock", counts(14))
    assert realized_cost(at, first, end)["stock"].to_list() == pytest.approx([1.4, 1.4])
    edit(at, "plant_stock", lambda f: f.filter((pl.col("product_id") == "cake") | (pl.col("counted_on") == end)))
    assert realized_cost(at, first, end)["product_id"].to_list() == ["cake"], "a pie counted once has no cost of stock"
    # Orders without a cost of lateness cost what the plan assumed of them: 5 % of a unit cost of 2 a day.
    edit(at, "customer_orders", lambda f: f.with_columns(
        (pl.col("delivered_on") + pl.duration(days=1)).alias("delivered_on"), pl.lit(None, pl.Float64).alias("late_cost_per_day")
    ))  # fmt: skip
    due = pl.read_parquet(at.mart("manufacturing", "customer_orders")).filter(
        (pl.col("product_id") == "cake") & (pl.col("due_on") >= first - timedelta(days=1)) & (pl.col("due_on") < end)
    )
    days = due.select(
        (pl.min_horizontal("delivered_on", pl.lit(end)) - pl.max_horizontal("due_on", pl.lit(first))).dt.total_days()
    )
    owed = float((days.to_series() * due["quantity"]).sum())
    assert realized_cost(at, first, end)["lateness"].to_list() == pytest.approx([0.1 * owed])
    # Who never lands deliveries has delivered all the same: no lateness is made up.
    edit(at, "customer_orders", lambda f: f.with_columns(pl.lit(None, pl.Date).alias("delivered_on")))
    assert realized_cost(at, first, end).is_empty()
    # Weeks: stock is priced by the week, whether it is counted daily or weekly.
    weekly = other(home, tmp_path / "week", 'period = "week"\n')
    edit(weekly, "plant_stock", counts(14))
    assert realized_cost(weekly, first, end)["stock"].to_list() == pytest.approx([0.2, 0.2])
    edit(weekly, "plant_stock", lambda f: f.filter((pl.col("counted_on") - first).dt.total_days() % 7 == 0))
    assert realized_cost(weekly, first, end)["stock"].to_list() == pytest.approx([0.2, 0.2])


def test_set_ups_made_ahead_are_part_of_the_stored_plan(inputs: ManufacturingInputs, plan: ProductionPlan) -> None:
    """A machine changes over at the end of the first day, which has time, for the lot that fills the second."""
    days = ("2024-07-01", "2024-07-02")
    p = LotSizingProblem(
        items=("a", "b"), machines=("m",), periods=days, demand=np.array([[50.0, 0.0], [0.0, 100.0]]),
        run_time=np.ones((2, 1)), setup_time=np.full((2, 1), 20.0), setup_cost=np.full((2, 1), 5.0),
        capacity=np.array([[100.0, 100.0]]), holding_cost=np.ones(2), overtime_limit=np.array([[60.0, 60.0]]),
        overtime_cost=np.array([3.0]), late_cost=np.full(2, 50.0), carry_over=True,
    )  # fmt: skip
    quantity = np.zeros((2, 1, 2))
    quantity[0, 0, 0], quantity[1, 0, 1] = 50.0, 100.0
    ahead = quantity > 0
    ahead[1, 0, 0] = True
    whole = Production(quantity, ahead)
    lost = price(p, Production(quantity, quantity > 0)).total - price(p, whole).total
    assert lost == pytest.approx(20 * 3.0)
    lots = pl.DataFrame(
        {"period_start": days, "product_id": ["a", "b"], "machine_id": ["m"] * 2, "quantity": [50.0, 100.0]}
    )
    lots = lots.with_columns(pl.col("period_start").str.to_date())
    setups = pl.DataFrame([(datetime(2024, 7, 1).date(), "b", "m")], schema=SETUPS, orient="row")
    assert price(p, production_of(p, lots, setups)).total == price(p, whole).total
    followed = _continued(Cell("one", p, ("a", "b")), lots, setups)
    assert followed is not None and price(p, followed).total == price(p, whole).total
    # Where the second day's lot is gone, nobody changes over for it.
    gone = _continued(
        Cell("one", p, ("a", "b")),
        lots.head(1).with_columns(pl.lit(days[1]).str.to_date().alias("period_start")),
        setups,
    )
    assert gone is not None and not gone.setup[1].any()
    # The stored plan costs what it said it would.
    stored = sum(price(c.problem, production_of(c.problem, plan.lots, plan.setups)).total for c in cells_of(inputs))
    assert stored == pytest.approx(plan.facts["expected_cost"], abs=0.05)


def test_a_plan_stored_before_set_ups_were_kept_is_read(home: Home, tmp_path: Path) -> None:
    at = other(home, tmp_path)
    for folder in ("plans", "decisions"):
        shutil.copytree(home.root / folder, at.root / folder)
    next((at.root / "plans").rglob(f"as_of={AS_OF}/setups.parquet")).unlink()
    found = load_plan(at, AS_OF)
    assert found is not None and found.setups.is_empty()
    assert read_inputs(at, AS_OF + timedelta(days=1)).in_force.height


def test_a_plan_that_nobody_got_is_not_followed(home: Home, tmp_path: Path) -> None:
    at = other(home, tmp_path)
    for folder in ("plans", "decisions"):
        shutil.copytree(home.root / folder, at.root / folder)
    tomorrow = AS_OF + timedelta(days=1)
    assert read_inputs(at, tomorrow).in_force.height
    at.decisions("manufacturing", "production_plan", AS_OF).unlink()  # its checks failed
    assert read_inputs(at, tomorrow).in_force.is_empty()


def test_machines_of_like_names_have_lists_of_their_own(tmp_path: Path) -> None:
    at = datetime(2024, 7, 2, 6, tzinfo=UTC)
    rows = pl.DataFrame({
        "machine_id": ["A/1", "A_1"], "starts_at": [at] * 2, "ends_at": [at] * 2, "order_id": ["x", "y"], "operation": [1, 1],
        "product_id": ["p"] * 2, "quantity": [1.0] * 2, "setup_minutes": [0.0] * 2, "due_on": [AS_OF] * 2,
        "late_minutes": [0.0] * 2, "lot_id": ["l", "m"],
    })  # fmt: skip
    places = write_dispatch_lists(Home.at(tmp_path), AS_OF, rows)
    assert [pl.read_csv(place)["order_id"].to_list() for place in places] == [["x"], ["y"]]
