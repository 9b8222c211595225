"""The store behind the raw tables: every landed content once, and out of all of them the current truth.

Two phases. A file's content is parsed once and kept as a Parquet part under its hash. A table is then put together from its
parts: a later file's row supersedes an earlier one of the same key, rows whose foreign keys lead nowhere wait in quarantine.
The second phase runs again whenever parts or referenced tables changed, so a row comes back when its product lands.

Everything is written to a temporary name first and the registry last: a process killed anywhere leaves a state from which
the next run arrives at the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from npq_assets.contracts import LANDING, Table
from npq_assets.ingestion import days
from npq_assets.ingestion.doubts import Doubts
from npq_assets.ingestion.files import LandedFile, being_written, landing_files
from npq_assets.ingestion.reader import LINE, RAW, Unreadable, decimal_comma, read_blocks, read_rows
from npq_assets.ingestion.rules import EARLIEST, REASON, SAID, TORN, judge, quickly, read_as_no
from npq_assets.storage import replacing, write_csv_for_people, write_json, write_parquet

HASH = "__key_hash"
AGAIN = "a no that landed again"
_ROW_GROUP = 500_000
_FORMAT = f"2:{pl.__version__}"  # parts and hashes of another version are made anew
_PEOPLE_ROWS = 100_000
_REMARKS = 20


@dataclass
class Content:
    """A content that landed, under whatever names.

    Attributes:
        hash: Of its bytes.
        name: The first file that brought it, relative to landing.
        landed: Rows in it.
        accepted: Rows that keep the contract by themselves.
        reasons: Broken rows by reason.
        unreadable: Why the file cannot be read at all; empty if it can.
        copies: Further files with the same bytes.
        remarks: What was accepted, but not as it stands there: the first values, a line each.
        again: How many contents were known when a file brought these bytes again, the last time; 0: never.
    """

    hash: str
    name: str
    landed: int = 0
    accepted: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    unreadable: str = ""
    copies: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    again: int = 0


@dataclass
class Registry:
    """What is known of a table's files, in the order in which their contents first landed."""

    contents: list[Content] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)  # name -> "size:mtime_ns:hash"
    put_together: dict[str, object] = field(default_factory=dict)
    format: str = _FORMAT

    @classmethod
    def read(cls, place: Path) -> Registry:
        if not place.exists():
            return cls()
        raw = json.loads(place.read_text())
        raw["contents"] = [Content(**content) for content in raw["contents"]]
        return cls(**raw)


@dataclass(frozen=True)
class TableBalance:
    """Where a table's landed rows are.

    Attributes:
        files: Files that landed.
        landed: Rows in the readable ones.
        accepted: Rows in the raw table.
        superseded: Rows that a later file (or the same row again) replaced.
        quarantined: Rows that broke the contract.
        unreadable_files: Files quarantined whole.
        waiting_files: Files still being written, left for the next time.
        reasons: Quarantined rows and unreadable files, by kind of reason.
        unchanged: Nothing new landed and the raw table was not rewritten.
        fingerprint: Hash of what the raw table was put together from.
        remarks: Values that were accepted, but not as they stand there, with file and line.
    """

    files: int = 0
    landed: int = 0
    accepted: int = 0
    superseded: int = 0
    quarantined: int = 0
    unreadable_files: int = 0
    waiting_files: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    unchanged: bool = False
    fingerprint: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Nothing is lost: landed = accepted + superseded + quarantined."""
        return self.landed == self.accepted + self.superseded + self.quarantined


@dataclass(frozen=True)
class Places:
    """Where a store reads and writes.

    Attributes:
        landing: The landing folder; never written.
        raw: Raw tables, registries and parts.
        quarantine: Broken rows and files.
        borrowed: A second folder of parts that may be read, not written.
    """

    landing: Path
    raw: Path
    quarantine: Path
    borrowed: Path | None = None

    def days(self, table: Table) -> days.DayPlaces:
        return days.DayPlaces(table, self.raw, self.quarantine, self.borrowed)

    def registry(self, table: Table) -> Path:
        return self.raw / ".state" / f"{table.full_name}.json"

    def table(self, table: Table) -> Path:
        return self.raw / table.domain / f"{table.name}.parquet"

    def doubts(self, table: Table) -> Path:
        return self.raw / ".doubts" / f"{table.full_name}.parquet"

    def part(self, table: Table, content: Content, kind: str) -> Path:
        place = Path(".parts") / table.domain / table.name / f"{content.hash}.{kind}.parquet"
        if self.borrowed is not None and not (self.raw / place).exists() and (self.borrowed / place).exists():
            return self.borrowed / place
        return self.raw / place


def take_in(places: Places, tables: list[Table], log: Callable[[str], None]) -> dict[str, TableBalance]:
    """Takes the landed files of `tables` in; returns the balance by `domain.table`."""
    files = landing_files(places.landing, log)
    wanted = {table.full_name for table in tables}
    waiting: Counter[str] = Counter()
    registries = {}
    for table in LANDING.values():
        if table.full_name not in wanted:
            continue
        registry = Registry.read(places.registry(table))
        landed = {content.hash: k for k, content in enumerate(registry.contents)}
        again = {content.hash: content.again for content in registry.contents}
        if table.by_day:
            registry.format = _FORMAT  # days hold rows and no hashes
            if not days.is_whole(places.days(table)):
                log(f"{table.full_name}: days are missing in the raw table; it is read anew from the landing files")
                days.forget(places.days(table))
                registry = Registry()
        elif registry.format != _format_of(table):
            registry = _reparse(places, table, registry)
        own = [file for file in files if (file.domain, file.table) == (table.domain, table.name)]
        for file in own:
            if not _take_file(places, table, registry, file, log):
                waiting[table.full_name] += 1
        # Contents that were parsed anew stay where they were: what landed later counts more.
        registry.contents.sort(key=lambda content: landed.get(content.hash, len(landed)))
        for content in registry.contents:
            content.again = max(content.again, again.get(content.hash, 0))
        write_json(asdict(registry), places.registry(table))
        registries[table.full_name] = registry
    balances = {}
    for table in _parents_first(tables):
        registry = registries[table.full_name]
        balances[table.full_name] = _put_together(places, table, registry, waiting[table.full_name])
    return {table.full_name: balances[table.full_name] for table in tables}


def _format_of(table: Table) -> str:
    # Their parts know more of broken rows.
    return f"{_FORMAT}:doubts" if table.doubt else _FORMAT


def _reparse(places: Places, table: Table, registry: Registry) -> Registry:
    """Forgets parts of another format; contents that no file holds any more cannot be parsed and stay as they are."""
    fresh = Registry(format=_format_of(table))
    for content in registry.contents:
        names = (content.name, *content.copies)
        if not any(stands(places.landing, name, content.hash, registry.seen) for name in names):
            fresh.contents.append(content)
    return fresh


def stands(landing: Path, name: str, digest: str, seen: Mapping[str, str]) -> bool:
    """Whether a landing file holds a content; a file that was written over holds another one.

    Args:
        landing: The landing folder.
        name: The file's name below it.
        digest: Hash of the content.
        seen: As `Registry.seen`.
    """
    place = landing / name
    try:
        status = place.stat()
        if seen.get(name) == f"{status.st_size}:{status.st_mtime_ns}:{digest}":
            return True
        return _hash(place) == digest
    except OSError:
        return False


# --- Phase 1: a file's content, once -------------------------------------------------------------------------------------


def _take_file(places: Places, table: Table, registry: Registry, file: LandedFile, log: Callable[[str], None]) -> bool:
    identity = f"{file.size}:{file.mtime_ns}"
    if registry.seen.get(file.name, "").startswith(identity + ":"):
        return True
    if being_written(file.path):
        log(f"{file.name}: still being written; left for the next time")
        return False
    try:
        digest = _hash(file.path)
        after = file.path.stat()
    except OSError as error:
        digest = hashlib.sha256(f"{file.name}:{identity}".encode()).hexdigest()[:24]
        known = Content(digest, file.name, unreadable=f"cannot be opened ({error.strerror}); allow reading it")
        if all(content.hash != digest for content in registry.contents):
            registry.contents.append(known)
            registry.seen[file.name] = f"{identity}:{digest}"
        return True
    if (after.st_size, after.st_mtime_ns) != (file.size, file.mtime_ns):
        log(f"{file.name}: changed while it was read; left for the next time")
        return False
    for content in registry.contents:
        if content.hash == digest:
            new = file.name != content.name and file.name not in content.copies
            if new:
                content.copies.append(file.name)
            if new or not registry.seen.get(file.name, digest).endswith(digest):
                content.again = len(registry.contents)
            break
    else:
        content = Content(digest, file.name)
        _parse(places, table, content, file)
        for remark in content.remarks:
            log(remark)
        registry.contents.append(content)
    registry.seen[file.name] = f"{identity}:{digest}"
    return True


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(8 << 20):
            digest.update(block)
    return digest.hexdigest()[:24]


def _parse(places: Places, table: Table, content: Content, file: LandedFile) -> None:
    good_place = places.raw / ".parts" / table.domain / table.name / f"{content.hash}.good.parquet"
    bad_place = good_place.with_name(f"{content.hash}.bad.parquet")
    reasons: Counter[str] = Counter()
    unread: list[tuple[int, str]] = []
    vetoes = any(column.veto for column in table.columns)
    try:
        if table.by_day:
            _parse_by_day(places, table, content, file, bad_place, reasons)
            content.reasons = dict(sorted(reasons.items()))
            return
        comma = decimal_comma(file.path)
        with (
            replacing(good_place) as good_file,
            replacing(bad_place) as bad_file,
            _Writer(good_file) as good_writer,
            _Writer(bad_file) as bad_writer,
        ):
            for rows in read_rows(file.path, table):
                good, bad = judge(rows, table, comma=comma)
                if vetoes:
                    unread += read_as_no(rows.join(good.select(LINE), on=LINE, how="semi"), table)
                content.landed += rows.height
                content.accepted += good.height
                good_writer.write(good.with_columns(_key_hash(table)))
                if bad.height:
                    bad_writer.write(bad)
                    reasons.update(_kind_of(reason) for reason in bad[REASON])
            good_writer.write_if_nothing(_no_good(table))
            bad_writer.write_if_nothing(_NO_BAD)
    except Unreadable as error:
        content.landed = content.accepted = 0
        content.unreadable = str(error)
        reasons.clear()
        unread.clear()
    content.reasons = dict(sorted(reasons.items()))
    content.remarks = [
        f"{file.name} line {line}: {column} is not 1/0, true/false or yes/no; it counts as no until a row lands that can be read"
        for line, column in unread[:_REMARKS]
    ]
    if len(unread) > _REMARKS:
        content.remarks.append(f"{file.name}: {len(unread) - _REMARKS:,} more values like these count as no")


def _parse_by_day(
    places: Places, table: Table, content: Content, file: LandedFile, bad_place: Path, reasons: Counter[str]
) -> None:
    """The same for a table kept by day: plain values are typed quickly, the rest by `judge`; good rows go to their days."""
    written = _written(file)
    comma = decimal_comma(file.path)
    fragments = days.Fragments(places.days(table), content.hash)
    with replacing(bad_place) as bad_file, _Writer(bad_file) as bad_writer:
        for block in read_blocks(file.path, table, comma=comma):
            quick = None if block.plain is None else quickly(block.plain, table, written=written)
            if quick is not None:
                typed, right = quick
                fragments.write(typed.with_columns(block.lines.alias(LINE)).filter(right))
                content.landed += typed.height
                content.accepted += int(right.sum())
                if right.all():
                    continue
                rows = block.as_text(~right)
            else:
                rows = block.as_text()
                content.landed += rows.height
            good, bad = judge(rows, table, comma=comma, written=written)
            content.accepted += good.height
            fragments.write(good)
            if bad.height:
                bad_writer.write(bad)
                reasons.update(_kind_of(reason) for reason in bad[REASON])
        fragments.flush()
        bad_writer.write_if_nothing(_NO_BAD)


def _written(file: LandedFile) -> datetime:
    """When a file was written; where its date was not kept (archives write none), when it came to this machine."""
    moment = datetime.fromtimestamp(file.mtime_ns // 1_000_000_000 + 1, UTC)
    if moment < EARLIEST:
        moment = datetime.fromtimestamp(int(file.path.stat().st_ctime) + 1, UTC)
    return moment


def _key_hash(table: Table) -> pl.Expr:
    return pl.struct(pl.col(name).cast(pl.String).fill_null("") for name in table.key).hash(seed=7).alias(HASH)


def _no_good(table: Table) -> pl.DataFrame:
    return table.empty().with_columns(pl.lit(None, pl.Int64).alias(LINE), pl.lit(None, pl.UInt64).alias(HASH)).head(0)


_NO_BAD = pl.DataFrame(schema={LINE: pl.Int64, RAW: pl.String, REASON: pl.String})


def _kind_of(reason: str) -> str:
    """A reason without the value that broke it, for counting."""
    words = reason.split(" '")[0] if " '" in reason else reason
    for mark in (" is below ", " is above "):
        if mark in words:
            return f"{words.split(' ')[0]}{mark}{words.split(mark)[1]}"
    if " is before " in words:
        first, second = words.split(" is before ")
        return f"{first.split(' ')[0]} is before {second.split(' ')[0]}"
    if " '" in reason:
        return f"{words}: {reason.rsplit(chr(39), 1)[-1].strip()}"
    return words


class _Writer:
    """Writes frames of one schema to a Parquet file as they come."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0

    def __enter__(self) -> _Writer:
        return self

    def write(self, frame: pl.DataFrame) -> None:
        data = _arrow(frame)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._place, data.schema, compression="zstd", compression_level=1)
        if data.num_rows or self.rows == 0:
            self._writer.write_table(data.cast(self._writer.schema), row_group_size=_ROW_GROUP)
        self.rows += data.num_rows

    def write_if_nothing(self, frame: pl.DataFrame) -> None:
        """Gives a file without rows its schema; one that has a schema, perhaps with columns beyond the contract, keeps it."""
        if self._writer is None:
            self.write(frame)

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()


def _arrow(frame: pl.DataFrame) -> pa.Table:
    data = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    fields = [pa.field(f.name, pa.string() if pa.types.is_large_string(f.type) else f.type) for f in data.schema]
    return data.cast(pa.schema(fields))


# --- Phase 2: the current truth ------------------------------------------------------------------------------------------


def _parents_first(tables: list[Table]) -> list[Table]:
    ordered: list[Table] = []
    names = {table.full_name: table for table in tables}

    def visit(table: Table) -> None:
        if table in ordered:
            return
        for column in table.columns:
            if column.references and column.references in names and column.references != table.full_name:
                visit(names[column.references])
        ordered.append(table)

    for table in tables:
        visit(table)
    return ordered


def _put_together(places: Places, table: Table, registry: Registry, waiting: int) -> TableBalance:
    if table.by_day:
        return _put_days_together(places, table, registry, waiting)
    references = {column.name: column.references for column in table.columns if column.references}
    state: dict[str, object] = {
        "format": _format_of(table),
        "contents": [content.hash for content in registry.contents],
        "references": {name: _fingerprint_of(places, LANDING[parent]) for name, parent in references.items()},
    }
    if table.doubt and any(content.again for content in registry.contents):
        state["again"] = [content.again for content in registry.contents]
    fingerprint = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
    done = registry.put_together
    place = places.table(table)
    unchanged = done.get("fingerprint") == fingerprint and place.exists()
    if table.doubt:
        unchanged = unchanged and places.doubts(table).exists()
    if not unchanged:
        verdict = _Verdicts(places, table, registry, _allowed(places, references))
        verdict.decide()
        verdict.write()
        done = {
            "fingerprint": fingerprint,
            "accepted": verdict.accepted,
            "superseded": verdict.superseded,
            "reasons": dict(sorted(verdict.reasons.items())),
        }
        registry.put_together = done
        write_json(asdict(registry), places.registry(table))
    return balance_of(registry, waiting, unchanged)


def _put_days_together(places: Places, table: Table, registry: Registry, waiting: int) -> TableBalance:
    """The same for a table kept by day: only days that something landed for are written."""
    own = places.days(table)
    readable = [content for content in registry.contents if not content.unreadable]
    for content in readable:
        _adopt(places, own, content)
    references = {column.name: column.references for column in table.columns if column.references}
    allowed = _allowed(places, references)
    known = days.Known({name: (parent, values.sort().to_list()) for name, (parent, values) in allowed.items()})
    together = days.put_together(own, [(content.hash, content.name) for content in readable], known)
    _quarantine_contents(places, table, registry)
    done: dict[str, object] = {
        "fingerprint": together.fingerprint,
        "accepted": together.accepted,
        "superseded": together.superseded,
        "reasons": together.reasons,
    }
    if done != registry.put_together:
        registry.put_together = done
        write_json(asdict(registry), places.registry(table))
    return balance_of(registry, waiting, together.unchanged)


def _adopt(places: Places, own: days.DayPlaces, content: Content) -> None:
    """Takes over a part of the time when the table was one file."""
    old = places.raw / ".parts" / own.table.domain / own.table.name / f"{content.hash}.good.parquet"
    if not old.exists():
        return
    fragments = days.Fragments(own, content.hash)
    with pq.ParquetFile(old) as file:
        for batch in file.iter_batches(batch_size=_ROW_GROUP):
            rows = pl.DataFrame(pl.from_arrow(batch))
            fragments.write(
                rows.select(
                    *[
                        (pl.col(name) if name in rows.columns else pl.lit(None).alias(name)).cast(dtype)
                        for name, dtype in own.table.schema.items()
                    ],
                    LINE,
                )
            )
    fragments.flush()
    old.unlink()


def _quarantine_contents(places: Places, table: Table, registry: Registry) -> None:
    """Rows that broke the contract by themselves, a CSV a content, and unreadable files; each is written once."""
    folder = places.quarantine / table.domain / table.name
    for content in registry.contents:
        place = folder / f"{Path(content.name).name}.{content.hash[:8]}.csv"
        if content.unreadable:
            _quarantine_whole(places, folder, content)
        elif content.reasons and not place.exists():
            broken = pl.read_parquet(places.part(table, content, "bad"))
            write_csv_for_people(_for_people(content, broken), place)


def balance_of(registry: Registry, waiting: int, unchanged: bool) -> TableBalance:
    """The balance of a table that was put together."""
    done = registry.put_together
    landed = copied = quarantined = unreadable = files = 0
    reasons: Counter[str] = Counter()
    for content in registry.contents:
        names = 1 + len(content.copies)
        files += names
        if content.unreadable:
            unreadable += names
            reasons["unreadable file"] += names
            continue
        # The same bytes again change nothing: the copy's rows count as superseded, whatever became of the first ones.
        landed += names * content.landed
        copied += len(content.copies) * content.landed
        quarantined += sum(content.reasons.values())
        reasons.update(content.reasons)
    later = dict(done["reasons"])  # type: ignore[call-overload]
    reasons.update(later)
    quarantined += sum(later.values())
    return TableBalance(
        files,
        landed,
        int(done["accepted"]),  # type: ignore[call-overload]
        int(done["superseded"]) + copied,  # type: ignore[call-overload]
        quarantined,
        unreadable,
        waiting,
        dict(sorted(reasons.items())),
        unchanged,
        str(done["fingerprint"]),
        tuple(remark for content in registry.contents for remark in content.remarks),
    )


def _fingerprint_of(places: Places, table: Table) -> str:
    """The referenced table as put together; empty while it has no rows, when nothing can be checked against it."""
    done = Registry.read(places.registry(table)).put_together
    return str(done["fingerprint"]) if done.get("accepted") else ""


def _allowed(places: Places, references: dict[str, str]) -> dict[str, tuple[str, pl.Series]]:
    allowed = {}
    for name, parent in references.items():
        place, key = places.table(LANDING[parent]), LANDING[parent].key[0]
        if place.exists() and (values := pl.read_parquet(place, columns=[key])[key]).len():
            allowed[name] = (parent, values.unique())
    return allowed


class _Verdicts:
    """Which rows of a table's parts are accepted, superseded or quarantined."""

    def __init__(
        self, places: Places, table: Table, registry: Registry, allowed: dict[str, tuple[str, pl.Series]]
    ) -> None:
        self._places = places
        self._table = table
        self._contents = [content for content in registry.contents if not content.unreadable]
        # Of those that came again, how many readable ones were known by then.
        self._again = {
            content.hash: sum(not before.unreadable for before in registry.contents[: content.again])
            for content in registry.contents
            if content.again
        }
        self._unreadable = [content for content in registry.contents if content.unreadable]
        self._allowed = allowed
        self._keep: list[NDArray[np.bool_]] = []
        self._late: list[pl.DataFrame] = []  # quarantined in this phase: content, line, row, reason
        self.doubts = Doubts(table)
        self.superseded = 0
        self.accepted = 0
        self.reasons: Counter[str] = Counter()

    def _part(self, content: Content, kind: str = "good") -> Path:
        return self._places.part(self._table, content, kind)

    def _has_part(self, content: Content) -> bool:
        return self._part(content).exists()

    def decide(self) -> None:
        hashes = []
        for index, content in enumerate(self._contents):
            columns = pl.read_parquet(self._part(content), columns=[HASH, *self._allowed])
            codes = columns[HASH].to_numpy()
            keep = np.ones(len(codes), bool)
            if self._allowed and len(codes):
                self._check_references(index, content, columns, keep)
            self._keep.append(keep)
            hashes.append(codes)
        if hashes:
            self._resolve(hashes)
        self.accepted = int(sum(keep.sum() for keep in self._keep))
        if self._table.doubt:
            self._doubt()

    def _doubt(self) -> None:
        for index, content in enumerate(self._contents):
            self.doubts.broken(index, content.name, pl.read_parquet(self._part(content, "bad")))
            rows = pl.read_parquet(self._part(content), columns=list(self._table.doubt))
            self.doubts.accepted(index, rows.filter(pl.Series(self._keep[index])))
        self._taken_back_again()
        for late in self._late:
            index = late["content"][0]
            self.doubts.broken(index, self._contents[index].name, late)

    def _taken_back_again(self) -> None:
        """The same bytes once more change nothing, but for a no where a yes holds: it counts until a good row lands after it."""
        again = [content for content in self._contents if content.again]
        key = self._table.doubt[0]
        for column in (column for column in self._table.columns if column.veto and again):
            held = [
                pl.read_parquet(self._part(content), columns=[key, column.name])
                .filter(pl.Series(keep))
                .filter(pl.col(column.name))
                for content, keep in zip(self._contents, self._keep, strict=True)
            ]
            yes = pl.concat(held).select(key).unique()
            for content in again:
                rows = pl.read_parquet(self._part(content)).filter(~pl.col(column.name)).join(yes, on=key, how="semi")
                said = [pl.col(name).cast(pl.String).alias(SAID + name) for name in self._table.told]
                words = pl.lit(AGAIN).alias(REASON)
                found = rows.select(LINE, words, pl.lit(False).alias(TORN), *said)
                self.doubts.broken(self._again[content.hash] - 1, content.name, found)

    def _check_references(self, index: int, content: Content, columns: pl.DataFrame, keep: NDArray[np.bool_]) -> None:
        for name, (parent, values) in self._allowed.items():
            column = columns[name]
            lost = (column.is_not_null() & ~column.is_in(values.implode())).to_numpy() & keep
            if lost.any():
                keep &= ~lost
                words = pl.format(
                    "{} '{}' is not in {}; land it there", pl.lit(name), pl.col(name).str.slice(0, 60), pl.lit(parent)
                )
                self._set_aside(index, content, np.nonzero(lost)[0], words)
                self.reasons[f"{name}: not in {parent}"] += int(lost.sum())

    def _set_aside(self, index: int, content: Content, rows: NDArray[np.int64], reason: pl.Expr) -> None:
        frame = self._rows(content, rows)
        text = pl.concat_str([pl.col(c).cast(pl.String).fill_null("") for c in self._table.schema], separator=",")
        self._late.append(
            frame.select(
                pl.lit(index).alias("content"),
                pl.col(LINE),
                text.alias(RAW),
                reason.alias(REASON),
                *[pl.col(name).cast(pl.String).alias(SAID + name) for name in self._table.told],
                *([pl.lit(False).alias(TORN)] if self._table.told else []),
            )
        )

    def _rows(self, content: Content, rows: NDArray[np.int64]) -> pl.DataFrame:
        wanted = pl.DataFrame({"__row": rows.astype(np.uint32)})
        return (
            pl.scan_parquet(self._part(content))
            .with_row_index("__row")
            .join(wanted.lazy(), on="__row", how="semi")
            .sort("__row")
            .collect()
        )

    def _resolve(self, hashes: list[NDArray[np.uint64]]) -> None:
        """Among rows of one key the latest file's counts; within a file the first, and others like it add nothing."""
        every = np.concatenate(hashes)
        ordered = np.sort(every)
        repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        del ordered, every
        if not len(repeated):
            return
        candidates = []
        for index, (content, codes) in enumerate(zip(self._contents, hashes, strict=True)):
            at = np.searchsorted(repeated, codes)
            rows = np.nonzero((repeated[np.minimum(at, len(repeated) - 1)] == codes) & self._keep[index])[0]
            if len(rows):
                candidates.append(self._rows(content, rows).with_columns(pl.lit(index).alias("content")))
        if not candidates:
            return
        frame = pl.concat(candidates, how="diagonal_relaxed")
        key = list(self._table.key)
        values = [name for name in frame.columns if name not in (LINE, HASH, "__row", "content")]
        # The first row counts, unless a later one takes back what only a yes may allow.
        order = [pl.col(column.name).fill_null(False) for column in self._table.columns if column.veto]
        order.append(pl.col("__row"))
        frame = frame.with_columns(
            pl.struct(pl.col(values).cast(pl.String).fill_null("")).hash(seed=3).alias("__values"),
            pl.col(LINE).first().over([*key, "content"], order_by=order).alias("__first"),
            pl.col("content").max().over(key).alias("__last"),
        )
        frame = frame.with_columns(
            pl.col("__values").first().over([*key, "content"], order_by=order).alias("__first_values")
        )
        again = (pl.col(LINE) != pl.col("__first")) & (pl.col("__values") == pl.col("__first_values"))
        conflict = (pl.col(LINE) != pl.col("__first")) & ~again
        earlier = (pl.col(LINE) == pl.col("__first")) & (pl.col("content") < pl.col("__last"))
        frame = frame.with_columns(
            pl.when(conflict).then(2).when(again | earlier).then(1).otherwise(0).alias("__verdict")
        )
        for (index,), part in frame.filter(pl.col("__verdict") > 0).group_by("content", maintain_order=True):
            assert isinstance(index, int)
            self._keep[index][part["__row"].to_numpy()] = False
            self.superseded += part.filter(pl.col("__verdict") == 1).height
            clashes = part.filter(pl.col("__verdict") == 2).sort("__row")
            if clashes.height:
                first = dict(zip(clashes["__row"].to_list(), clashes["__first"].to_list(), strict=True))
                self._set_aside(
                    index,
                    self._contents[index],
                    clashes["__row"].to_numpy(),
                    pl.format(
                        "the same key as line {}, with other values; keep one",
                        pl.col("__row").replace_strict(first, return_dtype=pl.Int64),
                    ),
                )
                self.reasons["the same key twice in a file"] += clashes.height

    # --- writing ---

    def write(self) -> None:
        """The raw table, then the quarantine."""
        table, names = self._table, self._extra_names()
        with replacing(self._places.table(table)) as temporary, _Writer(temporary) as writer:
            for content, keep in zip(self._contents, self._keep, strict=True):
                for frame in self._kept_rows(content, keep, names):
                    writer.write(frame)
            empty = table.empty().with_columns(
                *[pl.lit(None, pl.String).alias(name) for name in names],
                pl.lit(None, pl.String).alias("source_file"),
                pl.lit(None, pl.Int64).alias("source_line"),
            )
            writer.write(empty.head(0))
        if self._table.doubt:
            write_parquet(self.doubts.frame(), self._places.doubts(self._table))
        self._write_quarantine()

    def _extra_names(self) -> list[str]:
        if not self._table.extra_columns:
            return []
        own = {*self._table.schema, LINE, HASH}
        found = {n for content in self._contents for n in pq.read_schema(self._part(content)).names if n not in own}
        return sorted(found)

    def _kept_rows(self, content: Content, keep: NDArray[np.bool_], extra: list[str]) -> Iterator[pl.DataFrame]:
        offset = 0
        unsure = self.doubts.standing()
        with pq.ParquetFile(self._part(content)) as file:
            for batch in file.iter_batches(batch_size=_ROW_GROUP):
                frame = pl.DataFrame(pl.from_arrow(batch))
                frame = frame.filter(pl.Series(keep[offset : offset + batch.num_rows]))
                offset += batch.num_rows
                yield frame.with_columns(
                    pl.when(~pl.col(self._table.doubt[0]).is_in(unsure)).then(pl.col(column.name)).alias(column.name)
                    for column in self._table.columns
                    if column.veto and unsure
                ).select(
                    *[pl.col(name).cast(dtype) for name, dtype in self._table.schema.items()],
                    *[
                        pl.col(name).cast(pl.String) if name in frame.columns else pl.lit(None, pl.String).alias(name)
                        for name in extra
                    ],
                    pl.lit(content.name).alias("source_file"),
                    pl.col(LINE).alias("source_line"),
                )

    def _write_quarantine(self) -> None:
        folder = self._places.quarantine / self._table.domain / self._table.name
        late = pl.concat(self._late) if self._late else None
        written = set()
        for index, content in enumerate(self._contents):
            broken = pl.read_parquet(self._part(content, "bad"), columns=[LINE, RAW, REASON])
            if late is not None:
                broken = pl.concat([broken, late.filter(pl.col("content") == index).select(broken.columns)])
            if broken.is_empty():
                continue
            frame = _for_people(content, broken)
            place = folder / f"{Path(content.name).name}.{content.hash[:8]}.csv"
            write_csv_for_people(frame, place)
            written.add(place)
        for content in self._unreadable:
            written |= _quarantine_whole(self._places, folder, content)
        for place in folder.rglob("*") if folder.exists() else ():
            if place.is_file() and place not in written:
                place.unlink()


def _for_people(content: Content, broken: pl.DataFrame) -> pl.DataFrame:
    return broken.sort(LINE).select(
        pl.lit(content.name).alias("file"),
        pl.col(LINE).alias("line"),
        pl.col(REASON).alias("reason"),
        pl.col(RAW).alias("row"),
    )


def _quarantine_whole(places: Places, folder: Path, content: Content) -> set[Path]:
    source = places.landing / content.name
    copy = folder / "files" / f"{content.hash[:8]}.{Path(content.name).name}"
    note = folder / f"{Path(content.name).name}.{content.hash[:8]}.csv"
    if not copy.exists() and source.exists():
        try:
            with replacing(copy) as temporary:
                shutil.copyfile(source, temporary)
        except OSError:
            pass  # a file that may not be read stays where it landed
    frame = pl.DataFrame(
        {"file": [content.name], "line": [0], "reason": [f"the file {content.unreadable}"], "row": [""]}
    )
    write_csv_for_people(frame, note)
    return {copy, note}
