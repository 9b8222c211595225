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
from npq_assets.logistics.output import load_plan, plan_folder
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


def test_what_an_earlier_replanning_was_told_holds_until_told_otherwise(copied: Callable[[], Company]) -> None:
    company = copied()
    routes = read_decisions(company.home, DECISIONS["logistics.routes"], company.as_of)
    lost = routes["vehicle_id"].value_counts().sort("count", "vehicle_id")["vehicle_id"][-1]
    fleet = pl.read_parquet(company.home.mart("logistics", "vehicles"))
    capacity = dict(fleet.select("vehicle_id", "capacity").iter_rows())
    home = dict(fleet.select("vehicle_id", "depot_id").iter_rows())
    # With its likes down too the others are dearer, so that the lost one would be taken again at once.
    down = tuple(v for v in home if home[v] == home[lost] and capacity[v] == capacity[lost])
    first = replan_day(company.home, company.as_of, Happened(now=60.0, vehicles_down=down))
    write(company.home, company.as_of, first)
    with_one_more_order(company)
    again = replan_day(company.home, company.as_of, Happened(now=150.0))
    assert not set(down) & set(again.plan.routes["vehicle_id"])
    assert f"down, also for later re-plannings of the day: {', '.join(down)}" in again.as_text()
    back = replan_day(company.home, company.as_of, Happened(now=150.0, vehicles_back=down))
    assert set(down) & set(back.plan.routes["vehicle_id"])
    # What came in since is not forgotten by an answer to an earlier question.
    with pytest.raises(NpqError, match="made at 01:00, after --now 00:00"):
        replan_day(company.home, company.as_of, Happened())


def test_late_in_the_day_vehicles_whose_shift_is_over_stay_at_home(copied: Callable[[], Company]) -> None:
    company = copied()
    name = with_one_more_order(company)
    for now in (900.0, 1440.0):
        answer = replan_day(company.home, company.as_of, Happened(now=now))
        dropped = dict(answer.plan.dropped.select("delivery_id", "reason").iter_rows())
        assert name in answer.plan.routes["delivery_id"].to_list() or name in dropped
    assert "no vehicle at its depot" in dropped[name]


def test_a_place_that_is_cut_off_is_dropped_beside_a_dispatcher_who_can_be_priced(
    copied: Callable[[], Company],
) -> None:
    company = copied()
    served = read_decisions(company.home, DECISIONS["logistics.routes"], company.as_of)["delivery_id"].to_list()
    deliveries = pl.read_parquet(company.home.mart("logistics", "deliveries"))
    node = (
        deliveries.filter(pl.col("delivery_id").is_in(served)).drop_nulls("node_id").sort("delivery_id")["node_id"][0]
    )
    segments = pl.read_parquet(company.home.mart("logistics", "road_segments"))
    touching = segments.filter((pl.col("from_node") == node) | (pl.col("to_node") == node)).sort("from_node", "to_node")
    closed = tuple(touching.select("from_node", "to_node").rows())
    answer = replan_day(company.home, company.as_of, Happened(closed=closed))
    assert answer.cost_by_hand < 1e6 and answer.cost <= answer.cost_by_hand
    write(company.home, company.as_of, answer)
    assert "no road leads there and back" in " ".join(answer.plan.dropped["reason"])


def slow_roads(company: Company, factor: float, known: float) -> None:
    """All roads slow all day, which is known at a minute of it."""
    opened = opening(company.as_of)
    segments = pl.read_parquet(company.home.mart("logistics", "road_segments")).select("from_node", "to_node")
    stamps = {"closed_from": 0.0, "closed_until": 1440.0, "known_at": known}
    slow = segments.with_columns(
        *(pl.lit(opened + timedelta(minutes=at)).cast(pl.Datetime("us", "UTC")).alias(n) for n, at in stamps.items()),
        pl.lit(factor).alias("factor"),
    )
    write_parquet(slow, company.home.mart("logistics", "road_closures"))


def test_who_has_to_leave_earlier_is_told_so(copied: Callable[[], Company]) -> None:
    company = copied()
    before = read_decisions(company.home, DECISIONS["logistics.routes"], company.as_of)
    slow_roads(company, 1.05, 30.0)
    answer = replan_day(company.home, company.as_of, Happened(now=60.0), Prices(vehicle=50.0, time=50.0))
    leaves = answer.plan.routes.group_by("vehicle_id").agg(pl.col("departs_at").unique())
    tours = dict(answer.plan.tours.select("vehicle_id", "departs").iter_rows())
    earlier = 0
    for vehicle, at in leaves.iter_rows():
        assert [minute(company, moment) for moment in at] == pytest.approx([tours[vehicle]], abs=0.1)
        old = before.filter(pl.col("vehicle_id") == vehicle)["departs_at"]
        earlier += bool(len(old)) and at[0] < old[0]
    assert earlier


def test_a_vehicle_that_will_be_late_home_keeps_nobody_from_planning_anew(copied: Callable[[], Company]) -> None:
    company = copied()
    routes = read_decisions(company.home, DECISIONS["logistics.routes"], company.as_of)
    now = minute(company, routes["departs_at"].max()) + 5.0
    slow_roads(company, 6.0, now - 1.0)
    answer = replan_day(company.home, company.as_of, Happened(now=now))
    assert answer.plan.tours["returns"].max() > 1440.0  # type: ignore[operator]
    write(company.home, company.as_of, answer)
    found = load_plan(company.home, company.as_of)
    assert found is not None
    verdicts = judge_plan(*found, inputs_of_plan(company.home, company.as_of, *found))
    assert all(v.passed for v in verdicts if v.blocking)


def test_who_has_left_by_his_trips_is_on_the_road(copied: Callable[[], Company]) -> None:
    company = copied()
    routes = read_decisions(company.home, DECISIONS["logistics.routes"], company.as_of)
    stop = routes.sort("departs_at", "stop").row(-1, named=True)
    now = minute(company, stop["departs_at"]) - 60.0
    place = company.home.mart("logistics", "legs")
    legs = pl.read_parquet(place)
    came = {"delivery_id": stop["delivery_id"], "vehicle_id": stop["vehicle_id"],
            "departed_at": stop["departs_at"] - timedelta(minutes=90),
            "arrived_at": stop["departs_at"] - timedelta(minutes=65)}  # fmt: skip
    row = pl.DataFrame([came]).cast({name: legs.schema[name] for name in came})  # type: ignore[arg-type]
    write_parquet(pl.concat([legs, row], how="diagonal"), place)
    assert stop["vehicle_id"] in replan_day(company.home, company.as_of, Happened(now=now)).locked


def test_a_time_agreed_on_holds_when_the_delivery_changes_its_vehicle(copied: Callable[[], Company]) -> None:
    company = copied()
    stands = load_plan(company.home, company.as_of)
    assert stands is not None
    stop = stands[0]["routes"].sort("departs_at", "stop").row(-1, named=True)
    until = stop["arrives_at"] + timedelta(hours=2)
    warning = {"alert_id": f"x-late_delivery-{stop['delivery_id']}", "kind": "late_delivery", "subject": stop["delivery_id"],
               "money_at_risk": 9.0, "action": "agree", "act_before": stop["departs_at"], "agreed_until": until,
               "action_cost": 3.0, "expected_saving": 6.0, "decision_id": "w", "as_of": company.as_of,
               "input_snapshot": "s"}  # fmt: skip
    alerts = pl.DataFrame([warning], schema=stands[0]["alerts"].schema)
    write_parquet(alerts, plan_folder(company.home, company.as_of) / "alerts.parquet")
    answer = replan_day(company.home, company.as_of, Happened(now=30.0, vehicles_down=(stop["vehicle_id"],)))
    kept = answer.plan.alerts.filter(pl.col("subject") == stop["delivery_id"]).drop_nulls("agreed_until")
    assert stop["delivery_id"] in answer.changes["delivery_id"].to_list()
    # It was paid for; what it spares is in the price of the new route, which counts on it.
    assert kept.select("agreed_until", "action_cost", "expected_saving").rows() == [(until, 3.0, -3.0)]
    assert answer.plan.alerts["alert_id"].is_unique().all()
