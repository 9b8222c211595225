"""The plant's own careful planner: economic lots, earliest due date, overtime only where it is cheaper than being late.

It wrote the plant's history and runs the naive world of `npq simulate`. It knows what a planner knows: stock, orders in hand,
what the last weeks brought, standard times. npq's plan does not belong here.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from npq_assets.company.shop_floor import Lot, Order, ShopFloor

if TYPE_CHECKING:
    from npq_assets.company.plant import Plant

Floats = NDArray[np.float64]

# Days of cover below which a product is made anew, and up to which idle machines make ahead; of the pairs tried over several
# seeds the one that costs this planner least.
COVER_DAYS = 2
AHEAD_DAYS = 3
# A lot is never more than this many days of demand, nor less than this many.
MOST_DAYS = 21.0
LEAST_DAYS = 2.0
# Allowance on standard times for stops, scrap and slow hours.
ALLOWANCE = 1.10
_MEMORY = 0.96


class PlantPlanner:
    """Decides each morning what every machine makes.

    Attributes:
        plant: Whose planner it is.
        flow: Expected demand per day (P), learnt from the orders that came in.
    """

    def __init__(self, plant: Plant, flow: Floats) -> None:
        self.plant = plant
        self.flow = flow.copy()
        self._left: dict[int, Lot] = {}

    def copy(self) -> PlantPlanner:
        """An independent copy that has learnt the same."""
        twin = copy.copy(self)
        twin.flow = self.flow.copy()
        twin._left = dict(self._left)
        return twin

    def observe(self, orders: Sequence[Order]) -> None:
        """Learns from the orders of a day."""
        wanted = np.zeros_like(self.flow)
        for order in orders:
            wanted[order.product] += order.quantity
        self.flow = _MEMORY * self.flow + (1.0 - _MEMORY) * wanted

    def lots(self, day: date, floor: ShopFloor) -> tuple[list[list[Lot]], Floats]:
        """Lots of each maker in sequence, and the overtime allowed (M)."""
        plant = self.plant
        out_on = self._out_days(day, floor)
        lots: list[list[Lot]] = [[] for _ in range(plant.makers)]
        used = np.zeros(plant.makers)
        last = floor.set_up[: plant.makers].copy()
        regular = np.array([plant.regular_minutes(m, day) for m in range(plant.makers)])
        planned: set[int] = set()
        for m, lot in sorted(
            self._left.items()
        ):  # what was begun is finished first, while the machine is set up for it
            if regular[m] > 0 and last[m] == lot.product:
                self._load(m, lot, lots, used, last)
                planned.add(lot.product)
        urgent = sorted((days, p) for p, days in enumerate(out_on) if days <= AHEAD_DAYS and p not in planned)
        for days, p in urgent:
            quantity = self._economic(p, floor, day)
            options = []
            for m in plant.machines_of[p]:
                minutes = self._minutes(m, p, quantity, int(last[m]))
                # Without time for the setup and a part of the lot there is no use in starting; what is late may take overtime.
                room = regular[m] - used[m] + (plant.overtime_limit(m, day) if days <= 0 else 0.0)
                if room > min(minutes, 90.0) and (days <= COVER_DAYS or used[m] < 0.5 * regular[m]):
                    options.append((max(0.0, used[m] + minutes - regular[m]) * 2.0 + minutes, m))
            if options:
                self._load(min(options)[1], Lot(p, quantity), lots, used, last)
        overtime = np.zeros(len(plant.machine_ids))
        for m in range(plant.makers):
            over = used[m] - regular[m]
            if over > 0 and any(out_on[lot.product] <= 0 for lot in lots[m]):
                overtime[m] = min(over, plant.overtime_limit(m, day)) if self._pays(m, lots[m], out_on) else 0.0
        overtime[plant.makers :] = 240.0
        for m in range(plant.makers):
            lots[m] = self._in_sequence(lots[m], int(floor.set_up[m]), out_on)
        self._remember(lots, regular + overtime[: plant.makers], floor)
        return lots, overtime

    def _load(self, m: int, lot: Lot, lots: list[list[Lot]], used: Floats, last: NDArray[np.int64]) -> None:
        used[m] += self._minutes(m, lot.product, lot.quantity, int(last[m]))
        last[m] = lot.product
        lots[m].append(lot)

    def _minutes(self, m: int, p: int, quantity: float, last: int) -> float:
        setup = 0.0 if last == p else self.plant.setup_between(last, p)[0]
        return setup + quantity * self.plant.unit_minutes(m, p) * ALLOWANCE

    def _economic(self, p: int, floor: ShopFloor, day: date) -> float:
        """The economic lot sqrt(2 D K / h), within days of cover, and enough for what is owed and due in the next days."""
        plant = self.plant
        rate = max(float(self.flow[p]), 1e-3)
        cost = plant.setup_cost[p] + 0.5 * plant.family_setup_cost[p]
        economic = float(np.sqrt(2.0 * rate * cost / max(float(plant.company.holding_cost[p]), 1e-6)))
        economic = min(max(economic, LEAST_DAYS * rate), MOST_DAYS * rate)
        soon = sum(o.owed for o in floor.orders if o.product == p and o.due_on <= day + timedelta(days=COVER_DAYS))
        return float(np.ceil(max(economic, soon - floor.stock[p], 1.0)))

    def _out_days(self, day: date, floor: ShopFloor) -> list[int]:
        """Days until each product runs out, by its orders in hand and, behind them, its usual flow; 0 is today."""
        far = 60
        products = len(floor.stock)
        due = np.zeros((products, far))
        known = np.zeros(products, dtype=np.int64)
        for order in floor.orders:
            k = max(0, (order.due_on - day).days)
            if k < far:
                due[order.product, k] += order.owed
                known[order.product] = max(known[order.product], k)
        usual = self.flow[:, None] * (np.arange(far)[None, :] > np.maximum(known, 4)[:, None])
        left = floor.stock[:, None] - np.cumsum(due + usual, axis=1)
        short = left < -1e-6
        return [int(row.argmax()) if row.any() else far for row in short]

    def _pays(self, m: int, lots: Sequence[Lot], out_on: Sequence[int]) -> bool:
        """Whether an hour of overtime costs less than the lateness that it spares."""
        late = [lot for lot in lots if out_on[lot.product] <= 0]
        per_hour = min(
            60.0 / self.plant.unit_minutes(m, lot.product) * self.plant.late_rate[lot.product] for lot in late
        )
        return bool(60.0 * self.plant.overtime_cost[m] < 3.0 * per_hour)

    def _in_sequence(self, lots: list[Lot], first: int, out_on: Sequence[int]) -> list[Lot]:
        """What is overdue first, then family by family, beginning with the one the machine is set up for."""
        family = self.plant.setup_family
        at = family[first] if first >= 0 else ""
        return sorted(
            lots,
            key=lambda lot: (
                lot.product != first,
                min(out_on[lot.product], 1),
                family[lot.product] != at,
                family[lot.product],
                out_on[lot.product],
            ),
        )

    def _remember(self, lots: Sequence[Sequence[Lot]], minutes: Floats, floor: ShopFloor) -> None:
        """Notes the lot that a machine will not finish today."""
        self._left = {}
        for m, row in enumerate(lots):
            used, last = 0.0, int(floor.set_up[m])
            for lot in row:
                needed = self._minutes(m, lot.product, lot.quantity, last)
                if used + needed > minutes[m] + 1.0:
                    share = max(0.0, minutes[m] - used) / needed
                    rest = float(np.floor(lot.quantity * (1.0 - share)))
                    if rest >= 1:
                        self._left[m] = Lot(lot.product, rest)
                    break
                used, last = used + needed, lot.product
