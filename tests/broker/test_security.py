"""TLS and SASL to a broker that insists on them: all our clients speak it, and what is wrong is said in words."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.broker.kafka import Broker, BrokerUnavailableError
from tests.broker.workers import (
    Site,
    Worker,
    arrivals,
    crew,
    exactly_once,
    model_of,
    modelled,
    produce,
    purchases,
    remembered,
    settled,
)

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

USER, PASSWORD = "headrace", "a secret, with ' signs"
LISTENERS = ("SSL", "SASL_SSL", "SASL_PLAINTEXT")
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"


def make_certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate for loopback in `name.crt`, with its key in `name.key` and both in `name.pem`."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *files], check=True, capture_output=True)
    (folder / f"{name}.pem").write_text(key.read_text() + certificate.read_text())
    return certificate


def properties(folder: Path) -> dict[str, str]:
    """A broker that asks for a client's certificate on SSL, and for a user on the other two."""
    found = {
        "broker.session.timeout.ms": "18000",  # nobody kills this one, and a busy machine may starve it
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "client.crt"),
        "listener.name.ssl.ssl.client.auth": "required",
    }
    for listener in ("sasl_ssl", "sasl_plaintext"):
        start = f"listener.name.{listener}"
        found |= {
            f"{start}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            f"{start}.plain.sasl.jaas.config": f'{PLAIN} required user_{USER}="{PASSWORD}";',
            f"{start}.scram-sha-256.sasl.jaas.config": f"{SCRAM} required;",
            f"{start}.scram-sha-512.sasl.jaas.config": f"{SCRAM} required;",
        }
    return found


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates of a broker, a client, and a stranger."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, so there are no certificates")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("broker", "client", "stranger"):
        make_certificate(folder, name)
    (folder / "password").write_text(PASSWORD + "\n")
    return folder


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Broker]:
    """A broker of our own with all listeners, who knows one user."""
    broker = Broker(tmp_path_factory.mktemp("guarded"), properties(certificates), LISTENERS)
    try:
        broker.start()
    except BrokerUnavailableError as missing:
        pytest.skip(f"no Kafka here: {missing}")
    with broker:
        admin = AdminClient({"bootstrap.servers": broker.address})
        for kind in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            user = UserScramCredentialUpsertion(USER, ScramCredentialInfo(kind, 4096), PASSWORD.encode())
            for done in admin.alter_user_scram_credentials([user]).values():
                done.result(timeout=20)
        yield broker


def site_of(broker: Broker, folder: Path, certificates: Path, listener: str, **own: str) -> Site:
    """An app whose workers may speak to the broker by that listener alone."""
    more = {"BROKER": f"kafka://{broker.address_of(listener)}", "KAFKA_SECURITY": listener.lower()}
    if listener.endswith("SSL"):
        more["KAFKA_CA"] = str(certificates / "broker.crt")
    if listener == "SSL":
        more |= {"KAFKA_CERT": str(certificates / "client.crt"), "KAFKA_KEY": str(certificates / "client.key")}
    else:
        more |= {"KAFKA_USER": USER, "KAFKA_PASSWORD_FILE": str(certificates / "password")}
    return Site(broker, folder, more=tuple((more | own).items()))


@pytest.mark.parametrize(
    ("listener", "own"),
    [
        ("SSL", {}),
        ("SASL_SSL", {}),
        ("SASL_SSL", {"KAFKA_MECHANISM": "PLAIN"}),
        ("SASL_PLAINTEXT", {"KAFKA_MECHANISM": "SCRAM-SHA-256"}),
    ],
    ids=["certificates", "scram-512", "plain", "scram-256-without-tls"],
)
async def test_a_worker_works_through_each_guard(
    guarded: Broker, certificates: Path, tmp_path: Path, listener: str, own: dict[str, str]
) -> None:
    """Topics, membership, transactions, reading and a restore pass every kind of listener, and nothing is amiss."""
    site, events = site_of(guarded, tmp_path, certificates, listener, **own), arrivals(40) + purchases(200, 40, seed=7)
    async with crew() as workers:
        workers.append(Worker(site, "data"))
        await settled(*workers)
        produce(site, events)
        await settled(*workers)
        await workers[0].stop()

    model = model_of(events)
    assert await remembered(site) == modelled(model)
    exactly_once(site, model)


@pytest.mark.parametrize(
    ("listener", "own", "says"),
    [
        ("SASL_SSL", {"KAFKA_PASSWORD_FILE": "", "KAFKA_PASSWORD": "guessed"}, "SaslAuthenticationFailed"),
        ("SASL_SSL", {"KAFKA_CA": "stranger.crt"}, "certificate verify failed"),
        ("SSL", {"KAFKA_CERT": "stranger.crt", "KAFKA_KEY": "stranger.key"}, "HEADRACE_BROKER"),
        ("SSL", {"KAFKA_CA": "password"}, "HEADRACE_KAFKA_CA"),
    ],
    ids=["wrong-password", "unknown-broker", "unknown-client", "no-certificates"],
)
async def test_what_the_guard_refuses_ends_the_worker_in_words(
    guarded: Broker, certificates: Path, tmp_path: Path, listener: str, own: dict[str, str], says: str
) -> None:
    """A wrong password, a broker nobody vouches for, a stranger's certificate: the worker ends, and says which."""
    files = {
        name: str(certificates / value) if value.endswith((".crt", ".key")) else value for name, value in own.items()
    }
    if own.get("KAFKA_CA") == "password":
        files["KAFKA_CA"] = str(certificates / "password")
    site = site_of(guarded, tmp_path, certificates, listener, **files)
    async with crew() as workers:
        workers.append(Worker(site, "data"))
        assert await workers[0].ended() != 0
        said = workers[0].errors()
        assert says in said
        assert PASSWORD not in said
        assert "guessed" not in said
