"""Road graphs: `python -m benchmarks.paths [--data DIR] [--out DIR]`.

Loads 100,000 segments from CSV and computes a 500 x 500 matrix of minutes and km. Without --data a graph is made; a folder
with `road_nodes.csv` and `road_segments.csv` (or such folders, as landed) is read instead. Rivals from the same run:
great-circle distances, and one Dijkstra in plain Python per source (a sample, scaled up).
"""

from __future__ import annotations

import argparse
import heapq
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from npq_assets.optimization.paths import Detour, RoadGraph, travel_matrix


def made_graph(folder: Path, segments: int, seed: int) -> None:
    """Writes a grid-like graph of about `segments` one-way segments with some one-way streets left out."""
    rng = np.random.default_rng(seed)
    side = int(np.sqrt(segments / 3.9))
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    lat = 52.0 + 0.008 * y.ravel() + rng.normal(0, 0.001, side * side)
    lon = 13.0 + 0.013 * x.ravel() + rng.normal(0, 0.001, side * side)
    node = np.arange(side * side).reshape(side, side)
    pairs = np.concatenate(
        [np.stack([node[:, :-1].ravel(), node[:, 1:].ravel()], 1), np.stack([node[:-1].ravel(), node[1:].ravel()], 1)]
    )
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    pairs = pairs[rng.random(len(pairs)) < 0.985]
    a, b = pairs.T
    km = np.hypot((lat[a] - lat[b]) * 111.2, (lon[a] - lon[b]) * 111.2 * np.cos(np.radians(52.5))) * 1.1
    names = pl.Series([f"N{k}" for k in range(side * side)])
    pl.DataFrame({"node_id": names, "latitude": lat, "longitude": lon}).write_csv(folder / "road_nodes.csv")
    pl.DataFrame(
        {"from_node": names.gather(a), "to_node": names.gather(b), "km": km,
         "minutes": 60 * km / rng.choice([30.0, 50.0, 80.0], len(km))}
    ).write_csv(folder / "road_segments.csv")  # fmt: skip


def read(folder: Path, name: str) -> pl.DataFrame:
    """`name.csv`, or all files of the folder `name` below."""
    if (folder / f"{name}.csv").exists():
        return pl.read_csv(folder / f"{name}.csv")
    return pl.concat([pl.read_csv(file) for file in sorted(folder.rglob(f"{name}/*.csv*"))])


def plain_dijkstra(graph: RoadGraph, source: int) -> float:
    """Seconds of one search in plain Python."""
    ways: dict[int, list[tuple[int, float]]] = {}
    for a, b, w in zip(graph.start.tolist(), graph.end.tolist(), graph.minutes.tolist(), strict=True):
        ways.setdefault(a, []).append((b, w))
    began = time.monotonic()
    best, queue = {source: 0.0}, [(0.0, source)]
    while queue:
        d, at = heapq.heappop(queue)
        if d > best[at]:
            continue
        for to, w in ways.get(at, ()):
            if d + w < best.get(to, np.inf):
                best[to] = d + w
                heapq.heappush(queue, (d + w, to))
    return time.monotonic() - began


def main() -> None:
    """Prints seconds of loading and of the matrix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--segments", type=int, default=100_000)
    parser.add_argument("--places", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.data
        if folder is None:
            folder = Path(made)
            made_graph(folder, arguments.segments, arguments.seed)
        began = time.monotonic()
        graph = RoadGraph.of(read(folder, "road_nodes"), read(folder, "road_segments"))
        loaded = time.monotonic() - began
        rng = np.random.default_rng(arguments.seed)
        chosen = rng.choice(graph.nodes.height, min(arguments.places, graph.nodes.height), replace=False)
        places = [str(name) for name in graph.nodes["node_id"].gather(np.sort(chosen))]
        matrix = travel_matrix(graph, places)
        seconds = time.monotonic() - began
        plain = np.mean([plain_dijkstra(graph, int(k)) for k in chosen[:3]]) * len(places)
        line = Detour().matrix(
            graph.nodes["latitude"].gather(np.sort(chosen)), graph.nodes["longitude"].gather(np.sort(chosen))
        )
    known = np.isfinite(matrix.km) & (matrix.km > 0)
    off = float(np.abs(line.km[known] / matrix.km[known] - 1).mean())
    print(
        f"{len(graph.km):,} segments, {graph.nodes.height:,} nodes; {len(places)} x {len(places)} matrix of minutes and km"
    )
    print(f"load {loaded:.1f} s, matrix {seconds - loaded:.1f} s, together {seconds:.1f} s; "
          f"{len(matrix.unreachable)} places unreachable")  # fmt: skip
    print(f"rivals: plain Python {plain:.0f} s (minutes only); straight lines off by {off:.0%} on average")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(arguments.out / "travel.npz", minutes=matrix.minutes, km=matrix.km, places=np.array(places))
        (arguments.out / "paths.json").write_text(json.dumps({"load": loaded, "seconds": seconds}) + "\n")


if __name__ == "__main__":
    main()
