"""How npq reaches an MQTT broker: one description of it, one way to connect, one line when it is gone.

What is heard or sent does not belong here (see `ingestion.listening` and `equipment.setpoints`).
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npq_assets.errors import NpqError
from npq_assets.settings import Settings

PASSWORD = "NPQ_MQTT_PASSWORD"
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Broker:
    """A broker and how to log in.

    Attributes:
        host: Its name.
        port: Its port.
        topic: First part of all of npq's topics.
        user: Name to log in with; empty for none.
        password: Its password; never written anywhere.
        tls: Whether the connection is encrypted.
        ca: File of the certificate authority; empty for those that the system knows.
    """

    host: str
    port: int
    topic: str = "npq"
    user: str = ""
    password: str = ""
    tls: bool = False
    ca: str = ""

    def __str__(self) -> str:
        return f"broker {self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Broker({self.host}:{self.port})"


def broker_of(settings: Settings, **options: Any) -> Broker:
    """The broker that `npq.toml` names, options (`mqtt`, `topic`, `user`, `tls`, `ca`) before it.

    Raises:
        NpqError: None is named, its name is no `host:port`, or the certificate file is not there.
    """
    given = {name: value for name, value in options.items() if value is not None}
    address = str(given.get("mqtt", settings.mqtt))
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise NpqError(
            f'no broker: write mqtt = "host:port" into npq.toml, or give --broker host:port (is {address!r})'
        )
    ca = str(given.get("ca", settings.mqtt_ca))
    if ca and not Path(ca).is_file():
        raise NpqError(f"mqtt_ca = {ca!r}: no such file; name the certificate authority's PEM file")
    return Broker(
        host,
        int(port),
        str(given.get("topic", settings.mqtt_topic)),
        str(given.get("user", settings.mqtt_user)),
        os.environ.get(PASSWORD, ""),
        bool(given.get("tls", settings.mqtt_tls)) or bool(ca),
        ca,
    )


def new_client(broker: Broker, client_id: str, *, persistent: bool, version5: bool = False) -> Any:
    """A paho client for the broker, not connected yet.

    Args:
        broker: The broker.
        client_id: Under which the broker keeps a persistent session; one at a time may use it.
        persistent: Whether the broker keeps what arrives for us while we are away (MQTT 3.1.1 `clean_session` false). The
            client then acknowledges by hand.
        version5: MQTT 5, whose messages expire.
    """
    import paho.mqtt.client as paho

    kind: dict[str, Any] = {"protocol": paho.MQTTv5} if version5 else {"clean_session": not persistent}
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, manual_ack=persistent, **kind)
    client.connect_timeout = CONNECT_SECONDS
    if broker.user:
        client.username_pw_set(broker.user, broker.password or None)
    if broker.tls:
        context = ssl.create_default_context(cafile=broker.ca or None)
        client.tls_set_context(context)
    return client
