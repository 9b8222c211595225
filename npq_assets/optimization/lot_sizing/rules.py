"""What a careful planner does without an optimizer: the rule every plan is shown beside."""

from __future__ import annotations

import numpy as np

from npq_assets.optimization.lot_sizing.problem import LotSizingProblem, Production, price


def economic_lots(problem: LotSizingProblem) -> Production:
    """Economic lots loaded by earliest due period.

    Each item's lot is the economic order quantity sqrt(2 D Q / h) (Harris 1913; Q holds the setup's money and its minutes at
    the overtime price), at least the minimum lot, in whole periods of demand. Lots are loaded in order of due period, onto
    the eligible machine where the lot is cheapest among those with room, in the latest period with room at or before the
    due one; what finds no room there is made in overtime, or later (backlog) if the item may be late. Components follow the
    lots of what they go into. With `carry_over` the planner goes on with what a machine stands set up for, and interrupts no
    item that is kept so through a period.

    Returns:
        A plan that keeps all capacities; items that may not be late can be late in it when room is short.
    """
    n, machines, periods = problem.shape
    quantity = np.zeros((n, machines, periods))
    setup = np.zeros((n, machines, periods), bool)
    family_time, _, of = problem.family_arrays()
    family = np.zeros((len(family_time), machines, periods), bool)
    room = problem.capacity.copy()
    extra = np.minimum(problem.overtime_limit, 1e9)
    minute = (
        float(problem.overtime_cost[problem.overtime_cost > 0].mean()) if (problem.overtime_cost > 0).any() else 0.0
    )
    kept, through = np.full((machines, periods), -1), np.full((machines, periods), -1)
    drawn = np.zeros((n, periods))  # units that lots of other items draw in

    run = np.where(problem.eligible, problem.run_time, 0.0)
    unit = run * (minute + 1e-6) + problem.variable_cost.mean(axis=2)
    unit = np.where(problem.eligible, unit, np.inf)
    choices_of = [[int(m) for m in np.argsort(unit[i], kind="stable") if problem.eligible[i, m]] for i in range(n)]

    def last_lots(m: int, t: int) -> int:
        """The period before t in which the machine made something; -1 for none."""
        before = np.flatnonzero(setup[:, m, :t].any(axis=0))
        return int(before[-1]) if before.size else -1

    def stands(i: int, m: int, t: int) -> bool:
        """Whether t can begin with item i without a set-up."""
        if not problem.carry_over or kept[m, t] >= 0 or setup[i, m, t]:
            return False
        p = last_lots(m, t)
        if (kept[m, t + 1 :] >= 0).any() and not setup[:, m, t].any():
            return False
        if p < 0:
            return bool(problem.standing_at_start[m] == i)
        return bool(setup[i, m, p] and (kept[m, p] != i or setup[:, m, p].sum() == 1))

    def minutes(i: int, m: int, t: int, units: float) -> float:
        need = units * problem.run_time[i, m]
        if not setup[i, m, t] and not stands(i, m, t):
            need += problem.setup_time[i, m]
            if of[i] >= 0 and not family[of[i], m, t]:
                need += family_time[of[i], m]
        return float(need)

    def fits(i: int, m: int, t: int, available: float) -> float:
        """Units of i that fit into the minutes available."""
        if through[m, t] not in (-1, i):
            return 0.0
        fixed = minutes(i, m, t, 0.0)
        if available <= fixed:
            return 0.0
        run = problem.run_time[i, m]
        return (available - fixed) / run if run > 0 else np.inf

    def load(i: int, m: int, t: int, units: float) -> None:
        need = minutes(i, m, t, units)
        regular = min(room[m, t], need)
        room[m, t] -= regular
        extra[m, t] -= need - regular
        quantity[i, m, t] += units
        if stands(i, m, t):
            p = last_lots(m, t)
            kept[m, t] = i
            through[m, p + 1 : t] = i
            if p >= 0 and kept[m, p] == i:
                through[m, p] = i
        elif of[i] >= 0 and not setup[i, m, t]:
            family[of[i], m, t] = True
        setup[i, m, t] = True

    def place(i: int, due: int, units: float) -> None:
        lead = int(problem.lead_time[i])
        latest = max(0, due - lead)
        choices = choices_of[i]
        whole = max(units, float(problem.minimum_lot[i]))
        late = range(latest + 1, periods) if problem.may_be_late[i] or (problem.bill[i] > 0).any() else range(0)
        for days, overtime in (
            (range(latest, -1, -1), False),
            (range(latest, -1, -1), True),
            (late, False),
            (late, True),
        ):
            for t in days:
                for m in choices:
                    if fits(i, m, t, room[m, t] + (extra[m, t] if overtime else 0.0)) >= whole - 1e-9:
                        load(i, m, t, whole)
                        return
        for days in (range(latest, -1, -1), late):  # in parts
            for t in days:
                for m in choices:
                    part = min(units, fits(i, m, t, room[m, t] + extra[m, t]))
                    if part >= max(1e-6, float(problem.minimum_lot[i])):
                        load(i, m, t, part)
                        units -= part
                    if units <= 1e-9:
                        return

    # Level by level: what goes into other items is planned after them. Within a level, by due period.
    depth = np.zeros(n, int)
    for j in problem.levels:
        for i in np.flatnonzero(problem.bill[:, j] > 0):
            depth[i] = max(depth[i], depth[j] + 1)
    for level in range(int(depth.max(initial=0)) + 1):
        members = np.flatnonzero(depth == level)
        wanted = problem.demand + drawn
        wanted[:, 0] += problem.initial_backlog
        on_hand = problem.initial_stock - problem.safety_stock
        on_hand = on_hand.copy()
        size = {int(i): _economic_quantity(problem, int(i), wanted[i].mean(), minute) for i in members}
        for t in range(periods):
            on_hand += problem.supply[:, t] - wanted[:, t]
            for i in members[np.argsort(on_hand[members], kind="stable")]:
                if on_hand[i] >= -1e-9 or not problem.eligible[i].any():
                    continue
                short = -float(on_hand[i])
                # Whole periods of demand, up to the economic quantity.
                lot = short
                for u in range(t + 1, periods):
                    if lot + wanted[i, u] > max(size[int(i)], short) + 1e-9:
                        break
                    lot += float(wanted[i, u])
                before = quantity[i].sum()
                place(int(i), t, lot)
                on_hand[i] += quantity[i].sum() - before
        made = quantity[members].sum(axis=1)
        drawn += problem.bill[:, members] @ made
    plan = Production(quantity, setup & (quantity > 0))
    return _without_phantoms(problem, plan)


def _economic_quantity(problem: LotSizingProblem, i: int, mean: float, minute: float) -> float:
    able = problem.eligible[i]
    if not able.any():
        return 0.0
    fixed = float((problem.setup_cost[i, able] + problem.setup_time[i, able] * minute).min())
    holding = max(float(problem.holding_cost[i]), 1e-9)
    return max(float(problem.minimum_lot[i]), float(np.sqrt(2.0 * mean * fixed / holding)))


def _without_phantoms(problem: LotSizingProblem, plan: Production) -> Production:
    """Cuts or moves lots whose components are not there in time: a planner starts no lot without its parts."""
    if not (problem.bill > 0).any():
        return plan
    n, _, periods = problem.shape
    quantity = np.zeros_like(plan.quantity)
    waiting = np.zeros(plan.quantity.shape[:2])
    made = np.zeros((n, periods))
    stock = problem.initial_stock.copy()
    run = np.where(problem.eligible, problem.run_time, 0.0)
    for t in range(periods):
        stock = stock + problem.supply[:, t]
        for i in range(n):
            lead = int(problem.lead_time[i])
            if 0 < lead <= t:
                stock[i] += made[i, t - lead]
        left = problem.capacity[:, t] + np.minimum(problem.overtime_limit[:, t], 1e9)
        for i in reversed(problem.levels):  # components first
            parts = np.flatnonzero(problem.bill[:, i] > 0)
            for m in (int(k) for k in np.flatnonzero(problem.eligible[i])):
                wish = plan.quantity[i, m, t] + waiting[i, m]
                able = min([wish, *(stock[c] / problem.bill[c, i] for c in parts)])
                free = left[m] - problem.setup_time[i, m]
                if of_family(problem, i, m) > 0:
                    free -= of_family(problem, i, m)
                able = min(able, free / run[i, m] if run[i, m] > 0 else able)
                if able < max(1e-6, float(problem.minimum_lot[i])):
                    waiting[i, m] = wish
                    continue
                quantity[i, m, t] = able
                waiting[i, m] = max(0.0, wish - able)
                left[m] -= problem.setup_time[i, m] + of_family(problem, i, m) + able * run[i, m]
                made[i, t] += able
                stock[parts] -= problem.bill[parts, i] * able
                if problem.lead_time[i] == 0:
                    stock[i] += able
        stock -= 0.0
        for i in range(n):
            owed = problem.demand[i, t]
            if (problem.bill[i] > 0).any() and owed > 0:
                stock[i] = max(0.0, stock[i] - owed)
    cut = Production(quantity, quantity > 0)
    return cut if price(problem, cut).total < np.inf else plan


def of_family(problem: LotSizingProblem, i: int, m: int) -> float:
    """Minutes of the item's family setup on the machine."""
    times, _, of = problem.family_arrays()
    return float(times[of[i], m]) if of[i] >= 0 else 0.0
