"""Messages leave once, only to those who agree, as files or through a real local mail server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from npq_assets.errors import RunError
from npq_assets.retail.mail import FileCarrier, SmtpCarrier, addressees, carrier_of, send
from npq_assets.settings import Home, Settings

MESSAGES = pl.DataFrame(
    {
        "message_id": ["m1", "m2", "m3"],
        "customer_id": ["C1", "C2", "C3"],
        "subject": ["Tea\nBcc: all@example.org", "Milk", "茶"],
        "body": ["10 % off", "is back", "在"],
        "due_at": [datetime(2025, 7, 1, 9, tzinfo=UTC)] * 3,
    }
)
PEOPLE = pl.DataFrame(
    {
        "customer_id": ["C1", "C2", "C3"],
        "email": ["c1@example.org", "c2@example.org", "c3@example.org"],
        "marketing_consent": [True, False, True],
    }
)


class Inbox:
    def __init__(self) -> None:
        self.got: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.got.append(envelope)
        return "250 OK"


@pytest.fixture
def server() -> Iterator[tuple[int, Inbox]]:
    controller = pytest.importorskip("aiosmtpd.controller")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inbox = Inbox()
    running = controller.Controller(inbox, hostname="127.0.0.1", port=port)
    running.start()
    yield port, inbox
    running.stop()


def test_a_real_server_gets_each_message_once(tmp_path: Path, server: tuple[int, Inbox]) -> None:
    port, inbox = server
    home, carrier = Home(tmp_path), SmtpCarrier("127.0.0.1", port)
    assert send(home, MESSAGES, carrier, PEOPLE) == ["m1", "m3"]
    assert send(home, MESSAGES, carrier, PEOPLE) == []
    assert [e.rcpt_tos for e in inbox.got] == [["c1@example.org"], ["c3@example.org"]]
    first = inbox.got[0].content.decode()
    assert "Message-ID: <m1@npq>" in first and "10 % off" in first
    assert not any(line.startswith("Bcc") for line in first.splitlines())


def test_files_are_written_once_and_nobody_without_consent_gets_one(tmp_path: Path) -> None:
    home = Home(tmp_path)
    folder = tmp_path / "outbox/retail/messages"
    assert send(home, MESSAGES, FileCarrier(folder), PEOPLE) == ["m1", "m3"]
    assert sorted(p.name for p in folder.glob("*.eml")) == ["m1.eml", "m3.eml"]
    withdrawn = PEOPLE.with_columns(pl.lit(False).alias("marketing_consent"))
    assert send(Home(tmp_path / "other"), MESSAGES, FileCarrier(folder), withdrawn) == []


def test_what_left_before_a_failure_is_remembered(tmp_path: Path) -> None:
    class Fails:
        def __init__(self) -> None:
            self.count = 0

        def deliver(self, message: EmailMessage) -> None:
            self.count += 1
            if self.count == 2:
                raise RunError("mail server: down")

    with pytest.raises(RunError, match="down"):
        send(Home(tmp_path), MESSAGES, Fails(), PEOPLE)
    assert send(Home(tmp_path), MESSAGES, FileCarrier(tmp_path / "out"), PEOPLE) == ["m3"]


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RunError, match=f"mail server 127.0.0.1:{port}"):
        send(Home(tmp_path), MESSAGES, SmtpCarrier("127.0.0.1", port, 2.0), PEOPLE)


def test_the_default_is_a_dry_run(tmp_path: Path) -> None:
    assert carrier_of(Home(tmp_path)) is None
    assert isinstance(carrier_of(Home(tmp_path, Settings(publish=True))), FileCarrier)
    assert carrier_of(Home(tmp_path, Settings(publish=True, smtp="mail:25"))) == SmtpCarrier("mail", 25)


def test_an_unsubscription_counts_at_the_moment_of_sending(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for name, frame in (
        ("customers", PEOPLE),
        ("message_replies", pl.DataFrame({"customer_id": ["C3", "C1"], "kind": ["unsubscribed", "opened"]})),
    ):
        home.raw_table("retail", name).parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(home.raw_table("retail", name))
    assert send(home, MESSAGES, FileCarrier(tmp_path / "out"), addressees(home)) == ["m1"]
