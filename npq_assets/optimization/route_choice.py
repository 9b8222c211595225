"""The cheapest plan made of routes at hand, of which only so many may differ from those that stand.

    minimize    sum_r p_r x_r + sum_i d_i z_i
    subject to  sum_{r serves i} x_r + z_i = 1                      each stop i: on one route, or left out at its price
                sum_{r of v} x_r <= 1                               each vehicle v
                sum_{v} (1 - x_{r(v)}) + sum_{r of idle v} x_r <= k routes that change; r(v): the route that v has now

Set partitioning over the routes that searches have met (see `route_pool`), with one row more that counts changes. What a
stop or a price is does not belong here (see `replanning`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from npq_assets.optimization.linear import Model, solve_integer, solve_linear

_MOST_COLUMNS = 2_000


@dataclass(frozen=True)
class Column:
    """A route that a vehicle could drive.

    Attributes:
        vehicle: Which.
        visits: Stops in order.
        price: No more than it costs (money); not read of routes that stand.
        stands: Whether the vehicle has this route now.
        idle: Whether the vehicle has none now.
    """

    vehicle: int
    visits: tuple[int, ...]
    price: float
    stands: bool = False
    idle: bool = False


def choose(
    columns: Sequence[Column],
    left_out: Mapping[int, float],
    most: int | None,
    known: Sequence[Column],
    price: Callable[[Column], float],
    *,
    seconds: float = 5.0,
    nodes: int = 200,
) -> list[Column] | None:
    """The cheapest plan, if it is cheaper than the one known; None if none was found.

    Args:
        columns: Routes to choose from.
        left_out: By stop, what leaving it out costs.
        most: Routes that may change; None: all.
        known: A plan that changes no more.
        price: What a route really costs. It may be dear to tell, so only routes that can be in a better plan are asked for.
        seconds: Clock limit behind the limit by work.
        nodes: Branch-and-bound nodes.
    """
    began = time.monotonic()
    served = {s for c in known for s in c.visits}
    worth = sum(price(c) for c in known) + sum(p for s, p in left_out.items() if s not in served)
    # The plan known comes first, so that no doublet of its routes stands in for them.
    unique = {(c.vehicle, frozenset(c.visits)): c for c in [*columns, *(c for c in columns if c.stands), *known]}
    chosen = list(unique.values())
    mine = {(c.vehicle, c.visits) for c in known}
    for exact in (False, True):
        priced = np.array([price(c) if exact or c.stands or (c.vehicle, c.visits) in mine else c.price for c in chosen])
        model, x = _program(chosen, priced, left_out, most)
        relaxed = solve_linear(model, seconds=seconds)
        if relaxed.reduced is None or worth - relaxed.objective <= 1e-6 * max(1.0, worth):
            return None
        reduced = relaxed.reduced[x]
        # No better plan has a route whose reduced cost is above the gap.
        near = np.flatnonzero(reduced <= worth - relaxed.objective + 1e-6)
        near = near[np.argsort(reduced[near], kind="stable")[:_MOST_COLUMNS]]
        keep = set(near.tolist()) | {k for k, c in enumerate(chosen) if c.stands or (c.vehicle, c.visits) in mine}
        chosen = [chosen[k] for k in sorted(keep)]
    priced = np.array([price(c) for c in chosen])
    model, x = _program(chosen, priced, left_out, most)
    start = np.zeros(model.columns)
    start[x] = [float((c.vehicle, c.visits) in mine) for c in chosen]
    start[len(chosen) :] = [float(s not in served) for s in left_out]
    answer = solve_integer(
        model, seconds=max(0.1, seconds - (time.monotonic() - began)), gap=1e-7, nodes=nodes, start=start
    )
    if answer.x is None or answer.objective > worth - 1e-6 * max(1.0, worth):
        return None
    return [chosen[k] for k in np.flatnonzero(answer.x[x] > 0.5)]


def _program(
    columns: Sequence[Column], prices: np.ndarray, left_out: Mapping[int, float], most: int | None
) -> tuple[Model, np.ndarray]:
    """The program and the numbers of its route variables, which come first; then one for each stop left out."""
    model = Model()
    x = model.add_columns(len(columns), prices, 0.0, 1.0, integer=True)
    z = model.add_columns(len(left_out), np.fromiter(left_out.values(), float), 0.0, 1.0, integer=True)
    rows = model.add_rows(len(left_out), 1.0, 1.0)
    row_of = dict(zip(left_out, rows.tolist(), strict=True))
    model.add_entries(rows, z, 1.0)
    members = np.array([row_of[s] for c in columns for s in c.visits], dtype=np.int64)
    model.add_entries(members, np.repeat(x, [len(c.visits) for c in columns]), 1.0)
    cars = sorted({c.vehicle for c in columns})
    limits = model.add_rows(len(cars), -np.inf, 1.0)
    limit_of = dict(zip(cars, limits.tolist(), strict=True))
    model.add_entries(np.array([limit_of[c.vehicle] for c in columns], dtype=np.int64), x, 1.0)
    if most is not None:
        sign = np.array([float(c.idle) - float(c.stands) for c in columns])
        row = model.add_rows(1, -np.inf, float(most - sum(c.stands for c in columns)))
        model.add_entries(row, x, sign)
    return model, x
