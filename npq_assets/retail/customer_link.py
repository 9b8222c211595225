"""What customers mean for the orders of the stores: demand that offers bring, and the value lost with a customer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date

import numpy as np
import polars as pl

from npq_assets.retail.demand import DemandForecast
from npq_assets.retail.inputs import PAIR, RetailInputs
from npq_assets.settings import Home

DEMAND = {"site_id": pl.String, "product_id": pl.String, "day": pl.Date, "units": pl.Float64}
_DEFECTION = {"site_id": pl.String, "product_id": pl.String, "defection_cost": pl.Float64}


@dataclass(frozen=True)
class CustomerLink:
    """The effect of customer decisions on replenishment; empty frames change nothing.

    Attributes:
        demand: site_id, product_id, day, units: expected beyond (below zero: short of) what history shows, by day.
        defection: site_id, product_id, defection_cost: added to the cost of a lost unit (money).
    """

    demand: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=DEMAND))
    defection: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_DEFECTION))

    def applied(self, inputs: RetailInputs, forecast: DemandForecast) -> tuple[DemandForecast, pl.DataFrame]:
        """The forecast with these units in each scenario, and the items with the dearer lost sales."""
        items = inputs.items
        if self.defection.height:
            joined = items.join(self.defection, on=PAIR, how="left", maintain_order="left")
            items = joined.with_columns(
                (pl.col("shortage_cost") + pl.col("defection_cost").fill_null(0.0)).alias("shortage_cost")
            ).drop("defection_cost")
        scenarios = self.added(items, inputs.as_of, inputs.days, forecast.scenarios)
        return (forecast if scenarios is forecast.scenarios else replace(forecast, scenarios=scenarios)), items

    def added(self, pairs: pl.DataFrame, as_of: date, days: int, scenarios: np.ndarray) -> np.ndarray:
        """Scenarios (n, S, H) of pairs (site_id, product_id; n) from `as_of` on with the units that offers bring."""
        if self.demand.is_empty():
            return scenarios
        step = (pl.col("day") - as_of).dt.total_days() // days
        row = pairs.select(PAIR).with_row_index("row")
        found = self.demand.with_columns(step.alias("step")).join(row, on=PAIR, how="inner")
        found = found.filter(pl.col("step").is_between(0, scenarios.shape[2] - 1)).sort(list(DEMAND))
        extra = np.zeros((pairs.height, scenarios.shape[2]))
        np.add.at(extra, (found["row"].to_numpy(), found["step"].to_numpy()), found["units"].to_numpy())
        # It may be less than usual; nobody wants less than nothing.
        more: np.ndarray = np.maximum(scenarios + extra[:, None, :], 0.0)
        return more


def link_of(home: Home, as_of: date) -> CustomerLink:
    """The link that the day's offer plan left; an empty one if there is none."""
    from npq_assets.retail.customer_output import load, skipped

    if skipped(home, as_of) is not None:
        return CustomerLink()
    demand, defection = load(home, as_of, "demand_effect"), load(home, as_of, "defection_cost")
    return CustomerLink(
        demand if demand is not None else pl.DataFrame(schema=DEMAND),
        defection if defection is not None else pl.DataFrame(schema=_DEFECTION),
    )
