"""A day planned from a few hand-made rows: costs that add up, warnings that pay, traffic that is drawn as it is believed."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from npq_assets.errors import Unavailable
from npq_assets.logistics.checks import judge_plan
from npq_assets.logistics.inputs import _LEGS, LogisticsInputs, _day, _driving_hours, _legs, _rain, known_closures
from npq_assets.logistics.marts import opening
from npq_assets.logistics.outcome import tracking, tracking_of
from npq_assets.logistics.output import FRAMES, load_plan, plan_folder
from npq_assets.logistics.plan import RoutePlan, alerts_of, expected, expected_bound, looked_at_as, plan_day
from npq_assets.logistics.showing import route_map, write_dispatch
from npq_assets.logistics.traffic import LEVELS, Traffic
from npq_assets.logistics.ways import Ways, by_time
from npq_assets.optimization.paths import Conditions, Detour
from npq_assets.optimization.road_hours import RoadHours
from npq_assets.optimization.route_construction import savings_routes
from npq_assets.optimization.route_problem import stretched, with_minutes
from npq_assets.optimization.route_timing import routes_of
from npq_assets.settings import Home
from npq_assets.storage import write_json, write_parquet
from tests.conftest import Company

DAY = date(2025, 7, 1)
ASSUMED = Traffic(None, 0.3, DAY, 0)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> LogisticsInputs:
    """One depot, eight drops on a ring, two small vans; no road leads to the last drop."""
    angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    where = np.concatenate([[[0.0, 0.0]], 20 * np.stack([np.cos(angle), np.sin(angle)], 1)])
    km = np.hypot(*(where[:, None] - where[None]).transpose(2, 0, 1))
    km[8, :8] = km[:8, 8] = np.inf
    n = 8
    deliveries = pl.DataFrame(
        {
            "delivery_id": [f"d{k}" for k in range(n)], "depot_id": ["W"] * n, "site_id": [None] * n,
            "place": list(range(1, n + 1)), "depot": [0] * n, "quantity": [2.5] * n,
            "ready": [480.0] * n, "due": [540.0, 560.0, 600.0, 600.0, 600.0, 600.0, 545.0, 600.0], "service": [6.0] * n,
            "late_cost": [1.0] * n, "drop_cost": [90.0] * n, "rebook_cost": [0.1] * n, "region": ["r"] * n,
        },
        schema_overrides={"site_id": pl.String},
    )  # fmt: skip
    vehicles = pl.DataFrame(
        {
            "vehicle_id": ["V1", "V2"], "depot_id": ["W", "W"], "depot": [0, 0], "capacity": [10.0, 10.0],
            "fixed_cost": [30.0, 30.0], "cost_per_km": [0.4, 0.4], "cost_per_minute": [0.35, 0.35],
            "shift_start": [360.0, 360.0], "shift_end": [1000.0, 1000.0], "max_km": [None, None],
        },
        schema_overrides={"max_km": pl.Float64},
    )  # fmt: skip
    places = pl.DataFrame({"place": list(range(n + 1)), "name": ["W", *deliveries["delivery_id"]],
                           "latitude": 52 + where[:, 1] / 111, "longitude": 13 + where[:, 0] / 68})  # fmt: skip
    home = Home.at(tmp_path_factory.mktemp("plan"))
    return LogisticsInputs(
        DAY, home.settings, deliveries, vehicles, places, km, km / 0.8, pl.DataFrame(schema=_LEGS),
        pl.DataFrame(schema={"region": pl.String, "hour": pl.Int64, "rain": pl.Float64}),
        pl.DataFrame(schema={"source_id": pl.String}), pl.DataFrame(schema={"from_id": pl.String, "to_id": pl.String}),
        pl.DataFrame(schema={"site_id": pl.String}), "by hand",
    )  # fmt: skip


@pytest.fixture(scope="module")
def plan(inputs: LogisticsInputs) -> RoutePlan:
    return plan_day(inputs, ASSUMED)


def frames(plan: RoutePlan) -> dict[str, pl.DataFrame]:
    return {name: getattr(plan, name) for name in ("routes", "dropped", "risks", "alerts", "sourcing", "tours")}


def test_the_plan_passes_its_checks_and_its_costs_add_up(inputs: LogisticsInputs, plan: RoutePlan) -> None:
    verdicts = {v.name: v for v in judge_plan(frames(plan), plan.facts, inputs)}
    assert all(v.passed for v in verdicts.values() if v.blocking), verdicts
    assert verdicts["beats_naive"].passed
    rows = pl.concat(
        [
            f.select("delivery_id", "expected_cost", "naive_expected_cost", "lower_bound")
            for f in (plan.routes, plan.dropped)
        ]
    )
    assert sorted(rows["delivery_id"]) == sorted(inputs.deliveries["delivery_id"])
    spared = float(plan.alerts["expected_saving"].sum())
    assert rows["expected_cost"].sum() - spared == pytest.approx(plan.facts["expected_cost"])
    assert rows["naive_expected_cost"].sum() == pytest.approx(plan.facts["naive_cost"])
    assert rows["lower_bound"].sum() <= rows["expected_cost"].sum() + 1e-6


def test_the_bound_is_below_every_plan_before_it_is_cut_to_the_cost(
    inputs: LogisticsInputs, plan: RoutePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is that of expected costs, which 200 scenarios meet to some percent only: their luck of the day is shared.
    monkeypatch.setattr("npq_assets.logistics.plan.SCENARIOS", 40_000)
    problem = with_minutes(inputs.problem(), inputs.minutes)
    stop_of = {name: s for s, name in enumerate(inputs.deliveries["delivery_id"])}
    vehicle_of = {name: v for v, name in enumerate(inputs.vehicles["vehicle_id"])}
    routes: dict[int, list[int]] = {}
    for vehicle, delivery in plan.routes.sort("vehicle_id", "stop").select("vehicle_id", "delivery_id").iter_rows():
        routes.setdefault(vehicle_of[vehicle], []).append(stop_of[delivery])
    cost = expected(inputs, ASSUMED, with_minutes(problem, inputs.minutes * plan.facts["factor"]), routes).total
    bound = expected_bound(inputs, ASSUMED, problem, routes)
    assert 0.9 * cost <= bound <= cost
    for factor in (1.0, 1.2, 1.5):
        slowed = with_minutes(problem, inputs.minutes * factor)
        assert bound <= expected(inputs, ASSUMED, slowed, savings_routes(slowed)).total + 1e-6
        assert bound <= expected(inputs, ASSUMED, slowed, {}).total + 1e-6


def test_a_drop_without_a_road_is_dropped_and_said(plan: RoutePlan) -> None:
    assert plan.dropped["delivery_id"].to_list() == ["d7"]
    assert "no road leads there and back" in plan.dropped["reason"][0]
    assert plan.alerts.filter(pl.col("subject") == "d7")["kind"].to_list() == ["dropped_delivery"]


def test_what_is_left_out_is_told_as_a_warning(inputs: LogisticsInputs) -> None:
    said = ("delivery d9: no place; not planned", "depot X has no coordinates in common.sites; land its place",
            "road closure A,B: no such segment", "logistics.depot_terms: no rows")  # fmt: skip
    alerts = plan_day(replace(inputs, skipped=said), ASSUMED).alerts
    told = alerts.filter(pl.col("kind").is_in(["not_planned", "not_closed"])).sort("subject")
    assert told["subject"].to_list() == ["A,B", "X", "d9"]
    assert set(told["action"]) == set(said[:3])


def test_a_spread_that_is_assumed_is_said(plan: RoutePlan) -> None:
    assert [line for line in plan.facts["skipped"] if "too few to learn traffic from" in line] == plan.facts["skipped"]
    assert len(plan.facts["skipped"]) == 1


def test_the_quantile_that_pays_is_planned_with(plan: RoutePlan) -> None:
    table = plan.quantiles
    assert plan.facts["quantile"] == table.sort("expected_cost", "quantile")["quantile"][0]
    assert (table["factor"].diff().drop_nulls() > 0).all()


def test_risks_are_ordered_and_warnings_ranked_by_money_pay(inputs: LogisticsInputs, plan: RoutePlan) -> None:
    risks = plan.risks
    assert ((risks["eta_q10"] <= risks["eta_q50"]) & (risks["eta_q50"] <= risks["eta_q90"])).all()
    assert risks["late_probability"].is_between(0, 1).all() and (risks["expected_late_cost"] >= 0).all()
    assert (plan.alerts["money_at_risk"].diff().drop_nulls() <= 1e-9).all()
    agreed = plan.alerts.drop_nulls("agreed_until")
    assert (agreed["expected_saving"] > 0).all()
    departs = plan.routes.select(pl.col("delivery_id").alias("subject"), "departs_at")
    early = agreed.join(departs, on="subject")
    assert (early["act_before"] <= early["departs_at"]).all()


def test_the_same_day_gives_the_same_plan(inputs: LogisticsInputs, plan: RoutePlan) -> None:
    again = plan_day(inputs, ASSUMED)
    assert again.facts == plan.facts
    for name, frame in frames(plan).items():
        assert frame.equals(getattr(again, name)), name


def test_traffic_is_drawn_from_the_quantiles_that_it_states() -> None:
    legs = pl.DataFrame({"depot_id": ["W"] * 3, "hour": [8.0, 9.0, 10.0]})
    drawn = ASSUMED.draw(legs, 20_000, seed=1)
    for level, stated in zip(LEVELS, ASSUMED.quantiles(legs)[0], strict=True):
        assert np.quantile(drawn, level) == pytest.approx(stated, rel=0.01)
    assert ASSUMED.mean(legs)[0] == pytest.approx(drawn.mean(), rel=0.01)
    score = np.log(drawn)
    assert 0.2 < np.corrcoef(score)[0, 1] < 0.4  # legs of a depot share 0.3 of their luck


def test_lists_for_drivers_and_a_map_without_any_service(
    inputs: LogisticsInputs, plan: RoutePlan, tmp_path: Path
) -> None:
    page = write_dispatch(Home.at(tmp_path), DAY, plan.routes, inputs.deliveries, plan.alerts)
    text = page.read_text(encoding="utf-8")
    for vehicle in plan.routes["vehicle_id"].unique():
        assert vehicle in text
        csv = pl.read_csv(page.parent / f"{vehicle}.csv")
        assert csv.height == plan.routes.filter(pl.col("vehicle_id") == vehicle).height
    svg = route_map(plan.routes.with_columns(pl.lit("W").alias("depot_id")), plan.dropped, inputs.places)
    assert svg.count("<polyline") == plan.routes["route_id"].n_unique() and "dropped" in svg
    assert "href" not in text + svg and "src=" not in text + svg


def test_a_list_stays_in_its_folder_whatever_the_vehicle_is_called(
    inputs: LogisticsInputs, plan: RoutePlan, tmp_path: Path
) -> None:
    names = dict(zip(plan.routes["vehicle_id"].unique().sort(), ("../../B-NP 1", "a/b", "a%2Fb"), strict=False))
    routes = plan.routes.with_columns(pl.col("vehicle_id").replace(names))
    page = write_dispatch(Home.at(tmp_path), DAY, routes, inputs.deliveries, plan.alerts)
    found = list(tmp_path.rglob("*.csv"))
    assert all(file.parent == page.parent for file in found)
    assert len(found) == routes["vehicle_id"].n_unique()


def test_tracking_tells_late_missing_and_as_planned(plan: RoutePlan) -> None:
    first, second = plan.routes["delivery_id"][0], plan.routes["delivery_id"][1]
    planned = dict(plan.routes.select("delivery_id", "arrives_at").iter_rows())
    legs = pl.DataFrame(
        {"delivery_id": [first, second], "vehicle_id": ["V1", "V1"],
         "arrived_at": [planned[first] + timedelta(minutes=20), planned[second] + timedelta(minutes=2)]}
    )  # fmt: skip
    seen = tracking(frames(plan), legs, opening(DAY + timedelta(days=1)))
    states = dict(seen.select("delivery_id", "state").iter_rows())
    assert (states[first], states[second]) == ("late", "as planned")
    assert set(states.values()) == {"late", "as planned", "missing"}
    # As the day opens nothing has arrived, and nothing is missing.
    assert set(tracking(frames(plan), legs, opening(DAY))["state"]) == {"to come"}
    half = min(planned.values()) + timedelta(minutes=30)
    states = dict(tracking(frames(plan), legs, half).select("delivery_id", "state").iter_rows())
    for name, moment in planned.items():
        if name not in (first, second):
            assert states[name] == ("missing" if moment + timedelta(minutes=5) < half else "to come")


def test_a_day_that_is_driven_is_tracked_by_its_last_arrival(copied: Callable[[], Company]) -> None:
    company = copied()
    found = load_plan(company.home, company.as_of)
    assert found is not None
    before = tracking_of(company.home, company.as_of)
    assert before is None or company.as_of not in before["day"].to_list()
    stop = found[0]["routes"].sort("arrives_at").row(0, named=True)
    place = company.home.mart("logistics", "legs")
    legs = pl.read_parquet(place)
    came = {"delivery_id": stop["delivery_id"], "vehicle_id": stop["vehicle_id"], "departed_at": stop["departs_at"],
            "arrived_at": stop["arrives_at"] + timedelta(minutes=12)}  # fmt: skip
    row = pl.DataFrame([came]).cast({name: legs.schema[name] for name in came})  # type: ignore[arg-type]
    write_parquet(pl.concat([legs, row], how="diagonal"), place)
    now = tracking_of(company.home, company.as_of)
    assert now is not None
    today = now.filter(pl.col("day") == company.as_of)
    assert dict(today.select("delivery_id", "state").iter_rows())[stop["delivery_id"]] == "late"
    assert set(today["state"]) <= {"late", "missing", "to come"} and today.height == found[0]["routes"].height


def test_a_plan_with_strange_deliveries_or_vehicles_does_not_pass(inputs: LogisticsInputs, plan: RoutePlan) -> None:
    def broken(**changed: pl.DataFrame) -> set[str]:
        return {v.name for v in judge_plan(frames(plan) | changed, plan.facts, inputs) if v.blocking and not v.passed}

    assert broken() == set()
    strange = plan.routes.head(1).with_columns(pl.lit("nobody's").alias("delivery_id"))
    assert broken(routes=pl.concat([plan.routes, strange])) == {"complete"}
    hired = {"vehicle_id": pl.lit("hired")}
    assert broken(routes=plan.routes.with_columns(**hired)) == {"capacity"}
    assert broken(tours=plan.tours.with_columns(**hired)) == {"shifts"}


def roads(home: Home, closures: list[dict[str, object]]) -> None:
    nodes = {"node_id": ["A", "B"], "latitude": [52.0, 52.1], "longitude": [13.0, 13.0]}
    write_parquet(pl.DataFrame(nodes), home.mart("logistics", "road_nodes"))
    segments = {"from_node": ["A", "B"], "to_node": ["B", "A"], "km": [11.0, 11.0], "minutes": [12.0, 12.0]}
    write_parquet(pl.DataFrame(segments), home.mart("logistics", "road_segments"))
    stamp = pl.Datetime("us", "UTC")
    schema: dict[str, Any] = {"from_node": pl.String, "to_node": pl.String, "closed_from": stamp, "closed_until": stamp,
                              "factor": pl.Float64, "known_at": stamp}  # fmt: skip
    write_parquet(pl.DataFrame(closures, schema=schema), home.mart("logistics", "road_closures"))


@pytest.mark.parametrize(
    ("begins", "ends", "known", "closed"),
    [
        (-48.0, None, None, True),
        (3.0, 4.0, None, False),  # over before the first vehicle leaves
        (5.0, 9.0, None, True),
        (21.0, 23.0, None, False),  # begins when all are home
        (5.0, 9.0, -2.0, True),
        (5.0, 9.0, 6.0, False),  # nobody knew when the day was planned
    ],
)
def test_a_closure_counts_in_driving_hours_and_once_it_is_known(
    tmp_path: Path, begins: float, ends: float | None, known: float | None, closed: bool
) -> None:
    def at(hour: float | None) -> datetime | None:
        return None if hour is None else opening(DAY) + timedelta(hours=hour)

    home = Home.at(tmp_path)
    row = {"from_node": "A", "to_node": "B", "closed_from": at(begins), "closed_until": at(ends), "known_at": at(known)}
    roads(home, [row])
    vehicles = pl.DataFrame({"vehicle_id": ["v"], "shift_start": ["06:00"], "shift_end": ["18:00"]})
    hours = _driving_hours(vehicles, opening(DAY))
    ways = Ways.read(home, hours, known_closures(home, opening(DAY)), pl.DataFrame(), pl.DataFrame())
    assert (("A", "B") in ways.conditions.closed) == closed
    # In the course of the day it is known.
    later = Ways.read(
        home, hours, known_closures(home, opening(DAY) + timedelta(hours=7)), pl.DataFrame(), pl.DataFrame()
    )
    assert (("A", "B") in later.conditions.closed) == (closed or known is not None)


def test_a_closure_of_no_road_is_named(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    shared = {"closed_from": opening(DAY), "closed_until": None, "factor": None, "known_at": None}
    roads(home, [{"from_node": "A", "to_node": "A", **shared}, {"from_node": "B", "to_node": "A", **shared}])
    hours = (opening(DAY), opening(DAY) + timedelta(days=1))
    ways = Ways.read(home, hours, known_closures(home, opening(DAY)), pl.DataFrame(), pl.DataFrame())
    assert ways.conditions.closed == {("B", "A")}
    assert len(ways.notes) == 1 and "road closure A,A" in ways.notes[0]


def test_night_shifts_drive_into_the_next_day() -> None:
    vehicles = pl.DataFrame({"vehicle_id": ["v"], "shift_start": ["22:00"], "shift_end": ["06:00"]})
    assert _driving_hours(vehicles, opening(DAY)) == (
        opening(DAY) + timedelta(hours=22), opening(DAY) + timedelta(hours=30)
    )  # fmt: skip


def test_a_place_off_the_roads_is_named_and_not_guessed(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    roads(home, [])
    ways = Ways.read(
        home, (opening(DAY), opening(DAY)), known_closures(home, opening(DAY)), pl.DataFrame(), pl.DataFrame()
    )
    places = pl.DataFrame(
        {"name": ["W", "near", "far"], "node_id": [None, "B", None], "latitude": [52.0, 52.1, 53.5], "longitude": [13.0] * 3},
        schema_overrides={"node_id": pl.String},
    )  # fmt: skip
    assert [name for name, _ in ways.off_road(places)] == ["far"]
    km, minutes = ways.matrix(places)
    assert np.isinf(km[2, :2]).all() and np.isinf(minutes[:2, 2]).all()
    assert km[0, 1] == pytest.approx(11.0) and (np.diag(km) == 0).all()


def test_half_a_place_is_taken_from_its_node(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    roads(home, [])
    ways = Ways.read(
        home, (opening(DAY), opening(DAY)), known_closures(home, opening(DAY)), pl.DataFrame(), pl.DataFrame()
    )
    frame = pl.DataFrame(
        {"node_id": ["B"], "latitude": [10.0], "longitude": [None]}, schema_overrides={"longitude": pl.Float64}
    )
    assert ways.located(frame).select("latitude", "longitude").row(0) == (52.1, 13.0)


def test_every_depot_that_cannot_be_placed_is_named(tmp_path: Path) -> None:
    deliveries = pl.DataFrame({"delivery_id": ["d"], "depot_id": ["A"], "latitude": [52.0], "longitude": [13.0]})
    vehicles = pl.DataFrame({"vehicle_id": ["u", "v"], "depot_id": ["A", "B"]})
    sites = pl.DataFrame(schema={"site_id": pl.String, "latitude": pl.Float64, "longitude": pl.Float64})
    notes: list[str] = []
    with pytest.raises(Unavailable, match="depot A has no coordinates in common.sites.*depot B has no coordinates"):
        _day(
            Home.at(tmp_path), deliveries, vehicles, sites, Ways(None, Conditions(), Detour(), ""), opening(DAY), notes
        )
    assert len(notes) == 2


# By time of day --------------------------------------------------------------------------------------------------------------


def test_a_closure_of_an_hour_closes_the_road_for_that_hour(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    shared = {"from_node": "A", "to_node": "B", "known_at": None}
    at = lambda hour: opening(DAY) + timedelta(hours=hour)  # noqa: E731
    rows: list[dict[str, object]] = [
        {**shared, "closed_from": at(8), "closed_until": at(9), "factor": None},
        {**shared, "closed_from": at(12), "closed_until": at(13), "factor": 0.5},
    ]
    roads(home, rows)
    write_parquet(
        pl.DataFrame(schema={"from_id": pl.String, "to_id": pl.String, "km": pl.Float64, "minutes": pl.Float64}),
        home.mart("logistics", "travel_times"),
    )
    hours = (at(6), at(18))
    ways = Ways.read(home, hours, known_closures(home, opening(DAY)), pl.DataFrame(), pl.DataFrame())
    assert [moment for moment, _ in ways.times] == [at(6), at(8), at(9), at(12), at(13)]
    places = pl.DataFrame(
        {"name": ["a", "b"], "node_id": ["A", "B"], "latitude": [52.0, 52.1], "longitude": [13.0, 13.0]}
    )
    safe = ways.matrix(places)
    assert np.isinf(safe[1][0, 1]) and safe[1][1, 0] == 12.0
    found = by_time(home, places, ways, safe, opening(DAY))
    assert found is not None and not found.alike[0, 1] and found.alike[1, 0]
    assert found.leg(420.0, 0, 1) == (432.0, 11.0, 12.0)
    # There is no other way: who would be on the road when it closes waits until it is open.
    assert found.leg(470.0, 0, 1) == (552.0, 11.0, 12.0) and found.leg(500.0, 0, 1)[0] == 552.0
    assert found.leg(730.0, 0, 1)[0] == 736.0 and found.leg(715.0, 0, 1)[0] == 726.0
    # A home with many closures has them by full hours or not at all by time.
    many = [{**shared, "closed_from": at(7 + k), "closed_until": at(7 + k + 0.25), "factor": 2.0} for k in range(9)]
    roads(home, many)
    ways = Ways.read(home, hours, known_closures(home, opening(DAY)), pl.DataFrame(), pl.DataFrame())
    assert 0 < len(ways.times) <= 7 and ways.conditions.factor == {("A", "B"): 2.0}
    # What lasts all day is no matter of time.
    roads(home, [{**shared, "closed_from": at(5), "closed_until": at(19), "factor": None}])
    assert Ways.read(home, hours, known_closures(home, opening(DAY)), pl.DataFrame(), pl.DataFrame()).times == ()


def with_closure(inputs: LogisticsInputs, begins: float, ends: float, slower: float = 3.0) -> LogisticsInputs:
    """The day with every way out of the depot longer by much between two minutes of it."""
    km, minutes = inputs.km.copy(), inputs.minutes.copy()
    km[0, 1:] *= 1.5
    minutes[0, 1:] *= slower
    hours = RoadHours.of((360.0, begins, ends), 1000.0, [(km, minutes), (inputs.km, inputs.minutes)], (1, 0, 1), (0, 0))
    return replace(inputs, km=km, minutes=minutes, hours=hours)


def test_a_closure_that_nobody_meets_costs_nothing(inputs: LogisticsInputs, plan: RoutePlan) -> None:
    closed = with_closure(inputs, 780.0, 840.0)
    found = plan_day(closed, ASSUMED)
    assert found.facts["expected_cost"] <= plan.facts["expected_cost"] + 1e-6
    assert found.facts["expected_cost"] < plan_day(replace(closed, hours=None), ASSUMED).facts["expected_cost"] - 10
    assert all(v.passed for v in judge_plan(frames(found), found.facts, closed) if v.blocking)
    assert closed.snapshot != replace(closed, hours=None).snapshot


def test_a_route_that_meets_a_closure_takes_the_way_round(inputs: LogisticsInputs, plan: RoutePlan) -> None:
    closed = with_closure(inputs, 420.0, 500.0)
    found = plan_day(closed, ASSUMED)
    assert found.facts["expected_cost"] > plan.facts["expected_cost"]
    assert all(v.passed for v in judge_plan(frames(found), found.facts, closed) if v.blocking)
    place = {name: k for k, name in enumerate(closed.places["name"])}
    factor, opened = found.facts["factor"], closed.opened
    for _, tour in found.routes.sort("stop").group_by("vehicle_id"):
        clock = (tour["departs_at"][0] - opened).total_seconds() / 60
        at = 0
        for name, arrives, leaves, km in tour.select("delivery_id", "arrives_at", "leaves_at", "km").iter_rows():
            to = place[name]
            ways = [
                (clock + factor * closed.minutes[at, to], closed.km[at, to]),
                (max(clock, 500.0) + factor * inputs.minutes[at, to], inputs.km[at, to]),
            ]
            if clock + factor * inputs.minutes[at, to] <= 420.0 or clock >= 500.0:
                ways.append((clock + factor * inputs.minutes[at, to], inputs.km[at, to]))
            due, way = min(ways)
            assert (arrives - opened).total_seconds() / 60 == pytest.approx(due, abs=0.05)
            assert km == pytest.approx(way)
            clock, at = (leaves - opened).total_seconds() / 60, to


@pytest.mark.parametrize(("begins", "ends"), [(420.0, 500.0), (470.0, 530.0)])
def test_the_bound_holds_for_ways_by_time_of_day(
    inputs: LogisticsInputs, monkeypatch: pytest.MonkeyPatch, begins: float, ends: float
) -> None:
    monkeypatch.setattr("npq_assets.logistics.plan.SCENARIOS", 4_000)
    closed = with_closure(inputs, begins, ends)
    problem = closed.problem()
    routes = savings_routes(problem)
    bound = expected_bound(closed, ASSUMED, problem, routes)
    for factor in (1.0, 1.2):
        slowed = stretched(problem, factor)
        for seen in looked_at_as(slowed):
            cost = expected(closed, ASSUMED, slowed, savings_routes(seen)).total
            assert 0.5 * cost < bound <= cost * 1.01


# What may not be taken for something else ---------------------------------------------------------------------------------------


def test_a_delivery_that_must_be_made_is_not_left_out_because_slow_traffic_lets_it(inputs: LogisticsInputs) -> None:
    # 100 km away: back in the shift at the median of traffic, not at its upper quartile.
    far = inputs.km[:2, :2] / inputs.km[0, 1] * 100.0
    one = inputs.deliveries.head(1).with_columns(
        pl.lit(None, pl.Float64).alias("drop_cost"), pl.lit(360.0).alias("ready"), pl.lit(900.0).alias("due")
    )
    short = inputs.vehicles.with_columns(pl.lit(640.0).alias("shift_end"))
    found = plan_day(
        replace(inputs, deliveries=one, vehicles=short, km=far, minutes=far / 0.8, places=inputs.places.head(2)),
        ASSUMED,
    )
    assert found.routes["delivery_id"].to_list() == ["d0"] and found.facts["quantile"] == 0.5


def test_ids_with_colons_are_told_apart(inputs: LogisticsInputs) -> None:
    said = tuple(f"delivery so:{k}: it has neither coordinates nor a known road node; not planned" for k in (1, 2))
    alerts = plan_day(replace(inputs, skipped=said), ASSUMED).alerts
    assert sorted(alerts.filter(pl.col("kind") == "not_planned")["subject"]) == ["so:1", "so:2"]
    assert alerts["alert_id"].is_unique().all()


def test_nobody_is_advised_to_act_before_a_time_that_is_over(inputs: LogisticsInputs, plan: RoutePlan) -> None:
    problem = stretched(inputs.problem(), plan.facts["factor"])
    routes = routes_of(problem, plan.routes)
    outcome = expected(inputs, ASSUMED, problem, routes)
    words = pl.DataFrame(schema={"constraint": pl.String, "amount": pl.Float64, "message": pl.String})
    early, after = (alerts_of(inputs, problem, routes, outcome, words, "s", now) for now in (0.0, 700.0))
    assert "late_delivery" in early["kind"].to_list() and "late_delivery" not in after["kind"].to_list()
    assert after.filter(pl.col("act_before") < opening(DAY) + timedelta(minutes=700)).is_empty()


def test_a_tour_over_midnight_is_listed_as_its_windows_are(
    inputs: LogisticsInputs, plan: RoutePlan, tmp_path: Path
) -> None:
    late = timedelta(hours=17)
    routes = plan.routes.with_columns(pl.col("departs_at", "arrives_at", "leaves_at") + late)
    page = write_dispatch(Home.at(tmp_path), DAY, routes, inputs.deliveries, plan.alerts)
    arrive = pl.concat([pl.read_csv(file) for file in page.parent.glob("V*.csv")])["arrive"]
    assert arrive.min() >= "24:00"  # type: ignore[operator]


def test_a_depot_and_a_delivery_of_one_name_are_two_places_on_the_map() -> None:
    places = pl.DataFrame({"name": ["1", "1", "2"], "latitude": [52.0, 52.5, 52.2], "longitude": [13.0, 13.5, 13.1]})
    routes = pl.DataFrame({"route_id": ["r"] * 2, "stop": [1, 2], "delivery_id": ["1", "2"], "depot_id": ["1"] * 2})
    svg = route_map(routes, pl.DataFrame(schema={"delivery_id": pl.String}), places)
    way = re.search('points="([^"]*)"', svg)
    assert way is not None and way[1].split()[0] == way[1].split()[-1] != way[1].split()[1]
    assert svg.count("<rect") == 1


def shifts(home: Home, day: date, *spans: tuple[str, str]) -> list[tuple[str, float, float]]:
    """Vehicles of a day, with the minutes of their shifts."""
    write_parquet(
        pl.DataFrame(schema={"from_id": pl.String, "to_id": pl.String, "km": pl.Float64, "minutes": pl.Float64}),
        home.mart("logistics", "travel_times"),
    )
    stamp = opening(day) + timedelta(hours=1)
    deliveries = pl.DataFrame(
        {"delivery_id": ["d"], "depot_id": ["A"], "site_id": [None], "node_id": [None], "latitude": [52.1], "longitude": [13.0],
         "quantity": [1.0], "ready_at": [stamp], "due_at": [stamp], "service_minutes": [1.0], "late_cost_per_minute": [1.0],
         "drop_cost": [9.0], "rebook_cost": [None]},
        schema_overrides={"site_id": pl.String, "node_id": pl.String, "rebook_cost": pl.Float64},
    )  # fmt: skip
    n = len(spans)
    vehicles = pl.DataFrame(
        {"vehicle_id": [f"v{k}" for k in range(n)], "depot_id": ["A"] * n, "capacity": [9.0] * n, "fixed_cost": [1.0] * n,
         "cost_per_km": [1.0] * n, "cost_per_hour": [6.0] * n, "shift_start": [a for a, _ in spans],
         "shift_end": [b for _, b in spans], "max_km": [None] * n},
        schema_overrides={"max_km": pl.Float64},
    )  # fmt: skip
    sites = pl.DataFrame({"site_id": ["A"], "latitude": [52.0], "longitude": [13.0], "region": ["r"]})
    ways = Ways(None, Conditions(), Detour(), "")
    fleet = _day(home, deliveries, vehicles, sites, ways, opening(day), [])[1]
    return fleet.select("vehicle_id", "shift_start", "shift_end").rows()


def test_a_shift_by_timestamps_is_driven_once(tmp_path: Path) -> None:
    home, night = Home.at(tmp_path), ("2025-06-30T22:00Z", "2025-07-01T06:00Z")
    before = DAY - timedelta(days=1)
    assert shifts(home, before, night, ("2025-07-01T06:00Z", "2025-07-01T14:00Z")) == [("v0", 1320.0, 1800.0)]
    # Nobody can be sent off before the day is planned, nor while he drives for the day before.
    assert shifts(home, DAY, night) == [("v0", 0.0, 360.0)]
    tours = pl.DataFrame({"vehicle_id": ["v0"], "returns": [1500.0]})
    folder = plan_folder(home, before)
    for name in FRAMES:
        write_parquet(tours if name == "tours" else pl.DataFrame(), folder / f"{name}.parquet")
    write_json({"inputs": "h"}, folder / "plan.json")
    assert shifts(home, DAY, night) == [("v0", 60.0, 360.0)]
    with pytest.raises(Unavailable, match="no vehicle has a shift on 2025-07-03"):
        shifts(home, DAY + timedelta(days=2), night)


def test_rain_of_long_ago_is_not_todays(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    stamp = pl.Datetime("us", "UTC")
    write_parquet(
        pl.DataFrame(schema={"region": pl.String, "valid_at": stamp, "issued_at": stamp, "rain": pl.Float64}),
        home.mart("logistics", "weather_forecasts"),
    )
    for hours, seen in ((3, [9.0]), (60, [])):
        weather = pl.DataFrame({"region": ["r"], "valid_at": [opening(DAY) - timedelta(hours=hours)], "rain": [9.0]})
        assert _rain(home, opening(DAY), weather)["rain"].to_list() == seen


def test_a_leg_from_a_stop_without_a_place_is_not_one_from_the_depot() -> None:
    at = lambda hour: opening(DAY) - timedelta(hours=hour)  # noqa: E731
    deliveries = pl.DataFrame(
        {"delivery_id": ["lost", "d"], "node_id": [None, None], "latitude": [None, 52.5], "longitude": [None, 13.0],
         "depot_id": ["W", "W"]},
        schema_overrides={"node_id": pl.String},
    )  # fmt: skip
    legs = pl.DataFrame(
        {"delivery_id": ["d", "d"], "previous_delivery_id": ["lost", None], "depot_id": ["W"] * 2, "vehicle_id": ["v"] * 2,
         "leg_started_at": [at(9), at(5)], "arrived_at": [at(8), at(4)], "drive_minutes": [60.0, 60.0]}
    )  # fmt: skip
    sites = pl.DataFrame({"site_id": ["W"], "latitude": [52.0], "longitude": [13.0], "region": ["r"]})
    weather = pl.DataFrame(schema={"region": pl.String, "valid_at": pl.Datetime("us", "UTC"), "rain": pl.Float64})
    found = _legs(legs, deliveries, sites, Ways(None, Conditions(), Detour(), ""), weather)
    assert found["hour"].to_list() == [19.0]
