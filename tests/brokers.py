"""A real mosquitto on a free port, which tests may kill and start again; and a machine that answers set-points."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from npq_assets.mqtt import Broker, new_client

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed (apt-get install mosquitto)")


class Mosquitto:
    """A broker of its own, with its own storage: what it holds for absent subscribers survives a restart."""

    def __init__(self, folder: Path, *, password: tuple[str, str] | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        lines = [
            f"listener {self.port} 127.0.0.1", "persistence true", f"persistence_location {folder}/",
            "autosave_interval 1", "max_queued_messages 0", "log_dest none",
        ]  # fmt: skip
        if password:
            subprocess.run(
                [shutil.which("mosquitto_passwd") or "mosquitto_passwd", "-c", "-b", folder / "users", *password],
                check=True, capture_output=True,
            )  # fmt: skip
            lines += ["allow_anonymous false", f"password_file {folder}/users"]
        else:
            lines.append("allow_anonymous true")
        import getpass

        lines.append(f"user {getpass.getuser()}")
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def broker(self) -> Broker:
        return Broker("127.0.0.1", self.port)

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self.folder / "mosquitto.conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                return
            time.sleep(0.02)
        raise AssertionError("mosquitto did not start")

    def stop(self) -> None:
        """Ends it in order: it writes down what it holds."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


@contextlib.contextmanager
def mosquitto(folder: Path, **options: Any) -> Iterator[Mosquitto]:
    server = Mosquitto(folder, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def connected(broker: Broker, client_id: str, *topics: str, on_message: Any = None, **options: Any) -> Iterator[Any]:
    """A client that is connected and, where topics are named, subscribed."""
    client = new_client(broker, client_id, persistent=False, version5=options.pop("version5", True))
    ready: list[int] = []
    client.on_message = on_message
    client.on_subscribe = lambda *_: ready.append(1)
    client.on_connect = lambda c, *_: [c.subscribe(topic, qos=1) for topic in topics]
    client.connect(broker.host, broker.port)
    client.loop_start()
    try:
        until(lambda: client.is_connected() and len(ready) >= len(topics))
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def until(done: Callable[[], Any], seconds: float = 15.0) -> None:
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class Machine:
    """A simulated machine: applies what it is told, or refuses, lies or stays silent, by setting."""

    def __init__(self, broker: Broker, machine_id: str, settings: dict[str, float]) -> None:
        self.broker = broker
        self.machine_id = machine_id
        self.settings = dict(settings)
        self.mood: dict[str, str] = {}
        self.heard: list[dict[str, Any]] = []
        self._applied: set[str] = set()

    def __call__(self, client: Any, _: object, message: Any) -> None:
        if not message.payload:
            return
        order = json.loads(message.payload)
        self.heard.append(order)
        name, key = order["setting"], order["message_id"]
        mood = self.mood.get(name, "") if order["kind"] == "set" else self.mood.get(f"{name} back", "")
        if mood == "silent":
            return
        answer = {"message_id": key, "status": "applied"}
        if mood == "refuses":
            answer |= {"status": "refused", "reason": "door open"}
        elif key not in self._applied:
            self.settings[name] = order["value"]
            self._applied.add(key)
        answer["value"] = -1.0 if mood == "lies" else self.settings[name]  # type: ignore[assignment]
        client.publish(f"{self.broker.topic}/{self.machine_id}/ack/{name}", json.dumps(answer), qos=1)

    def running(self) -> Any:
        topic = f"{self.broker.topic}/{self.machine_id}/set/+"
        return connected(self.broker, f"machine-{self.machine_id}", topic, on_message=self)
