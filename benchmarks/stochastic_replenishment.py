"""Many products, many scenarios, one shared capacity: `python -m benchmarks.stochastic_replenishment`.

The product's solver beside the extensive form (a variable per product, scenario and period), which gets a time limit.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from npq_assets.optimization.stochastic_replenishment import StochasticProblem, extensive_form, solve


def instance(
    products: int, scenarios: int = 200, periods: int = 6, tightness: float = 0.8, seed: int = 0
) -> StochasticProblem:
    """Gamma-Poisson demand with a common factor per scenario; capacity `tightness` of mean demand a period."""
    rng = np.random.default_rng(seed)
    mean = rng.gamma(1.2, 4.0, products) + 0.2
    common = rng.gamma(20, 1 / 20, (1, scenarios, periods))
    demand = rng.poisson(mean[:, None, None] * common, (products, scenarios, periods)).astype(float)
    capacity = np.full(periods, tightness * mean.sum())
    return StochasticProblem(
        demand,
        np.round(mean * rng.uniform(0, 2, products)),
        np.full(products, 0.2),
        rng.uniform(0.5, 3.0, products),
        capacity,
    )


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, nargs="*", default=[599, 10_000])
    parser.add_argument("--extensive-seconds", type=float, default=60.0, help="0 leaves the extensive form out")
    arguments = parser.parse_args()
    print(
        f"{'products':>9} {'method':>16} {'cost':>14} {'bound':>14} {'gap':>9} {'rounds':>7} {'seconds':>8} {'GB':>5}"
    )
    for products in arguments.products:
        problem = instance(products)
        result = solve(problem)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{products:>9} {'npq':>16} {result.objective:>14,.2f} {result.bound:>14,.2f} {result.gap:>9.1e} "
            f"{result.rounds:>7} {result.seconds:>8.1f} {memory:>5.1f}",
            flush=True,
        )
        if arguments.extensive_seconds and products <= 1000:
            began = time.monotonic()
            value, _ = extensive_form(problem, time_limit=arguments.extensive_seconds)
            shown = "no answer" if np.isnan(value) else f"{value:,.2f}"
            print(
                f"{products:>9} {'extensive form':>16} {shown:>14} {'':>14} {'':>9} {'':>7} {time.monotonic() - began:>8.1f}"
            )


if __name__ == "__main__":
    main()
