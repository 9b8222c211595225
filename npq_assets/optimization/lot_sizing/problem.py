"""What a production plan decides, what it costs and when it is feasible; how a plan is found does not belong here.

Multi-item, multi-machine capacitated lot sizing with setups, overtime, backlog and bills of material: the big-bucket model
of Pochet & Wolsey, Production Planning by Mixed Integer Programming (2006), ch. 1 and 12-13. For items i, machines m and
periods t, with production x, setups y, family setups z, stock s, backlog b, overtime o and missing safety stock f:

    minimize    sum (c_imt + e_im w_t) x_imt + sum q_im y_imt + sum g_km z_kmt + sum v_mt o_mt
                + sum h_i s_it + sum p_i b_it + sum r_i b_iT + sum k_i f_it
    subject to  s_i,t-1 + sum_m x_im,t-L_i + S_it = deliveries_it + sum_j a_ij sum_m x_jmt + s_it
                deliveries_it = d_it + b_i,t-1 - b_it >= 0,   s >= 0,   b >= 0 (b = 0 where late_cost is not given)
                sum_i (u_im x_imt + n_im y_imt) + sum_k N_km z_kmt <= C_mt + o_mt,   0 <= o_mt <= O_mt
                x_imt <= M y_imt,   x_imt >= l_i y_imt,   y_imt <= z_k(i)mt,   y, z in {0, 1},   f_it >= F_i - s_it.

With `carry_over` a machine keeps its set-up from one period into the next; `linking.py` has what changes.

`price` computes that cost for any plan; the optimizer, the simulation and the ledger all use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from npq_assets.errors import NpqError
from npq_assets.optimization.lot_sizing.linking import Linked, cheapest_links, unlinked
from npq_assets.optimization.result import Result

Array = NDArray[np.float64]
TOLERANCE = 1e-6


@dataclass(frozen=True)
class LotSizingProblem:
    """Items to make on machines over periods. n items, M machines, T periods, K families.

    Arrays may be given with fewer axes where they repeat: `(n,)` for `(n, M)`, `(M,)` for `(M, T)`, a number for all.
    After construction every field has its full shape.

    Attributes:
        items: Names of the items (n).
        machines: Names of the machines (M).
        periods: Names of the periods, in order, e.g. ISO dates (T).
        demand: Units due in the period, independent of other items (n, T).
        run_time: Minutes per unit; inf where the machine cannot make the item (n, M).
        setup_time: Minutes per setup (n, M).
        setup_cost: Money per setup beside the time (n, M).
        capacity: Regular minutes; 0 where closed or down (M, T).
        holding_cost: Money per unit left at a period's end (n).
        unit_cost: Variable money per unit made (n, M, T); default 0.
        energy_per_unit: kWh per unit (n, M); default 0.
        energy_price: Money per kWh by period (T); default 0.
        initial_stock: Units on hand before the first period (n).
        supply: Units that arrive from outside, usable in that period (n, T): purchased components, open receipts.
        overtime_limit: Overtime minutes possible (M, T); default 0.
        overtime_cost: Money per overtime minute (M, T); default 0.
        late_cost: Money per unit and period late (n); nan means that the item may not be late. None: no item may.
        end_late_cost: Further money per unit still owed after the last period (n); default 0.
        initial_backlog: Units already owed and late before the first period (n); needs late_cost.
        max_backlog: Largest backlog allowed at a period's end (n, T); inf for none. Default inf.
        safety_stock: Units wanted on hand at each period's end (n); default 0.
        safety_cost: Money per unit and period missing of it (n); default 0.
        families: Family of each item; "" for none (n).
        family_setup_time: Minutes for a family's setup, by family name, one number or (M).
        family_setup_cost: Money for a family's setup, by family name, one number or (M).
        bill: Units of item i that go into one unit of item j (n, n), acyclic; default none.
        lead_time: Whole periods between making an item and using it (n); default 0.
        minimum_lot: Smallest quantity of a lot (n); default 0.
        carry_over: Whether a machine keeps its set-up from one period into the next (see `linking.py`).
        initial_setup: Item that each machine stands set up for before the first period; "" or none where that is not
            known (M). Counts only with carry_over.
    """

    items: tuple[str, ...]
    machines: tuple[str, ...]
    periods: tuple[str, ...]
    demand: Array
    run_time: Array
    setup_time: Array
    setup_cost: Array
    capacity: Array
    holding_cost: Array
    unit_cost: Array = 0.0  # type: ignore[assignment]
    energy_per_unit: Array = 0.0  # type: ignore[assignment]
    energy_price: Array = 0.0  # type: ignore[assignment]
    initial_stock: Array = 0.0  # type: ignore[assignment]
    supply: Array = 0.0  # type: ignore[assignment]
    overtime_limit: Array = 0.0  # type: ignore[assignment]
    overtime_cost: Array = 0.0  # type: ignore[assignment]
    late_cost: Array = np.nan  # type: ignore[assignment]
    end_late_cost: Array = 0.0  # type: ignore[assignment]
    initial_backlog: Array = 0.0  # type: ignore[assignment]
    max_backlog: Array = np.inf  # type: ignore[assignment]
    safety_stock: Array = 0.0  # type: ignore[assignment]
    safety_cost: Array = 0.0  # type: ignore[assignment]
    families: tuple[str, ...] = ()
    family_setup_time: dict[str, Any] = field(default_factory=dict)
    family_setup_cost: dict[str, Any] = field(default_factory=dict)
    bill: Array = 0.0  # type: ignore[assignment]
    lead_time: NDArray[np.int64] = 0  # type: ignore[assignment]
    minimum_lot: Array = 0.0  # type: ignore[assignment]
    carry_over: bool = False
    initial_setup: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n, m, t = self.shape
        late = np.nan if self.late_cost is None else self.late_cost
        for name, axes in _SHAPES.items():
            given = late if name == "late_cost" else getattr(self, name)
            shape = tuple({"n": n, "M": m, "T": t}[a] for a in axes)
            object.__setattr__(self, name, _spread(name, given, shape))
        object.__setattr__(self, "lead_time", _spread("lead_time", self.lead_time, (n,)).astype(np.int64))
        object.__setattr__(self, "families", tuple(self.families) or ("",) * n)
        object.__setattr__(self, "initial_setup", tuple(self.initial_setup) or ("",) * m)
        self._check()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of items, machines and periods."""
        return len(self.items), len(self.machines), len(self.periods)

    @property
    def eligible(self) -> NDArray[np.bool_]:
        """Which machine can make which item (n, M)."""
        return np.isfinite(self.run_time)

    @property
    def may_be_late(self) -> NDArray[np.bool_]:
        """Which items may be delivered late (n)."""
        return np.isfinite(self.late_cost)

    @property
    def variable_cost(self) -> Array:
        """Money per unit made, energy included (n, M, T)."""
        cost: Array = self.unit_cost + self.energy_per_unit[:, :, None] * self.energy_price
        return cost

    @property
    def family_names(self) -> tuple[str, ...]:
        """The families that cost something to set up (K)."""
        return tuple(sorted({f for f in self.families if f} & {*self.family_setup_time, *self.family_setup_cost}))

    @property
    def standing_at_start(self) -> NDArray[np.int64]:
        """Item that each machine stands set up for before the first period, -1 for none (M)."""
        return np.array([self.items.index(name) if name else -1 for name in self.initial_setup], np.int64)

    @property
    def least_setup_time(self) -> Array:
        """Minutes without which no lot starts: none where its set-up can be there from the period before (n, M)."""
        return np.zeros_like(self.setup_time) if self.carry_over else self.setup_time

    def family_arrays(self) -> tuple[Array, Array, NDArray[np.int64]]:
        """Setup minutes (K, M), setup money (K, M) and each item's family number or -1 (n)."""
        m, names = len(self.machines), self.family_names
        times = np.array([np.broadcast_to(self.family_setup_time.get(f, 0.0), m) for f in names], float)
        costs = np.array([np.broadcast_to(self.family_setup_cost.get(f, 0.0), m) for f in names], float)
        of = np.array([names.index(f) if f in names else -1 for f in self.families], np.int64)
        return times.reshape(len(names), m), costs.reshape(len(names), m), of

    @property
    def levels(self) -> list[int]:
        """Items in an order in which every item comes before its components."""
        n = len(self.items)
        used_by = (self.bill > 0).sum(axis=1)
        order = [int(i) for i in np.flatnonzero(used_by == 0)]
        for j in order:
            for i in np.flatnonzero(self.bill[:, j] > 0):
                used_by[i] -= 1
                if used_by[i] == 0:
                    order.append(int(i))
        if len(order) < n:
            looped = ", ".join(self.items[i] for i in range(n) if i not in order)
            raise NpqError(f"bills_of_material: {looped} go into themselves; break the circle")
        return order

    def _check(self) -> None:
        for name, axes in _SHAPES.items():
            values = np.asarray(getattr(self, name))
            allowed_infinite = name in ("run_time", "max_backlog", "overtime_limit")
            bad = (
                (np.isnan(values) & (name != "late_cost")) | (values < 0) | (np.isinf(values) & (not allowed_infinite))
            )
            if bad.any():
                where = tuple(int(k) for k in np.argwhere(bad)[0])
                labels = {"n": self.items, "M": self.machines, "T": self.periods}
                place = ", ".join(labels[a][k] for a, k in zip(axes, where, strict=True))
                raise NpqError(f"production plan: {name} of {place} is {values[where]}; give a number of at least 0")
        if (self.initial_backlog > 0).any() and not self.may_be_late[self.initial_backlog > 0].all():
            i = int(np.flatnonzero((self.initial_backlog > 0) & ~self.may_be_late)[0])
            raise NpqError(f"production plan: {self.items[i]} is owed already but may not be late; give late_cost")
        if len(self.families) != len(self.items):
            raise NpqError(f"production plan: {len(self.families)} families for {len(self.items)} items")
        if len(self.initial_setup) != len(self.machines):
            count = f"{len(self.initial_setup)} initial set-ups for {len(self.machines)} machines"
            raise NpqError(f"production plan: {count}; give one a machine")
        unknown = set(self.initial_setup) - {"", *self.items}
        if unknown:
            raise NpqError(f"production plan: initial set-up for {min(unknown)}, which is no item of the plan")
        self.levels  # noqa: B018 - a circle in the bills is an error of the data


_SHAPES = {
    "demand": "nT", "run_time": "nM", "setup_time": "nM", "setup_cost": "nM", "capacity": "MT", "holding_cost": "n",
    "unit_cost": "nMT", "energy_per_unit": "nM", "energy_price": "T", "initial_stock": "n", "supply": "nT",
    "overtime_limit": "MT", "overtime_cost": "MT", "late_cost": "n", "end_late_cost": "n", "initial_backlog": "n",
    "max_backlog": "nT", "safety_stock": "n", "safety_cost": "n", "bill": "nn", "minimum_lot": "n",
}  # fmt: skip


def _spread(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Array:
    """The value over its full shape; missing trailing axes repeat."""
    given = np.asarray(value, float)
    if given.ndim < len(shape):
        given = given.reshape(given.shape + (1,) * (len(shape) - given.ndim))
    try:
        return np.array(np.broadcast_to(given, shape))
    except ValueError:
        raise NpqError(f"production plan: {name} has the shape {np.shape(value)}, not {shape}") from None


@dataclass(frozen=True)
class Production:
    """A plan as arrays.

    Attributes:
        quantity: Units made (n, M, T).
        setup: Whether the machine is set up for the item (n, M, T), with `carry_over` also where the set-up was kept; true
            without a quantity where a set-up is made at the period's end for a lot of the next.
    """

    quantity: Array
    setup: NDArray[np.bool_]


@dataclass(frozen=True)
class Flow:
    """What follows from a plan.

    Attributes:
        stock: Units at the period's end (n, T).
        backlog: Units owed at the period's end (n, T).
        delivered: Units given to demand in the period (n, T).
        used: Minutes used (M, T).
        overtime: Minutes beyond the regular ones (M, T).
        short: Component units that were not there (n, T); 0 in every feasible plan.
        linked: Set-ups made, and those kept from one period into the next.
    """

    stock: Array
    backlog: Array
    delivered: Array
    used: Array
    overtime: Array
    short: Array
    linked: Linked

    @property
    def setup(self) -> NDArray[np.bool_]:
        """Set-ups made (n, M, T)."""
        return self.linked.setup

    @property
    def family_setup(self) -> NDArray[np.bool_]:
        """Families set up (K, M, T)."""
        return self.linked.family_setup


@dataclass(frozen=True)
class Cost:
    """Money by kind."""

    production: float
    setups: float
    overtime: float
    stock: float
    lateness: float
    safety: float

    @property
    def total(self) -> float:
        """The sum: the objective of the plan."""
        return self.production + self.setups + self.overtime + self.stock + self.lateness + self.safety


def flow(problem: LotSizingProblem, plan: Production) -> Flow:
    """Stock, backlog, deliveries and minutes that follow from a plan: whatever is there is delivered at once.

    With `carry_over` each machine ends its periods with the items for which that is cheapest.
    """
    n, _, periods = problem.shape
    made = plan.quantity.sum(axis=1)
    consumed = problem.bill @ made
    ready = np.zeros((n, periods))
    for i in range(n):
        lead = int(problem.lead_time[i])
        if lead < periods:
            ready[i, lead:] = made[i, : periods - lead]
    stock, backlog, delivered, short = (np.zeros((n, periods)) for _ in range(4))
    on_hand, owed = problem.initial_stock.copy(), problem.initial_backlog.copy()
    for t in range(periods):
        on_hand = on_hand + ready[:, t] + problem.supply[:, t] - consumed[:, t]
        short[:, t] = np.maximum(0.0, -on_hand)
        on_hand = np.maximum(0.0, on_hand)
        owed = owed + problem.demand[:, t]
        delivered[:, t] = np.minimum(on_hand, owed)
        on_hand, owed = on_hand - delivered[:, t], owed - delivered[:, t]
        stock[:, t], backlog[:, t] = on_hand, owed
    on = plan.setup | (plan.quantity > TOLERANCE)
    run = np.where(problem.eligible, problem.run_time, 0.0)
    used = np.einsum("im,imt->mt", run, plan.quantity)
    linked = cheapest_links(problem, on, used) if problem.carry_over else unlinked(problem, on)
    used = used + np.einsum("im,imt->mt", problem.setup_time, linked.setup)
    used = used + np.einsum("km,kmt->mt", problem.family_arrays()[0], linked.family_setup)
    return Flow(stock, backlog, delivered, used, np.maximum(0.0, used - problem.capacity), short, linked)


def price(problem: LotSizingProblem, plan: Production, flowed: Flow | None = None) -> Cost:
    """What a plan costs (money by kind)."""
    f = flowed or flow(problem, plan)
    _, family_cost, _ = problem.family_arrays()
    late = np.where(problem.may_be_late, problem.late_cost, 0.0)
    missing = np.maximum(0.0, problem.safety_stock[:, None] - f.stock)
    return Cost(
        float((problem.variable_cost * plan.quantity).sum()),
        float((problem.setup_cost[:, :, None] * f.setup).sum() + np.einsum("km,kmt->", family_cost, f.family_setup)),
        float((problem.overtime_cost * f.overtime).sum()),
        float((problem.holding_cost[:, None] * f.stock).sum()),
        float((late[:, None] * f.backlog).sum() + (problem.end_late_cost * f.backlog[:, -1] * problem.may_be_late).sum()),
        float((problem.safety_cost[:, None] * missing).sum()),
    )  # fmt: skip


def violations(problem: LotSizingProblem, plan: Production, tolerance: float = 1e-5) -> list[tuple[str, float, str]]:
    """What a plan breaks, in business names: constraint, amount, sentence; empty for a feasible plan."""
    f = flow(problem, plan)
    found: list[tuple[str, float, str]] = []
    made = plan.quantity
    for i, m, t in np.argwhere((made < -tolerance) | ((made > tolerance) & ~problem.eligible[:, :, None])):
        name = f"{problem.items[i]} on {problem.machines[m]} in {problem.periods[t]}"
        found.append(
            (f"production of {name}", float(abs(made[i, m, t])), f"{made[i, m, t]:g} units of {name}: not possible")
        )
    over = f.overtime - problem.overtime_limit
    scale = tolerance * np.maximum(1.0, problem.capacity)
    for m, t in np.argwhere(over > scale):
        found.append(capacity_short(problem, int(m), int(t), float(over[m, t])))
    allowed = np.where(problem.may_be_late[:, None], problem.max_backlog, 0.0)
    for i, t in np.argwhere(f.backlog > allowed + tolerance * np.maximum(1.0, problem.demand.max(axis=1))[:, None]):
        found.append(demand_late(problem, int(i), int(t), float(f.backlog[i, t] - allowed[i, t])))
    for i, t in np.argwhere(f.short > tolerance * (1.0 + made.sum(axis=(1, 2)).max())):
        name = f"{problem.items[i]} in {problem.periods[t]}"
        found.append(
            (f"component {name}", float(f.short[i, t]), f"{f.short[i, t]:g} units of component {name} are missing")
        )
    lots = (made > tolerance) & (made < problem.minimum_lot[:, None, None] * (1 - tolerance) - tolerance)
    for i, m, t in np.argwhere(lots):
        name = f"{problem.items[i]} on {problem.machines[m]} in {problem.periods[t]}"
        found.append(
            (f"minimum lot of {name}", float(problem.minimum_lot[i] - made[i, m, t]), f"lot of {name} is too small")
        )
    return found


def capacity_short(problem: LotSizingProblem, m: int, t: int, minutes: float) -> tuple[str, float, str]:
    """The sentence for minutes that a machine lacks."""
    name = f"{problem.machines[m]} in {problem.periods[t]}"
    return f"capacity of {name}", minutes, f"{name} lacks {minutes:,.0f} minutes beside regular time and overtime"


def demand_late(problem: LotSizingProblem, i: int, t: int, units: float) -> tuple[str, float, str]:
    """The sentence for units that cannot be there in time."""
    name = f"{problem.items[i]} in {problem.periods[t]}"
    return f"demand of {name}", units, f"{units:,.0f} units of {name} cannot be there in time"


@dataclass(frozen=True)
class Params:
    """How long and how to search.

    Attributes:
        seconds: Wall-clock limit, kept by a watchdog (see `watchdog.py`).
        gap: A plan proven this close to the best is good enough (share of its cost).
        nodes: Branch-and-bound nodes of each integer program; the limit that makes runs repeatable. None: only the clock.
        method: `auto` (by shape), `tight` (one integer program) or `decomposition` (column generation by item).
        watchdog: Search in a child process that is ended when it overruns; False runs it here.
        worth: Compute the worth of capacity (one linear program more).
    """

    seconds: float = 60.0
    gap: float = 1e-4
    nodes: int | None = None
    method: str = "auto"
    watchdog: bool = True
    worth: bool = True


WORTH = {
    "machine": pl.String, "period": pl.String, "capacity": pl.Float64, "used": pl.Float64, "overtime": pl.Float64,
    "worth_per_hour": pl.Float64, "method": pl.String,
}  # fmt: skip


@dataclass(frozen=True)
class LotSizingResult(Result):
    """A production plan and what is known about it.

    `plan` has a row per lot: item, machine, period, quantity, run_minutes, setup_minutes. `status` is `optimal`,
    `feasible` or `relaxed` (no plan keeps all limits: `relaxation` says which give way, cheapest relaxation found).
    `duals` has the columns of `WORTH`.

    Attributes:
        production: The plan as arrays.
        cost: Money by kind; its total is `objective`.
        flow: Stock, backlog, minutes.
        conflict: Business names of limits that contradict each other, when the plan is relaxed.
    """

    production: Production | None = None
    cost: Cost | None = None
    flow: Flow | None = None
    conflict: tuple[str, ...] = ()

    def machine_load(self, problem: LotSizingProblem) -> pl.DataFrame:
        """Minutes by machine and period: machine, period, capacity, used, overtime."""
        assert self.flow is not None
        rows = [(m, t) for m in range(len(problem.machines)) for t in range(len(problem.periods))]
        return pl.DataFrame(
            {
                "machine": [problem.machines[m] for m, _ in rows],
                "period": [problem.periods[t] for _, t in rows],
                "capacity": problem.capacity.ravel(),
                "used": self.flow.used.ravel(),
                "overtime": self.flow.overtime.ravel(),
            }
        )

    def item_flow(self, problem: LotSizingProblem) -> pl.DataFrame:
        """Units by item and period: item, period, demand, made, delivered, stock, backlog."""
        assert self.flow is not None and self.production is not None
        rows = [(i, t) for i in range(len(problem.items)) for t in range(len(problem.periods))]
        return pl.DataFrame(
            {
                "item": [problem.items[i] for i, _ in rows],
                "period": [problem.periods[t] for _, t in rows],
                "demand": problem.demand.ravel(),
                "made": self.production.quantity.sum(axis=1).ravel(),
                "delivered": self.flow.delivered.ravel(),
                "stock": self.flow.stock.ravel(),
                "backlog": self.flow.backlog.ravel(),
            }
        )


def plan_frame(problem: LotSizingProblem, plan: Production) -> pl.DataFrame:
    """The lots: item, machine, period, quantity, run_minutes, setup_minutes (0 where the set-up was kept)."""
    setup = flow(problem, plan).setup
    rows = [
        (
            problem.items[i], problem.machines[m], problem.periods[t], float(plan.quantity[i, m, t]),
            float(plan.quantity[i, m, t] * problem.run_time[i, m]), float(problem.setup_time[i, m] * setup[i, m, t]),
        )
        for i, m, t in np.argwhere(setup | plan.setup | (plan.quantity > TOLERANCE))
    ]  # fmt: skip
    names = ("item", "machine", "period"), ("quantity", "run_minutes", "setup_minutes")
    schema = {**dict.fromkeys(names[0], pl.String), **dict.fromkeys(names[1], pl.Float64)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def result_of(
    problem: LotSizingProblem, plan: Production, bound: float, *, gap: float, solver: str, seconds: float, **more: Any
) -> LotSizingResult:
    """Prices a plan and puts the result together; the status follows from the plan, not from what a solver says."""
    f = flow(problem, plan)
    cost = price(problem, plan, f)
    broken = violations(problem, plan)
    bound = min(bound, cost.total) if not broken else bound
    close = cost.total - bound <= gap * max(1e-9, abs(cost.total)) + 1e-9
    status = "relaxed" if broken else "optimal" if close else "feasible"
    return LotSizingResult(
        plan_frame(problem, plan), status, cost.total, bound, solver=solver, seconds=seconds, production=plan, cost=cost,
        flow=f, **more,
    )  # fmt: skip


def named(values: Sequence[str], name: str, what: str) -> int:
    """Position of a business name, or a readable error."""
    try:
        return list(values).index(name)
    except ValueError:
        raise NpqError(f"production plan: there is no {what} {name!r}") from None
