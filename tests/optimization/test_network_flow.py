"""Sourcing: textbook transport problems, duals that keep their promise, and a bound below every plan."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npq_assets.errors import NpqError
from npq_assets.optimization.network_flow import FlowProblem, nearest, price, solve

SOURCE = {"source_id": pl.String, "stock": pl.Float64, "capacity": pl.Float64, "handling_cost": pl.Float64,
          "overflow_cost": pl.Float64}  # fmt: skip
LANE = {"from_id": pl.String, "to_id": pl.String, "cost_per_unit": pl.Float64, "capacity": pl.Float64}


def flow(
    sources: list[tuple[object, ...]],
    lanes: list[tuple[object, ...]],
    demand: dict[str, float],
    shortage: float = 1e4,
) -> FlowProblem:
    return FlowProblem(
        pl.DataFrame(sources, schema=SOURCE, orient="row"),
        pl.DataFrame(lanes, schema=LANE, orient="row"),
        pl.DataFrame(
            {"site_id": list(demand), "quantity": list(demand.values()), "shortage_cost": [shortage] * len(demand)}
        ),
    )


def powerco(third: float = 40.0) -> FlowProblem:
    """Winston, Operations Research, 4th ed., ch. 7.1: three plants, four cities, least cost 1,020."""
    costs = {"1": (8, 6, 10, 9), "2": (9, 12, 13, 7), "3": (14, 9, 16, 5)}
    return flow(
        [(f"plant {k}", supply, None, 0.0, None) for k, supply in (("1", 35.0), ("2", 50.0), ("3", third))],
        [(f"plant {p}", f"city {c}", float(cost), None) for p, row in costs.items() for c, cost in enumerate(row, 1)],
        {"city 1": 45.0, "city 2": 20.0, "city 3": 30.0, "city 4": 30.0},
    )


def test_the_textbook_transport_problem() -> None:
    result = solve(powerco(), single_source=False)
    assert result.status == "optimal"
    assert result.objective == pytest.approx(1020.0, abs=1e-4)
    assert result.bound == pytest.approx(1020.0, abs=1e-3)
    assert result.shortage.is_empty()


def test_a_dual_says_what_one_more_unit_saves() -> None:
    # With a plant's stock short, one more unit of it saves what its row says.
    base, more = (solve(powerco(third), single_source=False) for third in (35.0, 36.0))
    worth = base.worth.filter((pl.col("subject") == "plant 3") & (pl.col("limit") == "stock"))["worth_per_unit"][0]
    assert worth == pytest.approx(base.objective - more.objective, rel=1e-5)
    assert worth > 1000  # it ends a shortage


def test_goods_go_through_a_warehouse_whose_bays_are_worth_something() -> None:
    problem = flow(
        [("plant", None, None, 0.0, None), ("near", 0.0, 10.0, 1.0, 2.0), ("far", 0.0, None, 1.0, None)],
        [
            ("plant", "near", 1.0, None),
            ("plant", "far", 1.0, None),
            ("near", "shop", 1.0, None),
            ("far", "shop", 2.5, None),
        ],
        {"shop": 16.0},
    )
    result = solve(problem, single_source=False)
    through = dict(result.flows.filter(pl.col("to_id") == "shop").select("from_id", "quantity").iter_rows())
    assert through == pytest.approx({"near": 10.0, "far": 6.0})
    bays = result.worth.filter(pl.col("limit") == "handling capacity").row(0, named=True)
    assert bays["subject"] == "near" and bays["worth_per_unit"] == pytest.approx(1.5)
    single = solve(problem)
    # All from one: overtime for 6 units at 2 is dearer than 16 times 1.5 extra? 12 against 24.
    assert single.objective == pytest.approx(16 * 3.0 + 12.0)
    assert single.bound <= single.objective and single.flows.filter(pl.col("to_id") == "shop").height == 1


def test_what_cannot_be_delivered_is_named() -> None:
    result = solve(flow([("w", 5.0, None, 0.0, None)], [("w", "s", 1.0, None)], {"s": 8.0}, 20.0), single_source=False)
    assert result.status == "relaxed" and result.shortage.row(0) == pytest.approx(("s", 3.0))
    assert "cannot be delivered" in result.relaxation["message"][0]
    assert result.objective == pytest.approx(5.0 + 60.0)


def test_sites_that_get_goods_from_several_because_time_ran_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from npq_assets.optimization import highs

    problem = FlowProblem(
        pl.DataFrame(
            {"source_id": ["a", "b"], "stock": [6.0, 6.0], "capacity": [None, None], "handling_cost": [0.0, 0.0],
             "overflow_cost": [None, None]},
            schema_overrides={"capacity": pl.Float64, "overflow_cost": pl.Float64},
        ),
        pl.DataFrame(
            {"from_id": ["a", "b"], "to_id": ["s", "s"], "cost_per_unit": [1.0, 2.0], "capacity": [None, None]},
            schema_overrides={"capacity": pl.Float64},
        ),
        pl.DataFrame({"site_id": ["s"], "quantity": [10.0], "shortage_cost": [50.0]}),
    )  # fmt: skip
    real = highs.solve
    monkeypatch.setattr(highs, "solve", lambda program, **options: not options and real(program, **options))
    result = solve(problem)
    assert result.flows.height == 2
    assert result.status == "relaxed", "a plan that splits a site is no plan with one source a site"
    assert "1 sites get goods from several (s)" in result.relaxation["message"][0]


def test_lanes_from_nowhere_are_refused() -> None:
    with pytest.raises(NpqError, match="x to s names a place"):
        solve(flow([("w", 5.0, None, 0.0, None)], [("x", "s", 1.0, None)], {"s": 8.0}))


@settings(max_examples=12)
@given(seed=st.integers(0, 10_000))
def test_flows_balance_keep_limits_and_beat_the_nearest_source(seed: int) -> None:
    rng = np.random.default_rng(seed)
    houses, shops = ["w0", "w1", "w2"], [f"s{k}" for k in range(6)]
    sources = [("plant", None, None, 0.0, None)]
    sources += [(w, 0.0, float(rng.uniform(20, 60)), float(rng.uniform(0, 1)), 2.0) for w in houses]
    lanes = [("plant", w, float(rng.uniform(0.1, 1)), None) for w in houses]
    lanes += [(w, s, float(rng.uniform(0.5, 3)), None) for w in houses for s in shops]
    problem = flow(sources, lanes, {s: float(rng.uniform(1, 20)) for s in shops})
    ordered = problem.lanes.sort("from_id", "to_id")
    near = ordered.filter(pl.col("to_id").is_in(shops)).with_columns(pl.col("cost_per_unit").alias("km"))
    naive = price(problem, ordered, *nearest(problem, near))
    split, single = solve(problem, single_source=False), solve(problem)
    assert split.objective <= single.objective + 1e-6 <= naive + 1e-3
    assert split.bound <= split.objective + 1e-9 and single.bound <= single.objective + 1e-9
    arrived = (
        single.flows.filter(pl.col("to_id").is_in(shops)).group_by("to_id").agg(pl.len(), pl.col("quantity").sum())
    )
    assert (arrived["len"] == 1).all()
    wanted = problem.demand.join(arrived, left_on="site_id", right_on="to_id")
    np.testing.assert_allclose(wanted["quantity"], wanted["quantity_right"], rtol=1e-5)
    for w in houses:  # what comes in goes out
        into, out = (single.flows.filter(pl.col(c) == w)["quantity"].sum() for c in ("to_id", "from_id"))
        assert into >= out - 1e-4


def test_what_a_plant_makes_limits_what_it_ships_for_us_and_for_the_planner() -> None:
    problem = flow(
        [("plant", 60.0, None, 0.0, None), ("near", 0.0, None, 1.0, None)],
        [("plant", "near", 1.0, None), ("near", "a", 1.0, None), ("near", "b", 2.0, None)],
        {"a": 50.0, "b": 50.0},
        shortage=20.0,
    )
    result = solve(problem, single_source=False)
    assert result.flows.filter(pl.col("from_id") == "plant")["quantity"].sum() == pytest.approx(60.0)
    assert result.shortage["quantity"].sum() == pytest.approx(40.0)
    worth = result.worth.filter(pl.col("limit") == "stock").sort("worth_per_unit")
    assert worth["method"].unique().to_list() == ["dual"] and worth["worth_per_unit"][-1] > 0
    lanes = problem.lanes.sort("from_id", "to_id")
    near = lanes.filter(pl.col("to_id").is_in(["a", "b"])).with_columns(pl.lit(1.0).alias("km"))
    planned, short = nearest(problem, near)
    assert planned.sum() == pytest.approx(120.0) and short.tolist() == pytest.approx([20.0, 20.0])
    assert price(problem, lanes, planned, short) >= result.objective - 1e-6


def test_a_planner_too_is_held_to_what_a_lane_carries_and_a_source_can_hand_out() -> None:
    problem = flow(
        [("near", None, 8.0, 0.0, None), ("far", None, None, 0.0, None)],
        [("near", "x", 1.0, 5.0), ("near", "y", 1.0, None), ("far", "x", 2.0, None), ("far", "y", 2.0, None)],
        {"x": 6.0, "y": 11.0},
        shortage=50.0,
    )
    lanes = problem.lanes.sort("from_id", "to_id")
    near = lanes.with_columns(pl.when(pl.col("from_id") == "near").then(1.0).otherwise(2.0).alias("km"))
    # Five of x by the lane, eleven of y, of which half can be handed out: it gives all the same share.
    planned, short = nearest(problem, near)
    assert planned.tolist() == [0.0, 0.0, 2.5, 5.5] and short.tolist() == [3.5, 5.5]
    assert price(problem, lanes, planned, short) >= solve(problem).bound


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_the_planner_beats_no_bound_whatever_the_limits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    some = lambda high: None if rng.random() < 0.4 else float(rng.integers(0, high))  # noqa: E731
    sources, sites = ["p", "v", "w"], ["x", "y", "z"]
    pairs = [(a, b) for a in sources for b in sites] + [("p", "v"), ("p", "w"), ("v", "w")]
    problem = flow(
        [(name, some(40), some(40), float(rng.uniform(0, 2)), some(5)) for name in sources],
        [(a, b, float(rng.uniform(0, 4)), some(30)) for a, b in pairs if rng.random() < 0.8] or [("p", "x", 1.0, None)],
        {name: float(rng.integers(1, 30)) for name in sites},
        shortage=10.0,
    )
    lanes = problem.lanes.sort("from_id", "to_id")
    near = lanes.filter(pl.col("to_id").is_in(sites))
    near = near.with_columns(pl.Series("km", rng.uniform(1, 9, near.height)))
    naive = price(problem, lanes, *nearest(problem, near))
    found = solve(problem, single_source=False)
    assert found.bound <= naive + 1e-4 * (1 + naive)
