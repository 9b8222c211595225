"""The plan as one integer program whose relaxation is tight, for few items.

Production is split by the period whose demand it serves, w_imtu, with w_imtu <= D_iu y_imt: the facility-location form of
Krarup & Bilde (1977), the convex hull of the uncapacitated single-item problem (Pochet & Wolsey 2006, sec. 7.4). Demand of
components is their echelon demand: what the demand of all items that contain them draws in (ibid., sec. 13.3). Units served
late have w with t > u, up to a window; beyond it the backlog itself covers the row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npq_assets.optimization.linear import INF, Array, Index, Model
from npq_assets.optimization.lot_sizing.link_cuts import Serving
from npq_assets.optimization.lot_sizing.linking import Links, add_links, no_links
from npq_assets.optimization.lot_sizing.problem import LotSizingProblem, Production


@dataclass
class Form:
    """An integer program and where its variables are; -1 where there is none.

    Attributes:
        model: The program.
        x: Units made (n, M, T).
        y: Setups made (n, M, T).
        z: Family setups made (K, M, T).
        links: Set-ups kept from the period before.
        overtime: Overtime minutes (M, T).
        stock: Stock (n, T).
        backlog: Backlog (n, T).
        missing: Missing safety stock (n, T).
        extra: Elastic minutes (M, T), -1 unless the form is elastic.
        unmet: Elastic units that never come (n, T), -1 unless elastic.
        serving: What lots make for which net demand of the item, inside others or not.
        there: Whether there is a lot, where that is a decision beside the set-ups (n, M, T).
        capacity_rows: Row of each machine and period (M, T).
        demand_rows: Balance row of each item and period (n, T).
    """

    model: Model
    x: Index
    y: Index
    z: Index
    links: Links
    overtime: Index
    stock: Index
    backlog: Index
    missing: Index
    extra: Index
    unmet: Index
    there: Index
    serving: Serving
    capacity_rows: Index
    demand_rows: Index

    def production(self, point: Array, problem: LotSizingProblem) -> Production:
        """The plan of a point."""
        x = np.where(self.x >= 0, point[self.x], 0.0)
        return production_of(np.maximum(x, 0.0), self.y, self.links, point)

    def fix_setups(self, setup: NDArray[np.bool_], kept: Index | None = None) -> None:
        """Fixes every setup made (n, M, T) and the items kept (M, T); None: none is."""
        fix_setups(self.model, self.y, self.links, setup, kept)


def production_of(quantity: Array, y: Index, links: Links, point: Array) -> Production:
    """The plan of a point with these quantities (n, M, T).

    Setups of nothing do nothing, unless the next period begins with them.
    """
    made = np.where(y >= 0, point[y] > 0.5, False)
    on = made
    if (links.item >= 0).any():
        on = made | np.where(links.item >= 0, point[links.item] > 0.5, False)
    quantity = np.where(on, quantity, 0.0)
    quantity[quantity < 1e-9] = 0.0
    ahead = made & links.after(point) if on is not made else False
    return Production(quantity, (on & (quantity > 0)) | ahead)


def fix_setups(model: Model, y: Index, links: Links, setup: NDArray[np.bool_], kept: Index | None) -> None:
    """Fixes every setup made (n, M, T) and the items kept (M, T; None: none is)."""
    known = y >= 0
    model.freeze()
    values = setup[known].astype(float)
    model.low[y[known]] = values
    model.high[y[known]] = values
    where = links.item[links.item >= 0]
    carried = np.zeros(len(where)) if kept is None else links.values(kept)
    model.low[where], model.high[where] = carried, carried


def echelon_demand(problem: LotSizingProblem) -> tuple[Array, Array]:
    """Demand with what all items that contain it draw in (n, T), and units of i in one unit of j, through all levels (n, n)."""
    n = len(problem.items)
    inside = np.eye(n)
    for j in problem.levels:
        for i in np.flatnonzero(problem.bill[:, j] > 0):
            inside[i] += problem.bill[i, j] * inside[j]
    demand = problem.demand.copy()
    demand[:, 0] += problem.initial_backlog
    return inside @ demand, inside


def largest_lot(problem: LotSizingProblem, echelon: Array) -> Array:
    """No lot of a best plan is larger (n, M, T)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        room = problem.capacity + np.minimum(problem.overtime_limit, 1e7)
        minutes = np.maximum(room[None] - problem.least_setup_time[:, :, None], 0.0)
        possible = np.where(problem.run_time[:, :, None] > 0, minutes / problem.run_time[:, :, None], INF)
        possible = np.where(
            (room[None] - problem.least_setup_time[:, :, None] < 0) | ~problem.eligible[:, :, None], 0.0, possible
        )
    useful = echelon.sum(axis=1) + problem.safety_stock + problem.minimum_lot
    # Components may be drawn by lots that exceed demand for their own minimum lot or safety stock.
    inside = echelon_demand(problem)[1]
    useful = useful + (inside - np.eye(len(useful))) @ (problem.safety_stock + problem.minimum_lot)
    late = problem.demand.shape[1] - np.arange(problem.demand.shape[1])
    tail = np.cumsum(echelon[:, ::-1], axis=1)[:, ::-1]
    slack = (useful - echelon.sum(axis=1))[:, None]
    # What may be late can be made after it was due.
    anything = (problem.may_be_late | (inside[:, problem.may_be_late].sum(axis=1) > 0))[:, None] & (late > 0)
    useful_by_period = np.where(anything, useful[:, None], tail + slack)
    lot: Array = np.minimum(possible, useful_by_period[:, None, :])
    return lot


def build(
    problem: LotSizingProblem, *, split: bool = True, window: int | None = None, elastic: bool = False,
    items: NDArray[np.bool_] | None = None,
) -> Form:  # fmt: skip
    """The integer program.

    Args:
        problem: The data.
        split: Add the facility-location variables; without them it is the textbook form with tightened big-M.
        window: Periods between making and serving that get a variable of their own; None for all.
        elastic: Let machines have extra minutes and items go short, at a price above all others.
        items: Which items (mask); others are left out.
    """
    n, machines, periods = problem.shape
    model = Model()
    chosen = np.ones(n, bool) if items is None else items
    echelon, inside = echelon_demand(problem)
    lot = largest_lot(problem, echelon)
    if elastic:
        generous = np.where(problem.eligible, (echelon.sum(axis=1) + problem.minimum_lot)[:, None], 0.0)
        lot = np.maximum(lot, generous[:, :, None])
    possible = (lot > 0) & problem.eligible[:, :, None] & chosen[:, None, None]
    none = np.full((n, machines, periods), -1)
    x, y = none.copy(), none.copy()
    count = int(possible.sum())
    x[possible] = model.add_columns(count, problem.variable_cost[possible])
    alone = np.array([f == "" for f in problem.families])
    free = ((problem.setup_cost == 0) & (problem.setup_time == 0) & (not problem.carry_over))[:, :, None]
    free = free & (alone & (problem.minimum_lot == 0))[:, None, None]
    setup_cost = np.broadcast_to(problem.setup_cost[:, :, None], possible.shape)
    low = np.broadcast_to(free, possible.shape)
    y[possible] = model.add_columns(count, setup_cost[possible], low[possible].astype(float), 1.0, integer=True)
    family_time, family_cost, of = problem.family_arrays()
    z = np.full((len(family_time), machines, periods), -1)
    if len(family_time):
        z = model.add_columns(z.shape, np.broadcast_to(family_cost[:, :, None], z.shape), 0.0, 1.0, integer=True)
    links = add_links(model, problem, y, z) if problem.carry_over else no_links(problem)
    # Whoever works overtime pays it; capacity is what counts where no overtime is possible.
    overtime = model.add_columns(
        (machines, periods), problem.overtime_cost, 0.0, np.minimum(problem.overtime_limit, 1e9)
    )
    stock = np.full((n, periods), -1)
    stock[chosen] = model.add_columns((int(chosen.sum()), periods), problem.holding_cost[chosen][:, None])
    late = chosen & problem.may_be_late
    backlog = np.full((n, periods), -1)
    backlog_cost = np.tile(problem.late_cost[late][:, None], (1, periods))
    backlog_cost[:, -1] += problem.end_late_cost[late]
    backlog[late] = model.add_columns((int(late.sum()), periods), backlog_cost, 0.0, problem.max_backlog[late])
    safe = chosen & (problem.safety_stock > 0) & (problem.safety_cost > 0)
    missing = np.full((n, periods), -1)
    missing[safe] = model.add_columns((int(safe.sum()), periods), problem.safety_cost[safe][:, None])
    if safe.any():
        rows = model.add_rows(int(safe.sum()) * periods, low=np.repeat(problem.safety_stock[safe], periods))
        model.add_entries(rows, stock[safe].ravel(), 1.0)
        model.add_entries(rows, missing[safe].ravel(), 1.0)
    extra, unmet = np.full((machines, periods), -1), np.full((n, periods), -1)
    if elastic:
        dear = elastic_price(problem)
        extra = model.add_columns((machines, periods), dear[0])
        unmet[chosen] = model.add_columns((int(chosen.sum()), periods), np.tile(dear[1][chosen][:, None], (1, periods)))
    capacity_rows = _capacity(model, problem, x, y, z, overtime, extra, possible, family_time)
    demand_rows = _balance(model, problem, x, stock, backlog, unmet, chosen)
    there = _lots(model, problem, x, y, z, links, of, lot, possible)
    serving: list[Serving] = []
    if split:
        serving = _split(model, problem, x, y, links, backlog, unmet, echelon, inside, lot, possible, chosen, window)
    model.freeze()
    return Form(
        model, x, y, z, links, overtime, stock, backlog, missing, extra, unmet, there, Serving.joined(serving), capacity_rows,
        demand_rows,
    )  # fmt: skip


def elastic_price(problem: LotSizingProblem) -> tuple[float, Array]:
    """Money per extra minute and per unit that never comes (n): above anything a limit that is kept could cost."""
    _, _, periods = problem.shape
    run = np.where(problem.eligible, problem.run_time, np.nan)
    # A minute for what no machine can make: such an item is only ever missing.
    able = (~np.isnan(run)).sum(axis=1)
    minutes_per_unit = np.where(able > 0, np.nansum(run, axis=1) / np.maximum(able, 1), 1.0)
    setup = float(np.max(problem.setup_cost, initial=0.0))
    holding = (
        float(np.max(problem.holding_cost, initial=0.0))
        * periods
        / max(1e-6, float(np.min(minutes_per_unit, initial=1.0)))
    )
    overtime = float(np.max(problem.overtime_cost, initial=0.0))
    minute = 10.0 * (1.0 + overtime + holding + setup / 10.0)
    late = np.nan_to_num(problem.late_cost) * periods + problem.end_late_cost
    # Going short is dearer than the minutes that would make it: machines give way first, if minutes can help.
    return minute, 20.0 * minute * np.maximum(minutes_per_unit, 0.1) + 10.0 * late


def _capacity(
    model: Model, problem: LotSizingProblem, x: Index, y: Index, z: Index, overtime: Index, extra: Index,
    possible: NDArray[np.bool_], family_time: Array,
) -> Index:  # fmt: skip
    _, machines, periods = problem.shape
    rows = model.add_rows(machines * periods, high=problem.capacity.ravel()).reshape(machines, periods)
    i, m, t = np.nonzero(possible)
    model.add_entries(rows[m, t], x[possible], problem.run_time[i, m])
    model.add_entries(rows[m, t], y[possible], problem.setup_time[i, m])
    if len(z):
        model.add_entries(np.broadcast_to(rows, z.shape), z, np.broadcast_to(family_time[:, :, None], z.shape))
    model.add_entries(rows, overtime, -1.0)
    if (extra >= 0).any():
        model.add_entries(rows, extra, -1.0)
    return rows


def _balance(
    model: Model,
    problem: LotSizingProblem,
    x: Index,
    stock: Index,
    backlog: Index,
    unmet: Index,
    chosen: NDArray[np.bool_],
) -> Index:
    """stock(t-1) + made + supply - drawn in - (demand + backlog(t-1) - backlog(t)) = stock(t), deliveries >= 0."""
    n, _, periods = problem.shape
    rows = np.full((n, periods), -1)
    start = np.zeros((n, periods))
    start[:, 0] = problem.initial_stock - problem.initial_backlog
    right = problem.demand - problem.supply - start
    rows[chosen] = model.add_rows(int(chosen.sum()) * periods, right[chosen].ravel(), right[chosen].ravel()).reshape(
        -1, periods
    )
    i, m, t = np.nonzero(x >= 0)
    ready = t + problem.lead_time[i]
    seen = ready < periods
    model.add_entries(rows[i[seen], ready[seen]], x[i[seen], m[seen], t[seen]], 1.0)
    for c in np.flatnonzero((problem.bill > 0).any(axis=1) & chosen):
        drawn = problem.bill[c, i] > 0
        model.add_entries(rows[c, t[drawn]], x[i[drawn], m[drawn], t[drawn]], -problem.bill[c, i[drawn]])
    model.add_entries(rows[chosen], stock[chosen], -1.0)
    model.add_entries(rows[chosen][:, 1:], stock[chosen][:, :-1], 1.0)
    late = backlog[:, 0] >= 0
    if late.any():
        model.add_entries(rows[late], backlog[late], 1.0)
        model.add_entries(rows[late][:, 1:], backlog[late][:, :-1], -1.0)
        owed = np.zeros((n, periods))
        owed[:, 0] = problem.initial_backlog
        top = (problem.demand + owed)[late]
        served = model.add_rows(int(late.sum()) * periods, high=top.ravel()).reshape(-1, periods)
        model.add_entries(served, backlog[late], 1.0)
        model.add_entries(served[:, 1:], backlog[late][:, :-1], -1.0)
    if (unmet >= 0).any():
        model.add_entries(rows[chosen], unmet[chosen], 1.0)
    return rows


def _lots(
    model: Model,
    problem: LotSizingProblem,
    x: Index,
    y: Index,
    z: Index,
    links: Links,
    of: Index,
    lot: Array,
    possible: NDArray[np.bool_],
) -> Index:
    there = np.full(x.shape, -1)
    i, m, t = np.nonzero(possible)
    rows = model.add_rows(len(i), high=0.0)
    model.add_entries(rows, x[possible], 1.0)
    model.add_entries(rows, y[possible], -lot[possible])
    kept = links.item[possible] >= 0
    model.add_entries(rows[kept], links.item[possible][kept], -lot[possible][kept])
    least = problem.minimum_lot[i] > 0
    if least.any():
        i, m, t = i[least], m[least], t[least]
        lots = y[i, m, t]
        if problem.carry_over:
            # A machine may stand set up for an item and make none of it: whether there is a lot is a decision of its own.
            lots = there[i, m, t] = model.add_columns(len(i), 0.0, 0.0, 1.0, integer=True)
            rows = model.add_rows(len(i), high=0.0)
            model.add_entries(rows, x[i, m, t], 1.0)
            model.add_entries(rows, lots, -lot[i, m, t])
        rows = model.add_rows(len(i), low=0.0)
        model.add_entries(rows, x[i, m, t], 1.0)
        model.add_entries(rows, lots, -problem.minimum_lot[i])
    if len(z):
        family_rows(model, y, z, links, of)
    return there


def family_rows(model: Model, y: Index, z: Index, links: Links, of: Index) -> None:
    """An item is set up where its family is: y_imt <= z_kmt + b_kmt; with links no family is set up without an item."""
    i, m, t = np.nonzero((y >= 0) & (of >= 0)[:, None, None])
    k = of[i]
    rows = model.add_rows(len(i), high=0.0)
    model.add_entries(rows, y[i, m, t], 1.0)
    model.add_entries(rows, z[k, m, t], -1.0)
    kept = links.family[k, m, t] >= 0
    model.add_entries(rows[kept], links.family[k, m, t][kept], -1.0)
    if (links.family >= 0).any():
        rows = model.add_rows(z.size, high=0.0).reshape(z.shape)
        model.add_entries(rows, z, 1.0)
        model.add_entries(rows[k, m, t], y[i, m, t], -1.0)


def _split(
    model: Model, problem: LotSizingProblem, x: Index, y: Index, links: Links, backlog: Index, unmet: Index, echelon: Array,
    inside: Array, lot: Array, possible: NDArray[np.bool_], chosen: NDArray[np.bool_], window: int | None,
) -> list[Serving]:  # fmt: skip
    """w_imtu: what lot (i, m, t) serves of the net echelon demand of u."""
    periods = len(problem.periods)
    ahead = periods if window is None else window
    owed_late = inside[:, problem.may_be_late]
    serving = []
    for i in np.flatnonzero(chosen):
        net = echelon[i].copy()
        on_hand = float(inside[i] @ problem.initial_stock)
        # First in, first out is right for stock that is there at the start; receipts come in time order too.
        receipts = inside[i] @ problem.supply
        late = bool(owed_late[i].sum() > 0)
        if late and receipts.sum() > 0:
            on_hand, receipts = on_hand + float(receipts.sum()), np.zeros(periods)
        for u in range(periods):
            on_hand += receipts[u]
            used = min(on_hand, net[u])
            net[u] -= used
            on_hand -= used
        behind = min(ahead, 3) if late else 0
        m_t = np.argwhere(possible[i])
        served = np.flatnonzero(net > 1e-9)
        if not len(m_t) or not len(served):
            continue
        made, due = m_t[:, 1][:, None], served[None, :]
        pair = (made <= due + behind) & (due - made <= ahead)
        a, b = np.nonzero(pair)
        w = model.add_columns(len(a))
        lots = np.array([x[i, m, s] for m, s in m_t])
        setups = np.array([y[i, m, s] for m, s in m_t])
        rows = model.add_rows(len(a), high=0.0)
        model.add_entries(rows, w, 1.0)
        most = np.minimum(net[served[b]], np.array([lot[i, m, s] for m, s in m_t])[a])
        model.add_entries(rows, setups[a], -most)
        kept = links.item[i, m_t[:, 0], m_t[:, 1]][a]
        model.add_entries(rows[kept >= 0], kept[kept >= 0], -most[kept >= 0])
        # sum of w <= x: what a lot serves is at most the lot.
        rows = model.add_rows(len(m_t), high=0.0)
        model.add_entries(rows[a], w, 1.0)
        model.add_entries(rows, lots, -1.0)
        far = np.zeros(len(served))
        if ahead < periods:
            # Lots before the window serve a period as one lump, bounded by the setups only through x.
            early = [np.flatnonzero(m_t[:, 1] < s - ahead) for s in served]
            far_w = [model.add_columns(len(e)) for e in early]
            for e, columns in zip(early, far_w, strict=True):
                if len(e):
                    model.add_entries(rows[e], columns, 1.0)
        rows = model.add_rows(len(served), low=net[served] - far)
        model.add_entries(rows[b], w, 1.0)
        if ahead < periods:
            for row, columns in zip(rows, far_w, strict=True):
                if len(columns):
                    model.add_entries(row, columns, 1.0)
        for j in np.flatnonzero((inside[i] > 0) & (backlog[:, 0] >= 0)):
            last = np.minimum(served + behind, periods - 1)
            model.add_entries(rows, backlog[j, last], inside[i, j])
        if (unmet >= 0).any():
            for j in np.flatnonzero(inside[i] > 0):
                r, s = np.nonzero(np.arange(periods)[None, :] <= served[:, None])
                model.add_entries(rows[r], unmet[j, s], inside[i, j])
        serving.append(Serving(np.full(len(a), i), m_t[a, 0], m_t[a, 1], served[b], w, net[served[b]]))
    return serving
