"""The live stream over a real broker: what was sent is what landed, whatever goes down in between."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npq_assets.contracts import LANDING
from npq_assets.errors import NpqError, RunError
from npq_assets.ingestion import ingest
from npq_assets.ingestion.listening import Heard, Listener, rows_of
from npq_assets.mqtt import Broker, broker_of
from npq_assets.settings import Home, Settings, read_settings
from tests.brokers import Mosquitto, connected, mosquitto, needs_mosquitto, until
from tests.ingestion.test_rules import quarantine

NOW = datetime(2026, 4, 1, 6, tzinfo=UTC)
AT = "2026-04-01T06:00:00.000000Z"
ONE, TWO = (AT, "m", "heat", "1"), (AT, "m", "heat", "2")
NAME = "manufacturing.telemetry"


@pytest.mark.parametrize(
    ("topic", "payload", "rows"),
    [
        ("npq/m/heat", b"71.5", [(AT, "m", "heat", "71.5")]),
        ("npq/m/heat", b" -3e2\n", [(AT, "m", "heat", "-3e2")]),
        ("npq/m/heat", b'{"value": 71.5, "measured_at": "2026-04-01T05:59:00Z"}', [("2026-04-01T05:59:00Z", "m", "heat", "71.5")]),
        ("npq/m/heat", b'{"value": true, "measured_at": 1775023200}', [(AT, "m", "heat", "1")]),
        ("npq/m/heat", b'[{"value": 1, "measured_at": 1775023200000}, {"value": "2"}]', [ONE, TWO]),
        ("npq/m", b'{"measured_at": "x", "values": {"a": 1, "b": 2}}', [("x", "m", "a", "1"), ("x", "m", "b", "2")]),
        ("npq/m/heat", b"hot", None),
        ("npq/m/heat", b"", None),
        ("npq/m/heat", b"NaN", None),
        ("npq/m/heat", b"true", None),
        ("npq/m/heat", b"\xff\xfe", None),
        ("npq/m/heat", b'{"measured_at": 5}', None),
        ("npq/m/heat", b"[]", None),
        ("npq/m/heat", b'[{"value": 1}, 2]', None),
        ("npq/m", b"5", None),
        ("npq/m", b'{"values": {}}', None),
        ("npq/m/heat", b'{"value": 1, "measured_at": 1e40}', None),
    ],
)  # fmt: skip
def test_what_a_message_says(topic: str, payload: bytes, rows: list[tuple[str, ...]] | None) -> None:
    found = rows_of(topic, payload, "npq", NOW)
    assert (None if found is None else [row[:4] for row in found]) == rows
    assert all(row[4] == AT for row in found or [])


@given(st.binary(max_size=40), st.sampled_from(["npq/m", "npq/m/s", "npq//s", "npq/a/b/c"]))
def test_no_payload_breaks_it(payload: bytes, topic: str) -> None:
    rows_of(topic, payload, "npq", NOW)


def test_which_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "npq.toml").write_text('mqtt = "b:1883"\nmqtt_topic = "plant/1"\nmqtt_user = "u"\nbatch_seconds = 5\n')
    monkeypatch.setenv("NPQ_MQTT_PASSWORD", "secret")
    settings = read_settings(tmp_path / "npq.toml")
    broker = broker_of(settings, mqtt=None, topic=None)
    assert broker == Broker("b", 1883, "plant/1", "u", "secret")
    assert "secret" not in f"{broker} {broker!r}"
    assert broker_of(settings, mqtt="c:1").host == "c"
    with pytest.raises(NpqError, match="no broker: write mqtt"):
        broker_of(Settings())
    with pytest.raises(NpqError, match="no such file"):
        broker_of(settings, ca=str(tmp_path / "none.pem"))
    for line in ('mqtt = "b"', 'mqtt_topic = "a/#"', "batch_seconds = 0", "shift_hours = [6, 30]", "mqtt_tls = 1"):
        (tmp_path / "npq.toml").write_text(line + "\n")
        with pytest.raises(NpqError, match=r"npq\.toml: "):
            read_settings(tmp_path / "npq.toml")


# --- over a real broker ----------------------------------------------------------------------------------------------------


class Ear:
    """A listener in a thread, and what it said."""

    def __init__(self, home: Home, broker: Broker, **options: Any) -> None:
        self.said: list[str] = []
        options = {"rows": 40, "seconds": 0.3, "client_id": "ear", "backoff": (0.05, 0.2), **options}
        self.listener = Listener(home, broker, say=self.said.append, **options)
        self.stop = threading.Event()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        try:
            self.listener.run(self.stop)
        except Exception as error:
            self.error = error

    @property
    def heard(self) -> Heard:
        return self.listener.heard

    def begin(self) -> None:
        self._thread.start()

    @contextmanager
    def open(self) -> Iterator["Ear"]:
        self.begin()
        try:
            assert self.listener.wait_connected(10), self.said
            yield self
        finally:
            self.end()

    def end(self) -> None:
        self.stop.set()
        self._thread.join(15)
        assert not self._thread.is_alive()

    def alarms(self) -> list[str]:
        return [line for line in self.said if line.startswith("ALARM")]


def reading(k: int, value: float | None = None) -> tuple[str, bytes]:
    at = (datetime(2026, 4, 1, tzinfo=UTC) + timedelta(seconds=k)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"npq/M{k % 3}/heat", json.dumps({"value": k if value is None else value, "measured_at": at}).encode()


def send(client: Any, messages: list[tuple[str, bytes]]) -> None:
    for topic, payload in messages:
        client.publish(topic, payload, qos=1).wait_for_publish(10)


def landed(home: Home) -> tuple[list[float], Any]:
    balance = ingest(home, [LANDING[NAME]])[NAME]
    assert balance.holds
    values = pl.read_parquet(home.raw_table("manufacturing", "telemetry"))["value"].sort().to_list()
    return values, balance


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "home")


@needs_mosquitto
def test_what_was_sent_is_what_landed(home: Home, tmp_path: Path) -> None:
    with mosquitto(tmp_path / "broker") as server, Ear(home, server.broker).open() as ear:
        with connected(server.broker, "sender") as client:
            send(client, [reading(k) for k in range(100)])
            send(client, [reading(7), reading(8), reading(9, 99.0)])  # twice, twice, and one put right
            send(client, [("npq/M0/heat", b"too hot"), ("npq/M0/heat", b"\xff"), ("npq/M0/", b"5")])
            until(lambda: ear.heard.messages == 106)
        ear.end()
        values, balance = landed(home)
        assert values == sorted([*(float(k) for k in range(100) if k != 9), 99.0])
        assert ear.heard.broken == 3 and ear.alarms() == []
        reasons = quarantine(home, NAME)
        assert {"payload too hot", "payload \\xff", "payload 5"} == {
            row.split(",")[3].strip() for row in reasons["row"]
        }
        assert balance.quarantined == 3 and ear.heard.batches >= 3


@needs_mosquitto
def test_a_plain_number_is_read_when_it_arrives_and_a_retained_one_is_not_invented(home: Home, tmp_path: Path) -> None:
    with mosquitto(tmp_path / "broker") as server, connected(server.broker, "sender") as client:
        client.publish("npq/M1/heat", b"11", qos=1, retain=True).wait_for_publish(5)
        before = datetime.now(UTC)
        with Ear(home, server.broker).open() as ear:
            send(client, [("npq/M1/heat", b"12"), ("npq/M1/heat", b"12")])
            until(lambda: ear.heard.messages == 3)
        values, _ = landed(home)
        assert values == [12.0, 12.0] and ear.heard.stale == 1
        frame = pl.read_parquet(home.raw_table("manufacturing", "telemetry"))
        assert (frame["measured_at"] >= before).all() and frame["received_at"].equals(
            frame["measured_at"].alias("received_at")
        )


@needs_mosquitto
def test_while_we_are_away_the_broker_keeps_messages(home: Home, tmp_path: Path) -> None:
    with mosquitto(tmp_path / "broker") as server, connected(server.broker, "sender") as client:
        with Ear(home, server.broker).open() as ear:
            send(client, [reading(k) for k in range(10)])
            until(lambda: ear.heard.messages == 10)
        send(client, [reading(k) for k in range(10, 60)])
        with Ear(home, server.broker).open() as again:
            send(client, [reading(k) for k in range(60, 70)])
            until(lambda: again.heard.rows >= 60)
        assert landed(home)[0] == [float(k) for k in range(70)]


@needs_mosquitto
def test_a_broker_that_dies_mid_stream_costs_one_alarm_and_no_reading(home: Home, tmp_path: Path) -> None:
    with mosquitto(tmp_path / "broker") as server, Ear(home, server.broker, seconds=30.0, rows=25).open() as ear:
        with connected(server.broker, "sender") as client:
            # 40 are unacknowledged or on disk when the broker goes; plain numbers among them have no key to be told apart by.
            send(client, [reading(k) for k in range(30)] + [("npq/P/wear", b"1000")] * 10)
            until(lambda: ear.heard.messages == 40)
        server.stop()
        until(lambda: ear.alarms())
        time.sleep(0.5)
        assert len(ear.alarms()) == 1 and "is gone" in ear.alarms()[0]
        server.start()
        until(lambda: any("is back after" in line for line in ear.said))
        with connected(server.broker, "sender") as client:
            send(client, [reading(k) for k in range(30, 50)])
            until(lambda: ear.heard.rows >= 60)
        ear.end()
        values, balance = landed(home)
        assert values == [*(float(k) for k in range(50)), *[1000.0] * 10]
        assert balance.quarantined == 0 and len(ear.alarms()) == 1
        assert json.loads((home.root / "listening.json").read_text())["state"] == "stopped"


@needs_mosquitto
def test_a_broker_that_is_down_at_the_start_is_waited_for(home: Home, tmp_path: Path) -> None:
    server = Mosquitto(tmp_path / "broker")
    ear = Ear(home, server.broker)
    ear.begin()
    try:
        until(lambda: ear.alarms())
        time.sleep(0.6)  # several attempts
        assert len(ear.alarms()) == 1 and "cannot be reached" in ear.alarms()[0]
        server.start()
        assert ear.listener.wait_connected(10), ear.said
        with connected(server.broker, "sender") as client:
            send(client, [reading(k) for k in range(5)])
            until(lambda: ear.heard.rows == 5)
    finally:
        ear.end()
        server.stop()
    assert landed(home)[0] == [float(k) for k in range(5)] and len(ear.alarms()) == 1


@needs_mosquitto
def test_everything_at_once_loses_nothing_and_invents_nothing(home: Home, tmp_path: Path) -> None:
    """Messages twice, unknown machines, clocks ahead and at 1970, broken payloads, and a broker that goes and comes back."""
    place = home.landing / "manufacturing" / "machines" / "a.csv"
    place.parent.mkdir(parents=True)
    place.write_text("machine_id,site_id,minutes_per_day\n" + "".join(f"M{k},P,480\n" for k in range(3)))
    good = [reading(k) for k in range(60)]
    stuck = [(topic.replace("heat", "wear"), payload) for topic, payload in (reading(k, 7.0) for k in range(12))]
    unknown = [("npq/X9/heat", reading(k)[1]) for k in range(8)]
    future = (datetime.now(UTC) + timedelta(days=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    clocks = [
        ("npq/M0/heat", json.dumps({"value": 1, "measured_at": at}).encode()) for at in (future, "1970-01-01T00:00:09Z")
    ]
    broken = [("npq/M1/heat", b"hot"), ("npq/M1/heat", b"NaN"), ("npq/M1/heat", b'{"value": 1e999}')]
    stream = [*good, *good[:20], *stuck, *unknown, *unknown[:3], *clocks, *broken]
    rng = random.Random(2)
    rng.shuffle(stream)
    half = len(stream) // 2
    with mosquitto(tmp_path / "broker") as server, Ear(home, server.broker, rows=15).open() as ear:
        with connected(server.broker, "sender") as client:
            send(client, stream[:half])
        server.stop()
        until(lambda: ear.alarms())
        server.start()
        until(lambda: any("is back after" in line for line in ear.said))
        with connected(server.broker, "sender") as client:
            send(client, stream[half:])
            until(lambda: ear.heard.messages >= len(stream))
        ear.end()
        assert len(ear.alarms()) == 1
    tables = [LANDING["manufacturing.machines"], LANDING[NAME]]
    balance = ingest(home, tables)[NAME]
    assert balance.holds
    raw = pl.read_parquet(home.raw_table("manufacturing", "telemetry"))
    assert raw.filter(pl.col("sensor") == "heat")["value"].sort().to_list() == [float(k) for k in range(60)]
    assert raw.filter(pl.col("sensor") == "wear")["value"].to_list() == [7.0] * 12
    assert raw.height == 72
    # What is set aside is all there, each with a reason of its own, and comes back when its machine is made known.
    reasons = balance.reasons
    assert sum(n for words, n in reasons.items() if "not in manufacturing.machines" in words) >= 8
    assert sum(n for words, n in reasons.items() if "set the clock right" in words) == 2
    assert {"payload hot", "payload NaN"} <= {row.split(",")[3].strip() for row in quarantine(home, NAME)["row"]}
    place.with_name("b.csv").write_text("machine_id,site_id,minutes_per_day\nX9,P,480\n")
    assert ingest(home, tables)[NAME].holds
    raw = pl.read_parquet(home.raw_table("manufacturing", "telemetry"))
    assert raw.filter(pl.col("machine_id") == "X9")["value"].sort().to_list() == [float(k) for k in range(8)]


@needs_mosquitto
def test_a_listener_that_is_killed_loses_nothing(home: Home, tmp_path: Path) -> None:
    with mosquitto(tmp_path / "broker") as server, connected(server.broker, "sender") as client:
        words = [
            sys.executable, "-m", "npq_assets.cli", "listen", "--home", str(home.root),
            "--broker", f"127.0.0.1:{server.port}", "--rows", "20",
        ]  # fmt: skip

        def start(seconds: int) -> subprocess.Popen[str]:
            process = subprocess.Popen([*words, "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            # What waited at the broker may land before it confirms what we subscribe to.
            assert any("hearing npq/#" in line for line in process.stdout)
            return process

        process = start(30)
        send(client, [reading(k) for k in range(30)])
        until(lambda: len(list(home.landing.rglob("*.csv"))) == 1)
        process.kill()  # ten messages are unacknowledged, in no file
        process.wait()
        send(client, [reading(k) for k in range(30, 35)])
        process = start(1)
        # Killed between writing and acknowledging, it gets the first twenty again.
        until(
            lambda: (
                len({row.split(",")[0] for f in home.landing.rglob("*.csv") for row in f.read_text().split()[1:]}) == 35
            )
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert landed(home)[0] == [float(k) for k in range(35)]


@needs_mosquitto
def test_a_disk_that_takes_no_file_acknowledges_nothing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, full = os.replace, [True]

    def replacing(source: Any, target: Any) -> None:
        if full[0] and str(target).endswith(".csv"):
            raise OSError(28, "No space left on device")
        real(source, target)

    with mosquitto(tmp_path / "broker") as server, Ear(home, server.broker).open() as ear:
        monkeypatch.setattr(os, "replace", replacing)
        with connected(server.broker, "sender") as client:
            send(client, [reading(k) for k in range(5)])
            until(lambda: ear.alarms())
            assert "No space left on device); nothing is acknowledged" in ear.alarms()[0]
            full[0] = False
            until(lambda: ear.heard.rows == 5)
    assert landed(home)[0] == [0.0, 1.0, 2.0, 3.0, 4.0]


@needs_mosquitto
def test_a_wrong_password_and_a_second_listener_are_refused(home: Home, tmp_path: Path) -> None:
    with mosquitto(tmp_path / "closed", password=("npq", "right")) as server:
        good = replace(server.broker, user="npq", password="right")
        with Ear(home, good).open():
            second = Listener(home, good, say=lambda _: None)
            with pytest.raises(NpqError, match=r"another npq listen works on .*; stop it first"):
                second.run(threading.Event())
        wrong = Listener(home, replace(good, password="wrong"), say=lambda _: None, backoff=(0.05, 0.2))
        with pytest.raises(RunError, match=r"does not let us in \(Not authorized|Bad user name"):
            wrong.run(threading.Event())
