"""Tables kept by day say the same as tables kept in one file, touch only their days, and survive being killed."""

import gzip
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from npq_assets.contracts import LANDING
from npq_assets.ingestion import days, ingest, validate
from npq_assets.ingestion.reader import read_blocks, read_rows
from npq_assets.ingestion.rules import judge, quickly
from npq_assets.settings import Home
from tests.ingestion.test_rules import land, quarantine
from tests.ingestion.test_store import tree

NAME = "manufacturing.telemetry"
TELEMETRY, MACHINES = LANDING[NAME], LANDING["manufacturing.machines"]
HEAD = "measured_at,machine_id,sensor,value\n"
PLACE = "machine_id,site_id,minutes_per_day\n"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "home")


def rows(home: Home) -> pl.DataFrame:
    return (
        pl.read_parquet(home.raw_table("manufacturing", "telemetry"))
        .select([*TELEMETRY.schema, "source_file", "source_line"])
        .sort("measured_at", "machine_id", "sensor")
    )


def take(home: Home, *more: str):  # type: ignore[no-untyped-def]
    found = ingest(home, [*(LANDING[name] for name in more), LANDING[NAME]])[NAME]
    assert found.holds, found
    return found


def at(hour: float, day: int = 1) -> str:
    return (datetime(2024, 4, day) + timedelta(hours=hour)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_what_lands_touches_its_own_days_only(home: Home) -> None:
    land(home, NAME, "1.csv", HEAD + f"{at(1)},m,heat,1\n{at(1, 2)},m,heat,2\n{at(2)},m,heat,nonsense\n")
    assert take(home).accepted == 2
    folder = home.raw_table("manufacturing", "telemetry")
    first = (folder / "measured_on=2024-04-01/day.parquet").stat()
    land(home, NAME, "2.csv", HEAD + f"{at(1, 2)},m,heat,3\n{at(2, 2)},m,heat,4\n{at(2, 2)},m,heat,5\n")
    found = take(home)
    assert (found.landed, found.accepted, found.superseded, found.quarantined) == (6, 3, 1, 2)
    assert (folder / "measured_on=2024-04-01/day.parquet").stat() == first
    assert rows(home)["value"].to_list() == [1.0, 3.0, 4.0]
    assert rows(home)["source_file"].to_list()[1] == f"{NAME.replace('.', '/')}/2.csv"
    assert set(quarantine(home, NAME)["line"]) == {"4"}
    assert take(home).unchanged
    assert not list((home.raw / ".parts").rglob("fragments/*"))


def test_a_machine_that_nobody_knows_waits_and_comes_back(home: Home) -> None:
    land(home, "manufacturing.machines", "1.csv", PLACE + "m,p,480\n", mtime=1)
    land(home, NAME, "1.csv", HEAD + f"{at(1)},m,heat,1\n{at(1)},k,heat,7\n{at(2, 3)},k,heat,8\n")
    found = take(home, "manufacturing.machines")
    assert (found.accepted, found.quarantined) == (1, 2)
    assert found.reasons == {"machine_id: not in manufacturing.machines": 2}
    places = days.DayPlaces(TELEMETRY, home.raw, home.quarantine)
    assert days.waiting_rows(places)["value"].to_list() == [7.0, 8.0]
    assert "machine_id 'k' is not in manufacturing.machines; land it there" in set(quarantine(home, NAME)["reason"])
    land(home, "manufacturing.machines", "2.csv", PLACE + "k,p,480\n", mtime=2)
    found = take(home, "manufacturing.machines")
    assert (found.accepted, found.quarantined) == (3, 0)
    assert quarantine(home, NAME).is_empty() and days.waiting_rows(places).is_empty()


def test_a_clock_that_is_wrong_puts_readings_aside(home: Home) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    land(home, NAME, "1.csv", HEAD + f"{tomorrow},m,heat,1\n1970-01-01T00:00:09Z,m,heat,2\n{at(1)},m,heat,3\n")
    found = take(home)
    assert (found.accepted, found.quarantined) == (1, 2)
    [(reason, count)] = found.reasons.items()
    assert count == 2 and reason == "measured_at: is not a time at which the file could know of it; set the clock right"
    # An archive that keeps no dates is dated by its arrival.
    land(home, NAME, "2.csv", HEAD + f"{at(2)},m,heat,4\n", mtime=0)
    assert take(home).accepted == 2


def random_file(rng: np.random.Generator) -> str:
    lines = []
    for _ in range(int(rng.integers(1, 30))):
        when = at(int(rng.integers(0, 30)), int(rng.integers(1, 4)))
        value = ["1", "2", "x", "", "inf"][int(rng.choice(5, p=[0.5, 0.35, 0.05, 0.05, 0.05]))]
        lines.append(f"{when},{rng.choice(['m', 'k'])},{rng.choice(['heat', 'wear'])},{value}")
    return HEAD + "\n".join(lines) + "\n"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("large", [days.LARGE_DAY, 8])
def test_the_same_rows_and_balance_as_in_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, large: int
) -> None:
    monkeypatch.setattr(days, "LARGE_DAY", large)
    files = [random_file(np.random.default_rng([seed, k])) for k in range(7)]
    kept, step, plain = (Home.at(tmp_path / name) for name in ("together", "step", "plain"))
    for k, text in enumerate(files):
        for home in (kept, step, plain):
            land(home, NAME, f"{k}.csv", text, mtime=1_800_000_000 + k)
        take(step)
    found = [take(kept), take(step)]
    with monkeypatch.context() as patch:
        patch.setitem(LANDING, NAME, replace(TELEMETRY, by_day=False))
        wanted, expected = take(plain), rows(plain)
    for home, balance in zip((kept, step), found, strict=True):
        assert rows(home).equals(expected)
        assert replace(balance, fingerprint="", unchanged=False) == replace(wanted, fingerprint="")
    assert validate(kept)[NAME] == replace(found[0], unchanged=True)


def test_validate_says_what_ingest_would_and_changes_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    land(home, NAME, "1.csv", HEAD + "".join(f"{at(h)},m,heat,{h}\n" for h in range(12)))
    take(home)
    monkeypatch.setattr(days, "LARGE_DAY", 13)
    land(home, NAME, "2.csv", HEAD + f"{at(3)},m,heat,9\n{at(20)},m,heat,9\n{at(20)},k,heat,9\n")
    before = tree(home.raw)
    seen = validate(home)[NAME]
    assert tree(home.raw) == before
    assert replace(seen, fingerprint="") == replace(take(home), fingerprint="")
    names = {p.stem for p in home.raw_table("manufacturing", "telemetry").glob("measured_on=2024-04-01/*")}
    assert names == {f"{h:02d}" for h in (*range(12), 20)}


@pytest.mark.parametrize("large", [days.LARGE_DAY, 3])
def test_killed_at_any_write_the_next_run_arrives_at_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(days, "LARGE_DAY", large)
    both = [MACHINES, TELEMETRY]
    first = HEAD + f"{at(1)},m,heat,1\n{at(1, 2)},m,heat,2\n{at(2)},k,heat,7\n"
    second = HEAD + f"{at(1)},m,heat,3\n{at(5)},m,heat,4\n{at(5)},m,heat,5\n{at(6)},m,heat,bad\n"

    def begin(home: Home) -> None:
        land(home, "manufacturing.machines", "1.csv", PLACE + "m,p,480\n", mtime=1)
        land(home, NAME, "1.csv", first, mtime=1_800_000_001)
        ingest(home, both)
        land(home, NAME, "2.csv", second, mtime=1_800_000_002)

    calm = Home.at(tmp_path / "calm")
    begin(calm)
    ingest(calm, both)
    wanted = tree(calm.raw) | tree(calm.quarantine)
    real = os.replace
    for survives in range(60):
        home = Home.at(tmp_path / f"killed{survives}")
        begin(home)
        left = [survives]

        def dying(source: object, target: object, left: list[int] = left) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            real(source, target)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "replace", dying)
        try:
            ingest(home, both)
            finished = True
        except KeyboardInterrupt:
            finished = False
        monkeypatch.setattr(os, "replace", real)
        ingest(home, both)
        assert tree(home.raw) | tree(home.quarantine) == wanted, f"killed at write {survives}"
        if finished:
            return
    raise AssertionError("never got through")


def test_days_that_somebody_deleted_are_read_again(home: Home) -> None:
    land(home, NAME, "1.csv", HEAD + f"{at(1)},m,heat,1\n{at(1, 2)},m,heat,2\n")
    before = take(home)
    (home.raw_table("manufacturing", "telemetry") / "measured_on=2024-04-01/day.parquet").unlink()
    assert replace(take(home), unchanged=False) == before and rows(home).height == 2


CELLS = [
    at(1), "2024-04-01 01:00:00", "2024-04-01T01:00:00+02:00", "2024-4-1 1:00", "nonsense", "", "2024-04-01T01:00:00.123456Z",
    "2999-01-01T00:00:00Z", "1969-01-01T00:00:00Z", " 2024-04-01T01:00:00Z ", "2024-04-01T01:00:61Z", "2024-04-31T01:00:00Z",
]  # fmt: skip
VALUES = ["1", " 2", "3.5e3", "+4", ".5", "5.", "inf", "nan", "", "1_0", "0x10", "1,5", "1e400", "-0", "1 2"]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("zipped", [False, True])
def test_quick_reading_says_what_careful_reading_says(tmp_path: Path, ending: str, zipped: bool) -> None:
    lines = [f"{cell},m,heat,1" for cell in CELLS] + [f"{at(2)},m,heat,{value}" for value in VALUES]
    lines += [
        f"{at(3)},,heat,1",
        f"{at(3)}, m ,heat,1",
        f"{at(3)},m,,1",
        f"{at(3)},m,{'x' * 4001},1",
        ",,,",
        f"{at(4)},设备,温度,1",
    ]
    blocks = [
        lines,
        [*lines, "", f"{at(5)},m,heat"],
        [*lines, f"{at(5)},m,heat,1,,"],
        [f'{at(5)},"m",heat,1'],
        lines[:1],
    ]
    written = datetime(2026, 1, 1, tzinfo=UTC)
    for k, block in enumerate(blocks):
        text = (HEAD + "\n".join(block) + ("\n" if k % 2 else "")).replace("\n", ending).encode()
        place = tmp_path / f"{k}.csv{'.gz' if zipped else ''}"
        place.write_bytes(gzip.compress(text) if zipped else text)
        check_same(place, written)


def check_same(place: Path, written: datetime) -> None:
    careful = [judge(part, TELEMETRY, written=written) for part in read_rows(place, TELEMETRY)]
    good, bad = [], []
    for block in read_blocks(place, TELEMETRY):
        quick = None if block.plain is None else quickly(block.plain, TELEMETRY, written=written)
        right = pl.Series("r", [False] * block.lines.len()) if quick is None else quick[1]
        if quick is not None:
            good.append(quick[0].with_columns(block.lines.alias("__line")).filter(right))
        some = judge(block.as_text(~right) if quick is not None else block.as_text(), TELEMETRY, written=written)
        good.append(some[0])
        bad.append(some[1])
    assert pl.concat(good).sort("__line").equals(pl.concat([g for g, _ in careful]).sort("__line"))
    assert pl.concat(bad).sort("__line").equals(pl.concat([b for _, b in careful]).sort("__line"))


def test_quick_reading_of_parquet_says_what_careful_reading_says(tmp_path: Path) -> None:
    moments = [datetime(2024, 4, 1, 1), datetime(2999, 1, 1), None, datetime(1950, 1, 1)]
    values = [1.0, float("nan"), None, 0.1]
    frame = pl.DataFrame(
        [(m, machine, "heat", v) for m in moments for machine in ("m", " k", "", None) for v in values],
        schema={"measured_at": pl.Datetime("us"), "machine_id": pl.String, "sensor": pl.String, "value": pl.Float64},
        orient="row",
    )
    moment = pl.col("measured_at")
    shapes = [
        frame,
        frame.with_columns(moment.dt.replace_time_zone("Europe/Berlin")),
        frame.with_columns(moment.dt.cast_time_unit("ms").dt.replace_time_zone("UTC")),
        frame.with_columns(pl.col("value").cast(pl.Float32)),
        frame.with_columns(pl.col("machine_id").cast(pl.Categorical)),
        frame.with_columns(moment.cast(pl.String)),
        frame.with_columns(received_at=moment, more=pl.lit("ignored")),
    ]
    for k, shape in enumerate(shapes):
        shape.write_parquet(tmp_path / f"{k}.parquet")
        check_same(tmp_path / f"{k}.parquet", datetime(2026, 1, 1, tzinfo=UTC))
