"""Plans against textbook answers, the general form in CVXPY, and the questions a planner asks."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from npq_assets.errors import NpqError
from npq_assets.optimization.linear import solve_linear
from npq_assets.optimization.lot_sizing import (
    LotSizingProblem,
    Params,
    Production,
    economic_lots,
    explain_late,
    flow,
    force_in,
    price,
    solve,
    violations,
    worth_by_resolving,
)
from npq_assets.optimization.lot_sizing.decomposition import Pricing, generate
from npq_assets.optimization.lot_sizing.general_form import solve_general
from npq_assets.optimization.lot_sizing.pure import build_pure, is_pure
from tests.optimization.plans import KINDS, random_plan

HERE = Params(seconds=20, watchdog=False, gap=1e-6, nodes=5_000)


def wagner_whitin(capacity: float = 1e4) -> LotSizingProblem:
    """The example of Wagner & Whitin (1958), Table 1: twelve months, holding cost 1, their setup costs; optimum 864."""
    demand = [69, 29, 36, 61, 61, 26, 34, 67, 45, 67, 79, 56]
    setups = [85, 102, 102, 101, 98, 114, 105, 86, 119, 110, 98, 114]
    return LotSizingProblem(
        ("p",), tuple(f"M{t}" for t in range(12)), tuple(str(t + 1) for t in range(12)), np.array([demand], float),
        np.ones((1, 12)), np.zeros((1, 12)), np.array([setups], float),
        np.eye(12) * capacity, np.array([1.0]),
    )  # fmt: skip


def test_wagner_whitins_example_costs_864() -> None:
    """A machine a month carries the month's setup cost."""
    problem = wagner_whitin()
    for method in ("tight", "decomposition"):
        result = solve(problem, replace(HERE, method=method))
        assert (result.status, result.objective, result.bound) == ("optimal", pytest.approx(864), pytest.approx(864))
    value, *_ = Pricing(problem).solve(np.zeros((12, 12)))
    assert value[0] == pytest.approx(864)


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_general_form(kind: str) -> None:
    problem = random_plan(1, kind)
    reference = solve_general(problem)
    assert reference is not None
    value, plan = reference
    assert violations(problem, plan) == []
    assert price(problem, plan).total == pytest.approx(value, rel=1e-5)
    result = solve(problem, HERE)
    assert result.objective == pytest.approx(value, rel=1e-5)
    assert result.bound <= value * (1 + 1e-5)
    assert violations(problem, result.production) == []


@pytest.mark.parametrize("seed", range(6))
def test_decomposition_bounds_and_never_beats_the_optimum(seed: int) -> None:
    problem = random_plan(seed, ("plain", "late", "overtime")[seed % 3])
    reference = solve_general(problem)
    assert reference is not None
    result = solve(problem, replace(HERE, method="decomposition"))
    assert result.bound <= reference[0] * (1 + 1e-6)
    assert result.objective >= reference[0] * (1 - 1e-6)
    assert violations(problem, result.production) == []
    # The mixture is as strong as the facility-location relaxation or stronger (machines may be chosen by item).
    assert is_pure(problem)
    form = build_pure(problem, elastic=True)
    relaxed = solve_linear(form.model).objective + form.constant
    assert generate(problem, seconds=10, gap=1e-7).bound >= relaxed * (1 - 1e-4)


@pytest.mark.parametrize("kind", ["late", "overtime", "plain"])
def test_the_planners_rule_keeps_capacity_and_is_never_cheaper_than_the_bound(kind: str) -> None:
    for seed in range(4):
        problem = random_plan(seed, kind)
        plan = economic_lots(problem)
        assert (flow(problem, plan).used <= problem.capacity + problem.overtime_limit + 1e-6).all()
        if not violations(problem, plan):
            assert price(problem, plan).total >= solve(problem, HERE).bound - 1e-6


def one_machine(**more: object) -> LotSizingProblem:
    base = {
        "items": ("bolt", "nut"), "machines": ("M3",), "periods": ("2026-01-05", "2026-01-12", "2026-01-19"),
        "demand": np.array([[50.0, 50.0, 50.0], [40.0, 40.0, 40.0]]), "run_time": np.ones((2, 1)),
        "setup_time": np.full((2, 1), 10.0), "setup_cost": np.full((2, 1), 30.0), "capacity": np.full((1, 3), 100.0),
        "holding_cost": np.ones(2),
    }  # fmt: skip
    return LotSizingProblem(**{**base, **more})  # type: ignore[arg-type]


def test_what_cannot_be_made_is_named_with_what_is_missing() -> None:
    result = solve(one_machine(), HERE)
    assert result.status == "relaxed"
    names = result.relaxation["constraint"].to_list()
    assert "capacity of M3 in 2026-01-05" in names
    # 150 + 120 units and setups do not fit into 300 minutes: at least 10 minutes of the first period are missing.
    assert result.relaxation["amount"].sum() >= 10 - 1e-6
    assert any("capacity of M3" in name for name in result.conflict)
    assert any("demand of" in name for name in result.conflict)


def test_late_orders_have_a_reason_and_a_price() -> None:
    problem = one_machine(late_cost=np.array([5.0, 1.0]), end_late_cost=50.0, overtime_limit=30.0, overtime_cost=20.0)
    result = solve(problem, HERE)
    assert result.status == "optimal"
    orders = pl.DataFrame(
        {"order_id": ["A", "B"], "item": ["nut", "bolt"], "quantity": [40.0, 50.0], "due": ["2026-01-05", "2026-01-05"]}
    )
    late = explain_late(problem, result, orders, HERE)
    assert late.height >= 1
    row = late.row(0, named=True)
    assert row["late_quantity"] > 0 and row["reason"]
    forced = force_in(problem, result, row["item"], row["due"], HERE)
    assert row["cost_to_force"] == pytest.approx(forced.objective - result.objective, abs=1e-3)
    assert forced.flow.backlog[problem.items.index(row["item"]), 0] == pytest.approx(0, abs=1e-6)
    with pytest.raises(NpqError, match="no item 'screw'"):
        explain_late(problem, result, orders.with_columns(item=pl.lit("screw")), HERE)


def test_another_hour_is_worth_what_the_plan_saves() -> None:
    problem = one_machine(late_cost=np.array([5.0, 1.0]), end_late_cost=50.0, overtime_limit=30.0, overtime_cost=20.0)
    result = solve(problem, HERE)
    row = worth_by_resolving(problem, result, "M3", "2026-01-05", 30.0, HERE).row(0, named=True)
    assert row["method"] == "re-solve"
    assert row["worth_per_hour"] > 0
    assert row["least_worth"] <= row["worth_per_hour"] + 1e-6
    assert set(result.duals["method"]) == {"dual, setups as planned"}


def test_stock_and_deliveries_balance_in_every_plan() -> None:
    problem = random_plan(3, "everything")
    result = solve(problem, HERE)
    f, made = result.flow, result.production.quantity.sum(axis=1)
    ready = np.zeros_like(made)
    for i, lead in enumerate(problem.lead_time):
        ready[i, lead:] = made[i, : made.shape[1] - lead]
    before = np.concatenate([problem.initial_stock[:, None], f.stock[:, :-1]], axis=1)
    assert np.allclose(before + ready - problem.bill @ made - f.delivered, f.stock, atol=1e-5)
    owed = np.concatenate([problem.initial_backlog[:, None], f.backlog[:, :-1]], axis=1)
    assert np.allclose(owed + problem.demand - f.delivered, f.backlog, atol=1e-5)


def test_the_same_work_gives_the_same_plan() -> None:
    problem = random_plan(2, "late")
    first, second = (solve(problem, replace(HERE, nodes=50)) for _ in range(2))
    assert first.plan.equals(second.plan)


def test_bad_data_is_one_readable_line() -> None:
    with pytest.raises(NpqError, match="holding_cost of nut is -1"):
        one_machine(holding_cost=np.array([1.0, -1.0]))
    circle = np.array([[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(NpqError, match="go into themselves"):
        one_machine(bill=circle)
    with pytest.raises(NpqError, match="shape"):
        one_machine(demand=np.ones((3, 3)))


def test_nothing_to_make_costs_nothing() -> None:
    result = solve(one_machine(demand=np.zeros((2, 3))), HERE)
    assert (result.status, result.objective, result.plan.height) == ("optimal", 0.0, 0)
    assert price(one_machine(), Production(np.zeros((2, 1, 3)), np.zeros((2, 1, 3), bool))).total == 0.0
