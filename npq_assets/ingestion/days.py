"""The store behind a table that is kept by day: what lands touches its own days, however many rows there are of others.

Accepted rows lie in `raw/<domain>/<table>.parquet/<day>=YYYY-MM-DD/`, one file a day (`day.parquet`), or one an hour
(`00.parquet` to `23.parquet`) where a day is large: a *slot*. A slot's file says in its own metadata which contents were merged
into it and how many of its rows were superseded or set aside, so that it can be merged again after a process was killed
anywhere, with the same result. What a row must look like is decided before (see `store`), and the same rules hold as there: the
latest file's row of a key counts, within a file the first; what refers to nothing waits.

On the way:

1. `Fragments` takes a file's good rows apart by day.
2. `put_together` merges the fragments of a day into its slots, then writes the manifest (a row a slot), then deletes fragments.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from npq_assets.contracts import LANDING, Table
from npq_assets.ingestion.reader import LINE
from npq_assets.storage import replacing, write_csv_for_people, write_json, write_parquet

# Rows of a file that are taken apart by day at once, and rows from which on a day is kept by hour.
FLUSH_ROWS = 2_000_000
LARGE_DAY = 3_000_000
_ROW_GROUP = 250_000
_NOBODY = "__HIVE_DEFAULT_PARTITION__"
_META = "npq"
_BIRTH = "__content"
CONFLICT, WAITING = "conflict", "waiting"


def stored_schema(table: Table) -> dict[str, pl.DataType]:
    """Columns of a slot's file."""
    return {**table.schema, "source_file": pl.String(), "source_line": pl.Int64()}


@dataclass(frozen=True)
class DayPlaces:
    """Where a table kept by day has its files.

    Attributes:
        table: The table.
        raw: Folder of raw tables.
        quarantine: Folder of what was set aside.
        borrowed: A second folder of raw tables that may be read, not written.
    """

    table: Table
    raw: Path
    quarantine: Path
    borrowed: Path | None = None

    def _rows(self, raw: Path) -> Path:
        return raw / self.table.domain / f"{self.table.name}.parquet"

    def _parts(self, raw: Path) -> Path:
        return raw / ".parts" / self.table.domain / self.table.name

    @property
    def fragments(self) -> Path:
        """Good rows of contents that were not merged yet: `<day>/<content>.<n>.parquet`."""
        return self._parts(self.raw) / "fragments"

    @property
    def manifest(self) -> Path:
        """A row a slot."""
        return self.raw / ".state" / f"{self.table.full_name}.days.parquet"

    def slot(self, day: date, name: str) -> Path:
        """A slot's accepted rows, to write."""
        return self._rows(self.raw) / f"{self.table.day_column}={day.isoformat()}" / f"{name}.parquet"

    def aside(self, day: date, name: str, state: str) -> Path:
        """A slot's rows that wait or are in conflict, to write."""
        return self._parts(self.raw) / "aside" / day.isoformat() / f"{name}.{state}.parquet"

    def find(self, place: Path) -> Path | None:
        """A file of ours, or the borrowed one in its place; None if there is neither."""
        if place.exists():
            return place
        if self.borrowed is not None and (other := self.borrowed / place.relative_to(self.raw)).exists():
            return other
        return None

    def slots(self, day: date) -> list[str]:
        """Names of the slots that a day has, in order."""
        folder = self.slot(day, "day").parent
        own = {place.stem for place in folder.glob("*.parquet")} if folder.exists() else set()
        if "day" in own and len(own) > 1:
            # Killed while the day was split into hours: the day's file still holds everything.
            for name in own - {"day"}:
                self.slot(day, name).unlink()
            own = {"day"}
        if self.borrowed is not None:
            other = self.borrowed / folder.relative_to(self.raw)
            borrowed = {place.stem for place in other.glob("*.parquet")} if other.exists() else set()
            own |= borrowed - {"day"} if own - {"day"} else borrowed
        return sorted(own)

    def make_ready(self) -> None:
        """The folder, with a file without rows in it, so that the table can be read before anything landed."""
        folder = self._rows(self.raw)
        if folder.is_file():
            folder.unlink()  # of the time when all tables were one file
        nothing = folder / f"{self.table.day_column}={_NOBODY}" / "none.parquet"
        if not nothing.exists():
            write_parquet(pl.DataFrame(schema=stored_schema(self.table)), nothing)

    def hand_over(self, day: date, rows: pl.DataFrame) -> None:
        """Writes rows as a day's only slot: for tests and tools that make a raw table without landing it."""
        self.make_ready()
        write_parquet(rows.select(list(stored_schema(self.table))), self.slot(day, "day"))
        state = hashlib.sha256(self.slot(day, "day").read_bytes()).hexdigest()[:16]
        others = read_manifest(self).filter(pl.col("day") != day)
        row = pl.DataFrame([(day, "day", rows.height, 0, 0, 0, "{}", state)], schema=_MANIFEST, orient="row")
        write_parquet(pl.concat([others, row]).sort("day", "slot"), self.manifest)


# --- 1. A file's rows by day ------------------------------------------------------------------------------------------


class Fragments:
    """Takes a content's good rows and writes them by day, a few million at a time."""

    def __init__(self, places: DayPlaces, content: str) -> None:
        self._places = places
        self._content = content
        self._waiting: list[pl.DataFrame] = []
        self._rows = 0
        self._flushed = 0

    def write(self, rows: pl.DataFrame) -> None:
        """Takes rows: the contract's columns and the line."""
        if rows.height:
            self._waiting.append(rows)
            self._rows += rows.height
            if self._rows >= FLUSH_ROWS:
                self.flush()

    def flush(self) -> None:
        """Writes what was taken."""
        if not self._waiting:
            return
        rows = pl.concat(self._waiting)
        self._waiting, self._rows = [], 0
        day = pl.col(self._places.table.time_column or "").dt.date().alias("__day")
        for (at,), part in rows.with_columns(day).partition_by("__day", as_dict=True, include_key=False).items():
            place = self._places.fragments / str(at) / f"{self._content}.{self._flushed:04d}.parquet"
            with replacing(place) as temporary:
                part.write_parquet(temporary, compression="lz4", statistics=False)
        self._flushed += 1


# --- 2. Days put together ------------------------------------------------------------------------------------------------


@dataclass
class Known:
    """What foreign keys may lead to: values by column; a column that is missing is not checked yet."""

    values: dict[str, tuple[str, list[str]]] = field(default_factory=dict)

    def as_json(self) -> dict[str, list[str]]:
        """For comparing with the next time."""
        return {name: values for name, (_, values) in sorted(self.values.items())}


@dataclass(frozen=True)
class Together:
    """The balance of a table kept by day, without rows that broke the contract by themselves."""

    accepted: int
    superseded: int
    reasons: dict[str, int]
    fingerprint: str
    unchanged: bool


_MANIFEST: dict[str, Any] = {
    "day": pl.Date, "slot": pl.String, "accepted": pl.Int64, "superseded": pl.Int64, CONFLICT: pl.Int64,
    WAITING: pl.Int64, "waiting_for": pl.String, "state": pl.String,
}  # fmt: skip


def read_manifest(places: DayPlaces) -> pl.DataFrame:
    """day, slot, accepted, superseded, conflict, waiting, waiting_for (JSON: rows by reason), state of every slot."""
    place = places.find(places.manifest)
    return pl.read_parquet(place) if place else pl.DataFrame(schema=_MANIFEST)


def put_together(places: DayPlaces, contents: Sequence[tuple[str, str]], known: Known) -> Together:
    """Brings the days up to date.

    Args:
        places: Where the table has its files.
        contents: Hash and name of every readable content, in the order in which they landed.
        known: What foreign keys may lead to now.
    """
    places.make_ready()
    manifest = read_manifest(places)
    memory = places.manifest.with_suffix(".json")
    found = places.find(memory)
    before = json.loads(found.read_text()) if found else {}
    order = {content: k for k, (content, _) in enumerate(contents)}
    fragments = _fragments(places, order)
    again = _days_to_look_at_again(manifest, before, known)
    days = set(fragments) | again
    if days:
        names = dict(contents)
        kept = manifest.filter(~pl.col("day").is_in(sorted(days)))
        rows = [
            row
            for day in sorted(days)
            for row in _merge_day(places, day, fragments.get(day, []), order, names, known, day in again)
        ]
        manifest = pl.concat([kept, pl.DataFrame(rows, schema=_MANIFEST, orient="row")]).sort("day", "slot")
        for day in days:
            _forget_old_asides(places, day, manifest)
    if days or not places.manifest.exists():
        write_parquet(manifest, places.manifest)
    write_json(known.as_json(), memory)
    for day in fragments:
        shutil.rmtree(places.fragments / day.isoformat())
    digest = hashlib.sha256(json.dumps(manifest.select("day", "slot", "state").rows(), default=str).encode())
    reasons: Counter[str] = Counter()
    for text in manifest["waiting_for"]:
        reasons.update(json.loads(text))
    if conflicts := int(manifest[CONFLICT].sum()):
        reasons["the same key twice in a file"] = conflicts
    return Together(
        int(manifest["accepted"].sum()),
        int(manifest["superseded"].sum()),
        dict(sorted(reasons.items())),
        digest.hexdigest()[:16],
        not days,
    )


def is_whole(places: DayPlaces) -> bool:
    """Whether every slot of the manifest is there; a process killed before it wrote the manifest may have split a day."""
    return all(
        places.find(places.slot(day, slot)) or (slot == "day" and places.slots(day))
        for day, slot in read_manifest(places).select("day", "slot").rows()
    )


def forget(places: DayPlaces) -> None:
    """Removes all that was made from landing files."""
    for folder in (places.slot(date.min, "day").parent.parent, places.fragments, places.fragments.parent / "aside"):
        shutil.rmtree(folder, ignore_errors=True)
    for place in (places.manifest, places.manifest.with_suffix(".json")):
        place.unlink(missing_ok=True)


def waiting_rows(places: DayPlaces) -> pl.DataFrame:
    """The rows whose foreign keys lead nowhere: contract columns, source_file, source_line."""
    found = [
        pl.read_parquet(place)
        for row in read_manifest(places).filter(pl.col(WAITING) > 0).iter_rows(named=True)
        if (place := places.find(places.aside(row["day"], row["slot"], row["state"])))
    ]
    schema = stored_schema(places.table)
    rows = pl.concat([f.filter(pl.col("kind") == WAITING).select(list(schema)) for f in found]) if found else None
    return rows if rows is not None else pl.DataFrame(schema=schema)


def _fragments(places: DayPlaces, order: dict[str, int]) -> dict[date, list[Path]]:
    """Fragments by day, in the order in which their contents landed; those of a parse that never ended are removed."""
    found: dict[date, list[Path]] = {}
    for folder in sorted(places.fragments.iterdir()) if places.fragments.exists() else ():
        files = [place for place in folder.glob("*.parquet") if place.name.split(".")[0] in order]
        if files:
            found[date.fromisoformat(folder.name)] = sorted(files, key=lambda p: (order[p.name.split(".")[0]], p.name))
        else:
            shutil.rmtree(folder)
    return found


def _days_to_look_at_again(manifest: pl.DataFrame, before: dict[str, list[str]], known: Known) -> set[date]:
    """Days whose foreign keys may lead elsewhere than the last time."""
    now = known.as_json()
    again: set[date] = set()
    for name in {*now, *before}:
        if name not in before or name not in now or set(before[name]) - set(now[name]):
            again |= set(manifest["day"])
        elif set(now[name]) - set(before[name]):
            again |= set(manifest.filter(pl.col(WAITING) > 0)["day"])
    return again


def _merge_day(
    places: DayPlaces,
    day: date,
    fragments: list[Path],
    order: dict[str, int],
    names: dict[str, str],
    known: Known,
    again: bool,
) -> Iterator[tuple[Any, ...]]:
    """Merges fragments into a day's slots (`again`: looks at all of them); yields the manifest's rows of the day."""
    slots = places.slots(day)
    new = _read_fragments(places.table, fragments, order)
    hours = pl.col(places.table.time_column or "").dt.hour()
    if "day" in slots or not slots:
        slot = _Slot.read(places, day, "day")
        if slot.rows.height + new.height <= LARGE_DAY:
            yield slot.merge(new, order, names, known)
            return
        for hour in range(24):
            part, mine = slot.of_hour(f"{hour:02d}", hours == hour), new.filter(hours == hour)
            if part.rows.height or part.aside.height or mine.height:
                # The day's count of superseded rows goes with one of the hours: only the sum over slots means something.
                part.facts["superseded"], slot.facts["superseded"] = slot.facts["superseded"], 0
                yield part.merge(mine, order, names, known, anew=True)
        places.slot(day, "day").unlink(missing_ok=True)
        return
    touched = set(new.select(hours.alias("h"))["h"].unique().to_list()) if new.height else set()
    for hour in range(24):
        name = f"{hour:02d}"
        if name in slots or hour in touched:
            slot = _Slot.read(places, day, name, rows=hour in touched or again)
            yield slot.merge(new.filter(hours == hour), order, names, known) if slot.loaded else slot.manifest_row()


def _read_fragments(table: Table, fragments: Iterable[Path], order: dict[str, int]) -> pl.DataFrame:
    frames = [
        pl.read_parquet(place).with_columns(pl.lit(order[place.name.split(".")[0]], pl.Int32).alias(_BIRTH))
        for place in fragments
    ]
    schema: dict[str, Any] = {**table.schema, LINE: pl.Int64, _BIRTH: pl.Int32}
    return pl.concat(frames).select(list(schema)) if frames else pl.DataFrame(schema=schema)


class _Slot:
    """Rows of a day, or of an hour of it, and what is known of them."""

    def __init__(self, places: DayPlaces, day: date, name: str) -> None:
        self.places, self.day, self.name = places, day, name
        self.table = places.table
        self.rows = pl.DataFrame(schema=stored_schema(self.table))
        self.aside = pl.DataFrame(schema=_aside_schema(self.table))
        self.facts: dict[str, Any] = {
            "contents": [], "superseded": 0, "accepted": 0, "conflict": 0, "waiting_for": {}, "state": "",
        }  # fmt: skip
        self.loaded = True

    @classmethod
    def read(cls, places: DayPlaces, day: date, name: str, *, rows: bool = True) -> _Slot:
        slot = cls(places, day, name)
        place = places.find(places.slot(day, name))
        if place is None:
            return slot
        slot.facts = json.loads(pl.read_parquet_metadata(place).get(_META, "{}")) or slot.facts
        slot.loaded = rows
        if rows:
            slot.rows = pl.read_parquet(place, hive_partitioning=False)
            aside = places.find(places.aside(day, name, slot.facts["state"]))
            if aside is not None:
                slot.aside = pl.read_parquet(aside)
        return slot

    def of_hour(self, name: str, is_hour: pl.Expr) -> _Slot:
        """The part of a day's slot that becomes an hour's."""
        part = _Slot(self.places, self.day, name)
        part.rows, part.aside = self.rows.filter(is_hour), self.aside.filter(is_hour)
        part.facts = dict(self.facts)
        return part

    def manifest_row(self) -> tuple[Any, ...]:
        facts = self.facts
        waiting = sum(facts["waiting_for"].values())
        return (
            self.day, self.name, facts["accepted"], facts["superseded"], facts["conflict"], waiting,
            json.dumps(facts["waiting_for"], sort_keys=True), facts["state"],
        )  # fmt: skip

    def merge(
        self, new: pl.DataFrame, order: dict[str, int], names: dict[str, str], known: Known, *, anew: bool = False
    ) -> tuple[Any, ...]:
        """Merges new rows (those of contents that are in it already are left out), writes, returns the manifest's row."""
        hashes = list(order)
        merged = set(self.facts["contents"])
        new = new.filter(~pl.col(_BIRTH).is_in([order[h] for h in merged if h in order]))
        born = sorted(new[_BIRTH].unique().to_list())
        waiting = self.aside.filter(pl.col("kind") == WAITING)
        if new.is_empty() and not anew and not self._moves(waiting, known):
            return self.manifest_row()
        titles = {index: names[hashes[index]] for index in born}
        key, schema = list(self.table.key), list(stored_schema(self.table))
        fresh = new.with_columns(
            pl.col(_BIRTH).replace_strict(titles, return_dtype=pl.String).alias("source_file")
            if titles
            else pl.lit(None, pl.String).alias("source_file"),
            pl.col(LINE).alias("source_line"),
        )
        earlier = pl.concat([self.rows.select(schema), waiting.select(schema)]).with_columns(
            pl.lit(-1, pl.Int32).alias(_BIRTH)
        )
        rows = _sorted(pl.concat([earlier, fresh.select([*schema, _BIRTH])]), key, self.table.time_column or "")
        rows, conflicts, superseded = _resolve(rows, key, [name for name in self.table.schema if name not in key])
        asides = [self.aside.filter(pl.col("kind") == CONFLICT), conflicts.select(self.aside.columns)]
        if (reason := _lost(rows, known)) is not None:
            rows = rows.with_columns(reason.alias("reason"), pl.lit(WAITING).alias("kind"))
            asides.append(rows.filter(pl.col("reason").is_not_null()).select(self.aside.columns))
            rows = rows.filter(pl.col("reason").is_null())
        self.rows, self.aside = rows.select(schema), pl.concat(asides).sort("source_file", "source_line")
        self._write(sorted(merged | {hashes[index] for index in born}, key=lambda h: order.get(h, -1)), superseded)
        return self.manifest_row()

    def _moves(self, waiting: pl.DataFrame, known: Known) -> bool:
        """Whether rows would change between accepted and waiting by what is known now."""
        for name, (_, values) in known.values.items():
            if bool(waiting[name].is_in(values).any()) or not bool(self.rows[name].unique().is_in(values).all()):
                return True
        return not known.values and waiting.height > 0

    def _write(self, contents: list[str], superseded: int) -> None:
        waiting = self.aside.filter(pl.col("kind") == WAITING)
        kinds = waiting.group_by("reason").len()
        self.facts = {
            "contents": contents,
            "superseded": self.facts["superseded"] + superseded,
            "accepted": self.rows.height,
            "conflict": self.aside.height - waiting.height,
            "waiting_for": dict(sorted(_by_kind(kinds).items())),
        }
        lost = waiting.select(pl.col("reason").unique().sort())["reason"].to_list()
        text = json.dumps([self.facts, lost], sort_keys=True)
        self.facts["state"] = hashlib.sha256(text.encode()).hexdigest()[:16]
        if self.aside.height:
            write_parquet(self.aside, self.places.aside(self.day, self.name, self.facts["state"]))
        self._quarantine()
        # The rows come last: their file vouches for the rest.
        with replacing(self.places.slot(self.day, self.name)) as temporary:
            self.rows.write_parquet(
                temporary, compression="zstd", compression_level=1, row_group_size=_ROW_GROUP,
                metadata={_META: json.dumps(self.facts, sort_keys=True)},
            )  # fmt: skip

    def _quarantine(self) -> None:
        """What was set aside, as a CSV for people; gone when nothing is."""
        folder = self.places.quarantine / self.table.domain / self.table.name
        place = folder / f"{self.day.isoformat()}.{self.name}.csv"
        if self.aside.is_empty():
            place.unlink(missing_ok=True)
            return
        text = pl.concat_str([pl.col(c).cast(pl.String).fill_null("") for c in self.table.schema], separator=",")
        write_csv_for_people(
            self.aside.select(
                pl.col("source_file").alias("file"), pl.col("source_line").alias("line"), "reason", text.alias("row")
            ),
            place,
        )


def _aside_schema(table: Table) -> dict[str, Any]:
    return {**stored_schema(table), "kind": pl.String, "reason": pl.String}


def _by_kind(reasons: pl.DataFrame) -> Counter[str]:
    counted: Counter[str] = Counter()
    for reason, count in reasons.iter_rows():
        column, _, rest = reason.partition(" '")
        counted[f"{column}: not in {rest.rpartition(' is not in ')[2].partition(';')[0]}"] += count
    return counted


def _sorted(rows: pl.DataFrame, key: list[str], time: str) -> pl.DataFrame:
    """By the key with the time last, then by content and line. Text is sorted by rank: comparing numbers is what costs least."""
    ranks = []
    for name in key:
        if rows.schema[name] == pl.String:
            values = rows[name].drop_nulls().unique().sort()
            ranks.append(pl.col(name).cast(pl.Enum(values)).alias(f"__rank_{name}"))
    by = [
        f"__rank_{name}" if rows.schema[name] == pl.String else name for name in [*(n for n in key if n != time), time]
    ]
    return rows.with_columns(ranks).sort([*by, _BIRTH, "source_line"], maintain_order=True).drop(
        [name for name in by if name.startswith("__rank_")]
    )  # fmt: skip


def _resolve(rows: pl.DataFrame, key: list[str], values: list[str]) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """One row a key: of the latest content, and there the first. Returns them, the conflicts and how many were superseded."""
    if rows.is_empty():
        return rows, rows.with_columns(pl.lit("").alias("kind"), pl.lit("").alias("reason")), 0
    same_key = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift(1)) for name in key)
    again = rows.select(same_key.fill_null(False).alias("again"))["again"]
    if not again.any():
        return rows, rows.head(0).with_columns(pl.lit("").alias("kind"), pl.lit("").alias("reason")), 0
    # Only keys that come more than once need more than a look at the row before.
    part = again | again.shift(-1, fill_value=False)
    single, rest = rows.filter(~part), rows.filter(part)
    rest = rest.with_columns(rest.select((~same_key.fill_null(False)).cum_sum().alias("__key"))["__key"])
    first = [pl.col(name).first().over("__key", _BIRTH).alias(f"__first_{name}") for name in [*values, "source_line"]]
    rest = rest.with_columns(*first, pl.col(_BIRTH).max().over("__key").alias("__last"))
    is_first = pl.col("source_line") == pl.col("__first_source_line")
    alike = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"__first_{name}")) for name in values)
    conflict = ~is_first & ~alike
    conflicts = rest.filter(conflict).with_columns(
        pl.lit(CONFLICT).alias("kind"),
        pl.format("the same key as line {}, with other values; keep one", "__first_source_line").alias("reason"),
    )
    kept = rest.filter(is_first & (pl.col(_BIRTH) == pl.col("__last")))
    superseded = rest.height - conflicts.height - kept.height
    merged = pl.concat([single, kept.select(single.columns)])
    return _sorted(merged, key, _time_of(merged, key)), conflicts, superseded


def _time_of(rows: pl.DataFrame, key: list[str]) -> str:
    return next(name for name in key if isinstance(rows.schema[name], pl.Datetime))


def _lost(rows: pl.DataFrame, known: Known) -> pl.Expr | None:
    """Why a row's foreign keys lead nowhere (null if they do not); None if no row's do."""
    reason: pl.Expr | None = None
    for name, (parent, values) in known.values.items():
        unknown = rows[name].unique()
        unknown = unknown.filter(~unknown.is_in(values) & unknown.is_not_null())
        if unknown.len():
            words = pl.format(
                "{} '{}' is not in {}; land it there", pl.lit(name), pl.col(name).str.slice(0, 60), pl.lit(parent)
            )
            this = pl.when(pl.col(name).is_in(unknown.to_list())).then(words)
            reason = this if reason is None else pl.coalesce(reason, this)
    return reason


def _forget_old_asides(places: DayPlaces, day: date, manifest: pl.DataFrame) -> None:
    folder = places.aside(day, "day", "x").parent
    rows = manifest.filter(pl.col("day") == day).select("slot", "state").rows()
    wanted = {f"{slot}.{state}.parquet" for slot, state in rows}
    for place in folder.glob("*.parquet") if folder.exists() else ():
        if place.name not in wanted:
            place.unlink()


def places_of(raw: Path, quarantine: Path, name: str, borrowed: Path | None = None) -> DayPlaces:
    """The places of a table by its full name."""
    return DayPlaces(LANDING[name], raw, quarantine, borrowed)


__all__ = ["DayPlaces", "Fragments", "Known", "Together", "places_of", "put_together", "waiting_rows"]
