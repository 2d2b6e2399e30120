"""Webhooks as receivers get them: verified by the library of the Standard Webhooks specification, read by that of CloudEvents,
over TLS with an authority of one's own."""

import base64
import os
import ssl
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import trustme
from cloudevents.http import from_http
from standardwebhooks import Webhook, WebhookVerificationError

from gateway import ROOT, missing
from receiver import receiver

EMIT = ROOT / "target/debug/examples/emit"
SECRET = "whsec_" + base64.b64encode(os.urandom(32)).decode()
KINDS = ["started", "step", "paused", "resumed", "promoted", "rolled_back"]
TYPES = [f"io.sluicegate.rollout.{kind}" for kind in KINDS] + ["io.sluicegate.model.failed"]


def emit(url: str, secret: str = SECRET, **environment: str) -> str:
    """What it logs."""
    if not EMIT.is_file():
        missing("run `cargo build -p sluicegate-outbound --example emit`")
    done = subprocess.run([EMIT, url, secret], check=True, timeout=120, env=os.environ | environment, capture_output=True, text=True)
    assert secret.startswith("file:") or secret not in done.stderr
    return done.stderr


def test_the_libraries_of_receivers_verify_and_read_events(tmp_path: Path):
    (tmp_path / "secret").write_text(SECRET + "\n")
    with receiver() as (url, got):
        emit(url, f"file:{tmp_path / 'secret'}")
    assert len(got) == len(TYPES)
    for number, (headers, body) in enumerate(got):
        Webhook(SECRET).verify(body, headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(body.replace(b"40000", b"4000000"), headers)
        event = from_http(headers, body)
        assert event["specversion"] == "1.0"
        assert event["id"] == headers["webhook-id"] == f"fraud-1-{number}"
        assert (event["source"], event["type"], event["subject"]) == ("/sluicegate", TYPES[number], "fraud")
        assert event["datacontenttype"] == "application/json"
        assert abs(datetime.fromisoformat(event["time"]) - datetime.now(timezone.utc)) < timedelta(hours=1)
        assert event.data == {"candidate": 3, "why": "größer als 0,1 %", "evidence": {"errors": 12, "requests": 40_000}}


def test_a_receiver_that_knows_either_key_verifies_while_keys_change(tmp_path: Path):
    new = "whsec_" + base64.b64encode(os.urandom(24)).decode()
    (tmp_path / "secret").write_text(f"{new}\n{SECRET}\n")
    with receiver() as (url, got):
        emit(url, f"file:{tmp_path / 'secret'}")
    for headers, body in got:
        Webhook(SECRET).verify(body, headers)
        Webhook(new).verify(body, headers)


def test_an_authority_of_ones_own_is_trusted_where_the_machine_trusts_it(tmp_path: Path):
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    with receiver(context) as (url, got):
        trustme.CA().cert_pem.write_to_path(tmp_path / "stranger.pem")
        log = emit(url, SSL_CERT_FILE=str(tmp_path / "stranger.pem"))
        assert not got, "an authority that is not trusted gets nothing"
        assert "shows a certificate that is not trusted" in log
        emit(url, SSL_CERT_FILE=str(tmp_path / "authority.pem"))
    assert len(got) == len(TYPES)
    Webhook(SECRET).verify(got[0][1], got[0][0])
