"""Closed and slow roads: one luck for everybody, news in time, and nobody who drives where nobody can."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from npq_assets.company.closures import DAY_MINUTES, Closure, Closures
from npq_assets.company.config import CompanyConfig
from npq_assets.company.demand import Demand
from npq_assets.company.detours import Detours
from npq_assets.company.fleet import Drop, Fleet
from npq_assets.company.landing import LandingFolder, tables_written, write_company
from npq_assets.company.logistics_world import LogisticsWorld
from npq_assets.company.world import Company
from npq_assets.optimization.paths import Conditions, travel_matrix
from npq_assets.settings import Home

FIRST = date(2024, 9, 2)
DAYS = [FIRST + timedelta(days=k) for k in range(120)]


def fleet_of(scale: float, seed: int = 3) -> Fleet:
    company = Company(CompanyConfig(scale=scale, days=60, seed=seed))
    return Fleet(company, Demand(company))


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return fleet_of(1.0)


def roads_closed(fleet: Fleet, day: date) -> set[frozenset[int]]:
    return {frozenset((c.start, c.end)) for c in fleet.closures.on(day) if c.begins < 1080 and c.ends > 270}


def test_a_day_of_the_full_company_has_a_few_and_of_a_tenth_one_now_and_then(fleet: Fleet) -> None:
    full = [len(roads_closed(fleet, day)) for day in DAYS]
    tenth = [len(roads_closed(small, day)) for small in (fleet_of(0.1, 1), fleet_of(0.1, 2)) for day in DAYS]
    assert 1.2 < np.mean(full) < 3.0
    assert 0.2 < np.mean(np.array(tenth) > 0) < 0.6
    kinds = {c.factor is None for day in DAYS for c in fleet.closures.on(day)}
    assert kinds == {True, False}


def test_closures_do_not_depend_on_the_order_in_which_days_are_asked_for(fleet: Fleet) -> None:
    forwards, backwards = Closures(fleet.roads), Closures(fleet.roads)
    one = {day: forwards.on(day) for day in DAYS[:40]}
    other = {day: backwards.on(day) for day in DAYS[39::-1]}
    assert one == other


def test_each_day_lands_its_own_news_and_all_days_together_land_the_history(fleet: Fleet) -> None:
    before = FIRST - timedelta(days=1)
    history = fleet.closures.known_frame(None, DAYS[59], FIRST)
    news = [fleet.closures.known_frame(None, before, FIRST)]
    for day in DAYS[:60]:
        news.append(fleet.closures.known_frame(day, day, day))
        assert (news[-1]["known_at"].dt.date() == day).all()
    key = ["closed_from", "from_node", "to_node"]
    assert pl.concat(news).sort(key).equals(history.sort(key))
    assert history.unique(key).height == history.height > 50
    assert (history["closed_from"] < history["closed_until"]).all()
    segments = fleet.roads.segments.select("from_node", "to_node")
    assert history.join(segments, on=["from_node", "to_node"], how="anti").is_empty()


def test_what_is_in_force_lands_and_works_are_known_days_ahead(fleet: Fleet) -> None:
    landed = fleet.closures.known_frame(None, DAYS[-1], FIRST)
    rows = set(landed.select("from_node", "to_node", "closed_from").rows())
    for day in DAYS:
        for c in fleet.closures.on(day):
            begins = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(minutes=c.begins)
            if c.known < DAY_MINUTES:
                assert (fleet.roads.node_ids[c.start], fleet.roads.node_ids[c.end], begins) in rows
    ahead = (landed["closed_from"] - landed["known_at"]).dt.total_minutes()
    assert (ahead > 2.5 * DAY_MINUTES).any() and (ahead < 0).any()
    # Either announced days ahead or not known before they began.
    assert not ahead.is_between(0, 2.5 * DAY_MINUTES).any()
    assert landed.filter((pl.col("closed_until") - pl.col("closed_from")) > pl.duration(days=1)).height > 0


# Driving ----------------------------------------------------------------------------------------------------------------------


def on_the_way(fleet: Fleet, start: int, end: int) -> tuple[int, int]:
    """A segment of the quickest way between two nodes."""
    (a, b, _), *_ = Detours(fleet.roads).leg(0.0, start, end, 1.0, []).segments[1:]
    return a, b


def test_no_leg_enters_a_closed_segment_and_all_legs_pass_slow_ones_slowly(fleet: Fleet) -> None:
    roads, detours = fleet.roads, fleet.detours
    minutes = {
        (a, b): m
        for a, b, m in zip(
            roads.graph.start.tolist(), roads.graph.end.tolist(), roads.graph.minutes.tolist(), strict=True
        )
    }
    nodes = np.arange(len(roads.node_ids))
    start, end = (x.ravel() for x in np.meshgrid(nodes[:12], nodes, indexing="ij"))
    met = longer = 0
    for day in DAYS[:30]:
        closures = fleet.closures.on(day)
        concerned = detours.concerned(start, end, closures)
        for a, b in zip(start[concerned].tolist(), end[concerned].tolist(), strict=True):
            for begins in (300.0, 560.0, 900.0):
                way = detours.leg(begins, a, b, 1.2, closures)
                clock, at = begins, a
                for x, y, enters in way.segments:
                    assert x == at and enters >= clock - 1e-9
                    here = [c for c in closures if (c.start, c.end) == (x, y) and c.holds(enters)]
                    assert all(c.factor is not None for c in here)
                    clock = enters + 1.2 * minutes[x, y] * max([1.0, *(c.factor or 1.0 for c in here)])
                    at = y
                assert at == b and way.arrived == pytest.approx(clock)
                assert way.arrived >= begins + 1.2 * roads.minutes[a, b] - 1e-6
                met += 1
                longer += way.arrived > begins + 1.2 * roads.minutes[a, b] + 1e-6
    assert met > 100 and 0 < longer < met


def test_who_knows_goes_round_and_who_does_not_turns_round_there(fleet: Fleet) -> None:
    roads, detours = fleet.roads, fleet.detours
    start, end = 0, int(np.argmax(roads.minutes[0]))
    a, b = on_the_way(fleet, start, end)
    name = roads.node_ids
    shut = travel_matrix(roads.graph, name, Conditions(frozenset({(name[a], name[b])})))

    def driven(known: float, begins: float = 0.0, ends: float = 1440.0) -> float:
        return detours.leg(400.0, start, end, 1.0, [Closure(a, b, begins, ends, None, known)]).arrived - 400.0

    usual, round_it = float(roads.minutes[start, end]), float(shut.minutes[start, end])
    assert driven(-60.0) == pytest.approx(round_it) and round_it > usual
    ahead, there = float(roads.minutes[start, a]), float(shut.minutes[a, end])
    assert driven(2000.0) == pytest.approx(ahead + there) and ahead + there >= round_it - 1e-9
    # Closed until just after one would be there: wait a minute. Closed before or after: nothing.
    assert driven(-60.0, ends=400.0 + ahead + 0.01) == pytest.approx(usual + 0.01)
    assert driven(-60.0, ends=400.0) == driven(-60.0, begins=400.0 + usual) == pytest.approx(usual)


def test_legs_that_meet_nothing_are_driven_to_the_bit_as_before(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    days = [day for day in DAYS if day.weekday() < 5][:30]
    tours = {day: fleet.fixed_tours(fleet.drops(day, fleet.mean_load())) for day in days}
    with_closures = {day: fleet.drive(day, tours[day]) for day in days}
    on = fleet.closures.on
    monkeypatch.setattr(fleet.closures, "on", lambda day: [])
    changed = 0
    for day in days:
        for route, tour, free in zip(tours[day], with_closures[day], fleet.drive(day, tours[day]), strict=True):
            nodes = np.array([route[1], *(d.node for d in route[3]), route[1]])
            if not fleet.detours.concerned(nodes[:-1], nodes[1:], on(day)).any():
                assert tour == free
            changed += tour != free
            assert tour.back >= free.back - 1e-9
    assert 0 < changed < sum(map(len, tours.values())) / 5


def test_plans_look_at_roads_by_the_hour(fleet: Fleet) -> None:
    roads, detours = fleet.roads, fleet.detours
    start, end = 0, int(np.argmax(roads.minutes[0]))
    a, b = on_the_way(fleet, start, end)
    assert detours.planned([], 270.0, 1080.0) == (roads.km, roads.minutes, None)
    _, minutes, hours = detours.planned([Closure(a, b, 0.0, 2000.0, None, -60.0)], 270.0, 1080.0)
    assert hours is None and minutes[start, end] > roads.minutes[start, end]
    found = detours.planned([Closure(a, b, 540.0, 900.0, None, -60.0)], 270.0, 1080.0)
    np.testing.assert_array_equal(found[1], minutes)
    assert found[2] is not None and found[2].begins == (270.0, 540.0, 900.0)
    usual = float(roads.minutes[start, end])
    assert found[2].leg(300.0, start, end)[0] == pytest.approx(300.0 + usual)
    assert found[2].leg(600.0, start, end)[0] == pytest.approx(600.0 + minutes[start, end])
    # More changes than plans look at: in coarser hours, and none is forgotten.
    many = [Closure(a, b, 300.0 + 60.0 * k, 310.0 + 60.0 * k, 2.0, -60.0) for k in range(12)]
    coarse = detours.planned(many, 270.0, 1080.0)
    assert coarse[2] is None or len(coarse[2].begins) <= 7
    assert coarse[1][start, end] > usual


# Files ------------------------------------------------------------------------------------------------------------------------


def test_other_tables_are_as_without_closures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = {"scale": 0.1, "days": 90, "seed": 7}
    write_company(tmp_path / "with", **size)  # type: ignore[arg-type]
    monkeypatch.setattr(Closures, "on", lambda self, day: [])
    write_company(tmp_path / "without", **size)  # type: ignore[arg-type]
    differ = set()
    for name, path in tables_written(tmp_path / "with"):
        other = tmp_path / "without" / path.relative_to(tmp_path / "with")
        if path.read_bytes() != other.read_bytes():
            differ.add(name)
            mine, theirs = (pl.read_csv(p, infer_schema=False) for p in (path, other))
            told = [c for c in mine.columns if not mine[c].equals(theirs[c])]
            assert set(told) <= {"arrived_at", "km"}, (name, told)
    assert differ == {"logistics.trips"}


def decide_own_tours(fleet: Fleet, home: Home, day: date, drops: list[Drop]) -> None:
    """The company's own tours as npq's decisions."""
    midnight = pl.lit(day).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    rows = [
        {"vehicle_id": vehicle, "stop": k + 1, "delivery_id": drop.delivery_id, "leaves": leaves}
        for vehicle, _, leaves, stops in fleet.fixed_tours(drops)
        for k, drop in enumerate(stops)
    ]
    frame = pl.DataFrame(rows).with_columns(
        departs_at=midnight + pl.duration(seconds=(60 * pl.col("leaves")).round().cast(pl.Int64))
    )
    path = home.decisions("logistics", "routes", day)
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)


def test_a_simulated_day_lands_its_news_and_nothing_later(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    _, beginning = write_company(home.landing, scale=0.3, days=30, seed=3)
    folder, world, first = LandingFolder(home.landing), LogisticsWorld(beginning), beginning.fleet.company.config.as_of
    known: Callable[[], pl.DataFrame] = lambda: pl.concat(  # noqa: E731
        [
            pl.read_csv(p, infer_schema=False).filter(pl.col("known_at").str.starts_with("20"))
            for p in sorted((home.landing / "logistics" / "road_closures").glob("*.csv"))
        ]
    )
    heights = []
    for k in range(7):
        day = first + timedelta(days=k)
        assert known()["known_at"].max() < day.isoformat()  # type: ignore[operator]
        heights.append(known().height)
        decide_own_tours(beginning.fleet, home, day, world._drops)
        world.step(home, folder, day)
    # No day's news takes the place of the history's or another day's.
    assert heights == sorted(heights) and heights[-1] > heights[0]
