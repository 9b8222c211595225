"""How set-points reach machines, and how it is known that they arrived: the last door before the equipment.

`publish` hands approved set-points on and waits for the machines' acknowledgements; `roll_back` sends the values back that were
in force before. Both do nothing but say what they would do unless `dry_run=False`. Which settings are worth proposing, who
approves them and when evidence speaks against them do not belong here.

What the last door guarantees, whoever calls:

* a value that is not finite, or outside the limits of the set-point or of the master data as they stand now, is refused;
* the same decision has the same message id, and is not sent again once its outcome is known;
* no set-point is retained by the broker, it expires there after the time limit, and its payload says until when it is valid;
  a machine that comes back later is not set to what somebody wanted hours ago. Where another program has left a retained
  message on the machine's topic, nothing is sent;
* a machine that refuses, answers with another value or stays silent is set back to the value before, and so are the other
  settings of that machine in the same call: settings are proposed together and act together;
* every step is in the journal before it happens, so that a process that dies in the middle leaves a trace: what has no outcome
  is sent again under the same id.

Topics: `<topic>/<machine>/set/<setting>` down, `<topic>/<machine>/ack/<setting>` up. Payloads are JSON, see `message_of` and
`Acknowledgement`.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

from npq_assets.errors import NpqError, RunError
from npq_assets.mqtt import CONNECT_SECONDS, Broker, new_client
from npq_assets.storage import write_json

Status = Literal["dry_run", "refused", "sent", "acknowledged", "rejected", "silent", "rolled_back", "unknown"]
Limits = Mapping[tuple[str, str], tuple[float, float]]
ACK_SECONDS = 10.0
_CLOSE = 1e-6


@dataclass(frozen=True)
class SetPoint:
    """A value that a setting of a machine should have.

    Attributes:
        machine_id: The machine.
        setting: The setting.
        value: The value wanted, in the setting's unit.
        previous: The value in force, to which it is rolled back.
        low: Smallest value allowed.
        high: Largest value allowed.
        decision_id: The decision that wants it; with machine, setting and value it makes the message id.
    """

    machine_id: str
    setting: str
    value: float
    previous: float
    low: float
    high: float
    decision_id: str

    @property
    def key(self) -> tuple[str, str]:
        """Machine and setting."""
        return self.machine_id, self.setting

    @property
    def message_id(self) -> str:
        """The same wish has the same id on any day, in any process."""
        words = [self.decision_id, self.machine_id, self.setting, repr(float(self.value))]
        return hashlib.sha256("\x1f".join(["set-point", *words]).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Message:
    """What goes to a machine.

    Attributes:
        message_id: Identifies it; a machine applies an id once and acknowledges it each time.
        kind: `set` or `roll_back`.
        machine_id: The machine.
        setting: The setting.
        value: The value to have.
        low: Smallest value allowed.
        high: Largest value allowed.
        valid_until: From then on it must not be applied (ISO, UTC).
    """

    message_id: str
    kind: Literal["set", "roll_back"]
    machine_id: str
    setting: str
    value: float
    low: float
    high: float
    valid_until: str


@dataclass(frozen=True)
class Acknowledgement:
    """What a machine answers: `{"message_id": …, "status": "applied" or "refused", "value": …, "reason": …}`.

    Attributes:
        message_id: Which message.
        status: `applied` or `refused`.
        value: The value that is in force now; None where the machine does not say.
        reason: Why it was refused.
    """

    message_id: str
    status: str
    value: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Delivery:
    """What became of a set-point.

    Attributes:
        set_point: The set-point.
        message_id: Its message.
        status: `dry_run` (would be sent), `refused` (by the last door, not sent), `sent` (handed on to a system that gives no
            acknowledgements), `acknowledged` (in force), `rejected` (the machine refused or set something else) and `silent`
            (no answer in time), both then rolled back: `rolled_back` if that was acknowledged, else `unknown`.
        detail: Why, in words.
        repeated: The outcome was known from an earlier call and nothing was sent.
    """

    set_point: SetPoint
    message_id: str
    status: Status
    detail: str = ""
    repeated: bool = False

    @property
    def in_force(self) -> bool:
        """Whether the machine is known to run with the value."""
        return self.status == "acknowledged"


class Publisher(Protocol):
    """Carries messages to machines; a context manager that holds its connection."""

    acknowledges: bool

    def __enter__(self) -> Publisher: ...

    def __exit__(self, *_: object) -> None: ...

    def blocked(self, machine_id: str, setting: str) -> str:
        """Why nothing may be sent to a setting now; empty if it may."""
        ...

    def send(self, message: Message, seconds: float) -> None:
        """Hands one message on, valid for so many seconds; raises RunError if that fails."""
        ...

    def wait(self, message_ids: Sequence[str], seconds: float) -> dict[str, Acknowledgement]:
        """Acknowledgements of these messages that arrive within the time limit, by message id."""
        ...


def message_of(point: SetPoint, now: datetime, seconds: float, *, back: bool = False) -> Message:
    """The message that sets a value, or (`back`) the one that sets the previous value again."""
    return Message(
        f"{point.message_id}-back" if back else point.message_id,
        "roll_back" if back else "set",
        point.machine_id,
        point.setting,
        point.previous if back else point.value,
        point.low,
        point.high,
        (now + timedelta(seconds=seconds)).astimezone(UTC).isoformat(timespec="seconds"),
    )


# --- The last door -------------------------------------------------------------------------------------------------------


def publish(
    points: Sequence[SetPoint],
    publisher: Publisher,
    journal: Path,
    *,
    dry_run: bool = True,
    limits: Limits | None = None,
    seconds: float = ACK_SECONDS,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Delivery]:
    """Hands set-points on, waits for acknowledgements, and rolls back where a machine did not take them.

    Args:
        points: Approved set-points, each machine and setting once.
        publisher: `FilePublisher` or `MqttPublisher`.
        journal: Folder that remembers what was sent, usually `<home>/outbox/manufacturing/set_points/journal`.
        dry_run: Only say what would be sent.
        limits: Lowest and highest value by (machine_id, setting) as the master data say now; a setting that is missing there
            is refused. None: only the limits of the set-points.
        seconds: Time limit of an acknowledgement, and how long a message is valid.
        clock: Now, for `valid_until`.

    Returns:
        One delivery a set-point, in the order given.

    Raises:
        NpqError: A machine and setting is there twice.
        RunError: The publisher cannot be reached. What was sent until then is in the journal.
    """
    twice = [p.key for p in points if sum(q.key == p.key for q in points) > 1]
    if twice:
        raise NpqError(f"set-points: {twice[0][0]} {twice[0][1]} is there twice; keep one")
    found: dict[str, Delivery] = {}
    wanted: list[SetPoint] = []
    for point in points:
        known = _recall(journal, point)
        if (reason := refusal(point, limits)) and (known is None or dry_run):
            found[point.message_id] = Delivery(point, point.message_id, "refused", reason)
        elif known is not None:
            found[point.message_id] = known
        else:
            wanted.append(point)
    # Settings of a machine act together: where one may not be sent, none is.
    held = {d.set_point.machine_id: d for d in found.values() if d.status == "refused"}
    for point in list(wanted):
        if point.machine_id in held:
            other = held[point.machine_id].set_point.setting
            detail = f"{other} of the same machine was refused; settings are set together"
            found[point.message_id] = Delivery(point, point.message_id, "refused", detail)
            wanted.remove(point)
    if dry_run:
        for point in wanted:
            detail = f"would be set from {point.previous:g} to {point.value:g}"
            found[point.message_id] = Delivery(point, point.message_id, "dry_run", detail)
    elif wanted:
        with publisher:
            for delivery in _send(wanted, publisher, journal, seconds, clock):
                found[delivery.message_id] = delivery
    return [found[point.message_id] for point in points]


def roll_back(
    points: Sequence[SetPoint],
    publisher: Publisher,
    journal: Path,
    *,
    dry_run: bool = True,
    limits: Limits | None = None,
    seconds: float = ACK_SECONDS,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Delivery]:
    """Sets the values again that were in force before `points`: what made things worse is withdrawn.

    The arguments are those of `publish`. A value before that lies outside the limits of today is refused: somebody has to look.
    A set-point that is known to be rolled back is not sent again.

    Returns:
        One delivery a set-point: `rolled_back`, `unknown` (no acknowledgement), `dry_run` or `refused`.
    """
    found: dict[str, Delivery] = {}
    wanted: list[SetPoint] = []
    for point in points:
        known = _recall(journal, point)
        if known is not None and known.status == "rolled_back":
            found[point.message_id] = known
        elif reason := refusal(replace(point, value=point.previous), limits):
            found[point.message_id] = Delivery(point, point.message_id, "refused", f"the value before: {reason}")
        elif dry_run:
            detail = f"would be set back from {point.value:g} to {point.previous:g}"
            found[point.message_id] = Delivery(point, point.message_id, "dry_run", detail)
        else:
            wanted.append(point)
    if wanted:
        with publisher:
            for delivery in _send_back([(p, "withdrawn") for p in wanted], publisher, journal, seconds, clock):
                found[delivery.message_id] = delivery
    return [found[point.message_id] for point in points]


def refusal(point: SetPoint, limits: Limits | None = None) -> str:
    """Why a set-point must not leave; empty if it may."""
    if not all(math.isfinite(number) for number in (point.value, point.previous, point.low, point.high)):
        return "a number is not finite"
    bounds = [(point.low, point.high, "its limits")]
    if limits is not None:
        if point.key not in limits:
            return "the master data (process_settings) do not know the setting"
        bounds.append((*limits[point.key], "the limits of the master data"))
    for low, high, words in bounds:
        if not low <= point.value <= high:
            return f"{point.value:g} lies outside {words}, {low:g} to {high:g}"
        if not low <= point.previous <= high:
            # Where a machine does not take the value it is set back: to a value that must itself be allowed.
            return f"the value in force, {point.previous:g}, lies outside {words}, {low:g} to {high:g}: it could not be set back"
    if any(set(name) & set("+#\0/") or not name for name in point.key):
        return "the name of machine or setting cannot be part of a topic"
    return ""


def _send(
    points: list[SetPoint],
    publisher: Publisher,
    journal: Path,
    seconds: float,
    clock: Callable[[], datetime],
) -> list[Delivery]:
    done: list[Delivery] = []
    sent: list[SetPoint] = []
    blocked = {p.key: why for p in points if (why := publisher.blocked(*p.key))}
    stopped = {machine for machine, _ in blocked}
    for point in points:
        if point.machine_id in stopped:
            why = blocked.get(point.key, "another setting of the machine cannot be set; settings are set together")
            done.append(Delivery(point, point.message_id, "refused", why))
            continue
        _note(journal, point, "sent", "", clock())
        publisher.send(message_of(point, clock(), seconds), seconds)
        sent.append(point)
    if not publisher.acknowledges:
        return done + [Delivery(p, p.message_id, "sent", "handed on; nobody acknowledges") for p in sent]
    answers = publisher.wait([p.message_id for p in sent], seconds)
    troubles: dict[str, list[str]] = {}
    judged: list[tuple[SetPoint, Status, str]] = []
    for point in sent:
        status, detail = _judge(point.value, answers.get(point.message_id), seconds)
        judged.append((point, status, detail))
        if status != "acknowledged":
            troubles.setdefault(point.machine_id, []).append(f"{point.setting} {detail}")
    back: list[tuple[SetPoint, str]] = []
    for point, status, detail in judged:
        if point.machine_id not in troubles:
            _note(journal, point, status, detail, clock())
            done.append(Delivery(point, point.message_id, status, detail))
        else:
            why = detail if status != "acknowledged" else f"taken, but {troubles[point.machine_id][0]}"
            _note(journal, point, status if status != "acknowledged" else "rejected", why, clock())
            back.append((point, why))
    return done + _send_back(back, publisher, journal, seconds, clock)


def _send_back(
    points: list[tuple[SetPoint, str]],
    publisher: Publisher,
    journal: Path,
    seconds: float,
    clock: Callable[[], datetime],
) -> list[Delivery]:
    for point, _ in points:
        publisher.send(message_of(point, clock(), seconds, back=True), seconds)
    answers = publisher.wait([f"{p.message_id}-back" for p, _ in points], seconds) if publisher.acknowledges else {}
    done = []
    for point, why in points:
        status, detail = _judge(point.previous, answers.get(f"{point.message_id}-back"), seconds)
        ended: Status = "rolled_back" if status == "acknowledged" else "unknown"
        words = (
            f"{why}; set back to {point.previous:g}"
            if ended == "rolled_back"
            else f"{why}; setting it back to {point.previous:g} {detail}: look at the machine"
        )
        _note(journal, point, ended, words, clock())
        done.append(Delivery(point, point.message_id, ended, words))
    return done


def _judge(wanted: float, answer: Acknowledgement | None, seconds: float) -> tuple[Status, str]:
    if answer is None:
        return "silent", f"was not acknowledged within {seconds:g} s"
    if answer.status != "applied":
        return "rejected", f"was refused by the machine ({answer.reason or 'no reason given'})"
    if answer.value is not None and not math.isclose(answer.value, wanted, rel_tol=_CLOSE, abs_tol=_CLOSE):
        return "rejected", f"was answered with {answer.value:g} instead of {wanted:g}"
    return "acknowledged", f"in force: {wanted:g}"


# --- The journal ---------------------------------------------------------------------------------------------------------


def _note(journal: Path, point: SetPoint, status: Status, detail: str, now: datetime) -> None:
    place = journal / f"{point.message_id}.json"
    steps = json.loads(place.read_text())["steps"] if place.exists() else []
    steps.append({"at": now.astimezone(UTC).isoformat(timespec="seconds"), "status": status, "detail": detail})
    write_json({"set_point": asdict(point), "steps": steps}, place)


def _recall(journal: Path, point: SetPoint) -> Delivery | None:
    """The known outcome of a set-point; None if it was never sent, or sent without an outcome."""
    place = journal / f"{point.message_id}.json"
    if not place.exists():
        return None
    last = json.loads(place.read_text())["steps"][-1]
    if last["status"] not in ("acknowledged", "rolled_back"):
        return None
    return Delivery(point, point.message_id, last["status"], last["detail"], repeated=True)


# --- Files ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FilePublisher:
    """Hands messages on as files that another system picks up: `<folder>/<message id>.json`.

    Attributes:
        folder: Where they go, usually `<home>/outbox/manufacturing/set_points`.
        acknowledges: Whether that system answers with `<message id>.ack.json` beside them.
    """

    folder: Path
    acknowledges: bool = False

    def __enter__(self) -> FilePublisher:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def blocked(self, machine_id: str, setting: str) -> str:
        """Files never block."""
        return ""

    def send(self, message: Message, seconds: float) -> None:
        """Writes the message whole or not at all."""
        write_json(asdict(message), self.folder / f"{message.message_id}.json")

    def wait(self, message_ids: Sequence[str], seconds: float) -> dict[str, Acknowledgement]:
        """Looks for answers until all are there or the time is over."""
        found: dict[str, Acknowledgement] = {}
        end = time.monotonic() + seconds
        while True:
            for key in message_ids:
                place = self.folder / f"{key}.ack.json"
                if key not in found and place.exists() and (answer := _answer(place.read_bytes())) is not None:
                    found[key] = answer
            if len(found) == len(message_ids) or time.monotonic() >= end:
                return found
            time.sleep(0.05)


# --- MQTT ----------------------------------------------------------------------------------------------------------------


class MqttPublisher:
    """Sends messages over MQTT 5 at QoS 1, never retained, expiring at the broker with the time limit."""

    acknowledges = True

    def __init__(self, broker: Broker, client_id: str = "npq-set-points") -> None:
        self._broker = broker
        self._client_id = client_id
        self._answers: dict[str, Acknowledgement] = {}
        self._retained: set[str] = set()
        self._arrived = threading.Condition()
        self._ready = threading.Event()
        self._refused = ""
        self._client: Any = None

    def __enter__(self) -> MqttPublisher:
        import paho.mqtt.client as paho
        from paho.mqtt.subscribeoptions import SubscribeOptions

        topic = self._broker.topic
        client = new_client(self._broker, self._client_id, persistent=False, version5=True)

        def connected(client: Any, _: object, __: object, reason: Any, ___: object) -> None:
            if reason.is_failure:
                self._refused = str(reason)
                self._ready.set()
                return
            # The broker sends what it retains on the set topics first: a value that somebody wanted at some time.
            retained = SubscribeOptions(qos=1, noLocal=True, retainHandling=SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE)
            client.subscribe([(f"{topic}/+/ack/+", SubscribeOptions(qos=1)), (f"{topic}/+/set/+", retained)])

        client.on_connect = connected
        client.on_subscribe = lambda *_: self._ready.set()
        client.on_message = self._heard
        self._ready.clear()
        try:
            client.connect(self._broker.host, self._broker.port, clean_start=paho.MQTT_CLEAN_START_FIRST_ONLY)
        except (OSError, ValueError) as error:
            raise RunError(f"{self._broker} cannot be reached ({error}); no set-point was sent") from error
        client.loop_start()
        self._client = client
        if not self._ready.wait(CONNECT_SECONDS) or self._refused:
            self.__exit__()
            raise RunError(f"{self._broker} does not let us in ({self._refused or 'no answer'}); no set-point was sent")
        time.sleep(0.05)  # retained messages follow the acknowledgement of the subscription
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def _heard(self, _: object, __: object, message: Any) -> None:
        machine, kind, setting = message.topic.removeprefix(f"{self._broker.topic}/").split("/")
        with self._arrived:
            if kind == "set":
                if message.retain and message.payload:
                    self._retained.add(f"{machine}/{setting}")
            elif not message.retain and (answer := _answer(message.payload)) is not None:
                # A retained acknowledgement is an old one, and says nothing of now.
                self._answers[answer.message_id] = answer
            self._arrived.notify_all()

    def blocked(self, machine_id: str, setting: str) -> str:
        """A retained message on the topic would set the machine to an old value whenever it reconnects."""
        with self._arrived:
            if f"{machine_id}/{setting}" not in self._retained:
                return ""
        topic = f"{self._broker.topic}/{machine_id}/set/{setting}"
        return f"a retained message lies on {topic} and would be replayed to the machine; clear it there first"

    def send(self, message: Message, seconds: float) -> None:
        """Sends one message and waits until the broker has it.

        Raises:
            RunError: The broker does not take it in time.
        """
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.PUBLISH)
        properties.MessageExpiryInterval = max(1, math.ceil(seconds))
        topic = f"{self._broker.topic}/{message.machine_id}/set/{message.setting}"
        payload = json.dumps(asdict(message), sort_keys=True)
        handed = self._client.publish(topic, payload, qos=1, retain=False, properties=properties)
        try:
            handed.wait_for_publish(CONNECT_SECONDS)
        except (RuntimeError, ValueError) as error:
            raise RunError(
                f"{self._broker} is gone ({error}); {message.machine_id} {message.setting} was not sent"
            ) from error
        if not handed.is_published():
            raise RunError(
                f"{self._broker} does not answer; it is not known whether {message.machine_id} {message.setting} was sent"
            )

    def wait(self, message_ids: Sequence[str], seconds: float) -> dict[str, Acknowledgement]:
        """Waits until all are acknowledged or the time is over."""
        with self._arrived:
            self._arrived.wait_for(lambda: all(key in self._answers for key in message_ids), seconds)
            return {key: self._answers[key] for key in message_ids if key in self._answers}


def _answer(payload: bytes) -> Acknowledgement | None:
    """An acknowledgement as a machine writes it; None for anything else."""
    try:
        content = json.loads(payload)
        value = content.get("value")
        number = None if value is None or isinstance(value, bool) else float(value)
        return Acknowledgement(
            str(content["message_id"]), str(content["status"]), number, str(content.get("reason") or "")
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
