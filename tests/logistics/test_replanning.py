"""A day that is being driven, planned anew: what drives stays, what changes is told, and nothing is written unless asked."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from npq_assets.contracts import DECISIONS
from npq_assets.errors import NpqError
from npq_assets.logistics.checks import judge_plan
from npq_assets.logistics.marts import opening
from npq_assets.logistics.output import load_plan
from npq_assets.logistics.replanning import Happened, Prices, inputs_of_plan, replan_day, write
from npq_assets.logistics.showing import write_dispatch
from npq_assets.publishing import read_decisions
from npq_assets.storage import write_parquet
from tests.conftest import Company


def files(root: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(root)): p.read_bytes()
        for folder in ("decisions", "plans")
        for p in (root / folder).rglob("*.*")
    }


def minute(company: Company, moment: object) -> float:
    return (moment - opening(company.as_of)).total_seconds() / 60.0  # type: ignore[operator]


def with_one_more_order(company: Company) -> str:
    """An order beside one that stands, known at one in the morning."""
    place = company.home.mart("logistics", "deliveries")
    rows = pl.read_parquet(place)
    served = read_decisions(company.home, DECISIONS["logistics.routes"], company.as_of)["delivery_id"].to_list()
    like = rows.filter(pl.col("delivery_id").is_in(served)).sort("due_at", "delivery_id").tail(1)
    name = "H-late-order"
    late = like.with_columns(
        pl.lit(name).alias("delivery_id"),
        pl.lit(900.0).alias("drop_cost"),
        pl.lit(opening(company.as_of) + timedelta(hours=1)).cast(rows.schema["ordered_at"]).alias("ordered_at"),
    )
    write_parquet(pl.concat([rows, late.select(rows.columns)]), place)
    return name


def test_an_order_comes_in_and_few_are_told_anew(copied: Callable[[], Company]) -> None:
    company = copied()
    before = read_decisions(company.home, DECISIONS["logistics.routes"], company.as_of)
    nothing = replan_day(company.home, company.as_of, Happened(), Prices(vehicle=50.0, time=50.0))
    assert nothing.changes.is_empty()
    assert set(nothing.plan.routes["decision_id"]) == set(before["decision_id"])
    name = with_one_more_order(company)
    left = files(company.home.root)
    answer = replan_day(company.home, company.as_of, Happened(now=120.0), Prices(vehicle=50.0, time=50.0))
    assert files(company.home.root) == left
    what = dict(answer.changes.select("delivery_id", "change").iter_rows())
    assert what.pop(name) == "new" and len(what) <= 2
    assert name in answer.as_text()
    # What has not changed keeps its row, the others keep vehicle and, nearly, time.
    after = answer.plan.routes
    assert {*after["delivery_id"], *what} == {*before["delivery_id"], *what, name}
    both = before.join(after, on="delivery_id", suffix="_now")
    assert both.filter(
        (pl.col("vehicle_id") != pl.col("vehicle_id_now")) & ~pl.col("delivery_id").is_in(list(what))
    ).is_empty()
    touched = {*answer.changes["vehicle_id"], *answer.changes["vehicle_before"]}
    assert set(before.filter(~pl.col("vehicle_id").is_in(list(touched - {None})))["decision_id"]) <= set(
        after["decision_id"]
    )
    written = write(company.home, company.as_of, answer, dispatch=True)
    assert all(place.exists() for place in written)
    assert name in written[0].read_text(encoding="utf-8")
    now = read_decisions(company.home, DECISIONS["logistics.routes"], company.as_of)
    assert sorted(now["delivery_id"]) == sorted(after["delivery_id"])
    found = load_plan(company.home, company.as_of)
    assert found is not None and found[1]["inputs"] == answer.inputs_hash
    # A later run of the day judges, and lists for drivers, what was known when the day was planned anew.
    inputs = inputs_of_plan(company.home, company.as_of, *found)
    assert name in inputs.deliveries["delivery_id"].to_list()
    assert all(v.passed for v in judge_plan(*found, inputs) if v.blocking)
    page = write_dispatch(company.home, company.as_of, now, inputs.deliveries, found[0]["alerts"])
    lists = [pl.read_csv(file) for file in page.parent.glob("*.csv")]
    assert not any(frame.select("window", "unload").null_count().sum_horizontal().item() for frame in lists)
    ledger = read_decisions(company.home, DECISIONS["all.ledger"], company.as_of).filter(
        (pl.col("domain") == "logistics") & (pl.col("kind") != "sourcing")
    )
    assert ledger["expected_cost"].sum() == pytest.approx(found[1]["expected_cost"])
    assert set(now["decision_id"]) <= set(ledger["decision_id"])


def test_a_vehicle_breaks_down_and_what_it_has_delivered_stays_delivered(copied: Callable[[], Company]) -> None:
    company = copied()
    before = read_decisions(company.home, DECISIONS["logistics.routes"], company.as_of).sort("vehicle_id", "stop")
    tours = before.group_by("vehicle_id").agg(pl.len(), pl.col("departs_at").first()).sort("len", "vehicle_id")
    lost = tours["vehicle_id"][-1]
    own = before.filter(pl.col("vehicle_id") == lost)
    now = minute(company, own["leaves_at"][0]) + 1.0
    answer = replan_day(company.home, company.as_of, Happened(now=now, vehicles_down=(lost,)))
    after = answer.plan.routes
    kept = after.filter(pl.col("vehicle_id") == lost)["delivery_id"].to_list()
    assert kept == own["delivery_id"].to_list()[:1]
    on_the_road = {
        name
        for name, at in tours.select("vehicle_id", "departs_at").iter_rows()
        if minute(company, at) <= now and name != lost
    }
    assert on_the_road <= set(answer.locked)
    same = before.filter(pl.col("vehicle_id").is_in(list(on_the_road)))
    assert set(same["decision_id"]) <= set(after["decision_id"])
    named = {*after["delivery_id"], *answer.plan.dropped["delivery_id"]}
    assert named == {*before["delivery_id"], *answer.plan.dropped["delivery_id"]}
    assert set(own["delivery_id"][1:]) <= set(answer.changes["delivery_id"])
    moved = after.filter(pl.col("delivery_id").is_in(own["delivery_id"][1:].implode()))
    assert (moved["departs_at"] >= opening(company.as_of) + timedelta(minutes=now - 0.1)).all()


def test_a_closed_road_and_words_that_help(copied: Callable[[], Company]) -> None:
    company = copied()
    roads = pl.read_parquet(company.home.mart("logistics", "road_segments")).sort("from_node", "to_node")
    pairs = roads.select("from_node", "to_node").head(3).rows()
    answer = replan_day(company.home, company.as_of, Happened(closed=tuple(pairs)))
    assert "3 closed" in answer.inputs.ways
    with pytest.raises(NpqError, match="no such segment"):
        replan_day(company.home, company.as_of, Happened(closed=(("nowhere", "N00001"),)))
    with pytest.raises(NpqError, match="not in logistics.vehicles"):
        replan_day(company.home, company.as_of, Happened(vehicles_down=("V999",)))
    with pytest.raises(NpqError, match="npq run"):
        replan_day(company.home, company.as_of + timedelta(days=9), Happened())


def test_roads_that_are_slow_for_an_hour_are_so_for_that_hour(copied: Callable[[], Company]) -> None:
    company = copied()
    opened = opening(company.as_of)
    place = company.home.mart("logistics", "road_closures")
    segments = pl.read_parquet(company.home.mart("logistics", "road_segments")).select("from_node", "to_node")

    def closed(begins: float, ends: float) -> None:
        slow = segments.with_columns(
            pl.lit(opened + timedelta(hours=begins)).alias("closed_from"),
            pl.lit(opened + timedelta(hours=ends)).alias("closed_until"),
            pl.lit(2.0).alias("factor"),
            pl.lit(None, pl.Datetime("us", "UTC")).alias("known_at"),
        )
        write_parquet(slow, place)

    costs = []
    for begins, ends in ((0.0, 24.0), (9.0, 10.0)):
        closed(begins, ends)
        answer = replan_day(company.home, company.as_of, Happened(now=300.0))
        assert (answer.inputs.hours is None) == (ends - begins > 12)
        frames = {
            name: getattr(answer.plan, name) for name in ("routes", "dropped", "risks", "alerts", "sourcing", "tours")
        }
        assert all(v.passed for v in judge_plan(frames, answer.plan.facts, answer.inputs) if v.blocking)
        assert answer.plan.facts["lower_bound"] <= answer.cost
        costs.append(answer.cost)
    assert costs[1] < costs[0]
