"""Ways: the shortest that a search by hand finds, closures, and places that no road reaches."""

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npq_assets.errors import NpqError
from npq_assets.optimization.paths import (
    Conditions,
    Detour,
    RoadGraph,
    by_time_of_day,
    great_circle,
    shortest_path,
    travel_matrix,
)


def graph(segments: list[tuple[str, str, float, float]], *more: str) -> RoadGraph:
    names = sorted({n for a, b, *_ in segments for n in (a, b)} | set(more))
    nodes = pl.DataFrame({"node_id": names, "latitude": 52.0 + np.arange(len(names)) / 100, "longitude": 13.0})
    return RoadGraph.of(nodes, pl.DataFrame(segments, schema=["from_node", "to_node", "km", "minutes"], orient="row"))


def floyd_warshall(roads: RoadGraph) -> np.ndarray:
    n = roads.nodes.height
    best = np.where(np.eye(n, dtype=bool), 0.0, np.inf)
    for a, b, w in zip(roads.start, roads.end, roads.minutes, strict=True):
        best[a, b] = min(best[a, b], w)
    for k in range(n):
        best = np.minimum(best, best[:, [k]] + best[[k], :])
    return best


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_matrices_are_those_of_floyd_and_warshall(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(2, 15)), int(rng.integers(1, 50))
    rows = [
        (f"n{a}", f"n{b}", float(rng.uniform(0.1, 9)), float(rng.uniform(0.1, 9)))
        for a, b in rng.integers(0, n, (m, 2)).tolist()
    ]
    roads = graph(rows, *(f"n{k}" for k in range(n)))
    names = roads.nodes["node_id"].to_list()
    found = travel_matrix(roads, names)
    np.testing.assert_allclose(found.minutes, floyd_warshall(roads))
    for (i, a), (j, b) in itertools.product(enumerate(names), repeat=2):
        way = shortest_path(roads, a, b)
        if not np.isfinite(found.minutes[i, j]):
            assert way == [] and np.isinf(found.km[i, j])
            continue
        # Km are those of the quickest way, of parallel segments the quickest.
        km = sum(min((w, k) for x, y, k, w in rows if (x, y) == (p, q))[1] for p, q in itertools.pairwise(way))
        assert found.km[i, j] == pytest.approx(km)


# Cormen, Leiserson, Rivest and Stein, Introduction to Algorithms, figure 24.6: distances 0, 8, 5, 9, 7 from s.
TEXTBOOK = [("s", "t", 10), ("s", "y", 5), ("t", "x", 1), ("t", "y", 2), ("y", "t", 3), ("y", "x", 9), ("y", "z", 2),
            ("x", "z", 4), ("z", "x", 6), ("z", "s", 7)]  # fmt: skip


def test_the_textbook_example_of_dijkstra() -> None:
    roads = graph([(a, b, float(w), float(w)) for a, b, w in TEXTBOOK])
    found = travel_matrix(roads, ["s"], to=["s", "t", "y", "x", "z"])
    assert found.minutes[0].tolist() == found.km[0].tolist() == [0, 8, 5, 9, 7]
    assert shortest_path(roads, "s", "x") == ["s", "y", "t", "x"]


def test_closures_and_slow_roads_turn_traffic_round() -> None:
    roads = graph([(a, b, float(w), float(w)) for a, b, w in TEXTBOOK])
    closed = Conditions(closed=frozenset({("y", "t")}))
    assert shortest_path(roads, "s", "x", closed) == ["s", "t", "x"]
    slow = Conditions(factor={("y", "t"): 4.0}, everywhere=2.0)
    assert travel_matrix(roads, ["s"], slow, ["t"]).minutes[0, 0] == 20.0
    assert travel_matrix(roads, ["s"], slow, ["t"]).km[0, 0] == 10.0


def test_unreachable_places_are_named_and_not_guessed() -> None:
    roads = graph([("a", "b", 1.0, 1.0), ("b", "a", 1.0, 1.0), ("b", "c", 1.0, 1.0)], "island")
    found = travel_matrix(roads, ["a", "b", "c", "island"])
    assert found.unreachable == ("c", "island")
    assert found.minutes[0, 2] == 2.0 and np.isinf(found.minutes[2, 0]) and np.isinf(found.km[0, 3])


def test_unknown_names_are_refused_in_one_line() -> None:
    with pytest.raises(NpqError, match="road_segments: 1 rows name unknown nodes, the first is 'x'"):
        RoadGraph.of(
            pl.DataFrame({"node_id": ["a"], "latitude": [1.0], "longitude": [1.0]}),
            pl.DataFrame({"from_node": ["a"], "to_node": ["x"], "km": [1.0], "minutes": [1.0]}),
        )
    roads = graph([("a", "b", 1.0, 1.0)])
    with pytest.raises(NpqError, match="'q' is no node"):
        travel_matrix(roads, ["a", "q"])
    with pytest.raises(NpqError, match="'q' is no node"):
        travel_matrix(roads, ["a"], Conditions(closed=frozenset({("a", "q")})))


def test_hours_change_times_and_no_ways() -> None:
    roads = graph([("a", "b", 3.0, 2.0), ("b", "a", 3.0, 2.0)])
    hours = by_time_of_day(roads, ["a", "b"], {8: 1.5, 12: 1.0})
    assert hours[8].minutes[0, 1] == 3.0 and hours[12].minutes[0, 1] == 2.0
    assert hours[8].km[0, 1] == hours[12].km[0, 1] == 3.0


def test_great_circles_and_detours_learned_from_trips() -> None:
    # Berlin to Munich is 504 km as the crow flies.
    line = great_circle([52.5200, 48.1372], [13.4050, 11.5755])
    assert line[0, 1] == pytest.approx(504.4, abs=1.0) and line[0, 0] == 0.0
    rng = np.random.default_rng(1)
    straight = rng.uniform(1, 40, 300)
    km = 1.4 * straight
    km[:10] *= 30  # wrong logs
    learned = Detour.learn(straight, km, km / 0.8)
    assert learned.factor == pytest.approx(1.4, rel=1e-3) and learned.km_per_minute == pytest.approx(0.8, rel=1e-3)
    assert learned.matrix([52.52, 48.1372], [13.405, 11.5755]).minutes[0, 1] == pytest.approx(
        1.4 * 504.4 / 0.8, rel=0.01
    )
    assert Detour.learn([1.0], [1.0], [1.0]).rows == 0


def test_the_nearest_node_of_a_place() -> None:
    roads = graph([("a", "b", 1.0, 1.0), ("b", "c", 1.0, 1.0)])
    row, km = roads.nearest([52.0101], [13.0])
    assert roads.nodes["node_id"][int(row[0])] == "b" and km[0] == pytest.approx(0.0111, abs=1e-3)
