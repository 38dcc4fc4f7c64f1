"""The mail server that `HEADRACE_SMTP` names."""

from typing import Final, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

Security = Literal["none", "starttls", "tls"]
SCHEMES: Final[dict[str, Security]] = {"smtp": "none", "smtp+starttls": "starttls", "smtps": "tls"}
PORTS: Final[dict[Security, int]] = {"none": 25, "starttls": 587, "tls": 465}
FORM: Final = "write smtp://, smtp+starttls:// or smtps://, then [user:password@]host[:port]"


class SmtpServer(NamedTuple):
    """Where mails are handed over; user and password are empty where none is needed."""

    host: str
    port: int
    security: Security
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        """Without user and password, since this may end up in a log."""
        return f"SmtpServer({self.host}:{self.port}, {self.security})"


def read_smtp_server(url: str) -> SmtpServer:
    """Read the setting's value; percent signs in user and password escape.

    Raises:
        ValueError: it cannot be used; the text never quotes it, since it may hold a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"the port is not a number up to 65535; {FORM}") from None
    security = SCHEMES.get(parts.scheme)
    if security is None:
        raise ValueError(f"the scheme is unknown; {FORM}")
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"it names no host, or more than one; {FORM}")
    if (parts.username is None) != (parts.password is None):
        raise ValueError(f"user and password belong together; {FORM}")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return SmtpServer(parts.hostname, port or PORTS[security], security, user, password)
