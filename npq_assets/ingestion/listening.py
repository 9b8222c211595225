"""`npq listen`: readings from an MQTT broker become landing files, a batch at a time, and nothing is lost on the way.

The broker keeps a persistent session for us. A message is acknowledged only when the file it stands in is on disk, so what was
on its way when a process, the broker or the line died is delivered again; what had landed by then is recognized by its packet
number, or superseded by its key. Payloads that are no reading land in a file of their own, in which the contract finds them
broken: they end in quarantine with their text. What a reading must look like is decided there as well (see `rules`).

Topics and payloads (`<topic>` is `mqtt_topic`, usually `npq`):

* `<topic>/<machine>/<sensor>` with a plain number, read when it arrives, or
  `{"value": 1.5, "measured_at": "2024-04-01T06:00:00Z"}`, or a list of such objects; `measured_at` may also be seconds or
  milliseconds since 1970;
* `<topic>/<machine>` with `{"measured_at": …, "values": {"heat": 71.5, "wear": 3}}`, or a list of such objects.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from npq_assets.errors import NpqError, RunError
from npq_assets.mqtt import CONNECT_SECONDS, PASSWORD, Broker, new_client
from npq_assets.settings import Home
from npq_assets.storage import write_json

COLUMNS = ("measured_at", "machine_id", "sensor", "value", "received_at")
FOLDER = Path("manufacturing") / "telemetry" / "live"
# The broker numbers what it has not seen acknowledged with 16 bits.
MOST_UNACKNOWLEDGED = 60_000
SESSION_SECONDS = 30 * 86_400
_QUIET_SECONDS = 1.0
_FEW = 20
_LONGEST = 3_000

Row = tuple[str, str, str, str, str]


def rows_of(topic: str, payload: bytes, root: str, received: datetime) -> list[Row] | None:
    """The readings in a message, as text under `COLUMNS`; None if it is not one (any part of it).

    Whether a value is a number and a time a time is left to the contract.
    """
    levels = topic.removeprefix(f"{root}/").split("/")
    at = _iso(received)
    if len(levels) not in (1, 2) or not all(levels):
        return None
    try:
        text = payload.decode()
        content = json.loads(text)
    except (UnicodeDecodeError, ValueError):
        return None
    if len(levels) == 2:
        if isinstance(content, int | float) and not isinstance(content, bool):
            return [(at, *levels, text.strip(), at)] if math.isfinite(content) else None  # type: ignore[list-item]
        found: list[tuple[dict[str, Any], Any]] = [(e, {levels[1]: e.get("value")}) for e in _objects(content)]
    else:
        found = [(entry, entry.get("values")) for entry in _objects(content)]
    rows: list[Row] = []
    for entry, values in found:
        when = _moment(entry.get("measured_at"), at)
        if not isinstance(values, dict) or not values or when is None:
            return None
        for sensor, value in values.items():
            number = _number(value)
            if number is None or not sensor:
                return None
            rows.append((when, levels[0], sensor, number, at))
    return rows or None


def _objects(content: object) -> list[dict[str, Any]]:
    entries = content if isinstance(content, list) else [content]
    return [entry if isinstance(entry, dict) else {} for entry in entries]


def _number(value: object) -> str | None:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float):
        return repr(value) if math.isfinite(value) else None
    return value.strip() if isinstance(value, str) and value.strip() else None


def _moment(value: object, received: str) -> str | None:
    if value is None:
        return received
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 1e14:
        seconds = value / 1000 if abs(value) > 1e11 else value
        try:
            return _iso(datetime.fromtimestamp(seconds, UTC))
        except (ValueError, OverflowError, OSError):
            return None
    return None


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass
class Heard:
    """Counts since the start.

    Attributes:
        messages: Messages that arrived.
        rows: Readings landed.
        repeated: Messages and readings that had come before, word for word.
        broken: Messages that are no reading, landed for the quarantine.
        stale: Plain numbers that the broker had retained: nobody knows of what time.
        batches: Files written.
    """

    messages: int = 0
    rows: int = 0
    repeated: int = 0
    broken: int = 0
    stale: int = 0
    batches: int = 0


@dataclass
class _Batch:
    """What arrived since the last file."""

    rows: dict[Row, None] = field(default_factory=dict)
    readings: dict[tuple[str, str, str, str], None] = field(default_factory=dict)
    broken: list[Row] = field(default_factory=list)
    unacknowledged: list[tuple[int, int]] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)
    began: float = 0.0
    latest: float = 0.0

    def __len__(self) -> int:
        return len(self.unacknowledged)


class Listener:
    """Hears a broker and lands what it hears."""

    def __init__(
        self,
        home: Home,
        broker: Broker,
        *,
        rows: int = 50_000,
        seconds: float = 60.0,
        client_id: str = "",
        say: Callable[[str], None] = print,
        backoff: tuple[float, float] = (1.0, 60.0),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Prepares; `run` works.

        Args:
            home: Where files land.
            broker: The broker.
            rows: Readings after which a file is written.
            seconds: Seconds after which one is written in any case.
            client_id: Under which the broker keeps our session; else made of the home's name.
            say: Takes a line at a time; lines that somebody must see begin with ALARM.
            backoff: Shortest and longest pause between attempts to reconnect (seconds).
            clock: When a message arrives.
        """
        self.heard = Heard()
        self._home, self._broker = home, broker
        self._rows, self._seconds = rows, seconds
        self._client_id = client_id or f"npq-listen-{home.root.name.lstrip('.')}"
        self._say, self._backoff, self._clock = say, backoff, clock
        self._lock = threading.RLock()
        self._batch = _Batch()
        self._landed: dict[int, int] = {}  # packet number -> hash of a message that is on disk
        self._gone_since: float | None = None
        self._refused = ""
        self._connected = threading.Event()
        self._client: Any = None
        self._count = 0

    # --- the connection ---

    def run(self, stop: threading.Event) -> Heard:
        """Hears until `stop` is set, then lands what is left.

        Raises:
            NpqError: Another listener works on this home.
            RunError: The broker does not let us in, or the disk takes no file.
        """
        self._home.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(self._home.root / ".listen.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise NpqError(f"another npq listen works on {self._home.root}; stop it first") from None
        try:
            self._connect()
            while not stop.wait(min(0.05, self._seconds / 2)) and not self._refused:
                self._land_if_due()
            self._land()
            if self._refused:
                raise RunError(f"{self._broker} does not let us in ({self._refused}); correct mqtt_user and {PASSWORD}")
        finally:
            if self._client is not None:
                self._client.disconnect()
                self._client.loop_stop()
            lock.release()
        self._note("stopped")
        return self.heard

    def _connect(self) -> None:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        client = new_client(self._broker, self._client_id, persistent=True, version5=True)
        client.on_connect = self._on_connect
        client.on_connect_fail = lambda *_: self._gone("cannot be reached")
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.reconnect_delay_set(*self._backoff)
        session = Properties(PacketTypes.CONNECT)
        # MQTT 5's way to say clean_session = false; and the broker may send as much as fits into a batch unacknowledged.
        session.SessionExpiryInterval = SESSION_SECONDS
        session.ReceiveMaximum = 65_535
        self._client = client
        client.connect_async(self._broker.host, self._broker.port, clean_start=False, properties=session)
        client.loop_start()

    def _on_connect(self, client: Any, _: object, flags: Any, reason: Any, __: object) -> None:
        if reason.is_failure:
            if str(reason) in ("Bad user name or password", "Not authorized", "Banned", "Bad authentication method"):
                self._refused = str(reason)
            self._gone(f"does not let us in ({reason})")
            return
        root = self._broker.topic
        client.subscribe([(f"{root}/+/+", 1), (f"{root}/+", 1)])
        if not flags.session_present:
            self._landed.clear()

    def _on_subscribe(self, *_: object) -> None:
        """Only now does the broker keep what machines send for us: before, nobody may be told that it does."""
        if self._gone_since is not None:
            self._say(f"{self._broker} is back after {time.monotonic() - self._gone_since:.0f} s")
        else:
            self._say(f"hearing {self._broker.topic}/# at {self._broker}")
        self._gone_since = None
        self._note("connected")
        self._connected.set()

    def _on_disconnect(self, _: object, __: object, ___: object, reason: Any, ____: object) -> None:
        if reason.is_failure:
            self._gone("is gone")

    def _gone(self, how: str) -> None:
        """One line when the broker is lost, not one an attempt; what was heard is landed at once."""
        self._connected.clear()
        if self._gone_since is None:
            self._gone_since = time.monotonic()
            self._say(f"ALARM {self._broker} {how}; what machines send waits there, if it runs; trying again")
            self._note("gone")
        self._land()

    def _note(self, state: str) -> None:
        """What a person, or another program, can look at."""
        write_json(
            {"state": state, "since": _iso(self._clock()), "broker": str(self._broker), "landed": self.heard.rows},
            self._home.root / "listening.json",
        )

    def wait_connected(self, seconds: float = CONNECT_SECONDS) -> bool:
        """Whether the broker is reached within so many seconds."""
        return self._connected.wait(seconds)

    # --- messages ---

    def _on_message(self, client: Any, _: object, message: Any) -> None:
        now = self._clock()
        words = hash((message.topic, message.payload))
        with self._lock:
            self.heard.messages += 1
            number = message.mid if message.qos else 0
            if number and message.dup and self._landed.get(number) == words:
                # It is on disk, and our acknowledgement did not get through.
                self.heard.repeated += 1
                client.ack(message.mid, message.qos)
                return
            if number and message.dup and self._batch.numbers.get(number) == words:
                self.heard.repeated += 1
                return
            batch = self._batch
            if not batch:
                batch.began = time.monotonic()
            batch.latest = time.monotonic()
            batch.unacknowledged.append((message.mid, message.qos))
            if number:
                batch.numbers[number] = words
                self._landed.pop(number, None)
            self._take(message, now)
        if len(self._batch) >= min(self._rows, MOST_UNACKNOWLEDGED) or len(self._batch.rows) >= self._rows:
            self._land()

    def _take(self, message: Any, now: datetime) -> None:
        batch = self._batch
        rows = rows_of(message.topic, message.payload, self._broker.topic, now)
        if rows is None:
            self.heard.broken += 1
            levels = [*message.topic.removeprefix(f"{self._broker.topic}/").split("/"), ""]
            text = message.payload.decode("utf-8", "backslashreplace")[:_LONGEST] or "(empty)"
            at = _iso(now)
            # A text that happens to be a number would be taken for a reading.
            batch.broken.append((at, levels[0], levels[1] or "(none)", f"payload {text}", at))
            return
        if message.retain and all(row[0] == row[4] for row in rows):
            self.heard.stale += 1
            return
        for row in rows:
            if row[:4] in batch.readings:
                self.heard.repeated += 1
            else:
                batch.readings[row[:4]] = None
                batch.rows[row] = None

    # --- files ---

    def _land_if_due(self) -> None:
        with self._lock:
            batch, now = self._batch, time.monotonic()
            if not batch:
                return
            # A broker that waits for acknowledgements before it sends more must not wait for the clock.
            waits = len(batch) >= _FEW and now - batch.latest >= _QUIET_SECONDS
            if waits or now - batch.began >= self._seconds:
                self._land()

    def _land(self) -> None:
        with self._lock:
            batch, self._batch = self._batch, _Batch()
            if not batch:
                return
            try:
                if batch.rows:
                    self._write(batch.rows, "")
                if batch.broken:
                    self._write(batch.broken, "-broken")
            except OSError as error:
                self._batch = batch
                batch.began = time.monotonic()
                self._say(f"ALARM {self._home.landing}: cannot be written ({error.strerror}); nothing is acknowledged")
                return
            self.heard.rows += len(batch.rows)
            self._landed.update(batch.numbers)
            for number, qos in batch.unacknowledged:
                if qos:
                    self._client.ack(number, qos)
            words = f", {len(batch.broken)} messages that are no reading" if batch.broken else ""
            self._say(f"landed {len(batch.rows):,} readings{words}")

    def _write(self, rows: Iterable[Row], kind: str) -> None:
        """A file under its final name only when it is whole and on disk."""
        self._count += 1
        now = self._clock()
        folder = self._home.landing / FOLDER / f"{now:%Y-%m-%d}"
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"{now:%Y%m%dT%H%M%S%f}-{os.getpid()}-{self._count:06d}{kind}.csv"
        temporary = place.with_name(f".{place.name}.tmp")
        with temporary.open("wb") as file:
            file.write(_csv(rows))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place)
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        self.heard.batches += 1


def _csv(rows: Iterable[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    # As they came: of two values of one key the first counts.
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")
