"""What sourcing did cost: a small network by hand, rows that add up, and only once the whole week has landed."""

from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npq_assets.contracts import DECISIONS
from npq_assets.evaluation.ledger import ledger_rows
from npq_assets.logistics.marts import opening
from npq_assets.logistics.output import FRAMES, load_terms, plan_folder
from npq_assets.logistics.sourcing_outcome import landed, realized, settle_sourcing
from npq_assets.optimization import network_flow
from npq_assets.publishing import read_decisions, write_decisions
from npq_assets.settings import Home
from npq_assets.storage import write_json, write_parquet

DAY = date(2025, 7, 1)
LEDGER = DECISIONS["all.ledger"]
NUMBER = {"capacity": pl.Float64, "overflow_cost": pl.Float64, "stock": pl.Float64, "km": pl.Float64}


def terms() -> dict[str, pl.DataFrame]:
    """A plant feeds two warehouses that have nothing of their own; A is near to both shops, B far from them.

    Handling costs 0.1 at A, 0.2 at B, of the plant 0; A hands out 50 in a week and 1.0 a unit more beyond.
    """
    return {
        "sources": pl.DataFrame(
            {"source_id": ["A", "B", "P"], "stock": [0.0, 0.0, None], "capacity": [50.0, None, None],
             "handling_cost": [0.1, 0.2, 0.0], "overflow_cost": [1.0, None, None]},
            schema_overrides=NUMBER,
        ),
        "lanes": pl.DataFrame(
            {"from_id": ["A", "A", "B", "B", "P", "P"], "to_id": ["x", "y", "x", "y", "A", "B"],
             "cost_per_unit": [1.0, 2.0, 1.5, 2.5, 0.5, 0.4], "capacity": [None] * 6, "km": [1.0, 2.0, 3.0, 4.0, None, None]},
            schema_overrides=NUMBER,
        ),
        "demand": pl.DataFrame({"site_id": ["x", "y"], "quantity": [40.0, 30.0], "shortage_cost": [50.0, 50.0]}),
    }  # fmt: skip


def rows() -> pl.DataFrame:
    return pl.DataFrame(
        {"decision_id": ["Ax", "By"], "site_id": ["x", "y"], "source_id": ["A", "B"], "quantity": [40.0, 30.0]}
    )


def week(*moves: tuple[str, str, float, float]) -> pl.DataFrame:
    names = {"site_id": pl.String, "source_id": pl.String, "needed": pl.Float64, "moved": pl.Float64}
    return pl.DataFrame(list(moves), schema=names, orient="row")


def test_real_flows_are_priced_by_hand() -> None:
    found = realized(rows(), terms(), week(("x", "A", 40.0, 40.0), ("y", "B", 20.0, 18.0), ("y", "A", 4.0, 4.0)))
    # Lanes 40 + 45 + 8, handling 0.1 * 44 + 0.2 * 18, from the plant 0.5 * 44 + 0.4 * 18; 2 lacked at 50.
    carried = 93 + 4.4 + 3.6 + 22 + 7.2
    cost = dict(found.select("decision_id", "realized_cost").iter_rows())
    # y got 4 from A, which its plan has no row for: its own row carries them.
    assert cost == pytest.approx({"Ax": carried * 40 / 62, "By": carried * 22 / 62 + 100})
    # The naive rule: all from A, 64 in all, 14 beyond its capacity.
    assert found["naive_realized_cost"].sum() == pytest.approx(40 + 48 + 6.4 + 32 + 14)
    # Best: 50 from A, the rest from B at 0.5 - 0.1 + 0.1 more a unit than from A, and nothing lacks.
    assert found["hindsight_cost"].sum() == pytest.approx(40 + 48 + 6.4 + 32 + 14 * 0.5, rel=1e-6)
    shares = found["hindsight_cost"] / found["realized_cost"]
    assert shares[0] == pytest.approx(shares[1])


def test_what_was_as_expected_costs_what_was_expected() -> None:
    t = terms()
    problem = network_flow.FlowProblem(t["sources"], t["lanes"], t["demand"])
    result = network_flow.solve(problem)
    last = result.flows.filter(pl.col("to_id").is_in(["x", "y"]))
    plan = last.select(
        pl.concat_str("from_id", "to_id").alias("decision_id"), pl.col("to_id").alias("site_id"),
        pl.col("from_id").alias("source_id"), "quantity",
    )  # fmt: skip
    moved = plan.select("site_id", "source_id", pl.col("quantity").alias("needed"), pl.col("quantity").alias("moved"))
    found = realized(plan, t, moved)
    assert found["realized_cost"].sum() == pytest.approx(result.objective, rel=1e-6)
    assert (found["hindsight_cost"] <= found["realized_cost"] + 1e-9).all()
    assert found["hindsight_cost"].sum() <= found["naive_realized_cost"].sum() + 1e-6


_UNITS = st.integers(0, 60).map(float)


@settings(deadline=None, max_examples=25)
@given(moved=st.tuples(_UNITS, _UNITS, _UNITS, _UNITS), more=st.tuples(_UNITS, _UNITS), stock=st.none() | _UNITS)
def test_rows_add_up_and_nothing_beats_hindsight(
    moved: tuple[float, ...], more: tuple[float, ...], stock: float | None
) -> None:
    t = terms()
    t["sources"] = t["sources"].with_columns(pl.Series("stock", [0.0, 5.0, stock], dtype=pl.Float64))
    ax, ay, bx, by = moved
    real = week(("x", "A", ax + more[0], ax), ("y", "A", ay, ay), ("x", "B", bx, bx), ("y", "B", by + more[1], by))
    found = realized(rows(), t, real)
    flow = np.array([ax, ay, bx, by, 0.0, 0.0])
    need = pl.DataFrame(
        {"site_id": ["x", "y"], "quantity": [ax + bx + more[0], ay + by + more[1]], "shortage_cost": [50.0] * 2}
    )
    problem = network_flow.FlowProblem(t["sources"], t["lanes"], need)
    shown, flows = network_flow.completed(problem, flow)
    total = network_flow.price(problem, t["lanes"], flows, np.array(more))
    assert found["realized_cost"].sum() == pytest.approx(total)
    assert found["hindsight_cost"].sum() <= found["realized_cost"].sum() + 1e-6 * (1 + total)
    assert found["hindsight_cost"].sum() <= found["naive_realized_cost"].sum() + 1e-4 * (1 + total)
    out = flows[:4].reshape(2, 2).sum(axis=1)
    room = shown.sources["stock"].to_list()
    assert out[0] <= room[0] + flows[4] + 1e-6 and out[1] <= room[1] + flows[5] + 1e-6


def test_limits_give_way_to_what_was_possible() -> None:
    t = terms()
    t["sources"] = t["sources"].with_columns(pl.Series("stock", [0.0, 0.0, 10.0]))
    problem = network_flow.FlowProblem(t["sources"], t["lanes"], t["demand"])
    shown, flows = network_flow.completed(problem, np.array([40.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
    out = flows[4] + flows[5]
    stock = shown.sources["stock"].to_list()
    # 40 left A, of which the plant could have sent 10: limits are raised by 30 in all, wherever.
    assert stock[0] + stock[1] + stock[2] == pytest.approx(40.0) and out <= stock[2] + 1e-6
    found = realized(rows(), t, week(("x", "A", 40.0, 40.0), ("y", "B", 0.0, 0.0)))
    assert (found["hindsight_cost"] <= found["realized_cost"] + 1e-6).all()
    assert found["naive_realized_cost"].sum() == pytest.approx(found["realized_cost"].sum())


def test_goods_by_an_unknown_way_leave_their_site_open() -> None:
    found = realized(rows(), terms(), week(("x", "A", 40.0, 40.0), ("y", "elsewhere", 5.0, 5.0)))
    assert found["decision_id"].to_list() == ["Ax"]
    assert found["realized_cost"].sum() == pytest.approx(40 * (1.0 + 0.1 + 0.5))


def at(days: int, hour: float = 9.0) -> datetime:
    return opening(DAY) + timedelta(days=days, hours=hour)


def driven(last: int = 7) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Each day from the first to the last, A brings 4 of 5 to x; B takes 3 to y on the second day alone, and z is no site's."""
    deliveries = [(f"x{k}", "A", "x", 5.0, at(k)) for k in range(last + 1)] + [
        ("y2", "B", "y", 3.0, at(2)),
        ("z", "A", None, 9.0, at(3)),
    ]
    legs = [(f"x{k}", "A", 5.0, 4.0, at(k, 10.0)) for k in range(last + 1)] + [("y2", "B", 3.0, 3.0, at(2, 11.0))]
    stamp = pl.Datetime("us", "UTC")
    return (
        pl.DataFrame(deliveries, orient="row", schema={"delivery_id": pl.String, "depot_id": pl.String, "site_id": pl.String,
                                                       "quantity": pl.Float64, "ready_at": stamp}),
        pl.DataFrame(legs, orient="row", schema={"delivery_id": pl.String, "depot_id": pl.String, "quantity": pl.Float64,
                                                 "delivered_quantity": pl.Float64, "arrived_at": stamp}),
    )  # fmt: skip


def test_the_week_is_the_seven_days_after_the_decision() -> None:
    deliveries, legs = driven(9)
    found = landed(deliveries, legs, DAY)
    assert found is not None
    assert found.rows() == [("x", "A", 35.0, 28.0), ("y", "B", 3.0, 3.0)]


def test_a_week_that_has_not_landed_says_nothing() -> None:
    deliveries, legs = driven()
    assert landed(deliveries, legs, DAY) is not None
    # The last day's deliveries, a day's trips, or a depot's are missing.
    assert landed(deliveries.filter(pl.col("delivery_id") != "x7"), legs, DAY) is None
    assert landed(deliveries, legs.filter(pl.col("delivery_id") != "x5"), DAY) is None
    assert landed(deliveries, legs.filter(pl.col("delivery_id") != "y2"), DAY) is None


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.at(tmp_path)
    folder = plan_folder(home, DAY)
    for name in FRAMES:
        write_parquet(rows() if name == "sourcing" else pl.DataFrame({"a": [1]}), folder / f"{name}.parquet")
    write_json({"inputs": "i"}, folder / "plan.json")
    for name, frame in terms().items():
        write_parquet(frame, folder / f"terms_{name}.parquet")
    opened = rows().with_columns(
        pl.lit(DAY).alias("as_of"), pl.lit(9.0).alias("expected_cost"), pl.lit(9.0).alias("naive_expected_cost"),
        pl.lit(8.0).alias("lower_bound"), pl.lit("x").alias("input_snapshot"),
    )  # fmt: skip
    facts = {"solver": "a", "status": "b", "model_version": "none"}
    write_decisions(home, LEDGER, DAY, ledger_rows("logistics", "sourcing", opened, facts))
    deliveries, legs = driven()
    write_parquet(deliveries, home.mart("logistics", "deliveries"))
    write_parquet(legs, home.mart("logistics", "legs"))
    return home


def test_a_week_settles_after_it_is_over_and_its_trips_had_time_to_land(home: Home) -> None:
    assert settle_sourcing(home, DAY + timedelta(days=9)) == {}
    assert settle_sourcing(home, DAY + timedelta(days=10)) == {DAY: 2}
    ledger = read_decisions(home, LEDGER, DAY)
    assert ledger["basis"].to_list() == ["observed", "observed"]
    # 28 by A, 3 by B, 7 lacked at x.
    assert ledger["realized_cost"].sum() == pytest.approx(28 * 1.6 + 3 * (2.5 + 0.2 + 0.4) + 7 * 50)
    assert ledger["naive_realized_cost"].null_count() == 0 and ledger["hindsight_cost"].null_count() == 0
    assert settle_sourcing(home, DAY + timedelta(days=11)) == {}


def test_a_plan_stored_without_its_terms_stays_open(home: Home) -> None:
    (plan_folder(home, DAY) / "terms_lanes.parquet").unlink()
    assert load_terms(home, DAY) is None
    assert settle_sourcing(home, DAY + timedelta(days=10)) == {}
