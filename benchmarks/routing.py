"""Vehicle routing on published instances: `python -m benchmarks.routing --data DIR --out DIR`.

Reads VRPLIB and Solomon files from DIR and all folders below it, solves each with both cores for `--seconds`, writes
`<instance>.sol` in VRPLIB format, and prints the gap to the best-known solution beside it (if there is one), with
Clarke-Wright savings, a sweep and nearest neighbour as rivals from the same run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from npq_assets.optimization.route_search import Plan, Team, as_solution, cost_of

SCALES = {"round": 1.0, "dimacs": 10.0, "exact": 1000.0}


@dataclass(frozen=True)
class Instance:
    """A published problem.

    Attributes:
        name: Name of its file.
        group: Folder it lies in.
        data: PyVRP's problem.
        scale: Integer cost units in one unit of the published costs.
        types: Index of the vehicle type of each numbered vehicle, in the order of the file.
        path: Its file.
    """

    name: str
    group: str
    data: Any
    scale: float
    types: list[int]
    path: Path


def rounding_of(instance: dict[str, Any]) -> str:
    """The convention of the published costs: whole units, tenths cut off (time windows), or thousandths."""
    coordinates = np.asarray(instance.get("node_coord", [[0.0]]), float)
    depots = np.atleast_1d(instance.get("depot", [0]))
    if len(depots) > 1 or not np.allclose(coordinates, np.round(coordinates)):
        return "exact"
    return "dimacs" if "time_window" in instance else "round"


def read_instance(path: Path, root: Path) -> Instance:
    """Reads an instance in VRPLIB's or Solomon's format."""
    import pyvrp
    import vrplib

    group = path.parent.name if path.parent != root else root.name
    if path.suffix == ".txt":
        raw = vrplib.read_instance(str(path), instance_format="solomon")
        data = _solomon(raw)
        return Instance(path.stem, group, data, 10.0, [0] * data.num_vehicles, path)
    raw = vrplib.read_instance(str(path), compute_edge_weights=False)
    rounding = rounding_of(raw)
    data = pyvrp.read(path, round_func=rounding)
    types = [0] * data.num_vehicles
    for index, kind in enumerate(data.vehicle_types()):
        for vehicle in str(kind.name).split(","):
            types[int(vehicle)] = index
    return Instance(path.stem, group, data, SCALES[rounding], types, path)


def _solomon(raw: dict[str, Any]) -> Any:
    from pyvrp import Client, Depot, Location, ProblemData, VehicleType

    tenth = (10 * np.asarray(raw["edge_weight"])).astype(np.int64)
    window = (10 * np.asarray(raw["time_window"])).astype(np.int64)
    service = (10 * np.asarray(raw["service_time"])).astype(np.int64)
    demand = np.asarray(raw["demand"]).astype(np.int64)
    return ProblemData(
        [Location(float(x), float(y)) for x, y in raw["node_coord"]],
        [
            Client(k, [int(demand[k])], [], int(service[k]), int(window[k, 0]), int(window[k, 1]))
            for k in range(1, len(demand))
        ],
        [Depot(0)],
        [
            VehicleType(
                int(raw["vehicles"]), [int(raw["capacity"])], tw_early=int(window[0, 0]), tw_late=int(window[0, 1])
            )
        ],
        [tenth],
        [tenth],
    )


def write_solution(instance: Instance, plan: Plan, cost: int, place: Path) -> None:
    """Writes a plan; where vehicles differ, route k is driven by vehicle k of the file, idle vehicles have no stops."""
    first = instance.data.num_depots
    routes: list[list[int]] = []
    if instance.data.num_vehicle_types == 1:
        routes = [visits for _, visits in plan]
    else:
        waiting: dict[int, list[list[int]]] = {}
        for kind, visits in plan:
            waiting.setdefault(kind, []).append(visits)
        for kind in instance.types:
            routes.append(waiting[kind].pop(0) if waiting.get(kind) else [])
    # One depot: customers count from 1; several depots: locations as in the file, which list the depots first.
    lines = [f"Route #{k}: " + " ".join(str(first + v) for v in visits) for k, visits in enumerate(routes, 1)]
    published = cost / instance.scale
    lines.append(f"Cost: {cost if instance.scale == 1000.0 else f'{published:.10g}'}")
    place.write_text("\n".join(lines) + "\n")


def best_known(path: Path) -> float | None:
    """Cost in the solution file beside the instance, if there is one."""
    beside = path.with_suffix(".sol")
    if not beside.exists():
        return None
    for line in beside.read_text().splitlines():
        if line.lower().startswith("cost"):
            return float(line.split()[-1])
    return None


def evaluated(data: Any, plan: Plan) -> int | None:
    """Cost of a plan if it keeps all rules."""
    try:
        solution = as_solution(data, plan)
    except (RuntimeError, ValueError):
        return None
    return cost_of(data, solution) if solution.is_feasible() else None


# Rivals ------------------------------------------------------------------------------------------------------------------


def rival(instance: Instance, name: str) -> int | None:
    """Cost of a simple rule's plan, or None if it finds none that keeps the rules (one depot, one type of vehicle)."""
    data = instance.data
    if data.num_depots > 1 or data.num_vehicle_types > 1:
        return None
    from npq_assets.optimization.route_rules import nearest_neighbour, savings, sweep

    rules: dict[str, Callable[..., list[list[int]]]] = {
        "savings": savings, "sweep": sweep, "nearest": nearest_neighbour,
    }  # fmt: skip
    kind = data.vehicle_type(0)
    clients = data.clients()
    depot = data.depot(kind.start_depot).location
    order = [depot] + [c.location for c in clients]
    grid = np.ix_(order, order)
    routes = rules[name](
        data.distance_matrix(0)[grid].astype(float),
        data.duration_matrix(0)[grid].astype(float),
        demand=np.array([0.0] + [float(c.delivery[0]) if c.delivery else 0.0 for c in clients]),
        capacity=float(kind.capacity[0]) if kind.capacity else np.inf,
        ready=np.array([float(kind.tw_early)] + [float(c.tw_early) for c in clients]),
        due=np.array([float(kind.tw_late)] + [float(c.tw_late) for c in clients]),
        service=np.array([0.0] + [float(c.service_duration) for c in clients]),
        where=np.array([(data.location(p).x, data.location(p).y) for p in order], float),
    )
    plan = [(0, [k - 1 for k in route]) for route in routes]
    return evaluated(data, plan) if len(plan) <= kind.num_available else None


def seconds_for(instance: Instance, asked: float | None) -> float:
    """10 s for Solomon's hundred customers, 60 s otherwise, unless told."""
    if asked is not None:
        return asked
    return 10.0 if instance.path.suffix == ".txt" else 60.0


def main() -> None:
    """Solves all instances and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Folder of instances; folders below it count.")
    parser.add_argument("--out", type=Path, required=True, help="Where `<instance>.sol` goes.")
    parser.add_argument("--seconds", type=float, help="Per instance; else 60, and 10 for Solomon's.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", help="Only instances whose folder/name contains one of these (comma-separated).")
    parser.add_argument("--every", type=int, default=1, help="Only every n-th instance of each folder.")
    arguments = parser.parse_args()
    paths = sorted(
        p for p in arguments.data.rglob("*") if p.suffix in (".vrp", ".txt") and "readme" not in p.name.lower()
    )
    if arguments.only:
        words = arguments.only.split(",")
        paths = [p for p in paths if any(w in f"{p.parent.name}/{p.name}" for w in words)]
    by_group: dict[str, list[Path]] = {}
    for path in paths:
        by_group.setdefault(path.parent.name, []).append(path)
    paths = [p for group in by_group.values() for p in group[:: arguments.every]]
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    print(f"{'instance':<32}{'stops':>6}{'cost':>14}{'best known':>14}{'gap':>8}"
          f"{'savings':>9}{'sweep':>8}{'nearest':>9}{'s':>7}", flush=True)  # fmt: skip
    with Team(arguments.workers) as team:
        for path in paths:
            try:
                instance = read_instance(path, arguments.data)
            except (ValueError, KeyError, OSError) as error:
                print(f"{path}: cannot be read as an instance ({error})", flush=True)
                continue
            rows.append(solve_one(instance, team, arguments))
            print(_line(rows[-1]), flush=True)
    _summary(rows)
    (arguments.out / "routing.json").write_text(json.dumps(rows, indent=1) + "\n")


def solve_one(instance: Instance, team: Team, arguments: argparse.Namespace) -> dict[str, Any]:
    """Solves one instance, writes its solution, and returns the row of the table."""
    began = time.monotonic()
    found = team.search(instance.data, seconds_for(instance, arguments.seconds), arguments.seed)
    seconds = time.monotonic() - began
    row: dict[str, Any] = {
        "instance": instance.name, "group": instance.group, "stops": instance.data.num_clients, "seconds": seconds,
        "cost": None, "best_known": None, "gap": None,
    }  # fmt: skip
    known = best_known(instance.path)
    unit = _unit(instance, known)
    row["best_known"] = known
    if found.cost is not None:
        write_solution(instance, found.plan, found.cost, arguments.out / f"{instance.name}.sol")
        row["cost"] = found.cost / unit
        row["gap"] = None if known is None else row["cost"] / known - 1
    for name in ("savings", "sweep", "nearest"):
        cost = rival(instance, name)
        row[name] = None if cost is None or found.cost is None else cost / found.cost - 1
    return row


def _unit(instance: Instance, known: float | None) -> float:
    """Best-known files give costs as published or in PyVRP's integers; mixed fleets count hundredths."""
    if instance.data.num_vehicle_types > 1 and instance.scale == 1.0:
        return 100.0
    if known is not None and instance.scale == 1000.0:
        return 1.0
    if known is not None and any(c.prize for c in instance.data.clients()):
        return 1.0
    return instance.scale


def _line(row: dict[str, Any]) -> str:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:+.2%}"

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:,.1f}"

    return (
        f"{row['group'] + '/' + row['instance']:<32}{row['stops']:>6}{number(row['cost']):>14}"
        f"{number(row['best_known']):>14}{share(row['gap']):>8}{share(row['savings']):>9}{share(row['sweep']):>8}"
        f"{share(row['nearest']):>9}{row['seconds']:>7.1f}"
    )


def _summary(rows: list[dict[str, Any]]) -> None:
    print()
    for group in sorted({row["group"] for row in rows}):
        mine = [row for row in rows if row["group"] == group]
        gaps = [row["gap"] for row in mine if row["gap"] is not None]
        lost = sum(row["cost"] is None for row in mine)
        mean = f"mean gap {np.mean(gaps):.2%}, worst {max(gaps):.2%}" if gaps else "no best-known solutions"
        print(f"{group}: {len(mine)} instances, {lost} without a plan that keeps the rules, {mean}")


if __name__ == "__main__":
    main()
