"""Ways through a road graph: shortest paths and travel matrices by time of day, with closures and changes of speed.

Without a graph, distances are great circles corrected by what was driven. Dijkstra's algorithm is scipy's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from npq_assets.errors import NpqError

Array = NDArray[np.float64]
EARTH_KM = 6371.0088


@dataclass(frozen=True)
class RoadGraph:
    """Roads, one way each, between nodes.

    Attributes:
        nodes: node_id, latitude, longitude.
        start: Row of the node that each segment leaves (m).
        end: Row of the node that it leads to (m).
        km: Length (m).
        minutes: Usual driving time (m).
    """

    nodes: pl.DataFrame
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    km: Array
    minutes: Array

    @classmethod
    def of(cls, nodes: pl.DataFrame, segments: pl.DataFrame) -> RoadGraph:
        """A graph of `nodes` (node_id, latitude, longitude) and `segments` (from_node, to_node, km, minutes).

        Raises:
            NpqError: A segment names a node that there is not.
        """
        nodes = nodes.select("node_id", "latitude", "longitude").unique("node_id", keep="first", maintain_order=True)
        row = nodes.select("node_id", pl.int_range(pl.len()).alias("row"))
        found = (
            segments.select("from_node", "to_node", "km", "minutes")
            .join(
                row.rename({"node_id": "from_node", "row": "start"}), on="from_node", how="left", maintain_order="left"
            )
            .join(row.rename({"node_id": "to_node", "row": "end"}), on="to_node", how="left", maintain_order="left")
        )
        lost = found.filter(pl.col("start").is_null() | pl.col("end").is_null())
        if lost.height:
            first = lost.row(0, named=True)
            name = first["from_node"] if first["start"] is None else first["to_node"]
            raise NpqError(
                f"logistics.road_segments: {lost.height} rows name unknown nodes, the first is {name!r}; land it in road_nodes"
            )
        return cls(
            nodes,
            found["start"].to_numpy().astype(np.int64),
            found["end"].to_numpy().astype(np.int64),
            found["km"].cast(pl.Float64).to_numpy(),
            found["minutes"].cast(pl.Float64).to_numpy(),
        )

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row of each node."""
        return {name: k for k, name in enumerate(self.nodes["node_id"].to_list())}

    @cached_property
    def pieces(self) -> NDArray[np.int64]:
        """Number of the strongly connected piece that each node lies in."""
        from scipy.sparse.csgraph import connected_components

        _, label = connected_components(self._matrix(np.maximum(self.minutes, 1e-9)), connection="strong")
        return np.asarray(label, dtype=np.int64)

    def _matrix(self, weight: Array) -> Any:
        from scipy.sparse import csr_array

        n = self.nodes.height
        usable = np.isfinite(weight)
        start, end, w = self.start[usable], self.end[usable], weight[usable]
        # Of parallel segments the quickest counts; csr would add them up.
        order = np.lexsort((w, end, start))
        start, end, w = start[order], end[order], w[order]
        first = np.ones(len(w), dtype=bool)
        first[1:] = (start[1:] != start[:-1]) | (end[1:] != end[:-1])
        return csr_array((np.maximum(w[first], 1e-9), (start[first], end[first])), shape=(n, n))

    def nearest(self, latitude: ArrayLike, longitude: ArrayLike) -> tuple[NDArray[np.int64], Array]:
        """Row of the nearest node to each place, and how far it is (km)."""
        from scipy.spatial import cKDTree

        def on_sphere(lat: ArrayLike, lon: ArrayLike) -> Array:
            a, b = np.radians(np.asarray(lat, float)), np.radians(np.asarray(lon, float))
            return np.stack([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)], axis=-1)

        tree = cKDTree(on_sphere(self.nodes["latitude"].to_numpy(), self.nodes["longitude"].to_numpy()))
        chord, row = tree.query(on_sphere(latitude, longitude))
        return np.asarray(row, np.int64), 2 * EARTH_KM * np.arcsin(np.clip(np.asarray(chord) / 2, 0, 1))


@dataclass(frozen=True)
class Conditions:
    """What is otherwise than usual on the roads at a time.

    Attributes:
        closed: Segments that cannot be driven, as (from_node, to_node).
        factor: By segment (from_node, to_node): its driving time is this many times the usual.
        everywhere: Factor of all segments: the time of day, the weather.
    """

    closed: frozenset[tuple[str, str]] = frozenset()
    factor: Mapping[tuple[str, str], float] | None = None
    everywhere: float = 1.0


@dataclass(frozen=True)
class TravelMatrix:
    """Ways between places.

    Attributes:
        minutes: Of the quickest way (P, Q); inf where there is none.
        km: Length of that way (P, Q); inf where there is none.
        unreachable: Places that cannot be reached from the first place, or it from them, by name.
    """

    minutes: Array
    km: Array
    unreachable: tuple[str, ...] = ()


def travel_matrix(
    graph: RoadGraph, places: Sequence[str], conditions: Conditions | None = None, to: Sequence[str] | None = None
) -> TravelMatrix:
    """Quickest ways from every place to every other, and how long they are.

    Args:
        graph: The roads.
        places: Node ids (P).
        conditions: Closures and speeds.
        to: Node ids (Q); None: the same places.

    Raises:
        NpqError: A place is no node of the graph.
    """
    sources = _rows(graph, places)
    targets = sources if to is None else _rows(graph, to)
    weight = weights(graph, conditions)
    minutes, km = _ways(graph, weight, sources, targets)
    lost: tuple[str, ...] = ()
    if to is None and len(places):
        cut = ~(np.isfinite(minutes[0, :]) & np.isfinite(minutes[:, 0]))
        lost = tuple(places[int(k)] for k in np.flatnonzero(cut))
    return TravelMatrix(minutes, km, lost)


def by_time_of_day(
    graph: RoadGraph, places: Sequence[str], factors: Mapping[int, float], conditions: Conditions | None = None
) -> dict[int, TravelMatrix]:
    """A travel matrix for each hour of `factors`: driving time is that many times the usual.

    A factor on all roads changes times but no ways; with the same closures one search serves all hours.
    """
    base = travel_matrix(graph, places, conditions)
    return {
        hour: TravelMatrix(base.minutes * factor, base.km, base.unreachable) for hour, factor in sorted(factors.items())
    }


def weights(graph: RoadGraph, conditions: Conditions | None) -> Array:
    """Driving time of each segment under `conditions`; inf where closed."""
    weight = graph.minutes.copy()
    if conditions is None:
        return weight
    if conditions.factor or conditions.closed:
        row = graph.row_of
        key = graph.start * graph.nodes.height + graph.end

        def positions(pairs: Sequence[tuple[str, str]]) -> list[int]:
            unknown = [name for pair in pairs for name in pair if name not in row]
            if unknown:
                raise NpqError(f"closed or slowed roads: {unknown[0]!r} is no node of the road graph")
            return [row[a] * graph.nodes.height + row[b] for a, b in pairs]

        for pair, code in zip(conditions.factor or {}, positions(list(conditions.factor or {})), strict=True):
            weight[key == code] *= (conditions.factor or {})[pair]
        closed = np.isin(key, positions(sorted(conditions.closed)))
        weight[closed] = np.inf
    return weight * conditions.everywhere


def _rows(graph: RoadGraph, places: Sequence[str]) -> NDArray[np.int64]:
    lost = [name for name in places if name not in graph.row_of]
    if lost:
        raise NpqError(
            f"{lost[0]!r} is no node of the road graph ({len(lost)} such places); land it in logistics.road_nodes"
        )
    return np.array([graph.row_of[name] for name in places], dtype=np.int64)


def _ways(
    graph: RoadGraph, weight: Array, sources: NDArray[np.int64], targets: NDArray[np.int64]
) -> tuple[Array, Array]:
    from scipy.sparse.csgraph import dijkstra

    minutes = np.full((len(sources), len(targets)), np.inf)
    km = np.full((len(sources), len(targets)), np.inf)
    if not len(sources) or not len(targets):
        return minutes, km
    matrix = graph._matrix(weight)
    length = _length_of(graph, weight)
    block = max(1, int(2e7 // max(graph.nodes.height, 1)))
    for begin in range(0, len(sources), block):
        part = sources[begin : begin + block]
        found, before = dijkstra(matrix, indices=part, return_predecessors=True)
        reached = found[:, targets]
        minutes[begin : begin + len(part)] = reached
        walked = _lengths(before, targets, length, matrix.shape[0])
        km[begin : begin + len(part)] = np.where(np.isfinite(reached), walked, np.inf)
    same = sources[:, None] == targets[None, :]
    minutes[same], km[same] = 0.0, 0.0
    return minutes, km


def _length_of(graph: RoadGraph, weight: Array) -> tuple[NDArray[np.int64], Array]:
    """Sorted codes end * n + start of the segments that the search may use, and their km."""
    n = graph.nodes.height
    usable = np.isfinite(weight)
    code = graph.end[usable] * n + graph.start[usable]
    order = np.lexsort((weight[usable], code))
    code, km = code[order], graph.km[usable][order]
    first = np.ones(len(code), dtype=bool)
    first[1:] = code[1:] != code[:-1]
    return code[first], km[first]


def _lengths(
    before: NDArray[np.int32], targets: NDArray[np.int64], length: tuple[NDArray[np.int64], Array], n: int
) -> Array:
    """Km along the quickest ways: in each tree every node's way to the root is summed by doubling (pointer jumping)."""
    codes, km = length
    total = np.zeros((len(before), len(targets)))
    node = np.arange(n)
    for k, row in enumerate(before):
        below = np.flatnonzero(row >= 0)
        parent = node.copy()
        parent[below] = row[below]
        walked = np.zeros(n)
        # Queries ascend as the codes do, which keeps the search in the cache.
        walked[below] = km[np.searchsorted(codes, below * n + row[below])]
        while True:
            further = parent[parent]
            if np.array_equal(further, parent):
                break
            walked += walked[parent]
            parent = further
        total[k] = walked[targets]
    return total


def shortest_path(graph: RoadGraph, start: str, end: str, conditions: Conditions | None = None) -> list[str]:
    """Nodes of the quickest way, both ends included; empty if there is none."""
    from scipy.sparse.csgraph import dijkstra

    a, b = _rows(graph, [start, end])
    found, before = dijkstra(graph._matrix(weights(graph, conditions)), indices=[int(a)], return_predecessors=True)
    if not np.isfinite(found[0, b]):
        return []
    names, at = graph.nodes["node_id"], int(b)
    way = [at]
    while at != a:
        at = int(before[0, at])
        way.append(at)
    return [names[k] for k in reversed(way)]


# Without roads -------------------------------------------------------------------------------------------------------------


def great_circle(latitude: ArrayLike, longitude: ArrayLike) -> Array:
    """Great-circle distances between places (P, P), km (haversine)."""
    a, b = np.radians(np.asarray(latitude, float)), np.radians(np.asarray(longitude, float))
    half = np.sin((a[:, None] - a[None, :]) / 2) ** 2
    half = half + np.cos(a)[:, None] * np.cos(a)[None, :] * np.sin((b[:, None] - b[None, :]) / 2) ** 2
    return np.asarray(2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1))))


@dataclass(frozen=True)
class Detour:
    """How driven ways relate to straight lines: km = factor * line, minutes = km / speed.

    Attributes:
        factor: Road km per straight km.
        km_per_minute: Speed.
        rows: Trips that this was learned from; 0: assumed.
    """

    factor: float = 1.3
    km_per_minute: float = 0.7
    rows: int = 0

    @classmethod
    def learn(cls, line: ArrayLike, km: ArrayLike, minutes: ArrayLike) -> Detour:
        """From trips: medians, since a few wrong logs must not move them; the default where there is nothing to learn."""
        straight, driven, took = (np.asarray(x, float) for x in (line, km, minutes))
        sound = (straight > 0.2) & np.isfinite(driven) & (driven > 0) & np.isfinite(took) & (took > 0.5)
        if sound.sum() < 5:
            return cls()
        factor = float(np.clip(np.median(driven[sound] / straight[sound]), 1.0, 5.0))
        speed = float(np.clip(np.median(driven[sound] / took[sound]), 0.05, 3.0))
        return cls(round(factor, 4), round(speed, 5), int(sound.sum()))

    def matrix(self, latitude: ArrayLike, longitude: ArrayLike) -> TravelMatrix:
        """Ways between places by straight lines, corrected."""
        km = self.factor * great_circle(latitude, longitude)
        return TravelMatrix(km / self.km_per_minute, km)
