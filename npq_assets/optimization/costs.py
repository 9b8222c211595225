"""What stock and lost sales cost: one object prices the plan, the simulation, the replay and the ledger.

So a plan and its back-test cannot disagree. How much to order does not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class HoldingCost:
    """Cost of units left at a period's end.

    Attributes:
        rate: Money per unit and period, >= 0; one number or one per item (n).
    """

    rate: ArrayLike

    def value(self, left: ArrayLike) -> NDArray[np.float64]:
        """Cost of `left` units, item by item; further axes (scenarios) may follow the item's."""
        return _times(self.rate, left)

    def expression(self, left: Any) -> Any:
        """The same as a CVXPY expression; `left` must be kept non-negative by the model."""
        return _cvxpy_times(self.rate, left)


@dataclass(frozen=True)
class LostSalesCost:
    """Cost of units wanted and not on the shelf.

    Attributes:
        rate: Money per unit, >= 0; one number or one per item (n).
    """

    rate: ArrayLike

    def value(self, lost: ArrayLike) -> NDArray[np.float64]:
        """Cost of `lost` units, item by item."""
        return _times(self.rate, lost)

    def expression(self, lost: Any) -> Any:
        """The same as a CVXPY expression; `lost` must be kept non-negative by the model."""
        return _cvxpy_times(self.rate, lost)


@dataclass(frozen=True)
class InventoryCost:
    """Holding and lost-sales cost of a period: h (available - demand)^+ + p (demand - available)^+.

    The newsvendor cost (Snyder & Shen, Fundamentals of Supply Chain Theory, 2nd ed., eq. 4.3).
    """

    holding: HoldingCost
    lost_sales: LostSalesCost

    @classmethod
    def of(cls, holding_cost: ArrayLike, shortage_cost: ArrayLike) -> InventoryCost:
        """From the two rates, per unit left and per unit lost."""
        return cls(HoldingCost(holding_cost), LostSalesCost(shortage_cost))

    @property
    def critical_ratio(self) -> NDArray[np.float64]:
        """p / (p + h): the probability of serving a period's demand that pays best; 0 where both rates are 0."""
        h, p = np.asarray(self.holding.rate, float), np.asarray(self.lost_sales.rate, float)
        return np.divide(p, p + h, out=np.zeros(np.broadcast(h, p).shape), where=(p + h) > 0)

    def value(self, available: ArrayLike, demand: ArrayLike) -> NDArray[np.float64]:
        """Cost of a period that opens with `available` units and meets `demand`."""
        surplus = np.asarray(available, float) - np.asarray(demand, float)
        return self.holding.value(np.maximum(surplus, 0.0)) + self.lost_sales.value(np.maximum(-surplus, 0.0))

    def expression(self, available: Any, demand: Any) -> Any:
        """The same as a convex CVXPY expression, item by item."""
        import cvxpy as cp

        surplus = available - demand
        return self.holding.expression(cp.pos(surplus)) + self.lost_sales.expression(cp.neg(surplus))


def _times(rate: ArrayLike, units: ArrayLike) -> NDArray[np.float64]:
    r, u = np.asarray(rate, float), np.asarray(units, float)
    return r.reshape(r.shape + (1,) * (u.ndim - r.ndim)) * u if r.ndim else r * u


def _cvxpy_times(rate: ArrayLike, units: Any) -> Any:
    import cvxpy as cp

    r = np.asarray(rate, float)
    if r.ndim == 0:
        return float(r) * units
    return cp.multiply(r.reshape(r.shape + (1,) * (units.ndim - r.ndim)), units)
