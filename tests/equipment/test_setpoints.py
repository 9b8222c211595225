"""Set-points over a real broker: machines that take them, refuse, lie, stay silent or come back too late."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npq_assets.equipment.setpoints import Delivery, FilePublisher, MqttPublisher, SetPoint, publish, refusal, roll_back
from npq_assets.errors import NpqError, RunError
from npq_assets.mqtt import new_client
from tests.brokers import Machine, Mosquitto, connected, mosquitto, needs_mosquitto, until

SPEED = SetPoint("M1", "speed", 110.0, 100.0, 80.0, 120.0, "d1")
HEAT = SetPoint("M1", "heat", 190.0, 200.0, 150.0, 250.0, "d1")
OTHER = SetPoint("M2", "speed", 90.0, 100.0, 80.0, 120.0, "d1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path_factory.mktemp("broker")) as running:
        yield running


def outcome(deliveries: list[Delivery]) -> list[str]:
    return [d.status for d in deliveries]


def test_a_dry_run_is_the_default_and_sends_nothing(tmp_path: Path) -> None:
    out = FilePublisher(tmp_path / "out")
    [done] = publish([SPEED], out, tmp_path / "journal")
    assert (done.status, done.detail) == ("dry_run", "would be set from 100 to 110")
    assert not (tmp_path / "out").exists() and not (tmp_path / "journal").exists()


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(allow_nan=True, allow_infinity=True))
def test_nothing_outside_the_limits_passes_the_last_door(value: float, low: float) -> None:
    point = replace(SPEED, value=value, low=low)
    # The value in force must be allowed, too: to it the machine is set back.
    allowed = all(map(math.isfinite, (value, low))) and low <= value <= 120 and low <= SPEED.previous
    assert (refusal(point) == "") == allowed
    assert refusal(point, {SPEED.key: (100.0, 105.0)}) == "" if allowed and 100 <= value <= 105 else True
    if not 100 <= value <= 105:
        assert refusal(point, {SPEED.key: (100.0, 105.0)})


def test_limits_are_looked_at_again_and_settings_of_a_machine_go_together(tmp_path: Path) -> None:
    out = FilePublisher(tmp_path / "out")
    limits = {SPEED.key: (80.0, 105.0), HEAT.key: (150.0, 250.0), OTHER.key: (80.0, 120.0)}
    done = publish([SPEED, HEAT, OTHER], out, tmp_path / "journal", dry_run=False, limits=limits)
    assert outcome(done) == ["refused", "refused", "sent"]
    assert "110 lies outside the limits of the master data, 80 to 105" in done[0].detail
    assert [p.name for p in (tmp_path / "out").iterdir()] == [f"{OTHER.message_id}.json"]
    assert outcome(publish([SPEED], out, tmp_path / "journal", dry_run=False, limits={})) == ["refused"]


def test_a_set_point_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NpqError, match="M1 speed is there twice"):
        publish([SPEED, replace(SPEED, value=111.0)], FilePublisher(tmp_path), tmp_path / "journal")


def test_a_system_that_answers_with_files(tmp_path: Path) -> None:
    out = FilePublisher(tmp_path, acknowledges=True)
    answer = {"message_id": SPEED.message_id, "status": "applied", "value": 110}
    (tmp_path / f"{SPEED.message_id}.ack.json").write_text(json.dumps(answer))
    assert outcome(publish([SPEED], out, tmp_path / "journal", dry_run=False, seconds=0.2)) == ["acknowledged"]
    assert outcome(publish([HEAT], out, tmp_path / "journal", dry_run=False, seconds=0.05)) == ["unknown"]


@needs_mosquitto
def test_a_machine_takes_a_set_point_once(server: Mosquitto, tmp_path: Path) -> None:
    machine = Machine(server.broker, "M1", {"speed": 100.0, "heat": 200.0})
    with machine.running():
        done = publish([SPEED, HEAT], MqttPublisher(server.broker), tmp_path, dry_run=False)
        assert outcome(done) == ["acknowledged", "acknowledged"] and not done[0].repeated
        assert machine.settings == {"speed": 110.0, "heat": 190.0}
        again = publish([SPEED, HEAT], MqttPublisher(server.broker), tmp_path, dry_run=False)
        assert outcome(again) == ["acknowledged", "acknowledged"] and again[0].repeated
        assert len(machine.heard) == 2
        back = roll_back([SPEED], MqttPublisher(server.broker), tmp_path, dry_run=False)
        assert outcome(back) == ["rolled_back"] and machine.settings["speed"] == 100.0
        # What was withdrawn stays withdrawn.
        assert outcome(publish([SPEED], MqttPublisher(server.broker), tmp_path, dry_run=False)) == ["rolled_back"]
        assert len(machine.heard) == 3


@needs_mosquitto
@pytest.mark.parametrize("mood", ["refuses", "lies", "silent"])
def test_a_machine_that_does_not_take_one_setting_gets_all_back(server: Mosquitto, tmp_path: Path, mood: str) -> None:
    machine = Machine(server.broker, "M1", {"speed": 100.0, "heat": 200.0})
    machine.mood = {"heat": mood}
    other = Machine(server.broker, "M2", {"speed": 100.0})
    with machine.running(), other.running():
        done = publish([SPEED, HEAT, OTHER], MqttPublisher(server.broker), tmp_path, dry_run=False, seconds=0.5)
    by = {d.set_point.key: d for d in done}
    assert by[OTHER.key].in_force and other.settings == {"speed": 90.0}
    assert by[HEAT.key].status == by[SPEED.key].status == "rolled_back"
    assert machine.settings == {"speed": 100.0, "heat": 200.0}
    assert "taken, but heat was" in by[SPEED.key].detail


@needs_mosquitto
def test_a_machine_that_is_off_is_reported_and_not_set_when_it_comes_back(server: Mosquitto, tmp_path: Path) -> None:
    machine = Machine(server.broker, "M9", {"speed": 100.0})
    topic = f"{server.broker.topic}/M9/set/+"

    def session() -> Any:
        client = new_client(server.broker, "machine-9", persistent=True)
        client.manual_ack_set(False)
        client.on_message = machine
        client.connect(server.broker.host, server.broker.port)
        client.subscribe(topic, qos=1)
        client.loop_start()
        until(client.is_connected)
        return client

    client = session()
    time.sleep(0.2)
    client.disconnect()
    client.loop_stop()
    off = replace(SPEED, machine_id="M9")
    [done] = publish([off], MqttPublisher(server.broker), tmp_path, dry_run=False, seconds=0.5)
    assert done.status == "unknown" and "look at the machine" in done.detail
    time.sleep(2.2)  # the broker forgets what is no longer valid
    client = session()
    time.sleep(0.3)
    client.disconnect()
    client.loop_stop()
    assert machine.heard == [] and machine.settings == {"speed": 100.0}


@needs_mosquitto
def test_retained_messages_neither_count_nor_are_left(server: Mosquitto, tmp_path: Path) -> None:
    speed = replace(SPEED, machine_id="M7")
    ack = f"{server.broker.topic}/M7/ack/speed"
    old = json.dumps({"message_id": speed.message_id, "status": "applied", "value": 110})
    with connected(server.broker, "somebody") as client:
        client.publish(ack, old, qos=1, retain=True).wait_for_publish(5)
        [done] = publish([speed], MqttPublisher(server.broker), tmp_path, dry_run=False, seconds=0.3)
        assert done.status == "unknown", "an old acknowledgement is none"
        client.publish(ack, b"", qos=1, retain=True).wait_for_publish(5)
        late: list[bytes] = []
        topic = f"{server.broker.topic}/M7/set/speed"
        with connected(server.broker, "late", topic, on_message=lambda *a: late.append(a[2].payload)):
            time.sleep(0.2)
        assert late == [], "nothing of ours is retained"
        client.publish(topic, json.dumps({"value": 999}), qos=1, retain=True).wait_for_publish(5)
        [done] = publish([speed], MqttPublisher(server.broker), tmp_path, dry_run=False, seconds=0.3)
        assert done.status == "refused" and "retained message lies on npq/M7/set/speed" in done.detail
        client.publish(topic, b"", qos=1, retain=True).wait_for_publish(5)


def test_no_broker_is_one_line_and_leaves_nothing_sent(tmp_path: Path) -> None:
    gone = Mosquitto(tmp_path / "never started").broker
    with pytest.raises(RunError, match=r"^broker 127.0.0.1:\d+ cannot be reached .*; no set-point was sent$"):
        publish([SPEED], MqttPublisher(gone), tmp_path / "journal", dry_run=False)
    assert not (tmp_path / "journal").exists()
