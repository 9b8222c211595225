"""A day on the shop floor: what machines get done, what it costs, which orders leave; the same physics for every world.

Which lots to make does not belong here (see `plant_planner` and the product's own plan), nor what the plant looks like (see
`plant`).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from npq_assets.company import streams
from npq_assets.company.wear import Replaced, Wear

if TYPE_CHECKING:
    from npq_assets.company.plant import Plant

Floats = NDArray[np.float64]

# Begin of each shift in minutes after the opening; what is made after the last regular one is overtime.
SHIFTS: tuple[tuple[str, float], ...] = (("early", 0.0), ("late", 480.0), ("night", 960.0))
LATE_SHIFT_SLOWER = 0.03
LATE_SHIFT_SCRAP = 1.3
RECEIPT_LEAD = 3


@dataclass(frozen=True)
class Lot:
    """Good units of a product to make on a machine."""

    product: int
    quantity: float


@dataclass(frozen=True)
class Order:
    """An order in hand.

    Attributes:
        order_id: Its name.
        product: What is wanted.
        quantity: Units wanted.
        ordered_on: Day it came in.
        due_on: Day it is due.
        late_cost: Money per day late of the whole order; in proportion to what is owed.
        delivered: Units delivered so far.
        delivered_on: Day on which it was completed.
    """

    order_id: str
    product: int
    quantity: float
    ordered_on: date
    due_on: date
    late_cost: float
    delivered: float = 0.0
    delivered_on: date | None = None

    @property
    def owed(self) -> float:
        """Units still to deliver."""
        return self.quantity - self.delivered


@dataclass(frozen=True)
class Run:
    """What a machine did for a product in a shift: a row of the production log."""

    day: date
    machine: int
    product: int
    shift: str
    good: float
    scrap: float
    run_minutes: float
    setup_minutes: float
    down_minutes: float
    energy_kwh: float


@dataclass(frozen=True)
class FloorDay:
    """What happened on a day.

    Attributes:
        day: The day.
        runs: The day's log.
        setup_cost: Money by line machine (makers and packers: M).
        overtime_cost: Money by machine (M).
        stock_cost: Money by product (P).
        late_cost: Money by product (P).
        changed: Orders of which something was delivered.
        due: Units that fell due.
        in_time: Of these, units delivered by the day's end.
        replaced: Parts replaced, planned and failed.
        failure_cost: Money for replacements by machine (M).
        scrap_cost: Value of scrapped units by machine (M).
        energy_cost: Money for energy by machine (M).
    """

    day: date
    runs: list[Run]
    setup_cost: Floats
    overtime_cost: Floats
    stock_cost: Floats
    late_cost: Floats
    changed: list[Order]
    due: float
    in_time: float
    replaced: list[Replaced]
    failure_cost: Floats
    scrap_cost: Floats
    energy_cost: Floats


@dataclass
class ShopFloor:
    """The plant's state when a day opens.

    Attributes:
        plant: Master data and luck.
        stock: Finished units (P).
        components: Component units (C).
        set_up: Product each machine is set up for, -1 at first (M).
        orders: Orders not yet completed, by due date.
        receipts: Components under way: day, component, units.
        wear: Wear of the machines' parts.
        settings: Values of the machines' settings (M, settings); packers' are not used.
    """

    plant: Plant
    stock: Floats
    components: Floats
    set_up: NDArray[np.int64]
    wear: Wear
    settings: Floats
    orders: list[Order] = field(default_factory=list)
    receipts: list[tuple[date, int, float]] = field(default_factory=list)

    def copy(self) -> ShopFloor:
        """An independent copy in the same state."""
        twin = copy.copy(self)
        twin.stock, twin.components, twin.set_up = self.stock.copy(), self.components.copy(), self.set_up.copy()
        twin.orders, twin.receipts = list(self.orders), list(self.receipts)
        twin.wear, twin.settings = self.wear.copy(), self.settings.copy()
        return twin

    def accept(self, orders: Sequence[Order]) -> None:
        """Takes new orders in hand."""
        self.orders = sorted([*self.orders, *orders], key=lambda o: (o.due_on, -o.late_cost / o.quantity, o.order_id))

    def buy(self, day: date) -> list[tuple[date, int, float]]:
        """Orders the components whose weekly turn it is, before `day` opens; returns what was ordered."""
        plant, ordered = self.plant, []
        for c in range(len(self.components)):
            if day.weekday() != c % 5:
                continue
            coming = sum(units for on, which, units in self.receipts if which == c and on >= day)
            missing = plant.component_target[c] - self.components[c] - coming
            if missing > 0:
                ordered.append((day + timedelta(days=RECEIPT_LEAD), c, float(np.ceil(missing))))
        self.receipts = [r for r in self.receipts if r[0] >= day] + ordered
        return ordered

    def live(
        self,
        day: date,
        lots: Sequence[Sequence[Lot]],
        overtime: Floats,
        replace_parts: Collection[tuple[int, int]] = (),
    ) -> FloorDay:
        """Works a day: lots in sequence on every maker, packing behind them, then deliveries.

        Args:
            day: The day about to open.
            lots: Lots of each maker in sequence.
            overtime: Minutes of overtime allowed (M), also of packers.
            replace_parts: Machines and components replaced before the day opens.
        """
        plant = self.plant
        replaced = self.wear.step(plant.offset(day), replace_parts)
        stopped, repairs, failure_cost = plant.standstill(day, replaced)
        for on, c, units in self.receipts:
            if on == day:
                self.components[c] += units
        runs: list[Run] = []
        machines = len(plant.machine_ids)
        setup_cost, overtime_cost = np.zeros(machines), np.zeros(machines)
        packed = np.zeros(machines)
        for m in range(plant.makers):
            regular = plant.regular_minutes(m, day)
            allowed = min(float(overtime[m]), plant.overtime_limit(m, day))
            work = lots[m] if m < len(lots) else ()
            made, minutes, money = self._machine(day, m, work, regular, allowed, float(stopped[m]), float(repairs[m]))
            runs += made
            setup_cost[m] += money
            overtime_cost[m] += max(0.0, minutes - regular) * plant.overtime_cost[m]
        for run in list(runs):
            packer = plant.packer_of[run.product]
            change = self.set_up[packer] != run.product and run.good > 0
            minutes = round(run.good * plant.packing_minutes[run.product], 2)
            before = plant.packing_setup_minutes if change else 0.0
            if change:
                setup_cost[packer] += plant.packing_setup_cost
                self.set_up[packer] = run.product
            packed[packer] += minutes + before
            runs.append(
                replace(run, machine=packer, scrap=0.0, run_minutes=minutes, setup_minutes=before, down_minutes=0.0,
                        energy_kwh=round(0.05 * minutes, 2))
            )  # fmt: skip
        for k in range(plant.makers, machines):
            over = max(0.0, packed[k] - plant.regular_minutes(k, day))
            overtime_cost[k] += over * plant.overtime_cost[k]
        changed, due, in_time = self._deliver(day)
        late = np.zeros(len(self.stock))
        for order in self.orders:
            if order.due_on <= day:
                late[order.product] += order.late_cost * order.owed / order.quantity
        made = _merged(runs)
        scrap_cost, energy_cost = np.zeros(machines), np.zeros(machines)
        price = plant.energy_price(day)
        for run in made:
            scrap_cost[run.machine] += run.scrap * float(plant.company.unit_cost[run.product])
            energy_cost[run.machine] += run.energy_kwh * price
        return FloorDay(
            day,
            made,
            setup_cost,
            overtime_cost,
            self.stock * plant.company.holding_cost,
            late,
            changed,
            due,
            in_time,
            replaced,
            failure_cost,
            scrap_cost,
            energy_cost,
        )

    def _machine(
        self, day: date, m: int, lots: Sequence[Lot], regular: float, overtime: float, stopped: float, repairs: float
    ) -> tuple[list[Run], float, float]:
        """The day of one maker: its log, minutes worked (standstill included) and money for setups.

        `stopped` are minutes of planned maintenance, which are nobody's surprise and not in the log; `repairs` are.
        """
        plant, runs, money = self.plant, [], 0.0
        if regular + overtime <= 0:
            return [], 0.0, 0.0
        stopped = min(stopped, regular)
        standing = min(plant.short_stops(m, day) + repairs, regular - stopped)
        clock, limit = stopped + standing, regular + overtime
        worn = float(self.wear.worn(plant.offset(day))[m].max())
        slow, scrap_rate, power = plant.condition(m, day, worn, self.settings[m])
        for lot in lots:
            p, remaining = lot.product, float(np.floor(lot.quantity + 0.5))
            minutes, cost = plant.setup_between(int(self.set_up[m]), p)
            if remaining < 1 or clock + minutes + 5.0 > limit:
                continue
            startup = 0.0
            if self.set_up[m] != p:
                startup = plant.startup_scrap[p]
                money += cost
                self.set_up[m] = p
            else:
                minutes = 0.0
            clock += minutes
            usable = plant.component_limit(p, self.components)
            while remaining >= 1 and clock < limit - 1e-9 and usable >= 1:
                shift = max(k for k, (_, begin) in enumerate(SHIFTS) if begin <= clock + 1e-9)
                end = min(limit, SHIFTS[shift + 1][1] if shift + 1 < len(SHIFTS) else limit)
                late = shift > 0
                per_unit = plant.unit_minutes(m, p) * slow * (1.0 + LATE_SHIFT_SLOWER * late)
                share = scrap_rate * (LATE_SHIFT_SCRAP if late else 1.0)
                luck = float(
                    streams.uniform(plant.seed, "scrap", int(plant.machine_keys[m]), day.toordinal(), p, shift)[0]
                )
                share = min(0.5, share * 2.0 * luck)
                started = min(float(np.floor((end - clock) / per_unit)), usable)
                good = float(np.floor(min(remaining, started * (1.0 - share) - startup) + 1e-9))
                if good < 1:
                    clock = end
                    continue
                scrap = float(np.floor(good * share / (1.0 - share) + startup + 0.5))
                run = round((good + scrap) * per_unit, 2)
                energy = round(power * run / 60.0 + 4.0 * (minutes > 0) + 0.02 * minutes, 2)
                runs.append(Run(day, m, p, SHIFTS[shift][0], good, scrap, run, minutes, standing, energy))
                plant.consume(p, good + scrap, self.components)
                usable -= good + scrap
                self.stock[p] += good
                clock += run
                remaining -= good
                standing = minutes = startup = 0.0
        if standing > 0 and runs == [] and self.set_up[m] >= 0:
            # A standstill is logged also on a day without production, with the product that the machine is set up for.
            runs.append(Run(day, m, int(self.set_up[m]), SHIFTS[0][0], 0.0, 0.0, 0.0, 0.0, standing, 0.0))
        return runs, clock, money

    def _deliver(self, day: date) -> tuple[list[Order], float, float]:
        """Gives what lies there to the orders that are due, the earliest first."""
        kept, changed = [], []
        due = in_time = 0.0
        for order in self.orders:
            if order.due_on > day:
                kept.append(order)
                continue
            given = min(order.owed, float(self.stock[order.product]))
            if order.due_on == day:
                due += order.owed
                in_time += given
            if given > 0:
                self.stock[order.product] -= given
                left = order.owed - given
                order = replace(order, delivered=order.quantity - left, delivered_on=day if left < 1e-9 else None)
                changed.append(order)
            if order.owed > 1e-9:
                kept.append(order)
        self.orders = kept
        return changed, due, in_time


def _merged(runs: Sequence[Run]) -> list[Run]:
    """One row a machine, product and shift, as the log has it."""
    found: dict[tuple[int, int, str], Run] = {}
    for run in runs:
        key = (run.machine, run.product, run.shift)
        old = found.get(key)
        if old is not None:
            run = replace(
                run,
                **{
                    name: round(getattr(old, name) + getattr(run, name), 2)
                    for name in ("good", "scrap", "run_minutes", "setup_minutes", "down_minutes", "energy_kwh")
                },
            )
        found[key] = run
    return list(found.values())
