"""Ways by time of day: nobody overtakes by leaving later, and a plan is timed leg by leg."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npq_assets.optimization.road_hours import RoadHours
from npq_assets.optimization.route_evaluation import total_cost
from npq_assets.optimization.route_feasibility import violations
from npq_assets.optimization.route_problem import least, searched_with, stretched
from npq_assets.optimization.route_timing import kilometres, timetable
from npq_assets.optimization.routing import Params, RoutingProblem, solve


def pair(km: float, minutes: float) -> tuple[np.ndarray, np.ndarray]:
    """Ways between two places, the same there and back."""
    return tuple(np.array([[0.0, x], [x, 0.0]]) for x in (km, minutes))  # type: ignore[return-value]


@given(
    st.lists(st.floats(5, 90), min_size=2, max_size=2),
    st.floats(90, 200),
    st.floats(0, 400),
    st.floats(0, 60),
    st.floats(0.5, 2),
)
def test_who_leaves_later_arrives_no_sooner(
    ways: list[float], safe: float, clock: float, later: float, factor: float
) -> None:
    hours = RoadHours.of(
        (0.0, 100.0, 160.0), 400.0, [pair(9, safe), pair(5, ways[0]), pair(7, ways[1])], (1, 2, 1), (0, 2)
    )
    first, second = hours.leg(clock, 0, 1, factor), hours.leg(clock + later, 0, 1, factor)
    assert first[0] <= second[0] + 1e-6
    assert clock + factor * hours.least_minutes[0, 1] - 1e-6 <= first[0] <= clock + factor * safe + 1e-6
    arrivals, km = hours.legs(np.array([clock, clock + later]), 0, 1, np.full(2, factor))
    assert arrivals.tolist() == [first[0], second[0]] and km.tolist() == [first[1], second[1]]


@pytest.fixture
def problem() -> RoutingProblem:
    """One stop, ten minutes away, an hour while the road is closed (8 to 9 o'clock)."""
    stops = pl.DataFrame(
        {"delivery_id": ["a"], "place": [1], "depot": [0], "quantity": [1.0], "ready": [500.0], "due": [600.0],
         "service": [5.0], "late_cost": [1.0], "drop_cost": [None]},
        schema_overrides={"drop_cost": pl.Float64},
    )  # fmt: skip
    vehicles = pl.DataFrame(
        {"vehicle_id": ["v"], "depot": [0], "capacity": [1.0], "fixed_cost": [0.0], "cost_per_km": [1.0],
         "cost_per_minute": [1.0], "shift_start": [400.0], "shift_end": [700.0], "max_km": [None]},
        schema_overrides={"max_km": pl.Float64},
    )  # fmt: skip
    hours = RoadHours.of((0.0, 480.0, 540.0), 700.0, [pair(30, 60), pair(8, 10)], (1, 0, 1), (0, 0))
    return RoutingProblem(stops, vehicles, hours.km[0], hours.minutes[0], hours=hours)


def test_a_route_is_timed_by_the_hour(problem: RoutingProblem) -> None:
    start, arrivals, begins, back = timetable(problem, 0, [0])
    # There before the road closes, and home by the other way or after it has opened: as late as harms nobody.
    assert start == pytest.approx(470.0, abs=0.05) and arrivals[0] == pytest.approx(480.0, abs=0.05)
    assert begins == [500.0] and back == 550.0
    assert kilometres(problem, 0, [0]) == [8.0, 8.0]
    assert total_cost(problem, {0: [0]}) == pytest.approx(16.0 + back - start)
    assert not violations(problem, {0: [0]})
    assert violations(replace(problem, vehicles=problem.vehicles.with_columns(shift_end=pl.lit(549.0))), {0: [0]})
    # Five minutes more at home are worth a longer way only where km are cheap.
    cheap = replace(problem, vehicles=problem.vehicles.with_columns(cost_per_km=pl.lit(0.1)))
    assert timetable(cheap, 0, [0])[0] == pytest.approx(475.0, abs=0.05) and kilometres(cheap, 0, [0]) == [30.0, 8.0]
    # Nobody can be there while it is closed, once it has left too late.
    late = replace(problem, departs={0: 475.0})
    assert timetable(late, 0, [0])[1] == [535.0] and kilometres(late, 0, [0]) == [30.0, 8.0]
    assert timetable(stretched(late, 2.0), 0, [0])[1] == [560.0]


def test_a_search_is_priced_by_the_hour_and_bounded(problem: RoutingProblem) -> None:
    quick = Params(seconds=1.0, iterations=50)
    for seen in (problem, searched_with(problem, problem.hours.longest if problem.hours else 0)):
        found = solve(seen, quick)
        assert found.objective == pytest.approx(total_cost(problem, {0: [0]}))
        assert 0 < found.bound <= found.objective
        assert found.plan["km"].to_list() == [8.0]
    assert least(problem).minutes[0, 1] == 10.0 and least(problem).hours is None
