"""Settings from `HEADRACE_*` environment variables; secrets also from files named by `…_FILE`."""

import os
import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from config.smtp_server import read_smtp_server

PREFIX: Final = "HEADRACE_"
SECRETS: Final = ("api_key", "smtp", "kafka_password", "signing_key")
EMBEDDED: Final = "embedded://"
MEMORY_BYTES: Final = 144 * 1024 * 1024
MEMORY_BYTES_MIN: Final = 16 * 1024 * 1024
_APP_ID: Final = re.compile(r"[0-9A-Za-z_-]{8,64}")
_ORIGIN: Final = re.compile(r"https?://[0-9a-z.\[\]:_-]+")
_KAFKA: Final = re.compile(r"kafka://[^\s,/]+:\d+(,[^\s,/]+:\d+)*")
EXPORT_TOPIC: Final = "topic://"
_BOUNCES: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,9}[A-Za-z0-9])?@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_BASE: Final = re.compile(
    r"https?://[A-Za-z0-9.-]+(:\d{1,5})?(/[A-Za-z0-9._~-]+)*/?|https?://\[[0-9A-Fa-f:.]+\](:\d{1,5})?/?"
)
PORT_MAX: Final = 65_535
# Read by the tests' own harness, not by the product.
_TEST_ONLY: Final = ("HEADRACE_TEST_KAFKA",)


class SettingsError(Exception):
    """One or more settings cannot be used; the text names each variable, its value and the fix."""


class Settings(BaseSettings):
    """The settings of one process; every field is the variable `HEADRACE_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    app: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$", description="Prefix of group and topics.")] = (
        "headrace"
    )
    broker: Annotated[str, Field(description="embedded:// (one process) or kafka://host:port,…")] = "embedded://"
    data: Annotated[Path, Field(description="The data folder; locked while a process uses it.")] = Path("data")
    partitions: Annotated[int, Field(ge=1, le=1024, description="Fixed when the data folder is first used.")] = 8
    workspace: Annotated[Path | None, Field(description="Folder of segments and campaigns.")] = None
    http: Annotated[str, Field(description="Where health, metrics and status are served; empty: nowhere.")] = (
        "127.0.0.1:8080"
    )
    api_key: Annotated[str | None, Field(repr=False, description="One full key for the doors.")] = None
    exports: Annotated[
        str | None,
        Field(description="file://folder, topic:// or both; by default file://exports in the data folder."),
    ] = None
    outbox: Annotated[Path | None, Field(description="The demo outbox's folder; by default outbox/ in the data.")] = (
        None
    )
    clock: Annotated[Literal["wall", "stream"], Field(description="stream: event times drive, for replays.")] = "wall"
    smtp: Annotated[
        str | None,
        Field(
            repr=False,
            description="smtp://, smtp+starttls:// or smtps://[user:password@]host:port; unset: the outbox.",
        ),
    ] = None
    signing_key: Annotated[
        str | None,
        Field(
            repr=False,
            description="What links in messages are signed by, 32 characters or more; old keys behind commas. On "
            "Kafka the same for every door and worker; the embedded log makes one.",
        ),
    ] = None
    tracking_url: Annotated[
        str | None,
        Field(description="The door's public address, for links in messages; by default its own, into the outbox."),
    ] = None
    bounce_address: Annotated[
        str | None,
        Field(description="Where mail servers send bounces, as name+token@domain; name has at most 11 characters."),
    ] = None
    webhook_url: Annotated[
        str | None,
        Field(
            description="Where webhooks without a url of their own go, such as the demo's. Webhooks are sent over "
            "HTTP once this or HEADRACE_HTTP_ALLOW is set; until then they go to the outbox."
        ),
    ] = None
    http_allow: Annotated[
        str | None, Field(description="Private networks that webhooks may reach, as CIDRs with commas between.")
    ] = None
    replication: Annotated[int, Field(ge=0, le=32, description="Of new topics on Kafka; 0: three, or all brokers.")] = 0
    min_insync: Annotated[int, Field(ge=0, le=32, description="Of new topics on Kafka; 0: one below replication.")] = 0
    session_s: Annotated[
        float, Field(ge=6, le=300, description="On Kafka: a silent worker is replaced then; brokers refuse below 6.")
    ] = 12
    member: Annotated[str, Field(description="On Kafka: a static member name, for restarts without a rebalance.")] = ""
    standby: Annotated[
        bool, Field(description="On Kafka: keep a copy of the partitions that other workers hold, to take over fast.")
    ] = False
    memory_bytes: Annotated[
        int,
        Field(ge=MEMORY_BYTES_MIN, description="For RocksDB's blocks and write buffers and for rows kept decoded."),
    ] = MEMORY_BYTES
    scan_users_per_s: Annotated[
        int, Field(ge=1, le=1_000_000, description="Rows per second and worker that new definitions are built over.")
    ] = 5_000
    fanout_users_per_s: Annotated[
        int,
        Field(ge=0, le=1_000_000, description="Rows per second and worker that scheduled campaigns go over; 0: any."),
    ] = 5_000
    canary_s: Annotated[
        float, Field(ge=0, le=3_600, description="How often each worker times a canary, event to message; 0: never.")
    ] = 0
    segment_series: Annotated[
        int, Field(ge=0, le=100_000, description="Segments with a metric of their own; the others share one.")
    ] = 500
    workers: Annotated[int, Field(ge=1, le=64, description="Worker processes, on Kafka.")] = 1
    retention: Annotated[
        str, Field(description="What the embedded log keeps of topics, as topic=age/bytes with commas between.")
    ] = ""
    disk_free_bytes_min: Annotated[
        int, Field(ge=0, description="The door takes nothing while a disk has fewer bytes free; 0: whatever is free.")
    ] = 512 * 1024 * 1024
    disk_free_share_min: Annotated[
        float, Field(ge=0, lt=1, description="The same, as a share of the filesystem; 0: whatever is free.")
    ] = 0.01

    app_ids: Annotated[
        str, Field(description="Public ids of the apps whose pages may send through the SDK, with commas between.")
    ] = ""
    cors_origins: Annotated[
        str, Field(description="Origins whose pages may reach the SDK's endpoint besides the door's own, or *.")
    ] = ""
    sdk_protected: Annotated[
        str, Field(description="Attributes that no page may set through the SDK, with commas between.")
    ] = ""
    sdk_requests_per_s: Annotated[
        float, Field(gt=0, le=100_000, description="Requests of each app's SDK that one door takes; more get 429.")
    ] = 500

    kafka_security: Annotated[
        Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"], Field(description="How the brokers are spoken to.")
    ] = "plaintext"
    kafka_ca: Annotated[Path | None, Field(description="PEM file of the brokers' CA; by default the system's.")] = None
    kafka_cert: Annotated[Path | None, Field(description="PEM file of our certificate, where brokers ask for one.")] = (
        None
    )
    kafka_key: Annotated[
        Path | None, Field(description="PEM file of its key, readable by us alone, no passphrase.")
    ] = None
    kafka_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], Field(description="The mechanism of SASL.")
    ] = "SCRAM-SHA-512"
    kafka_user: Annotated[str, Field(description="The user of SASL.")] = ""
    kafka_password: Annotated[str | None, Field(repr=False, description="The password of SASL.")] = None

    @model_validator(mode="after")
    def _security_is_whole(self) -> Self:
        has_sasl, has_tls = self.kafka_security.startswith("sasl"), self.kafka_security.endswith("ssl")
        how = f"HEADRACE_KAFKA_SECURITY={self.kafka_security}"
        if has_sasl and not (self.kafka_user and self.kafka_password):
            raise ValueError(f"{how}: set HEADRACE_KAFKA_USER and HEADRACE_KAFKA_PASSWORD_FILE")
        if not has_sasl and (self.kafka_user or self.kafka_password):
            raise ValueError(f"{how}: HEADRACE_KAFKA_USER and _PASSWORD are for sasl_ssl and sasl_plaintext")
        if not has_tls and (self.kafka_ca or self.kafka_cert or self.kafka_key):
            raise ValueError(f"{how}: HEADRACE_KAFKA_CA, _CERT and _KEY are for ssl and sasl_ssl")
        if bool(self.kafka_cert) != bool(self.kafka_key):
            raise ValueError(f"{how}: set both HEADRACE_KAFKA_CERT and HEADRACE_KAFKA_KEY, or neither")
        return self

    @field_validator("broker")
    @classmethod
    def _known_broker(cls, broker: str) -> str:
        if broker != EMBEDDED and not _KAFKA.fullmatch(broker):
            raise ValueError("write embedded://, or kafka://host:port with more host:port after commas")
        return broker

    @model_validator(mode="after")
    def _workers_need_kafka(self) -> Self:
        if self.workers != 1 and not self.on_kafka:
            raise ValueError(f"HEADRACE_WORKERS={self.workers}: the embedded log has one worker; several need Kafka")
        return self

    @property
    def on_kafka(self) -> bool:
        """Whether the log is Kafka's."""
        return self.broker != EMBEDDED

    @field_validator("exports")
    @classmethod
    def _known_exports(cls, exports: str | None) -> str | None:
        places = exports.split(",") if exports is not None else []
        folders = [place for place in places if place.startswith("file://") and place != "file://"]
        if len(folders) > 1 or any(place not in (*folders, EXPORT_TOPIC) for place in places):
            raise ValueError("write file://folder, or topic:// for the topic alone, or both with a comma between")
        return exports

    @field_validator("smtp")
    @classmethod
    def _mail_server(cls, smtp: str | None) -> str | None:
        if smtp is not None:
            read_smtp_server(smtp)
        return smtp

    @field_validator("tracking_url")
    @classmethod
    def _door_address(cls, url: str | None) -> str | None:
        if url is not None and not _BASE.fullmatch(url):
            raise ValueError("write https:// (or http://), the door's public host, and perhaps a port and a path")
        return url

    @field_validator("bounce_address")
    @classmethod
    def _bounces(cls, address: str | None) -> str | None:
        if address is not None and not _BOUNCES.fullmatch(address):
            raise ValueError("write name@domain; the name has 1 to 11 letters, digits, dots or hyphens")
        return address

    @field_validator("webhook_url")
    @classmethod
    def _web_address(cls, url: str | None) -> str | None:
        if url is not None and not (url.startswith(("http://", "https://")) and urlsplit(url).hostname):
            raise ValueError("write http:// or https://, then a host")
        return url

    @field_validator("http_allow")
    @classmethod
    def _networks(cls, networks: str | None) -> str | None:
        for network in split_list(networks):
            ip_network(network)
        return networks

    @field_validator("app_ids")
    @classmethod
    def _apps(cls, app_ids: str) -> str:
        for app_id in split_list(app_ids):
            if _APP_ID.fullmatch(app_id) is None:
                raise ValueError(f"{app_id[:70]!r}: an app id has 8 to 64 letters, digits, - and _; a UUID is one")
        return app_ids

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: str) -> str:
        for origin in split_list(origins):
            if origin != "*" and _ORIGIN.fullmatch(origin) is None:
                raise ValueError(f"{origin[:70]!r}: write https://host or https://host:port, without a path, or *")
        return origins

    @model_validator(mode="after")
    def _public_is_not_secret(self) -> Self:
        if self.api_key is not None and self.api_key in split_list(self.app_ids):
            raise ValueError("HEADRACE_APP_IDS holds HEADRACE_API_KEY, which no page may know; take another id")
        return self

    @field_validator("http")
    @classmethod
    def _host_and_port(cls, http: str) -> str:
        host, _, port = http.rpartition(":")
        if http and not (host and port.isdigit() and int(port) <= PORT_MAX):
            raise ValueError("write host:port, such as 127.0.0.1:8080, or nothing to serve nowhere")
        return http

    @property
    def sends_webhooks(self) -> bool:
        """Whether webhooks leave over HTTP rather than into the outbox."""
        return bool(self.webhook_url or self.http_allow)

    @property
    def tracking_base(self) -> str:
        """Where links in messages lead, without a slash at the end; empty: nowhere.

        Mails that really leave name no address that only this machine knows, so they need the setting; so does
        Kafka, where the door may be anywhere.
        """
        if self.tracking_url:
            return self.tracking_url.rstrip("/")
        return f"http://{self.http}" if self.http and not (self.smtp or self.on_kafka) else ""

    @property
    def allowed_networks(self) -> list[IPv4Network | IPv6Network]:
        """The private networks that outgoing HTTP may reach."""
        return [ip_network(network) for network in split_list(self.http_allow)]

    @property
    def exports_folder(self) -> Path | None:
        """Where export files go; None when the topic alone is wanted."""
        if not self.exports:
            return self.data / "exports"
        folders = [place for place in self.exports.split(",") if place != EXPORT_TOPIC]
        return Path(folders[0].removeprefix("file://")) if folders else None

    @property
    def outbox_folder(self) -> Path:
        """Where messages go that have no provider."""
        return self.outbox or self.data / "outbox"


def split_list(text: str | None) -> list[str]:
    """The parts of a list with commas between."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: a variable is unknown, unreadable, or its value cannot be used.
    """
    env = dict(os.environ if environment is None else environment)
    ours = {name: value for name, value in env.items() if name.startswith(PREFIX) and name not in _TEST_ONLY}
    values = _with_secret_files({name.removeprefix(PREFIX).lower(): value for name, value in ours.items()})
    unknown = sorted(set(values) - set(Settings.model_fields))
    if unknown:
        names = ", ".join(PREFIX + name.upper() for name in unknown)
        known = ", ".join(PREFIX + name.upper() for name in Settings.model_fields)
        raise SettingsError(f"unknown {names}; known are {known}")
    try:
        # An empty variable means its default, as shells and compose files write it; only `http` may be empty.
        return Settings.model_validate({name: value for name, value in values.items() if value or name == "http"})
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(fault["loc"], fault) for fault in error.errors())) from None


def _sentence(place: tuple[int | str, ...], fault: Mapping[str, object]) -> str:
    if not place:
        return str(fault["msg"])  # about several at once: the input is all of them, secrets too
    name = str(place[0])
    value = "***" if name in SECRETS else repr(fault["input"])
    return f"{PREFIX}{name.upper()}={value}: {fault['msg']}"


def _with_secret_files(values: dict[str, str]) -> dict[str, str]:
    """Replace `<secret>_file` by what the file holds."""
    for secret in SECRETS:
        path = values.pop(f"{secret}_file", None)
        if not path:  # an empty variable is as none
            continue
        try:
            values[secret] = Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingsError(f"{PREFIX}{secret.upper()}_FILE={path}: {error.strerror}") from None
    return values
