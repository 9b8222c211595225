"""A company that does not have it all: `python -m benchmarks.missing --out DIR`.

The sample company is decided for again and again, each time without one of its tables or one optional column of its files. Each
case must end in decisions, in a decision that is named as skipped, or in one line that says what to land; never in a traceback.
What decisions cost then is shown beside what they cost with everything, for a person to judge whether the difference is honest.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import IO, cast

import polars as pl

from npq_assets.company.landing import write_sample
from npq_assets.contracts import LANDING
from npq_assets.deciding import Decider
from npq_assets.errors import NpqError
from npq_assets.retail.output import read_summary
from npq_assets.settings import Home

_REFUSED = ("NpqError", "RunError", "Unavailable")


def main() -> None:
    """Prints a row a case, and writes missing.parquet; ends with 1 if any case was a traceback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--domain", default="everything", help="What is decided: everything or one system.")
    parser.add_argument("--only", default="", help="Cases whose names hold one of these, between commas.")
    parser.add_argument("--scale", type=float, default=0.05)
    parser.add_argument("--days", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        day = write_sample(whole / "landing", scale=arguments.scale, days=arguments.days, seed=arguments.seed).as_of
        base = decided("nothing", whole, day, arguments.domain)
        rows.append(base)
        usual = dict(cast("list[tuple[str, float]]", base["costs"]))
        said = set(cast("list[str]", base["words"]))
        print(f"{'without':<52}{'seconds':>8}  outcome")
        for case, table, column in cases(whole / "landing", arguments.domain):
            if arguments.only and not any(part in case for part in arguments.only.split(",")):
                continue
            root = Path(folder) / "case"
            shutil.copytree(whole / "landing", root / "landing", copy_function=os.link)
            without(root / "landing" / table.replace(".", "/"), column)
            row = decided(case, root, day, arguments.domain)
            shutil.rmtree(root)
            rows.append(row)
            show(row, usual, said)
            pl.DataFrame([{**r, "costs": str(r["costs"]), "words": str(r["words"])} for r in rows]).write_parquet(
                arguments.out / "missing.parquet"
            )
    broken = sum(row["outcome"] == "traceback" for row in rows)
    print(f"{len(rows) - 1} cases, {broken} of them a traceback")
    raise SystemExit(min(broken, 1))


def cases(landing: Path, domain: str) -> Iterator[tuple[str, str, str | None]]:
    """Name, table and column (None: the whole table) of what can be missing of a landing folder."""
    for name, table in LANDING.items():
        folder = landing / table.domain / table.name
        if (domain not in ("everything", table.domain) and table.domain != "common") or not folder.is_dir():
            continue
        yield name, name, None
        there = set.union(*(set(header(place)) for place in folder.iterdir()))
        for column in table.columns:
            if not column.required and column.name in there:
                yield f"{name}.{column.name}", name, column.name


def _open(place: Path, mode: str) -> IO[str]:
    if place.suffix == ".gz":
        return cast("IO[str]", gzip.open(place, mode + "t", encoding="utf-8", errors="surrogateescape", newline=""))
    return place.open(mode, encoding="utf-8", errors="surrogateescape", newline="")


def header(place: Path) -> list[str]:
    """Names of a file's columns."""
    with _open(place, "r") as stream:
        return next(csv.reader(stream), [])


def without(folder: Path, column: str | None) -> None:
    """Takes a table, or a column out of its files; files that are linked from elsewhere stay as they are there."""
    if column is None:
        shutil.rmtree(folder)
        return
    for place in sorted(folder.iterdir()):
        with _open(place, "r") as stream:
            lines = list(csv.reader(stream))
        if not lines or column not in lines[0]:
            continue
        at = lines[0].index(column)
        place.unlink()
        with _open(place, "w") as stream:
            csv.writer(stream).writerows(line[:at] + line[at + 1 :] for line in lines)


def decided(case: str, root: Path, day: date, domain: str) -> dict[str, object]:
    """Runs a home: case, outcome (`decided`, `refused`, `traceback`), seconds, costs by kind, words that the run said."""
    started = time.monotonic()
    words: list[str] = []
    home = Home.at(root)
    outcome, message = "decided", ""
    try:
        Decider(home, domain, words.append).decide(day)
    except NpqError as error:
        message = str(error)
        known = all(
            any(kind in part for kind in _REFUSED) or "failed:" not in part for part in message.split("; step ")
        )
        outcome = "refused" if known else "traceback"
    except Exception as error:  # what the benchmark looks for
        outcome, message = "traceback", f"{type(error).__name__}: {error}"
    costs: list[tuple[str, float]] = []
    if outcome == "decided":
        summary = read_summary(home, day)
        costs = [(str(row["kind"]), float(row["expected"])) for row in summary.iter_rows(named=True)]
    return {
        "case": case,
        "outcome": outcome,
        "message": message,
        "seconds": time.monotonic() - started,
        "costs": costs,
        "words": [line.strip() for line in words if line.lstrip().startswith(("!", "✗"))],
    }


def show(row: dict[str, object], usual: dict[str, float], said: set[str]) -> None:
    """Prints a case: its end, what costs something else now, what is no longer decided, and what is said that was not before."""
    print(f"{row['case']!s:<52}{cast('float', row['seconds']):>8.1f}  {row['outcome']} {row['message']}")
    costs = dict(cast("list[tuple[str, float]]", row["costs"]))
    if row["outcome"] == "decided":
        moved = [
            f"{kind} {usual[kind]:,.1f} to {cost:,.1f}"
            for kind, cost in costs.items()
            if kind in usual and abs(cost - usual[kind]) > 0.005 * max(1.0, abs(usual[kind]))
        ]
        gone = [f"no {kind}" for kind in usual if kind not in costs]
        if moved or gone:
            print("    " + "; ".join([*moved, *gone]))
    for line in cast("list[str]", row["words"]):
        if line not in said:
            print(f"    {line[:220]}")
    print(end="", flush=True)


if __name__ == "__main__":
    main()
