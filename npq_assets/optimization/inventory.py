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
