"""From orders in hand to lots with a price: the day's production plan, solved cell by cell, beside the naive rule's.

Thin: the problem and its solution are `npq_assets.optimization.lot_sizing`; this file fills it in and puts it in words. A cell
is a set of machines and products that share nothing with the others; cells are planned alone and their costs and bounds add
up.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from npq_assets.evaluation.ledger import decision_id
from npq_assets.manufacturing.demand import DueDemand, due_demand
from npq_assets.manufacturing.inputs import ManufacturingInputs
from npq_assets.optimization.lot_sizing import (
    LotSizingProblem,
    LotSizingResult,
    Params,
    Production,
    economic_lots,
    flow,
    force_near,
    price,
    pure,
    solve,
    tight,
    violations,
    worth_of_capacity,
)
from npq_assets.optimization.lot_sizing.link_cuts import solve_tightened

# Periods planned ahead.
HORIZON = {"day": 14, "week": 10}
# A plan proven this close to the best is good enough: tomorrow brings news worth more.
GAP = 0.02
NODES = 1
# Units due later than tomorrow are planned to be there this many days earlier: machines stop and scrap without notice.
SAFETY_DAYS = 1
# Owed units that the plan leaves owed at its end wait about this many days more.
END_DAYS = 7.0
# A watchdog process is worth its start for searches of this many setups.
WATCHED_SETUPS = 1_000
# Cells of so many setups are solved beside each other.
LARGE_SETUPS = 130
# What changing one lot of the coming days costs beyond the plan: people, tools and material are ready for it.
PRICE_OF_CHANGE = 15.0
# The plan in force is solved anew when its cost over the relaxation's bound has grown by more than this share, …
TOLERATED_STRAIN = 0.03
# … or after this many periods, since its end comes near.
SOLVED_EVERY = 5
QUICK_SECONDS = 30.0
# For so many late orders of a cell, those that cost most, the plan is searched again with them in time.
FORCED_ORDERS = 2
# Whether the plan counts on machines keeping their set-up from one period into the next, as the schedule and the floor do.
CARRY_OVER = True
# Periods whose lots count as changed when a new plan moves them.
FIRM_PERIODS = 2

LOTS = {
    "period_start": pl.Date, "product_id": pl.String, "machine_id": pl.String, "quantity": pl.Float64,
    "run_minutes": pl.Float64, "setup_minutes": pl.Float64,
}  # fmt: skip
SETUPS = {"period_start": pl.Date, "product_id": pl.String, "machine_id": pl.String}


@dataclass(frozen=True)
class Cell:
    """Machines and products that share nothing with others.

    Attributes:
        name: Its first machine's line, and a number where a line falls apart.
        problem: Its lot-sizing problem.
        products: Products that it makes; components that bind are further items of the problem.
    """

    name: str
    problem: LotSizingProblem
    products: tuple[str, ...]


@dataclass(frozen=True)
class PlannedCell:
    """A cell with the plan chosen.

    Attributes:
        cell: The cell.
        result: What the solver found.
        production: The plan chosen: the solver's, or the one in force where changing does not pay.
        kept: Whether the plan in force was kept.
        changed: Lots of the firm periods that differ from the plan in force.
        saving_of_change: Cost of the plan in force less cost of the new one (money); 0 where none was sought.
        strain: The chosen plan's cost over the bound of the linear relaxation when the cell was last solved.
        solved_on: The as-of day of that solve.
    """

    cell: Cell
    result: LotSizingResult
    production: Production
    kept: bool
    changed: int
    saving_of_change: float
    strain: float
    solved_on: date


@dataclass(frozen=True)
class ProductionPlan:
    """The plan of a day.

    Attributes:
        lots: The columns of the decision table, and those of `LOTS`.
        accounts: One row a product: decision_id, product_id, expected_cost, naive_expected_cost, lower_bound, …
        naive_lots: The naive rule's lots, as `LOTS`.
        stock: product_id, period_start, demand, made, delivered, stock, backlog: what follows from the plan.
        late: The columns of `late_orders`.
        worth: The columns of `capacity_worth`.
        load: machine_id, period_start, regular_minutes, used_minutes, overtime_minutes.
        facts: Everything about the plan that is one number or word.
        setups: As `SETUPS`: set-ups at a period's end for a lot of a later one, which no lot of the period shows; empty of plans
            stored before it was kept.
    """

    lots: pl.DataFrame
    accounts: pl.DataFrame
    naive_lots: pl.DataFrame
    stock: pl.DataFrame
    late: pl.DataFrame
    worth: pl.DataFrame
    load: pl.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)
    setups: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SETUPS))


def periods_of(inputs: ManufacturingInputs) -> list[date]:
    """First days of the periods planned."""
    return [inputs.as_of + timedelta(days=k * inputs.days) for k in range(HORIZON[inputs.period])]


def planned_operations(inputs: ManufacturingInputs) -> pl.DataFrame:
    """The operation at which each product is planned: its longest. The others are followed by the schedule."""
    longest = (
        inputs.routings.group_by("product_id", "operation")
        .agg(pl.col("minutes_per_unit").min())
        .sort("product_id", "minutes_per_unit", "operation", descending=[False, True, False])
        .unique("product_id", keep="first", maintain_order=True)
        .select("product_id", "operation")
    )
    return inputs.routings.join(longest, on=["product_id", "operation"], how="semi").sort("product_id", "machine_id")


def cells_of(inputs: ManufacturingInputs) -> list[Cell]:
    """The day's problem, taken apart into cells that share neither machine nor a component that may run short."""
    periods = periods_of(inputs)
    span = len(periods) * inputs.days
    demand = due_demand(inputs, span + SAFETY_DAYS)
    routes = planned_operations(inputs)
    products = tuple(inputs.products["product_id"])
    able = {
        p: set(m) for (p,), m in ((k, f["machine_id"]) for k, f in routes.group_by("product_id", maintain_order=True))
    }
    made_inside = set(inputs.bills["component_id"]) & set(products)
    scarce = _scarce(inputs, demand) | made_inside
    needs = {p: set(f["component_id"]) & scarce for (p,), f in inputs.bills.group_by("product_id", maintain_order=True)}
    groups: list[tuple[set[str], set[str]]] = []  # products, and what they share
    for p in products:
        shared = {f"m:{m}" for m in able.get(p, ())} | {f"c:{c}" for c in needs.get(p, ())}
        shared |= {f"c:{p}"} if p in made_inside else set()
        touching = [g for g in groups if g[1] & shared]
        merged = ({p}.union(*(g[0] for g in touching)), shared.union(*(g[1] for g in touching)))
        groups = [g for g in groups if not g[1] & shared] + [merged]
    line_of = dict(inputs.machines.select("machine_id", "line").iter_rows())
    cells = []
    for members, shared in sorted(groups, key=lambda g: min(g[0])):
        machines = sorted(word[2:] for word in shared if word.startswith("m:"))
        bought = sorted(word[2:] for word in shared if word.startswith("c:") and word[2:] not in members)
        if machines:
            name = " + ".join(sorted({str(line_of.get(m, m)) for m in machines}))
            cells.append(_cell(inputs, demand, routes, name, sorted(members), machines, bought, periods))
    return cells


def _scarce(inputs: ManufacturingInputs, demand: DueDemand) -> set[str]:
    """Components that could run short if everything due were made two days early."""
    days = demand.total.shape[1]
    wanted = np.cumsum(demand.total, axis=1) + demand.owed[:, None]
    ahead = np.minimum(np.arange(days) + 2, days - 1)
    on_hand = inputs.products["on_hand"].to_numpy()
    made = np.maximum(wanted[:, ahead] - on_hand[:, None], 0.0)
    row = {name: k for k, name in enumerate(demand.products)}
    use: dict[str, np.ndarray] = {}
    for product, component, quantity in inputs.bills.select("product_id", "component_id", "quantity").iter_rows():
        use[component] = use.get(component, np.zeros(days)) + quantity * made[row[product]]
    stock = dict(inputs.components.select("component_id", "on_hand").iter_rows())
    found = set()
    for component, used in use.items():
        if component not in stock:
            continue
        there = np.full(days, float(stock[component]))
        for on, quantity in (
            inputs.receipts.filter(pl.col("component_id") == component).select("arrives_on", "quantity").iter_rows()
        ):
            there[max(0, (on - inputs.as_of).days) :] += quantity
        # Beyond the last receipt known, more will be bought.
        last = inputs.receipts.filter(pl.col("component_id") == component)["arrives_on"].max()
        reach = min(days, (last - inputs.as_of).days + 7) if isinstance(last, date) else min(days, 7)
        if (used[:reach] > there[:reach]).any():
            found.add(component)
    return found


def _cell(
    inputs: ManufacturingInputs,
    demand: DueDemand,
    routes: pl.DataFrame,
    name: str,
    products: list[str],
    machines: list[str],
    bought: list[str],
    periods: Sequence[date],
) -> Cell:
    n, m_count, t_count = len(products) + len(bought), len(machines), len(periods)
    row = {p: k for k, p in enumerate(demand.products)}
    item = {p: k for k, p in enumerate([*products, *bought])}
    column = {m: k for k, m in enumerate(machines)}
    run = np.full((n, m_count), np.inf)
    setup_time, setup_cost, energy = np.zeros((n, m_count)), np.zeros((n, m_count)), np.zeros((n, m_count))
    minimum = np.zeros(n)
    families = [""] * n
    family_time: dict[str, np.ndarray] = {}
    family_cost: dict[str, np.ndarray] = {}
    pace = dict(inputs.machines.select("machine_id", "pace").iter_rows())
    power = dict(inputs.machines.select("machine_id", "power_kw").iter_rows())
    for r in routes.filter(pl.col("product_id").is_in(products)).iter_rows(named=True):
        i, m = item[r["product_id"]], column[r["machine_id"]]
        run[i, m] = r["minutes_per_unit"] * pace[r["machine_id"]]
        setup_time[i, m], setup_cost[i, m] = r["setup_minutes"], r["setup_cost"]
        energy[i, m] = (power[r["machine_id"]] or 0.0) * run[i, m] / 60.0
        minimum[i] = max(minimum[i], r["minimum_lot"])
        if r["setup_family"]:
            families[i] = r["setup_family"]
            family_time.setdefault(r["setup_family"], np.zeros(m_count))[m] = r["family_setup_minutes"]
            family_cost.setdefault(r["setup_family"], np.zeros(m_count))[m] = r["family_setup_cost"]
    wanted, supply = np.zeros((n, t_count)), np.zeros((n, t_count))
    owed, late, holding, stock = np.zeros(n), np.full(n, np.nan), np.zeros(n), np.zeros(n)
    costs = {r["product_id"]: r for r in inputs.products.iter_rows(named=True)}
    for p in products:
        i, k = item[p], row[p]
        wanted[i] = _by_period(demand.total[k], t_count, inputs.days)
        owed[i], late[i] = demand.owed[k], demand.late_rate[k] * inputs.days
        holding[i], stock[i] = costs[p]["holding_cost"], costs[p]["on_hand"]
    components = dict(inputs.components.select("component_id", "on_hand").iter_rows())
    for c in bought:
        stock[item[c]] = components[c]
        received = inputs.receipts.filter(pl.col("component_id") == c)
        for on, quantity in received.select("arrives_on", "quantity").iter_rows():
            t = (on - inputs.as_of).days // inputs.days
            if t < t_count:
                supply[item[c], t] += quantity
        # Beyond the last receipt known, more will be bought: the component binds only where its supply is known.
        last = received["arrives_on"].max()
        beyond = ((last - inputs.as_of).days + 7) // inputs.days if isinstance(last, date) else 7 // inputs.days
        if beyond < t_count:
            supply[item[c], max(0, beyond) :] += 10.0 * stock[item[c]] + float(received["quantity"].sum()) + 1e6
    bill = np.zeros((n, n))
    for p, c, quantity in inputs.bills.select("product_id", "component_id", "quantity").iter_rows():
        if p in item and c in item:
            bill[item[c], item[p]] = quantity
    capacity, overtime = _capacity(inputs, machines, periods)
    rates = dict(inputs.machines.select("machine_id", "overtime_cost_per_minute").iter_rows())
    prices = _energy(inputs, periods)
    # The shop floor and the schedule go on in the morning with what a machine stands set up for.
    made_last = dict(inputs.machines.select("machine_id", "last_product").iter_rows())
    standing = [str(made_last[m] or "") for m in machines]
    standing = [
        p if p in item and np.isfinite(run[item[p], column[m]]) else "" for m, p in zip(machines, standing, strict=True)
    ]
    problem = LotSizingProblem(
        items=(*products, *bought), machines=tuple(machines), periods=tuple(day.isoformat() for day in periods),
        demand=wanted, run_time=run, setup_time=setup_time, setup_cost=setup_cost, capacity=capacity,
        holding_cost=holding, energy_per_unit=np.where(np.isfinite(energy), energy, 0.0), energy_price=prices,
        initial_stock=stock, supply=supply, overtime_limit=overtime, overtime_cost=np.array([rates[m] for m in machines]),
        late_cost=late, end_late_cost=np.nan_to_num(late) * END_DAYS / inputs.days, initial_backlog=owed,
        families=tuple(families), family_setup_time=family_time, family_setup_cost=family_cost, bill=bill,
        minimum_lot=minimum, carry_over=CARRY_OVER, initial_setup=tuple(standing),
    )  # fmt: skip
    return Cell(name, problem, tuple(products))


def _by_period(daily: np.ndarray, periods: int, days: int) -> np.ndarray:
    """Units due by period, those due after tomorrow a safety day earlier."""
    early = daily[: periods * days].copy()
    if days == 1 and SAFETY_DAYS and len(daily) > 2:
        first = 2
        shifted = np.zeros_like(early)
        shifted[:first] = early[:first]
        for k in range(first, len(daily)):
            if k - SAFETY_DAYS < len(shifted):
                shifted[max(first - 1, k - SAFETY_DAYS)] += daily[k]
        early = shifted
    return early.reshape(periods, days).sum(axis=1)


def _capacity(inputs: ManufacturingInputs, machines: Sequence[str], periods: Sequence[date]) -> tuple[Any, Any]:
    """Regular minutes less the usual standstill, and overtime minutes (M, T)."""
    facts = {r["machine_id"]: r for r in inputs.machines.iter_rows(named=True)}
    special = {(r[0], r[1]): (r[2], r[3]) for r in inputs.calendar.iter_rows()}
    regular, overtime = np.zeros((len(machines), len(periods))), np.zeros((len(machines), len(periods)))
    for k, m in enumerate(machines):
        usual = facts[m]["minutes_per_day"], facts[m]["overtime_minutes_per_day"]
        for t, first in enumerate(periods):
            for d in range(inputs.days):
                minutes, more = special.get((m, first + timedelta(days=d)), usual)
                regular[k, t] += minutes * (1.0 - facts[m]["down_share"])
                overtime[k, t] += (usual[1] if minutes > 0 else 0.0) if more is None else more
    return regular, overtime


def _energy(inputs: ManufacturingInputs, periods: Sequence[date]) -> np.ndarray:
    """What energy costs in a period more than in the cheapest one: all that a plan can avoid."""
    price_of = dict(inputs.energy.iter_rows())
    known = [
        np.mean([price_of[d] for k in range(inputs.days) if (d := day + timedelta(days=k)) in price_of] or [np.nan])
        for day in periods
    ]
    if not np.isfinite(known).any():
        return np.zeros(len(periods))
    filled = np.where(np.isfinite(known), known, np.nanmean(known))
    return np.asarray(filled - filled.min())


def plan_production(inputs: ManufacturingInputs) -> ProductionPlan:
    """Plans every cell; a new plan replaces the one in force only where that pays for the lots it moves."""
    followed = [_followed(cell, inputs) for cell in cells_of(inputs)]
    anew = [f for f in followed if f.kept is None]
    results = iter(_solved([(f.cell.problem, f.before) for f in anew], inputs))
    planned = [f.kept if f.kept is not None else _chosen(f, next(results), inputs) for f in followed]
    return assemble(inputs, planned)


@dataclass(frozen=True)
class _Followed:
    """A cell, the plan that people follow on today's problem, the bound of the relaxation, and the cell if it is kept as it is."""

    cell: Cell
    before: Production | None
    bound: float
    kept: PlannedCell | None


def _followed(cell: Cell, inputs: ManufacturingInputs) -> _Followed:
    """Whether the news of the day strains a cell's plan so much that it is worth solving again."""
    p = cell.problem
    before = _continued(cell, inputs.in_force, inputs.setups_in_force)
    bound = _quick_bound(p)
    known = {r["cell"]: r for r in inputs.cells_in_force.iter_rows(named=True)}.get(cell.name)
    if before is not None and known is not None and not violations(p, before):
        strain = _strain(price(p, before).total, bound)
        age = (inputs.as_of - date.fromisoformat(known["solved_on"])).days
        if strain <= known["strain"] + TOLERATED_STRAIN and age < SOLVED_EVERY * inputs.days:
            kept = LotSizingResult(
                plan=pl.DataFrame(), status="feasible", objective=price(p, before).total, bound=bound,
                solver="plan in force, HiGHS bound", production=before, duals=worth_of_capacity(p, before, QUICK_SECONDS),
            )  # fmt: skip
            solved_on = date.fromisoformat(known["solved_on"])
            return _Followed(
                cell, before, bound, PlannedCell(cell, kept, before, True, 0, 0.0, known["strain"], solved_on)
            )
    return _Followed(cell, before, bound, None)


def _solved(
    tasks: Sequence[tuple[LotSizingProblem, Production | None]], inputs: ManufacturingInputs
) -> list[LotSizingResult]:
    """Solves the cells; large ones beside each other, each in a process of its own."""

    def run(problem: LotSizingProblem, before: Production | None, watchdog: bool) -> LotSizingResult:
        seconds = inputs.settings.solver_seconds
        return solve(problem, Params(seconds=seconds, gap=GAP, nodes=NODES, worth=False, watchdog=watchdog), before)

    size = [int(p.eligible.sum()) * len(p.periods) for p, _ in tasks]
    # A process of its own costs a second or two; in this one only one search runs at a time.
    apart = [k for k, n in enumerate(size) if n > WATCHED_SETUPS or (n > LARGE_SETUPS and len(tasks) > 1)]
    apart = sorted(apart, key=lambda k: -size[k])
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        found = {k: pool.submit(run, *tasks[k], True) for k in apart}
        here = {k: run(*tasks[k], False) for k in range(len(tasks)) if k not in found}
        return [here[k] if k in here else found[k].result() for k in range(len(tasks))]


def _chosen(followed: _Followed, result: LotSizingResult, inputs: ManufacturingInputs) -> PlannedCell:
    """The new plan where moving the lots of the next days pays, else the plan in force."""
    cell, p, before, bound = followed.cell, followed.cell.problem, followed.before, followed.bound
    assert result.production is not None
    chosen, keep, changed, saving = result.production, False, 0, 0.0
    if before is not None:
        firm = slice(0, FIRM_PERIODS)
        moved = np.abs(result.production.quantity[:, :, firm] - before.quantity[:, :, firm])
        changed = int((moved > 0.05 * np.maximum(before.quantity[:, :, firm], 1.0)).sum())
        saving = price(p, before).total - price(p, result.production).total
        keep = not violations(p, before) and saving <= PRICE_OF_CHANGE * changed
        chosen = before if keep else chosen
    result = replace(result, duals=worth_of_capacity(p, chosen, QUICK_SECONDS))
    return PlannedCell(
        cell, result, chosen, keep, changed, saving, _strain(price(p, chosen).total, bound), inputs.as_of
    )


def _strain(cost: float, bound: float) -> float:
    return cost / max(bound, 1.0)


def _quick_bound(p: LotSizingProblem) -> float:
    """The bound of the linear relaxation: about a second, and enough to see whether news strains the plan."""
    if pure.is_pure(p):
        form = pure.build_pure(p, elastic=True)
        return max(0.0, solve_tightened(p, form, seconds=QUICK_SECONDS)[0].bound + form.constant)
    return max(0.0, solve_tightened(p, tight.build(p, elastic=True), seconds=QUICK_SECONDS)[0].bound)


def _continued(cell: Cell, in_force: pl.DataFrame, setups: pl.DataFrame) -> Production | None:
    """The plan in force on today's problem: what is left of it, and for the days behind it what the careful rule adds."""
    p = cell.problem
    if in_force.is_empty():
        return None
    quantity = production_of(p, in_force).quantity
    if not (quantity > 0).any():
        return None
    last = max((d for d in in_force["period_start"]), default=None)
    known = sum(1 for name in p.periods if last is not None and date.fromisoformat(name) <= last)
    if known < len(p.periods) - 7:
        return None
    f = flow(p, production_of(p, in_force, setups))
    if known < len(p.periods):
        tail = replace(
            p, periods=p.periods[known:], demand=p.demand[:, known:], capacity=p.capacity[:, known:],
            unit_cost=p.unit_cost[:, :, known:], energy_price=p.energy_price[known:], supply=p.supply[:, known:],
            overtime_limit=p.overtime_limit[:, known:], overtime_cost=p.overtime_cost[:, known:],
            max_backlog=p.max_backlog[:, known:],
            initial_setup=tuple(p.items[i] if i >= 0 else "" for i in f.linked.standing[:, known - 1]),
            initial_stock=f.stock[:, known - 1], initial_backlog=np.where(p.may_be_late, f.backlog[:, known - 1], 0.0),
        )  # fmt: skip
        quantity[:, :, known:] = economic_lots(tail).quantity
    bare = Production(quantity, quantity > 0)
    ready = replace(bare, setup=bare.setup | production_of(p, in_force, setups).setup)
    # What a set-up was made ahead for may be gone by now.
    saves = price(p, ready).total < price(p, bare).total - 1e-9
    return ready if saves and len(violations(p, ready)) <= len(violations(p, bare)) else bare


def production_of(p: LotSizingProblem, lots: pl.DataFrame, setups: pl.DataFrame | None = None) -> Production:
    """Stored lots on a problem, as far as it has their place, with the set-ups that were made ahead (see `SETUPS`)."""
    item, machine, period = ({name: k for k, name in enumerate(names)} for names in (p.items, p.machines, p.periods))
    quantity, ahead = np.zeros(p.shape), np.zeros(p.shape, bool)
    for frame in (lots, setups):
        for row in frame.iter_rows(named=True) if frame is not None else ():
            i, m = item.get(row["product_id"]), machine.get(row["machine_id"])
            t = period.get(row["period_start"].isoformat())
            if i is None or m is None or t is None or not p.eligible[i, m]:
                continue
            if frame is lots:
                quantity[i, m, t] += row["quantity"]
            else:
                ahead[i, m, t] = True
    return Production(quantity, (quantity > 0) | ahead)


def assemble(inputs: ManufacturingInputs, planned: Sequence[PlannedCell]) -> ProductionPlan:
    """The frames of a plan from its cells."""
    lots, accounts, naive_lots, stock, worth, load, ahead = [], [], [], [], [], [], []
    totals = {"expected_cost": 0.0, "naive_cost": 0.0, "lower_bound": 0.0}
    kinds: dict[str, float] = {}
    relaxed: list[str] = []
    for one in planned:
        p = one.cell.problem
        naive = economic_lots(p)
        cost, naive_cost = price(p, one.production), price(p, naive)
        shares, naive_shares = item_costs(p, one.production), item_costs(p, naive)
        bound = min(one.result.bound, cost.total)
        totals["expected_cost"] += cost.total
        totals["naive_cost"] += naive_cost.total
        totals["lower_bound"] += bound
        for kind in ("setups", "overtime", "stock", "lateness", "production"):
            kinds[kind] = kinds.get(kind, 0.0) + float(getattr(cost, kind))
        relaxed += [message for _, _, message in violations(p, one.production)[:5]]
        lots.append(_lots(p, one.production, shares, one.kept))
        naive_lots.append(_lots(p, naive, naive_shares, False).select(list(LOTS)))
        for i, product in enumerate(p.items):
            if product in one.cell.products:
                part = bound * shares[i] / cost.total if cost.total > 0 else 0.0
                accounts.append(
                    (product, one.cell.name, float(shares[i]), float(naive_shares[i]), part, one.result.status)
                )
        f = flow(p, one.production)
        stock.append(_stock(p, one.production, f))
        load.append(_load(p, f))
        worth.append(one.result.duals)
        ahead += [
            (date.fromisoformat(p.periods[t]), p.items[i], p.machines[m])
            for i, m, t in np.argwhere(one.production.setup & (one.production.quantity <= 1e-6))
        ]
    made = _together(lots, {**LOTS, "setups": pl.Float64, "overtime_minutes": pl.Float64, "expected_cost": pl.Float64,
                            "reason": pl.String})  # fmt: skip
    ids = {
        p: decision_id(inputs.as_of, "manufacturing", "production_plan", (p,), inputs.snapshot)
        for p in inputs.products["product_id"]
    }
    stamp = (pl.lit(inputs.as_of).alias("as_of"), pl.lit(inputs.snapshot).alias("input_snapshot"))
    account = pl.DataFrame(
        accounts,
        schema={"product_id": pl.String, "cell": pl.String, "expected_cost": pl.Float64, "naive_expected_cost": pl.Float64,
                "lower_bound": pl.Float64, "status": pl.String},
        orient="row",
    ).with_columns(pl.col("product_id").replace_strict(ids, return_dtype=pl.String).alias("decision_id"), *stamp)  # fmt: skip
    made = made.with_columns(
        pl.col("product_id").replace_strict(ids, return_dtype=pl.String).alias("decision_id"), *stamp
    )
    stocks = _together(stock, {})
    late = _late(inputs, planned, stamp)
    return ProductionPlan(
        lots=made.sort("period_start", "machine_id", "product_id"),
        accounts=account.sort("product_id"),
        naive_lots=_together(naive_lots, LOTS).sort("period_start", "machine_id", "product_id"),
        stock=stocks.sort("product_id", "period_start"),
        late=late,
        worth=_worth(inputs, worth, stamp),
        load=_together(load, {}).sort("machine_id", "period_start"),
        facts={
            "as_of": inputs.as_of.isoformat(),
            "period": inputs.period,
            "horizon": HORIZON[inputs.period],
            "decisions": account.height,
            "lots": made.height,
            **totals,
            "gap": max(0.0, totals["expected_cost"] - totals["lower_bound"]) / max(totals["expected_cost"], 1e-9),
            "costs": {kind: round(value, 2) for kind, value in kinds.items()},
            "status": "relaxed" if relaxed else "optimal" if all(c.result.status == "optimal" for c in planned) else "feasible",
            "solver": "; ".join(sorted({one.result.solver for one in planned})),
            "cells": [
                {"cell": c.cell.name, "status": c.result.status, "gap": round(c.result.gap, 6), "kept": c.kept,
                 "changed_lots": c.changed, "saving_of_change": round(c.saving_of_change, 2),
                 "strain": round(c.strain, 6), "solved_on": c.solved_on.isoformat()}
                for c in planned
            ],
            "model_version": "orders in hand, production forecast" if inputs.forecast.height else "orders in hand and their habit",
            "input_snapshot": inputs.snapshot,
            "skipped": list(inputs.skipped),
            "relaxed": relaxed,
        },
        setups=pl.DataFrame(ahead, schema=SETUPS, orient="row").sort(list(SETUPS)),
    )  # fmt: skip


def item_costs(p: LotSizingProblem, plan: Production) -> np.ndarray:
    """The plan's cost by item (n); a family's setup and a machine's overtime are shared by its lots' minutes."""
    f = flow(p, plan)
    setup = f.setup
    cost = (p.variable_cost * plan.quantity).sum(axis=(1, 2)) + (p.setup_cost[:, :, None] * setup).sum(axis=(1, 2))
    late = np.where(p.may_be_late, p.late_cost, 0.0)
    cost = cost + p.holding_cost * f.stock.sum(axis=1) + late * f.backlog.sum(axis=1)
    cost = cost + np.where(p.may_be_late, p.end_late_cost * f.backlog[:, -1], 0.0)
    run = np.where(p.eligible, p.run_time, 0.0)
    minutes = run[:, :, None] * plan.quantity + p.setup_time[:, :, None] * setup
    _, family_cost, of = p.family_arrays()
    for k in range(len(family_cost)):
        mine = minutes * (of == k)[:, None, None]
        share = np.divide(mine, mine.sum(axis=0), out=np.zeros_like(mine), where=mine.sum(axis=0) > 0)
        cost = cost + (share * (family_cost[k][:, None] * f.family_setup[k])[None]).sum(axis=(1, 2))
    share = np.divide(minutes, minutes.sum(axis=0), out=np.zeros_like(minutes), where=minutes.sum(axis=0) > 0)
    return np.asarray(cost + (share * (p.overtime_cost * f.overtime)[None]).sum(axis=(1, 2)))


def _lots(p: LotSizingProblem, plan: Production, shares: np.ndarray, kept: bool) -> pl.DataFrame:
    """Lots with their share of the item's cost: by quantity."""
    f = flow(p, plan)
    run = np.where(p.eligible, p.run_time, 0.0)
    minutes = run[:, :, None] * plan.quantity + p.setup_time[:, :, None] * f.setup
    used = minutes.sum(axis=0)
    rows = []
    for i, m, t in np.argwhere(plan.quantity > 1e-6):
        quantity = float(plan.quantity[i, m, t])
        over = float(f.overtime[m, t] * minutes[i, m, t] / used[m, t]) if used[m, t] > 0 else 0.0
        rows.append(
            (
                date.fromisoformat(p.periods[t]), p.items[i], p.machines[m], round(quantity, 4), run[i, m] * quantity,
                float(p.setup_time[i, m] * f.setup[i, m, t]), float(f.setup[i, m, t]), over,
                float(shares[i] * quantity / plan.quantity[i].sum()),
                _reason(p, f, int(i), int(t), quantity, kept),
            )
        )  # fmt: skip
    schema = {
        **LOTS,
        "setups": pl.Float64,
        "overtime_minutes": pl.Float64,
        "expected_cost": pl.Float64,
        "reason": pl.String,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def _reason(p: LotSizingProblem, f: Any, i: int, t: int, quantity: float, kept: bool) -> str:
    """Why this lot: what it serves and until when it lasts."""
    before = float(f.stock[i, t - 1] if t else p.initial_stock[i])
    owed = float(f.backlog[i, t - 1] if t else p.initial_backlog[i])
    left, until = before + quantity - owed, t
    while until < len(p.periods) and left >= p.demand[i, until] - 1e-6:
        left -= float(p.demand[i, until])
        until += 1
    lasts = (
        f"lasts until {p.periods[min(until, len(p.periods)) - 1]}"
        if until > t
        else f"{p.demand[i, t]:.0f} due on the day"
    )
    words = [f"{before:.0f} on hand, {owed:.0f} owed" if owed > 0.5 else f"{before:.0f} on hand", lasts]
    if kept:
        words.append("as planned before")
    return "; ".join(words)


def _stock(p: LotSizingProblem, plan: Production, f: Any) -> pl.DataFrame:
    n, _, t = p.shape
    return pl.DataFrame(
        {
            "product_id": np.repeat(np.array(p.items), t),
            "period_start": pl.Series([date.fromisoformat(day) for day in p.periods] * n, dtype=pl.Date),
            "demand": p.demand.ravel(),
            "made": plan.quantity.sum(axis=1).ravel(),
            "delivered": f.delivered.ravel(),
            "stock": f.stock.ravel(),
            "backlog": f.backlog.ravel(),
        }
    )


def _load(p: LotSizingProblem, f: Any) -> pl.DataFrame:
    _, m, t = p.shape
    return pl.DataFrame(
        {
            "machine_id": np.repeat(np.array(p.machines), t),
            "period_start": pl.Series([date.fromisoformat(day) for day in p.periods] * m, dtype=pl.Date),
            "regular_minutes": p.capacity.ravel(),
            "used_minutes": f.used.ravel(),
            "overtime_minutes": f.overtime.ravel(),
        }
    )


def _together(frames: Sequence[pl.DataFrame], schema: dict[str, Any]) -> pl.DataFrame:
    return pl.concat(frames) if frames else pl.DataFrame(schema=schema)


def _worth(inputs: ManufacturingInputs, frames: Sequence[pl.DataFrame], stamp: Sequence[pl.Expr]) -> pl.DataFrame:
    """The columns of `capacity_worth`."""
    rows = _together([f for f in frames if f.height], {})
    if rows.is_empty():
        from npq_assets.contracts import DECISIONS

        return DECISIONS["manufacturing.capacity_worth"].empty()
    named = rows.select(
        pl.col("machine").alias("machine_id"),
        pl.col("period").str.to_date().alias("period_start"),
        pl.col("capacity").alias("regular_minutes"),
        pl.col("used").alias("used_minutes"),
        pl.col("overtime").alias("overtime_minutes"),
        pl.col("worth_per_hour").round(6),
        "method",
        *stamp,
    )
    ids = [
        decision_id(inputs.as_of, "manufacturing", "capacity_worth", (machine, str(day)), inputs.snapshot)
        for machine, day in named.select("machine_id", "period_start").iter_rows()
    ]
    return named.with_columns(pl.Series("decision_id", ids, dtype=pl.String)).sort("machine_id", "period_start")


def _late(inputs: ManufacturingInputs, planned: Sequence[PlannedCell], stamp: Sequence[pl.Expr]) -> pl.DataFrame:
    """The columns of `late_orders`: orders in hand that the plan completes after their day due."""
    from npq_assets.contracts import DECISIONS

    rows: list[tuple[Any, ...]] = []
    for one in planned:
        rows += _with_forcing(inputs, one, late_orders_of(inputs, one))
    stamped = ("decision_id", "as_of", "input_snapshot")
    schema = {k: v for k, v in DECISIONS["manufacturing.late_orders"].schema.items() if k not in stamped}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    ids = [
        decision_id(inputs.as_of, "manufacturing", "late_orders", (order,), inputs.snapshot)
        for order in frame["order_id"]
    ]
    return frame.with_columns(pl.Series("decision_id", ids, dtype=pl.String), *stamp).sort(
        "late_cost", "order_id", descending=[True, False]
    )


def late_orders_of(inputs: ManufacturingInputs, one: PlannedCell) -> list[tuple[Any, ...]]:
    """Orders in hand that a cell's plan completes late: the columns of `late_orders` from order_id on."""
    p, f = one.cell.problem, flow(one.cell.problem, one.production)
    return [row for product in one.cell.products for row in _late_of(inputs, one, p, f, product)]


def _late_of(
    inputs: ManufacturingInputs, one: PlannedCell, p: LotSizingProblem, f: Any, product: str
) -> list[tuple[Any, ...]]:
    """Late orders of a product: supply by day given to the orders in the order they are due."""
    i = p.items.index(product)
    days = [date.fromisoformat(day) for day in p.periods]
    made = one.production.quantity[i].sum(axis=0)
    there = p.initial_stock[i] + np.cumsum(made + p.supply[i])
    rows, taken = [], 0.0
    for order in inputs.orders.filter(pl.col("product_id") == product).iter_rows(named=True):
        due = order["due_on"]
        taken += order["owed"]
        t_due = (due - inputs.as_of).days // inputs.days
        if t_due >= len(days):
            break
        ready = np.flatnonzero(there >= taken - 1e-6)
        done = days[int(ready[0])] if ready.size else None
        end = max(0, t_due)
        if ready.size and ready[0] <= t_due:
            continue
        by_due = float(there[t_due]) if t_due >= 0 else 0.0
        short = min(order["owed"], max(0.0, taken - by_due))
        if short < 0.5:
            continue
        late_days = ((done or days[-1] + timedelta(days=inputs.days)) - due).days
        owed_days = 0.0
        for t in range(end, len(days)):
            owed_days += min(order["owed"], max(0.0, taken - float(there[t]))) * inputs.days
        owed_days += order["owed"] * max(0, (inputs.as_of - due).days) if t_due < 0 else 0.0
        rows.append(
            (
                order["order_id"], product, order["owed"], due, done, float(max(late_days, 0)), short,
                float(order["late_rate"] * owed_days), _why_late(one, p, f, i, end, inputs), None, None,
            )
        )  # fmt: skip
    return rows


def _with_forcing(inputs: ManufacturingInputs, one: PlannedCell, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The rows with what the cell's plan would cost more with the order in time, for the costliest of them."""
    p, answers = one.cell.problem, dict[tuple[int, int], tuple[float | None, str]]()
    ours = price(p, one.production).total
    out = []
    for row in sorted(rows, key=lambda row: (-row[7], row[0])):
        place = p.items.index(row[1]), max(0, (row[3] - inputs.as_of).days // inputs.days)
        if place not in answers and len(answers) < FORCED_ORDERS:
            forced = force_near(p, one.production, *place, seconds=inputs.settings.solver_seconds)
            if forced.status == "relaxed":
                broken = "; ".join(forced.relaxation["message"].to_list()[:2])
                word = "cannot be in time" if forced.conflict else "no plan near this one has it in time"
                answers[place] = None, f"{word}: {broken}"
            else:
                least = max(forced.bound, one.result.bound) - ours
                proven = f"; proven at least {least:,.0f}" if least >= 1.0 else ""
                answers[place] = max(0.0, forced.objective - ours), f"best plan found near this one{proven}"
        cost, note = answers.get(place, (None, "not solved again: other orders cost more"))
        out.append((*row[:9], cost, note))
    return out


def _why_late(one: PlannedCell, p: LotSizingProblem, f: Any, i: int, t: int, inputs: ManufacturingInputs) -> str:
    """The reason in words: machines full, closed, no components, or lateness cheaper than what would avoid it."""
    machines = np.flatnonzero(p.eligible[i])
    words = []
    span = slice(0, t + 1)
    room = p.capacity[machines, span] + np.minimum(p.overtime_limit[machines, span], 1e9)
    used = f.used[machines, span]
    names = ", ".join(p.machines[m] for m in machines)
    until = p.periods[t]
    if float(p.capacity[machines, span].sum()) < 1.0:
        return f"{names} closed until {until}"
    parts = np.flatnonzero(p.bill[:, i] > 0)
    lacking = [p.items[c] for c in parts if float(f.stock[c, span].min()) < 1.0]
    if lacking:
        words.append(f"component {', '.join(lacking)} runs out before {until}")
    fullness = float(used.sum() / max(room.sum(), 1e-9))
    if fullness > 0.97:
        words.append(f"{names} full until {until}, overtime included")
    elif float(used.sum()) > 0.97 * float(p.capacity[machines, span].sum()):
        hour = float(p.overtime_cost[machines, span].mean() * 60.0)
        words.append(
            f"regular time of {names} full until {until}; overtime at {hour:.0f} an hour costs more than the lateness"
        )
    elif not lacking:
        cost = float(p.setup_cost[i, machines].min())
        words.append(f"room on {names}, but an earlier lot would need a further setup of {cost:.0f} and saves less")
    return "; ".join(words)
