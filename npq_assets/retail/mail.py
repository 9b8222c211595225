"""How messages leave: as files, by SMTP, or not at all (a dry run, which is the default); each once.

Consent is looked at again in the landed rows at the moment of sending; addresses are read then and kept nowhere.
"""

from __future__ import annotations

import smtplib
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Protocol

import polars as pl

from npq_assets.errors import RunError
from npq_assets.retail.customer_inputs import STOPPED
from npq_assets.settings import Home
from npq_assets.storage import replacing, write_parquet


class Carrier(Protocol):
    """Takes one message at a time."""

    def deliver(self, message: EmailMessage) -> None:
        """Hands the message on; raises RunError if that fails."""
        ...


@dataclass(frozen=True)
class FileCarrier:
    """Writes messages as `<message id>.eml` that a mail system picks up.

    Attributes:
        folder: Where they go.
    """

    folder: Path

    def deliver(self, message: EmailMessage) -> None:
        """Writes the message whole or not at all."""
        with replacing(self.folder / f"{_id_of(message)}.eml") as temporary:
            temporary.write_bytes(message.as_bytes())


@dataclass(frozen=True)
class SmtpCarrier:
    """Sends messages to a mail server.

    Attributes:
        host: Its name.
        port: Its port.
        seconds: Time limit of a connection.
    """

    host: str
    port: int
    seconds: float = 20.0

    def deliver(self, message: EmailMessage) -> None:
        """Sends one message.

        Raises:
            RunError: The server cannot be reached or refuses.
        """
        try:
            with smtplib.SMTP(self.host, self.port, timeout=self.seconds) as server:
                server.send_message(message)
        except (OSError, smtplib.SMTPException) as error:
            raise RunError(
                f"mail server {self.host}:{self.port}: {type(error).__name__}; messages left stay in the outbox and leave "
                "with the next run"
            ) from error


def send(home: Home, messages: pl.DataFrame, carrier: Carrier, people: pl.DataFrame) -> list[str]:
    """Hands on the messages that were not handed on before; returns their ids.

    An id is noted right after its message left: if the process dies between the two, that one message leaves again, under
    the same Message-ID, by which mail systems drop doubles.

    Args:
        home: The home whose outbox remembers what left.
        messages: The columns of the decision table.
        carrier: How they leave.
        people: customer_id, email, marketing_consent as landed now; others get nothing.
    """
    memory = home.root / "outbox" / "retail" / "messages" / "sent.parquet"
    left = set(pl.read_parquet(memory)["message_id"].to_list()) if memory.exists() else set()
    allowed = people.filter(pl.col("marketing_consent").fill_null(False) & pl.col("email").is_not_null())
    rows = messages.join(allowed.select("customer_id", "email"), on="customer_id", how="inner").sort("message_id")
    sent: list[str] = []
    try:
        for row in rows.iter_rows(named=True):
            if row["message_id"] in left:
                continue
            carrier.deliver(_email(row, home.settings.sender))
            left.add(row["message_id"])
            sent.append(row["message_id"])
    finally:
        if sent:
            write_parquet(pl.DataFrame({"message_id": sorted(left)}), memory)
    return sent


def carrier_of(home: Home) -> Carrier | None:
    """The carrier that the settings name; None for a dry run."""
    if not home.settings.publish:
        return None
    if home.settings.smtp:
        host, _, port = home.settings.smtp.rpartition(":")
        return SmtpCarrier(host, int(port))
    return FileCarrier(home.root / "outbox" / "retail" / "messages")


def addressees(home: Home) -> pl.DataFrame:
    """customer_id, email, marketing_consent as landed; no consent is left to who unsubscribed or could not be reached."""
    place = home.raw_table("retail", "customers")
    wanted = {"customer_id": pl.String, "email": pl.String, "marketing_consent": pl.Boolean}
    if not place.exists():
        return pl.DataFrame(schema=wanted)
    frame = pl.read_parquet(place)
    people = frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None).alias(name)).cast(kind)
        for name, kind in wanted.items()
    )
    replies = home.raw_table("retail", "message_replies")
    if not replies.exists():
        return people
    gone = pl.read_parquet(replies).filter(pl.col("kind").is_in(STOPPED))["customer_id"].unique().to_list()
    return people.with_columns(pl.col("marketing_consent") & ~pl.col("customer_id").is_in(gone))


def _email(row: dict[str, object], sender: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = sender
    message["To"] = str(row["email"])
    # A line break in a subject would start a header of its own.
    message["Subject"] = " ".join(str(row["subject"]).split())
    message["Message-ID"] = f"<{row['message_id']}@npq>"
    message["Date"] = format_datetime(row["due_at"])  # type: ignore[arg-type]
    message.set_content(f"{row['body']}\n")
    return message


def _id_of(message: EmailMessage) -> str:
    return str(message["Message-ID"]).strip("<>").partition("@")[0]
