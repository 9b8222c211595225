"""Job shops and flexible job shops with best-known values: `python -m benchmarks.job_shop --data DIR --out DIR`.

Any folder of instances in the ScheduleOpt formats (files under `…fjsp…` with alternatives, under `…jsp…` without). Writes
`<instance>.csv` (job, operation, machine, start) and `summary.csv` (instance, makespan, bound, seconds), and prints a table
beside dispatch rules.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

from npq_assets.optimization.job_shop import Job, JobShopParams, JobShopProblem, Operation, dispatch, solve


def read_instance(path: Path) -> JobShopProblem:
    """Reads a job shop or a flexible one; which, the numbers of a line tell, else the folder's name."""
    lines = [line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    count = int(lines[0][0])
    rows = [[int(float(v)) for v in line] for line in lines[1 : 1 + count]]
    flexible = all(_is_flexible(row) for row in rows) and "jsp" not in (p.name for p in path.parents)
    jobs = []
    for j, row in enumerate(rows, start=1):
        alternatives = _flexible(row) if flexible else [{row[k]: row[k + 1]} for k in range(0, len(row), 2)]
        operations = tuple(
            Operation(k, {str(m): minutes for m, minutes in choice.items()}) for k, choice in enumerate(alternatives, 1)
        )
        jobs.append(Job(str(j), operations))
    machines = sorted({m for job in jobs for o in job.operations for m in o.minutes}, key=int)
    return JobShopProblem(tuple(jobs), tuple(machines), objective="makespan")


def _is_flexible(row: list[int]) -> bool:
    position = 1
    for _ in range(row[0]):
        if position >= len(row):
            return False
        position += 1 + 2 * row[position]
    return position == len(row)


def _flexible(row: list[int]) -> list[dict[int, int]]:
    position, found = 1, []
    for _ in range(row[0]):
        count = row[position]
        choice: dict[int, int] = {}
        for k in range(count):
            machine, minutes = row[position + 1 + 2 * k], row[position + 2 + 2 * k]
            choice[machine] = min(minutes, choice.get(machine, minutes))
        found.append(choice)
        position += 1 + 2 * count
    return found


def best_known(folder: Path) -> dict[str, int]:
    """Best-known makespans by instance, where `best_known.csv` is found in the folder or above it."""
    for place in (folder, *folder.parents):
        if (place / "best_known.csv").exists():
            with (place / "best_known.csv").open() as file:
                return {r["instance"]: int(r["upper_bound"]) for r in csv.DictReader(file) if r["upper_bound"]}
    return {}


def main() -> None:
    """Solves every instance and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of instances, searched through")
    parser.add_argument("--out", type=Path, required=True, help="where the schedules go")
    parser.add_argument("--seconds", type=float, default=30.0, help="time limit an instance")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=float, help="deterministic time instead of the clock alone")
    parser.add_argument("--only", nargs="*", help="names (or their beginnings) of the instances to solve")
    arguments = parser.parse_args()
    paths = sorted(p for p in arguments.data.rglob("*.txt") if p.stem != "README")
    if arguments.only:
        paths = [p for p in paths if p.stem.startswith(tuple(arguments.only))]
    if not paths:
        raise SystemExit(f"{arguments.data}: no instances (*.txt)")
    arguments.out.mkdir(parents=True, exist_ok=True)
    known = best_known(arguments.data.resolve())
    names = [p.stem for p in paths]
    rows, gaps = [], []
    print(
        f"{'instance':>14} {'npq':>7} {'bound':>9} {'best known':>11} {'gap %':>6} {'EDD':>7} {'MWR':>7} {'status':>9} {'s':>6}",
        flush=True,
    )
    for path in paths:
        problem = read_instance(path)
        result = solve(problem, JobShopParams(arguments.seconds, arguments.work, arguments.workers))
        rules = [dispatch(problem, rule).makespan for rule in ("earliest_due_date", "most_work_remaining")]
        # Two collections may share a file name: the folder tells them apart then.
        name = path.stem if names.count(path.stem) == 1 else f"{path.parent.name}_{path.stem}"
        with (arguments.out / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["job", "operation", "machine", "start"])
            writer.writerows(result.plan.select("job", "operation", "machine", "start").rows())
        rows.append((name, result.makespan, result.bound, round(result.seconds, 1)))
        best = known.get(path.stem)
        gap = 100 * (result.makespan / best - 1) if best else None
        if gap is not None:
            gaps.append(gap)
        shown = "-" if gap is None else f"{gap:.2f}"
        print(
            f"{name:>14} {result.makespan:>7} {result.bound:>9.1f} {best or '-':>11} {shown:>6} {rules[0]:>7} {rules[1]:>7} "
            f"{result.status:>9} {result.seconds:>6.1f}",
            flush=True,
        )
        with (arguments.out / "summary.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["instance", "makespan", "bound", "seconds"])
            writer.writerows(rows)
    if gaps:
        print(f"mean gap to best known {statistics.mean(gaps):.2f} %, largest {max(gaps):.2f} %, {len(gaps)} instances")


if __name__ == "__main__":
    main()
