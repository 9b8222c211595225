"""What it costs to know only sales: forecasts of days from a history with empty shelves, against the demand there really was.

`python -m benchmarks.censoring --out DIR` makes the sample company (needs no outside data), whose true demand is known, and
forecasts the same days from four histories: `left out` (days that ran out are unknown), `sold` (sales taken for demand), `npq`
(as landed; see `forecasting.censoring`) and `true` (what nobody knows: the demand itself), the floor for all of them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from npq_assets.company.config import CompanyConfig
from npq_assets.company.demand import Demand
from npq_assets.company.landing import write_sample
from npq_assets.company.world import Company
from npq_assets.deciding import Decider
from npq_assets.forecasting.distribution import QUANTILES
from npq_assets.retail.demand import forecast_demand
from npq_assets.retail.inputs import RetailInputs, read_inputs
from npq_assets.settings import Home

_UPPER = 0.9


def main() -> None:
    """Prints a row a history, over all days and over promoted ones, and writes censoring.parquet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="3,4", help="Seeds of the sample company.")
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--days", type=int, default=730, help="Days of history.")
    parser.add_argument("--origins", type=int, default=3, help="Days from which forecasts are made, a month apart.")
    arguments = parser.parse_args()
    parts = [part for seed in arguments.seeds.split(",") for part in measure(int(seed), arguments)]
    table = pl.concat(parts)
    arguments.out.mkdir(parents=True, exist_ok=True)
    table.write_parquet(arguments.out / "censoring.parquet")
    show("all days", table)
    show("promoted days", table.filter("promoted"))
    for seed in table["seed"].unique(maintain_order=True):
        show(f"seed {seed}", table.filter(pl.col("seed") == seed))


def measure(seed: int, arguments: argparse.Namespace) -> Iterator[pl.DataFrame]:
    """A frame an origin and history: history, origin, true, expected, loss, above, promoted, by pair and day."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home.at(Path(folder))
        config = CompanyConfig(scale=arguments.scale, days=arguments.days, seed=seed)
        summary = write_sample(home.landing, scale=arguments.scale, days=arguments.days, seed=seed)
        Decider(home).runner.run("transform").raise_for_failure()
        company = Company(replace(config, as_of=summary.as_of))
        demand = Demand(company)
        for back in range(arguments.origins):
            origin = summary.as_of - timedelta(days=30 * back)
            inputs = read_inputs(home, origin)
            hidden = 1.0 - float(inputs.history["in_stock"].cast(pl.Float64).mean() or 0.0)  # type: ignore[arg-type]
            print(f"seed {seed}, from {origin}: {hidden:.1%} of the days ran out of stock", flush=True)
            for name, history in histories(inputs, company, demand).items():
                yield judged(name, replace(inputs, history=history), company, demand).with_columns(
                    pl.lit(seed).alias("seed"), pl.lit(origin).alias("origin")
                )


def histories(inputs: RetailInputs, company: Company, demand: Demand) -> dict[str, pl.DataFrame]:
    """The same days as each would know them."""
    landed = inputs.history
    return {
        "left out": landed.with_columns(pl.when("in_stock").then("quantity").otherwise(0.0).alias("quantity")),
        "sold": landed.with_columns(pl.lit(True).alias("in_stock")),
        "npq": landed,
        "true": landed.with_columns(
            pl.Series("quantity", true_demand(landed, landed["period_start"], company, demand)),
            pl.lit(True).alias("in_stock"),
        ),
    }


def true_demand(pairs: pl.DataFrame, days: pl.Series, company: Company, demand: Demand) -> np.ndarray:
    """Demand of pairs (site_id, product_id) on days, row by row (R)."""
    site = {name: i for i, name in enumerate(company.store_ids)}
    product = {name: i for i, name in enumerate(company.product_ids)}
    i = np.array([site[name] for name in pairs["site_id"]])
    j = np.array([product[name] for name in pairs["product_id"]])
    out = np.zeros(len(days))
    number = days.to_physical().to_numpy()
    for day in np.unique(number):
        here = number == day
        out[here] = demand.on(date(1970, 1, 1) + timedelta(days=int(day)))[i[here], j[here]]
    return out


def judged(name: str, inputs: RetailInputs, company: Company, demand: Demand) -> pl.DataFrame:
    """The forecast of a history beside the demand that came, by pair and day."""
    found = forecast_demand(inputs).frame.filter(pl.col("unique_id").is_in(inputs.items["unique_id"].to_list()))
    truth = true_demand(found, found["ds"], company, demand)
    levels = np.array(QUANTILES)[:, None]
    miss = truth - np.stack([found[f"q{q:g}"].to_numpy() for q in QUANTILES])
    product = {key: j for j, key in enumerate(company.product_ids)}
    promoted = [
        bool(demand.discount(day)[product[key]] > 0) for day, key in zip(found["ds"], found["product_id"], strict=True)
    ]
    return pl.DataFrame(
        {
            "history": name,
            "true": truth,
            "expected": found["mean"],
            "loss": 2.0 * np.maximum(levels * miss, (levels - 1.0) * miss).mean(0),
            "above": miss[QUANTILES.index(_UPPER)] > 0,
            "promoted": promoted,
        }
    )


def show(title: str, table: pl.DataFrame) -> None:
    """Prints a row a history."""
    print(f"\n{title:<16}{'mean/true':>11}{'loss':>9}{'above q0.9':>12}{'days':>8}")
    for (name,), rows in table.group_by("history", maintain_order=True):
        total = rows["true"].sum()
        print(
            f"{name!s:<16}{rows['expected'].sum() / total:>11.3f}{rows['loss'].sum() / total:>9.4f}"
            f"{rows['above'].mean():>12.3f}{len(rows):>8}"
        )


if __name__ == "__main__":
    main()
