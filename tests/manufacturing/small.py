"""A small plant whose answers can be seen by hand: two machines, four products, one order that cannot be in time."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

AS_OF = date(2024, 7, 2)
DAYS = 150
# Product, machines with minutes a unit, unit cost.
PRODUCTS = {
    "cake": ({"M1": 1.0}, 2.0),
    "pie": ({"M1": 1.0}, 2.0),
    "soup": ({"M2": 1.0}, 1.0),
    "stew": ({"M1": 1.2, "M2": 1.0}, 1.5),
}
# Due three days ahead, but more than M1 can make until then.
BIG = "BIG-CAKE"


def land(folder: Path) -> None:
    """Writes the plant's landing files."""
    rng = np.random.default_rng(3)
    write(folder, "common/sites", pl.DataFrame({"site_id": ["P"], "kind": ["plant"]}))
    products = [(name, name, "food", cost, 0.01) for name, (_, cost) in PRODUCTS.items()] + [
        ("flour", "flour", "material", 0.2, 0.001)
    ]
    columns = ["product_id", "name", "family", "unit_cost", "holding_cost"]
    write(folder, "common/products", pl.DataFrame(products, schema=columns, orient="row"))
    machines = {
        "machine_id": ["M1", "M2"], "site_id": ["P", "P"], "minutes_per_day": [480.0, 480.0], "line": ["one", "two"],
        "overtime_minutes_per_day": [60.0, 60.0], "overtime_cost_per_minute": [1.0, 1.0], "power_kw": [10.0, 10.0],
        "installed_on": [date(2020, 1, 1), date(2022, 1, 1)],
    }  # fmt: skip
    write(folder, "manufacturing/machines", pl.DataFrame(machines))
    routings = [
        (name, 1, machine, minutes, 20.0, 15.0)
        for name, (able, _) in PRODUCTS.items()
        for machine, minutes in able.items()
    ]
    columns = ["product_id", "operation", "machine_id", "minutes_per_unit", "setup_minutes", "setup_cost"]
    write(folder, "manufacturing/routings", pl.DataFrame(routings, schema=columns, orient="row"))
    bills = pl.DataFrame({"product_id": ["cake"], "component_id": ["flour"], "quantity": [0.5]})
    write(folder, "manufacturing/bills_of_material", bills)
    orders = []
    for k in range(-DAYS, 10):
        due = AS_OF + timedelta(days=k)
        for p, name in enumerate(PRODUCTS):
            if (k + p) % 2 == 0:
                quantity = float(rng.integers(60, 140))
                ordered = due - timedelta(days=int(rng.integers(4, 12)))
                orders.append((f"{name}-{due}", name, quantity, ordered, due, 0.3 * quantity))
    orders.append((BIG, "cake", 2400.0, AS_OF - timedelta(days=1), AS_OF + timedelta(days=3), 1200.0))
    rows = [(*o, o[2] if o[4] < AS_OF else 0.0, o[4] if o[4] < AS_OF else None) for o in orders if o[3] < AS_OF]
    schema = {
        "order_id": pl.String, "product_id": pl.String, "quantity": pl.Float64, "ordered_on": pl.Date, "due_on": pl.Date,
        "late_cost_per_day": pl.Float64, "delivered_quantity": pl.Float64, "delivered_on": pl.Date,
    }  # fmt: skip
    write(folder, "manufacturing/customer_orders", pl.DataFrame(rows, schema=schema, orient="row"))
    log = []
    for k in range(-DAYS, 0):
        for shift, slower in (("early", 1.0), ("late", 1.1)):
            for name, (able, _) in PRODUCTS.items():
                machine, minutes = list(able.items())[-1]
                good = float(rng.integers(20, 60))
                scrap = float(rng.binomial(int(good), 0.04))
                run = round((good + scrap) * minutes * slower * float(rng.uniform(0.98, 1.02)), 2)
                log.append(
                    (AS_OF + timedelta(days=k), machine, name, good, scrap, run, 0.0, 0.0, round(run / 6, 2), shift)
                )
    columns = [
        "produced_on", "machine_id", "product_id", "good_quantity", "scrap_quantity", "run_minutes", "setup_minutes",
        "down_minutes", "energy_kwh", "shift",
    ]  # fmt: skip
    write(folder, "manufacturing/production_log", pl.DataFrame(log, schema=columns, orient="row"))
    stock = pl.DataFrame(
        {"counted_on": [AS_OF] * 5, "product_id": [*PRODUCTS, "flour"], "on_hand": [100.0, 50.0, 50.0, 50.0, 1e5]}
    )
    write(folder, "manufacturing/plant_stock", stock)


def write(folder: Path, table: str, frame: pl.DataFrame, name: str = "a") -> None:
    """One landing file."""
    (folder / table).mkdir(parents=True, exist_ok=True)
    frame.write_csv(folder / table / f"{name}.csv")
