"""The VN2 inventory planning challenge, played by the product itself: `python -m benchmarks.vn2 --data DIR --out DIR`.

The challenge's files become landing files; round by round the graph runs as of the round's Monday and its decision files
are the orders. Nothing of npq knows that it is being judged. Official rules: two weeks of lead time, 0.2 per unit left at a
week's end, 1 per unit of lost sales, six orders, weeks 3 to 8 scored.

Windows inside the history start from the challenge's recipe: stock = mean weekly demand of the last 52 weeks rounded up,
nothing under way for the next week, one mean week for the week after.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

HOLDING, SHORTAGE = 0.2, 1.0
ROUNDS, WEEKS, FIRST_SCORED = 6, 8, 3
WEEK_0 = date(2024, 4, 8)
HISTORY_WINDOWS = (-7, -15, -23, -31, -39, -47)
OFFICIAL = 1


@dataclass(frozen=True)
class Challenge:
    """The challenge's data: n store-products, weeks in columns.

    Attributes:
        keys: Store and Product, and the master data's attributes.
        mondays: First days of the weeks.
        sales: Units sold (n, weeks).
        in_stock: Whether the week's demand is known (n, weeks).
        state: End Inventory, In Transit W+1, In Transit W+2 after week 0 (n, 3).
    """

    keys: pl.DataFrame
    mondays: list[date]
    sales: np.ndarray
    in_stock: np.ndarray
    state: np.ndarray

    def column(self, week: int) -> int:
        """Column of an official week number; week 0 is 2024-04-08."""
        return self.mondays.index(WEEK_0 + timedelta(weeks=week))


def read_challenge(folder: Path) -> Challenge:
    """Reads the challenge's CSV files, with the latest weeks of sales present."""
    weeks = {int(re.findall(r"Week (\d+) -", p.name)[0]): p for p in folder.glob("Week * - Sales.csv")}
    if not weeks:
        raise SystemExit(f"{folder}: no 'Week … - Sales.csv'; give the folder of the VN2 files with --data")
    sales = pl.read_csv(weeks[max(weeks)])
    in_stock = pl.read_csv(folder / "Week 0 - In Stock.csv")
    state = pl.read_csv(next(iter(folder.glob("Week 0 - *Initial State.csv"))))
    master = pl.read_csv(folder / "Week 0 - Master.csv")
    mondays = [date.fromisoformat(name) for name in sales.columns[2:]]
    flags = np.ones((sales.height, len(mondays)), bool)
    known = in_stock.drop("Store", "Product").cast(pl.String).to_numpy()
    flags[:, : known.shape[1]] = np.isin(np.char.lower(known.astype(str)), ["true", "1"])
    flags[:, mondays.index(WEEK_0) + 1 :] = True
    keys = sales.select("Store", "Product").join(master, on=["Store", "Product"], how="left", maintain_order="left")
    columns = ["End Inventory", "In Transit W+1", "In Transit W+2"]
    return Challenge(
        keys, mondays, sales.drop("Store", "Product").to_numpy().astype(float), flags, state.select(columns).to_numpy()
    )


class Landing:
    """Writes the challenge as landing files of a home."""

    def __init__(self, challenge: Challenge, folder: Path) -> None:
        self._c = challenge
        self._folder = folder
        self._site = pl.Series("site_id", challenge.keys["Store"].cast(pl.String))
        self._product = pl.Series("product_id", challenge.keys["Product"].cast(pl.String))

    def _write(self, table: str, name: str, frame: pl.DataFrame) -> None:
        place = self._folder / table.replace(".", "/")
        place.mkdir(parents=True, exist_ok=True)
        frame.write_csv(place / f"{name}.csv")

    def master_data(self) -> None:
        """Products, sites and terms."""
        keys = self._c.keys
        products = keys.select(
            self._product, pl.format("product {}", self._product).alias("name"),
            pl.col("Department").cast(pl.String).alias("family"), pl.lit(1.0).alias("unit_cost"),
        ).unique("product_id", keep="first", maintain_order=True)  # fmt: skip
        self._write("common.products", "products", products)
        sites = pl.DataFrame([self._site]).unique(maintain_order=True).with_columns(pl.lit("store").alias("kind"))
        self._write("common.sites", "sites", sites)
        terms = pl.DataFrame([self._site, self._product]).with_columns(
            pl.lit(2).alias("lead_time_periods"), pl.lit(HOLDING).alias("holding_cost"),
            pl.lit(SHORTAGE).alias("shortage_cost"),
        )  # fmt: skip
        self._write("retail.supply_terms", "terms", terms)

    def weeks(self, first: int, last: int) -> None:
        """Sales and availability of the columns first … last - 1."""
        if first >= last:
            return
        n = self._site.len()
        days = pl.Series("sold_on", [d.isoformat() for d in self._c.mondays[first:last] for _ in range(n)])
        columns = {
            "site_id": pl.concat([self._site] * (last - first)),
            "product_id": pl.concat([self._product] * (last - first)),
        }
        name = f"{self._c.mondays[first]}_{self._c.mondays[last - 1]}"
        base = pl.DataFrame({"sold_on": days, **columns})
        self._write("retail.sales", name, base.with_columns(quantity=self._c.sales[:, first:last].T.ravel()))
        flags = base.with_columns(in_stock=self._c.in_stock[:, first:last].T.ravel().astype(int))
        self._write("retail.availability", name, flags.filter(pl.col("in_stock") == 0))

    def position(self, as_of: date, on_hand: np.ndarray, arriving: list[np.ndarray]) -> None:
        """Stock at the opening of `as_of` and what is under way for this and the next week."""
        pairs = pl.DataFrame([self._site, self._product])
        stock = pairs.with_columns(pl.lit(as_of.isoformat()).alias("counted_on"), pl.Series("on_hand", on_hand))
        self._write("retail.stock", as_of.isoformat(), stock)
        orders = [
            pairs.with_columns(
                pl.lit((as_of + timedelta(weeks=step)).isoformat()).alias("arrives_on"), pl.Series("quantity", units)
            )
            for step, units in enumerate(arriving)
        ]
        self._write("retail.open_orders", as_of.isoformat(), pl.concat(orders).filter(pl.col("quantity") > 0))


def initial_state(challenge: Challenge, start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """On hand and what arrives in the next two weeks, on the eve of a window."""
    if start == OFFICIAL:
        return tuple(challenge.state.T.astype(float).copy())  # type: ignore[return-value]
    end = challenge.column(start)
    known = np.where(challenge.in_stock[:, end - 52 : end], challenge.sales[:, end - 52 : end], np.nan)
    mean = np.nansum(known, axis=1) / np.maximum(np.isfinite(known).sum(axis=1), 1)
    return np.ceil(mean - 1e-9), np.zeros(len(mean)), np.round(mean)


@dataclass
class Game:
    """A window of the challenge, a week at a time."""

    challenge: Challenge
    start: int

    def __post_init__(self) -> None:
        self.on_hand, self.next, self.after = initial_state(self.challenge, self.start)
        self.cost = np.zeros(self.on_hand.size)
        self.week = 0

    def live(self, order: np.ndarray) -> None:
        """An order is placed on the eve; then the next week happens."""
        self.week += 1
        column = self.challenge.column(self.start) + self.week - 1
        known = self.challenge.in_stock[:, column]
        demand = np.where(known, self.challenge.sales[:, column], 0.0)
        available = self.on_hand + self.next
        sold = np.minimum(demand, available)
        self.on_hand = available - sold
        self.next, self.after = self.after, order
        if self.week >= FIRST_SCORED:
            self.cost += (HOLDING * self.on_hand + SHORTAGE * (demand - sold)) * known


def organisers_rule(challenge: Challenge, game: Game, column: int, *, cover: int = 4) -> np.ndarray:
    """The organisers' benchmark: 13-week deseasonalised mean, order up to four weeks of it."""
    sales = np.where(challenge.in_stock[:, :column], challenge.sales[:, :column], np.nan)
    week = np.array([d.isocalendar()[1] for d in challenge.mondays[:column]])
    total = np.nanmean(sales, axis=0)
    index = {w: total[week == w].mean() for w in set(week.tolist())}
    mean = float(np.mean(list(index.values())))
    factor = np.array([index[w] / mean for w in week])
    recent = (sales / factor)[:, -13:]
    base = np.nansum(recent, axis=1) / np.maximum(np.isfinite(recent).sum(axis=1), 1)
    ahead = [(challenge.mondays[column - 1] + timedelta(weeks=j)).isocalendar()[1] for j in range(1, cover + 1)]
    wanted = sum(base * index.get(w, mean) / mean for w in ahead)
    return np.maximum(0, np.round(wanted - game.on_hand - game.next - game.after))


def foresight(challenge: Challenge, game: Game, column: int) -> np.ndarray:
    """The floor: orders just what will be missing."""
    demand = np.where(challenge.in_stock, challenge.sales, 0.0)
    stock = game.on_hand
    for step, arriving in enumerate((game.next, game.after)):
        stock = np.maximum(0, stock + arriving - demand[:, column + step])
    return np.maximum(0, demand[:, column + 2] - stock)


def play(challenge: Challenge, start: int, home: Path, until: int | None = None) -> tuple[Game, pl.DataFrame]:
    """Plays a window with npq in `home`; returns the game and the orders as store, product, week, qty."""
    from npq_assets.contracts import DECISIONS
    from npq_assets.deciding import Decider
    from npq_assets.publishing import read_decisions
    from npq_assets.settings import Home

    game, orders = Game(challenge, start), []
    landing = Landing(challenge, home / "landing")
    landing.master_data()
    landed = 0
    decider = Decider(Home.at(home), "retail")
    keys = challenge.keys.select(
        pl.col("Store").cast(pl.String).alias("site_id"), pl.col("Product").cast(pl.String).alias("product_id")
    )
    first = challenge.column(start) if start <= 0 else len(challenge.mondays[: challenge.column(0) + 1])
    rounds = ROUNDS if until is None else until
    for turn in range(rounds):
        column = first + turn
        as_of = challenge.mondays[column - 1] + timedelta(weeks=1)
        landing.weeks(landed, column)
        landed = column
        landing.position(as_of, game.on_hand, [game.next, game.after])
        decider.decide(as_of)
        decided = read_decisions(decider.home, DECISIONS["retail.replenishment_orders"], as_of)
        order = keys.join(decided, on=["site_id", "product_id"], how="left", maintain_order="left")[
            "quantity"
        ].to_numpy()
        orders.append(
            challenge.keys.select(
                pl.col("Store").alias("store"),
                pl.col("Product").alias("product"),
                pl.lit(start - 1 + turn).alias("week"),
                pl.Series("qty", order),
            )
        )
        if column < len(challenge.mondays):
            game.live(order)
    while game.week < WEEKS and first + game.week < len(challenge.mondays):
        game.live(np.zeros(keys.height))
    return game, pl.concat(orders)


def rule_cost(challenge: Challenge, start: int, rule: object) -> np.ndarray:
    """Cost per store-product of a rule over a window."""
    game = Game(challenge, start)
    for turn in range(WEEKS):
        column = challenge.column(start) + turn
        decides = turn < ROUNDS
        game.live(rule(challenge, game, column) if decides else np.zeros(game.on_hand.size))  # type: ignore[operator]
    return game.cost


def main() -> None:
    """Plays the windows and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the VN2 files")
    parser.add_argument("--out", type=Path, required=True, help="where orders.parquet goes")
    parser.add_argument("--start-weeks", type=int, nargs="*", default=list(HISTORY_WINDOWS), help="windows to play")
    parser.add_argument("--work", type=Path, help="keep the homes here; else a temporary folder")
    arguments = parser.parse_args()
    from npq_assets.evaluation.statistics import paired_difference

    challenge = read_challenge(arguments.data)
    arguments.out.mkdir(parents=True, exist_ok=True)
    work = arguments.work or Path(tempfile.mkdtemp(prefix="npq-vn2-"))
    print(f"{'window':>8} {'npq':>8} {'organisers':>11} {'ratio':>7} {'foresight':>10} {'seconds':>8}", flush=True)
    ratios, ours, theirs, stores = [], [], [], []
    try:
        for start in arguments.start_weeks:
            began = time.monotonic()
            game, orders = play(challenge, start, work / f"start={start}")
            orders.write_parquet(arguments.out / f"orders_start_{start}.parquet")
            rule, floor = (rule_cost(challenge, start, r) for r in (organisers_rule, foresight))
            ratios.append(game.cost.sum() / rule.sum())
            ours.append(game.cost)
            theirs.append(rule)
            stores.append(challenge.keys["Store"].to_numpy())
            print(
                f"{start:>8} {game.cost.sum():>8.1f} {rule.sum():>11.1f} {ratios[-1]:>7.3f} {floor.sum():>10.1f} "
                f"{time.monotonic() - began:>8.1f}",
                flush=True,
            )
        if ratios:
            print(f"mean ratio to the organisers' rule: {np.mean(ratios):.4f}")
            print(paired_difference(np.concatenate(ours), np.concatenate(theirs), np.concatenate(stores)))
        known = len(challenge.mondays) - challenge.column(0) - 1
        rounds = min(ROUNDS, known + 1)
        _, official = play(challenge, OFFICIAL, work / "official", until=rounds)
        official.write_parquet(arguments.out / "orders.parquet")
        print(f"official window: {rounds} of {ROUNDS} rounds decided from the weeks present")
    finally:
        if arguments.work is None:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
