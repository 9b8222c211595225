"""Lost-sales stock dynamics: what a period leaves, and what will be there when an order arrives.

Used alike by the optimizer, the sample company, the replay and the ledger. Costs do not belong here (see `costs`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def step(on_hand: ArrayLike, arrivals: ArrayLike, demand: ArrayLike) -> tuple[Array, Array, Array]:
    """One period: arrivals come before demand, demand that finds no stock is lost.

    Returns:
        Units sold, lost and left; sold + lost = demand, on_hand + arrivals = sold + left.
    """
    available = np.asarray(on_hand, float) + np.asarray(arrivals, float)
    wanted = np.asarray(demand, float)
    sold = np.minimum(available, wanted)
    return sold, wanted - sold, available - sold


def project_stock(
    on_hand: ArrayLike, arrivals: ArrayLike, paths: ArrayLike, lead_time: ArrayLike
) -> tuple[Array, Array]:
    """Stock at the opening of the period in which an order placed now arrives, and that period's demand.

    Args:
        on_hand: Units at the opening of period 0 (n).
        arrivals: Units under way, by the period at whose opening they arrive (n, P), P > the longest lead time.
        paths: Demand scenarios (n, S, H), H > the longest lead time.
        lead_time: Periods until an order placed now is on the shelf (n).

    Returns:
        Stock before the order, with that period's other arrivals (n, S), and demand (n, S).
    """
    demand, coming = np.asarray(paths, float), np.asarray(arrivals, float)
    lead = np.asarray(lead_time, int)
    n, scenarios, horizon = demand.shape
    if lead.size and int(lead.max()) >= horizon:
        raise ValueError(f"paths reach {horizon} periods ahead, the longest lead time needs {int(lead.max()) + 1}")
    stock = np.repeat(np.asarray(on_hand, float)[:, None], scenarios, axis=1)
    for period in range(int(lead.max(initial=0)) + 1):
        here = lead >= period
        stock[here] += coming[here, period][:, None]
        on_the_way = lead > period
        stock[on_the_way] = np.maximum(stock[on_the_way] - demand[on_the_way, :, period], 0.0)
    return stock, demand[np.arange(n), :, lead]


def carrying_periods(
    stock: ArrayLike, paths: ArrayLike, lead_time: ArrayLike, holding_cost: ArrayLike, shortage_cost: ArrayLike
) -> Array:
    """Period-ends at which a unit left over by an order is expected to be still there, before a later order can react (n).

    Who orders for period a does not yet know what a will leave over; the first order that does arrives a lead time after
    the next opening. Till then every unit too many is paid for again, while a unit too few is lost only once. This is the
    marginal holding cost accounting of Levi, Janakiraman and Nagarajan, A 2-approximation algorithm for stochastic
    inventory control models with lost sales (Math. of OR 33, 2008), for the newsvendor's order:

        w = sum_{k=0..L} E[(x + S - D_a..a+k)^+] / E[(x + S - D_a)^+],   S the newsvendor's order.

    Args:
        stock: Stock at the opening of the arrival period (n, S).
        paths: Demand scenarios (n, S, H); as far as H reaches, k runs up to the lead time.
        lead_time: Periods (n).
        holding_cost: Per unit and period (n).
        shortage_cost: Per unit (n).

    Returns:
        At least 1, at most lead time + 1; 1 where the newsvendor leaves nothing over.
    """
    x, demand = np.asarray(stock, float), np.asarray(paths, float)
    lead = np.asarray(lead_time, int)
    n, scenarios, horizon = demand.shape
    if n == 0:
        return np.ones(0)
    h, p = np.asarray(holding_cost, float), np.asarray(shortage_cost, float)
    ratio = np.divide(p, p + h, out=np.zeros(n), where=(p + h) > 0)
    rows = np.arange(n)
    rank = np.clip(np.ceil(ratio * scenarios - 1e-9).astype(int) - 1, 0, scenarios - 1)
    order = np.maximum(np.sort(demand[rows, :, lead] - x, axis=1)[rows, rank], 0.0)
    left = x + order[:, None] - demand[rows, :, lead]
    first = np.maximum(left, 0.0).mean(axis=1)
    total = first.copy()
    for k in range(1, int(lead.max(initial=0)) + 1):
        later = (k <= lead) & (lead + k < horizon)
        left = np.where(later[:, None], left - demand[rows, :, np.minimum(lead + k, horizon - 1)], left)
        total += np.where(later, np.maximum(left, 0.0).mean(axis=1), 0.0)
    return np.divide(total, first, out=np.ones(n), where=first > 1e-9)
