"""Predictive maintenance on records of machines: `python -m benchmarks.maintenance --data DIR --out DIR`.

The folder holds telemetry_daily, errors, maint, failures, machines and keys (Parquet). What precedes the first key is learned
from; each event counts from its own day on. The worth of waiting, and the fixed interval of the rival, are chosen on the quarter
before the first key, with a model that has not seen it. Writes `failure_7d.parquet` (machineID, date, comp, p),
`actions.parquet` (machineID, comp, date; one day of lead), `actions_lead2.parquet` and `actions_lead3.parquet`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from npq_assets.equipment.maintenance import (
    HORIZON,
    MachineHistory,
    MaintenanceParams,
    by_age,
    failed_ahead,
    features,
    follow,
    probabilities,
    replay,
)

CAUGHT = (0.0, 0.5, 0.75, 0.9, 1.0)
INTERVALS = (15, 30, 45, 60, 75, 90, 120, 180)


def read(data: Path) -> MachineHistory:
    """The files of the folder under npq's names."""

    def events(name: str, **names: str) -> pl.DataFrame:
        frame = pl.read_parquet(data / f"{name}.parquet").with_columns(date=pl.col("datetime").dt.truncate("1d"))
        return frame.rename({"machineID": "machine"} | names).select("machine", "date", *names.values())

    failures = pl.read_parquet(data / "failures.parquet").columns
    return MachineHistory(
        pl.read_parquet(data / "telemetry_daily.parquet")
        .rename({"machineID": "machine"})
        .select("machine", "date", pl.all().exclude("machine", "date", "__index_level_0__")),
        events("errors", errorID="error"),
        events("maint", comp="component"),
        events("failures", **({"failure": "component"} if "failure" in failures else {"comp": "component"})),
        pl.read_parquet(data / "machines.parquet")
        .rename({"machineID": "machine"})
        .select(pl.all().exclude("__index_level_0__")),
    )


def pr_auc(risk: pl.DataFrame, history: MachineHistory, last: datetime) -> tuple[float, float]:
    """PR-AUC of failure within seven days, and the base rate, on days whose seven days are over by `last`."""
    from sklearn.metrics import average_precision_score

    judged = risk.filter(pl.col("date").dt.offset_by(f"{HORIZON}d") <= last)
    y = np.concatenate(
        [
            failed_ahead(part, history.failures, str(key[0]), 1, HORIZON)
            for key, part in judged.partition_by("component", as_dict=True, maintain_order=True).items()
        ]
    )
    p = np.concatenate([part["p"].to_numpy() for part in judged.partition_by("component", maintain_order=True)])
    return float(average_precision_score(y, p)), float(y.mean())


def table(
    history: MachineHistory, days: list[datetime], plans: dict[str, pl.DataFrame], base: MaintenanceParams
) -> None:
    """Cost per machine-year of every plan, for a protection of 7 and of 29 days."""
    machines = history.machines.height
    print(f"  {'policy':<34}{'cost, 7 d':>10}{'cost, 29 d':>11}{'actions':>9}{'averted':>9}{'failures':>9}")
    for name, actions in plans.items():
        week = replay(actions, history.failures, days, machines, base)
        month = replay(actions, history.failures, days, machines, replace(base, protects=29))
        print(
            f"  {name:<34}{week['cost']:>10.2f}{month['cost']:>11.2f}{week['actions']:>9.0f}{week['averted']:>9.0f}"
            f"{week['failures']:>9.0f}"
        )
    print(f"  {'clairvoyant':<34}{week['clairvoyant']:>10.2f}{week['clairvoyant']:>11.2f}", flush=True)


def main() -> None:
    """Chooses on the quarter before the keys, then predicts and plans for the keys."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trees", type=int, default=120)
    arguments = parser.parse_args()
    began = time.monotonic()
    history, keys = read(arguments.data), pl.read_parquet(arguments.data / "keys.parquet")
    asked_days: list[datetime] = keys["date"].unique().sort().to_list()
    first, final = asked_days[0], asked_days[-1]
    known = features(history)
    base = MaintenanceParams()
    calendar = known["date"].unique().sort()
    held = calendar.filter((calendar >= first - timedelta(days=93)) & (calendar < first - timedelta(days=1))).to_list()
    early = probabilities(history, held[0] - timedelta(days=2), trees=arguments.trees, known=known)
    nobody = early.select("machine", "component", "date").head(0)
    before = pl.col("date") < first
    past = replace(history, failures=history.failures.filter(before), replacements=history.replacements.filter(before))
    caught, plans = {}, {"run to failure": nobody}
    rules = {t: by_age(past, held, t) for t in INTERVALS}
    cost = {t: replay(a, past.failures, held, past.machines.height, base)["cost"] for t, a in rules.items()}
    interval = min(cost, key=lambda t: (cost[t], t))
    plans[f"best fixed interval ({interval} days)"] = rules[interval]
    for lead in (1, 2, 3):
        tried = {}
        for share in CAUGHT:
            actions = follow(early, held, replace(base, lead=lead, caught=share))
            tried[share] = (replay(actions, past.failures, held, past.machines.height, base)["cost"], actions)
        caught[lead] = min(CAUGHT, key=lambda share: (tried[share][0], share))
        plans[f"npq, {lead} day(s) of lead, {caught[lead]:g}"] = tried[caught[lead]][1]
    score, rate = pr_auc(early.filter(pl.col("date").is_in(held)), past, first - timedelta(days=1))
    print(
        f"{held[0]:%Y-%m-%d} to {held[-1]:%Y-%m-%d}, held out (the interval and the worth of waiting are chosen here):"
    )
    print(f"  7-day PR-AUC {score:.3f} (base rate {rate:.4f})")
    table(past, held, plans, base)

    start = first - timedelta(days=3)
    risk = probabilities(history, start, trees=arguments.trees, known=known)
    arguments.out.mkdir(parents=True, exist_ok=True)
    answer = keys.select("machineID", "date", "comp").join(
        risk.select(machineID="machine", date="date", comp="component", p="p"),
        on=["machineID", "date", "comp"], how="left", maintain_order="left",
    )  # fmt: skip
    if answer["p"].null_count():
        raise SystemExit(f"{answer['p'].null_count()} keys have no telemetry on their day")
    answer.write_parquet(arguments.out / "failure_7d.parquet")
    days = calendar.filter((calendar >= first - timedelta(days=1)) & (calendar < calendar.max())).to_list()
    later = {"run to failure": nobody, f"fixed interval ({interval} days)": by_age(history, days, interval)}
    for lead in (1, 2, 3):
        actions = follow(risk, days, replace(base, lead=lead, caught=caught[lead]))
        name = "actions.parquet" if lead == 1 else f"actions_lead{lead}.parquet"
        actions.select(machineID="machine", comp="component", date="date").write_parquet(arguments.out / name)
        later[f"npq, {lead} day(s) of lead"] = actions
    print(
        f"{days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}: {', '.join(f'{k} {v.height}' for k, v in later.items())} replacements"
    )
    if history.failures.filter(pl.col("date") >= final).height:
        score, rate = pr_auc(risk.join(keys.select("date").unique(), on="date"), history, days[-1])
        print(f"  7-day PR-AUC {score:.3f} (base rate {rate:.4f})")
        table(history, days, later, base)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
