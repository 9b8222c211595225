"""The facility-location form without stock variables, for items that no other item contains.

Where nothing but demand draws on an item (no bill of material, minimum lot, lead time or safety stock), stock and backlog need
no variables: w_imtu, units that lot (m, t) makes for the demand of u, carries its own holding or lateness cost. Krarup & Bilde
(1977); Pochet & Wolsey (2006), sec. 7.4. The same form serves a part of the items in what capacity the others leave.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npq_assets.optimization.linear import INF, Array, Index, Model
from npq_assets.optimization.lot_sizing.link_cuts import Serving
from npq_assets.optimization.lot_sizing.linking import Links, add_links, no_links
from npq_assets.optimization.lot_sizing.problem import LotSizingProblem, Production
from npq_assets.optimization.lot_sizing.tight import elastic_price, family_rows, fix_setups, production_of


def is_pure(problem: LotSizingProblem) -> bool:
    """Whether this form states the whole problem."""
    unlimited = np.isinf(problem.max_backlog) | (problem.max_backlog == 0)
    return bool(
        not (problem.bill > 0).any()
        and not (problem.minimum_lot > 0).any()
        and not (problem.lead_time > 0).any()
        and not ((problem.safety_stock > 0) & (problem.safety_cost > 0)).any()
        and not ((problem.supply > 0).any(axis=1) & problem.may_be_late).any()
        and unlimited.all()
    )


def net_demand(problem: LotSizingProblem) -> Array:
    """Demand that must be made: initial stock and receipts serve the earliest (n, T)."""
    demand = problem.demand.copy()
    demand[:, 0] += problem.initial_backlog
    on_hand = problem.initial_stock.copy()
    net = np.zeros_like(demand)
    for t in range(demand.shape[1]):
        on_hand = on_hand + problem.supply[:, t]
        used = np.minimum(on_hand, demand[:, t])
        net[:, t] = demand[:, t] - used
        on_hand = on_hand - used
    return net


def sunk_cost(problem: LotSizingProblem) -> float:
    """Holding cost of initial stock and receipts, which no decision changes (money)."""
    demand = problem.demand.copy()
    demand[:, 0] += problem.initial_backlog
    on_hand, cost = problem.initial_stock.copy(), 0.0
    for t in range(demand.shape[1]):
        on_hand = np.maximum(0.0, on_hand + problem.supply[:, t] - demand[:, t])
        cost += float(problem.holding_cost @ on_hand)
    return cost


def serving_cost(problem: LotSizingProblem, i: int) -> Array:
    """Money per unit of item i made in t for the demand of u, without making it (T, T); inf where not allowed."""
    periods = len(problem.periods)
    t, u = np.arange(periods)[:, None], np.arange(periods)[None, :]
    cost = np.where(t <= u, problem.holding_cost[i] * (u - t), INF)
    if problem.may_be_late[i]:
        cost = np.where(t > u, problem.late_cost[i] * (t - u), cost)
        cost = np.where((t > u) & (t > last_allowed(problem, i)[None, :]), INF, cost)
    return cost


def last_allowed(problem: LotSizingProblem, i: int) -> Index:
    """Latest period in which the demand of u may be made (T)."""
    periods = len(problem.periods)
    if not problem.may_be_late[i]:
        return np.arange(periods)
    stops = np.where(problem.max_backlog[i] == 0, np.arange(periods), periods)
    return np.minimum.accumulate(stops[::-1])[::-1]


def unserved_cost(problem: LotSizingProblem, i: int) -> Array:
    """Money per unit of demand u still owed after the last period (T); inf where not allowed."""
    periods = len(problem.periods)
    if not problem.may_be_late[i]:
        return np.full(periods, INF)
    cost = problem.late_cost[i] * (periods - np.arange(periods)) + problem.end_late_cost[i]
    return np.where(last_allowed(problem, i) < periods, INF, cost)


@dataclass
class PureForm:
    """The program of some items and where its variables are; -1 where there is none.

    Attributes:
        model: The program.
        y: Setups made (n, M, T).
        z: Family setups made (K, M, T).
        links: Set-ups kept from the period before.
        overtime: Overtime minutes (M, T).
        extra: Elastic minutes (M, T), -1 unless elastic.
        serving: What every lot makes for which demand, with the variables w.
        capacity_rows: (M, T).
        constant: Money beside the program's objective.
    """

    model: Model
    y: Index
    z: Index
    links: Links
    overtime: Index
    extra: Index
    serving: Serving
    capacity_rows: Index
    constant: float

    def production(self, point: Array, problem: LotSizingProblem) -> Production:
        """The plan of a point; items left out make nothing."""
        quantity = np.zeros(problem.shape)
        lots = self.serving
        np.add.at(quantity, (lots.item, lots.machine, lots.made), np.maximum(point[lots.column], 0.0))
        return production_of(quantity, self.y, self.links, point)

    def fix_setups(self, setup: NDArray[np.bool_], kept: Index | None = None) -> None:
        """Fixes every setup made (n, M, T) and the items kept (M, T); None: none is."""
        fix_setups(self.model, self.y, self.links, setup, kept)


def build_pure(
    problem: LotSizingProblem,
    *,
    items: NDArray[np.bool_] | None = None,
    allowed: NDArray[np.bool_] | None = None,
    forced: NDArray[np.bool_] | None = None,
    used: Array | None = None,
    family_on: NDArray[np.bool_] | None = None,
    earlier_lots: int | None = None,
    elastic: bool = False,
    linked: bool = True,
) -> PureForm:
    """The program.

    Args:
        problem: The data; must be `is_pure` (or the caller checks the plan).
        items: Items to plan (n); others are left out.
        allowed: Lots that may be (n, M, T).
        forced: Lots that are set up for certain (n, M, T).
        used: Minutes that the items left out take (M, T).
        family_on: Family setups that the items left out pay already (K, M, T).
        earlier_lots: How many allowed lots at or before a period may serve it; None for all.
        elastic: Let machines have extra minutes at a price above all others.
        linked: With the problem's `carry_over`; False sets up every lot, which may cost too much but is always possible.
    """
    n, machines, periods = problem.shape
    model = Model()
    net = net_demand(problem)
    chosen = np.ones(n, bool) if items is None else items
    room = problem.capacity + np.minimum(problem.overtime_limit, 1e9)
    possible = problem.eligible[:, :, None] & chosen[:, None, None] & np.ones(problem.shape, bool)
    if not elastic:
        least = problem.least_setup_time if linked else problem.setup_time
        possible = possible & (room[None] > least[:, :, None])
    if allowed is not None:
        possible = possible & allowed
    y = np.full((n, machines, periods), -1)
    setup_cost = np.broadcast_to(problem.setup_cost[:, :, None], possible.shape)
    family_time, family_cost, of = problem.family_arrays()
    linked = linked and problem.carry_over
    free = ((problem.setup_cost == 0) & (problem.setup_time == 0) & (of < 0)[:, None] & (not linked))[:, :, None]
    low = np.broadcast_to(free, possible.shape) | (False if forced is None else forced)
    y[possible] = model.add_columns(
        int(possible.sum()), setup_cost[possible], low[possible].astype(float), 1.0, integer=True
    )
    z = np.full((len(family_time), machines, periods), -1)
    if len(family_time):
        price = np.broadcast_to(family_cost[:, :, None], z.shape)
        price = price if family_on is None else np.where(family_on, 0.0, price)
        z = model.add_columns(z.shape, price, 0.0, 1.0, integer=True)
    links = add_links(model, problem, y, z) if linked else no_links(problem)
    limit, regular = np.minimum(problem.overtime_limit, 1e9), problem.capacity.copy()
    taken = np.zeros_like(regular) if used is None else used
    # Overtime that the items left out need already is sunk.
    sunk = np.maximum(0.0, taken - regular)
    overtime = model.add_columns((machines, periods), problem.overtime_cost, sunk, np.maximum(limit, sunk))
    extra = np.full((machines, periods), -1)
    if elastic:
        extra = model.add_columns((machines, periods), elastic_price(problem)[0])
    rows = model.add_rows(machines * periods, high=(regular - taken).ravel()).reshape(machines, periods)
    model.add_entries(rows, overtime, -1.0)
    if elastic:
        model.add_entries(rows, extra, -1.0)
    i, m, t = np.nonzero(possible)
    model.add_entries(rows[m, t], y[possible], problem.setup_time[i, m])
    if len(z):
        minutes = np.broadcast_to(family_time[:, :, None], z.shape)
        minutes = minutes if family_on is None else np.where(family_on, 0.0, minutes)
        model.add_entries(np.broadcast_to(rows, z.shape), z, minutes)
        family_rows(model, y, z, links, of)
    variable, serving = problem.variable_cost, []
    for item in (int(k) for k in np.flatnonzero(chosen)):
        served = np.flatnonzero(net[item] > 1e-9)
        own = np.argwhere(possible[item])
        if not len(served):
            continue
        cost = serving_cost(problem, item)[own[:, 1]][:, served] + variable[item][own[:, 0], own[:, 1]][:, None]
        pair = np.isfinite(cost)
        if earlier_lots is not None and len(own):
            before = (own[:, 1][:, None] <= served[None, :]) & pair
            # Rank of a lot among those before the period, the nearest first.
            order = np.lexsort((own[:, 0], own[:, 1]))
            rank = np.empty_like(cost)
            rank[order] = np.cumsum(before[order][::-1], axis=0)[::-1]
            pair &= ~before | (rank <= earlier_lots)
        a, b = np.nonzero(pair)
        w = model.add_columns(len(a), cost[pair])
        m, t = own[a, 0], own[a, 1]
        units = net[item][served]
        rows_of = model.add_rows(len(served), units, units)
        model.add_entries(rows_of[b], w, 1.0)
        owed = unserved_cost(problem, item)[served]
        if np.isfinite(owed).any():
            late = model.add_columns(int(np.isfinite(owed).sum()), owed[np.isfinite(owed)])
            model.add_entries(rows_of[np.isfinite(owed)], late, 1.0)
        model.add_entries(rows[m, t], w, problem.run_time[item, m])
        most, kept = units[b], links.item[item, m, t]
        most_kept = most
        if not elastic:
            with np.errstate(divide="ignore"):
                run = np.where(problem.run_time[item, m] > 0, problem.run_time[item, m], np.nan)
                fits = np.nan_to_num((room[m, t] - problem.setup_time[item, m]) / run, nan=INF, posinf=INF)
                fits_kept = np.nan_to_num(room[m, t] / run, nan=INF, posinf=INF)
            most, most_kept = np.minimum(most, np.maximum(fits, 0.0)), np.minimum(most, fits_kept)
        bounds = model.add_rows(len(a), high=0.0)
        model.add_entries(bounds, w, 1.0)
        model.add_entries(bounds, y[item, m, t], -most)
        model.add_entries(bounds[kept >= 0], kept[kept >= 0], -most_kept[kept >= 0])
        serving.append(Serving(np.full(len(a), item), m, t, served[b], w, units[b]))
    model.freeze()
    return PureForm(model, y, z, links, overtime, extra, Serving.joined(serving), rows, sunk_cost(problem))
