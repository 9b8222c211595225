"""A run killed at random moments, two runs at once, a reader meanwhile: `python -m benchmarks.robustness`.

Every run is the command people use, in a process of its own. What must hold is the decision files' bytes.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path

import polars as pl


def sample_home(root: Path, *, scale: float = 0.1, days: int = 150, seed: int = 1) -> date:
    """A small company's landing folder; returns the day to decide for."""
    from npq_assets.company.landing import write_sample

    return write_sample(root / "landing", scale=scale, days=days, seed=seed).as_of


def command(home: Path, as_of: date) -> list[str]:
    """`npq run` on a home."""
    return [
        sys.executable,
        "-m",
        "npq_assets.cli",
        "run",
        "--domain",
        "retail",
        "--home",
        str(home),
        "--as-of",
        str(as_of),
    ]


def decisions(home: Path) -> dict[str, bytes]:
    """Content of every decision file."""
    return {
        str(p.relative_to(home)): p.read_bytes() for p in sorted((home / "decisions").rglob("as_of=*/*")) if p.is_file()
    }


def undisturbed(home: Path, as_of: date) -> tuple[dict[str, bytes], float]:
    """Decisions of a run that nobody disturbs, and its seconds."""
    began = time.monotonic()
    subprocess.run(command(home, as_of), check=True, stdout=subprocess.DEVNULL)
    return decisions(home), time.monotonic() - began


def share_secret(calm: Path, home: Path) -> None:
    """Gives a home the key of another, so that both know customers under the same pseudonyms."""
    shutil.copytree(
        calm / "personal", home / "personal", ignore=lambda _, names: [n for n in names if n != "secret.key"]
    )


def left_behind(landing: Path, home: Path, as_of: date, after: float | str) -> None:
    """An empty home's first run, killed after some seconds, or as soon as it says that a step (its name) is done.

    Raises:
        RuntimeError: The run ended before it said so.
    """
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(landing, home / "landing", copy_function=shutil.copy2)
    share_secret(landing.parent, home)
    process = subprocess.Popen(
        command(home, as_of),
        stdout=subprocess.PIPE if isinstance(after, str) else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    reached = True
    if isinstance(after, str):
        assert process.stdout is not None
        reached = any(line.strip().startswith(f"✓ {after} ") for line in process.stdout)
    else:
        time.sleep(after)
    process.kill()
    process.communicate()
    if not reached:
        raise RuntimeError(f"the run ended without saying that {after} was done")


def killed(landing: Path, home: Path, as_of: date, after: float) -> dict[str, bytes]:
    """Decisions of a run in an empty home that was killed after some seconds and then run again."""
    left_behind(landing, home, as_of, after)
    subprocess.run(command(home, as_of), check=True, stdout=subprocess.DEVNULL)
    return decisions(home)


def together(home: Path, as_of: date, runs: int = 2) -> tuple[list[str], int]:
    """Runs at once on one home while a reader reads; returns what went wrong, and how often the reader read."""
    processes = [
        subprocess.Popen(command(home, as_of), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(runs)
    ]
    wrong: list[str] = []
    reads = 0
    done = threading.Event()

    def read() -> None:
        nonlocal reads
        seen: dict[Path, int] = {}
        known: dict[Path, tuple[int, int, int]] = {}
        while not done.is_set():
            for folder in ("decisions", "raw", "marts"):
                for place in (home / folder).rglob("*.parquet"):
                    if any(part.startswith(".") for part in place.relative_to(home).parts):
                        continue
                    try:
                        # A file that nobody has touched since it was read gives what it gave: look at those that move.
                        now = place.stat()
                        state = (now.st_ino, now.st_mtime_ns, now.st_size)
                        if known.get(place) == state:
                            continue
                        rows = pl.read_parquet(place, hive_partitioning=False).height
                        known[place] = state
                    except FileNotFoundError:
                        continue
                    except Exception as error:
                        wrong.append(f"reader: {place.name}: {error}")
                        continue
                    if folder == "decisions" and seen.setdefault(place, rows) != rows:
                        wrong.append(f"reader: {place.name} had {seen[place]} rows, then {rows}")
                    reads += 1
            time.sleep(0.1)

    reader = threading.Thread(target=read)
    reader.start()
    for process in processes:
        _, errors = process.communicate()
        if process.returncode:
            wrong.append(f"run ended with {process.returncode}: {errors.strip()[-300:]}")
    done.set()
    reader.join()
    return wrong, reads


def main() -> None:
    """Kills runs, starts several at once, and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="npq-robustness-"))
    try:
        calm = work / "calm"
        as_of = sample_home(calm)
        wanted, seconds = undisturbed(calm, as_of)
        print(f"undisturbed run: {seconds:.1f} s, {len(wanted)} decision files", flush=True)
        moments = random.Random(arguments.seed)
        same = 0
        for _k in range(arguments.kills):
            after = moments.uniform(0.2, seconds)
            equal = killed(calm / "landing", work / "killed", as_of, after) == wanted
            same += equal
            print(f"killed after {after:5.1f} s: {'same bytes' if equal else 'DIFFERENT'}", flush=True)
        print(f"{same} of {arguments.kills} killed runs, run again, gave the same decisions to the byte")
        shutil.rmtree(work / "killed", ignore_errors=True)
        shutil.copytree(calm / "landing", work / "both" / "landing", copy_function=shutil.copy2)
        share_secret(calm, work / "both")
        wrong, reads = together(work / "both", as_of)
        equal = decisions(work / "both") == wanted
        print(
            f"two runs at once and a reader ({reads} reads): {wrong or 'no error'}, {'same bytes' if equal else 'DIFFERENT'}"
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
