"""Connections and variables: where their values come from, and a connection's URI taken apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from yarrow.config import Config
from yarrow.errors import ConfigError, NotFound

CONNECTION_PREFIX = "YARROW_CONN_"
VARIABLE_PREFIX = "YARROW_VAR_"

# The driver that Yarrow's `postgres` extra brings; SQLAlchemy's own default would be another one.
_SQLALCHEMY_DIALECTS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}


@dataclass(frozen=True, slots=True)
class Connection:
    """Where an outside system is and how to log in to it. Every part is percent-decoded except `uri`."""

    conn_id: str
    type: str  # the URI's scheme: postgresql, https, s3 ...
    host: str | None = None
    port: int | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    schema: str | None = None  # the URI's path without its first slash: a database, a bucket, a path
    extra: Mapping[str, str] = field(default_factory=dict, repr=False)  # the URI's query
    uri: str = field(default="", repr=False)

    @classmethod
    def from_uri(cls, conn_id: str, uri: str) -> Connection:
        """Takes apart `scheme://login:password@host:port/schema?extra=value`.

        Raises:
            ConfigError: It is not such a URI. The message names the connection and never shows the URI.
        """
        form = "It must look like scheme://login:password@host:port/schema?name=value, special characters as %40."
        if any(character.isspace() for character in uri):
            raise ConfigError(f"The URI of connection `{conn_id}` contains a space or a line break.", hint=form)
        try:
            parts = urlsplit(uri)
            port = parts.port
        except ValueError:
            # `from None`: the ValueError quotes parts of the URI.
            raise ConfigError(f"The URI of connection `{conn_id}` can't be read.", hint=form) from None
        if not parts.scheme or "://" not in uri:
            raise ConfigError(f"The URI of connection `{conn_id}` has no scheme.", hint=form)
        return cls(
            conn_id=conn_id,
            type=parts.scheme,
            host=_decoded(parts.hostname),
            port=port,
            login=_decoded(parts.username),
            password=_decoded(parts.password),
            schema=_decoded(parts.path.removeprefix("/")),
            extra=dict(parse_qsl(parts.query, keep_blank_values=True)),
            uri=uri,
        )

    def sqlalchemy_url(self) -> str:
        """The URL for `sqlalchemy.create_engine`: `postgres://` is spelled as SQLAlchemy wants it."""
        scheme, rest = self.uri.split("://", 1)
        return f"{_SQLALCHEMY_DIALECTS.get(scheme, scheme)}://{rest}"

    def http_base(self) -> str:
        """`http[s]://host[:port][/path]` without login, password and a slash at the end.

        Raises:
            ConfigError: It is not an http or https connection.
        """
        if self.type not in ("http", "https") or not self.host:
            raise ConfigError(
                f"Connection `{self.conn_id}` is not an HTTP connection (its URI begins with `{self.type}:`).",
                hint="An http:// or https:// URI is needed here.",
            )
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        path = f"/{quote(self.schema)}".rstrip("/") if self.schema else ""
        return f"{self.type}://{host}{port}{path}"


def _decoded(text: str | None) -> str | None:
    return unquote(text) if text else None


def environment_name(prefix: str, name: str) -> str:
    """The environment variable of a connection or variable: upper case, everything else than A-Z, 0-9 becomes `_`."""
    return prefix + re.sub(r"[^A-Z0-9]", "_", name.upper())


def resolve_connections(config: Config, env: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Returns the URI of each named connection: `YARROW_CONN_<ID>` wins over `connections:` in yarrow.yaml.

    Raises:
        NotFound: Some are set nowhere; the message names each and says what to set.
    """
    return _resolve("connection", CONNECTION_PREFIX, config.connections, env, names)


def resolve_variables(config: Config, env: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Returns the value of each named variable: `YARROW_VAR_<NAME>` wins over `variables:` in yarrow.yaml.

    Raises:
        NotFound: Some are set nowhere; the message names each and says what to set.
    """
    return _resolve("variable", VARIABLE_PREFIX, config.variables, env, names)


def _resolve(
    kind: str, prefix: str, configured: Mapping[str, str], env: Mapping[str, str], names: Iterable[str]
) -> dict[str, str]:
    found: dict[str, str] = {}
    missing: list[str] = []
    for name in dict.fromkeys(names):
        value = env.get(environment_name(prefix, name), configured.get(name))
        if value is None:
            missing.append(name)
        else:
            found[name] = value
    if missing:
        listed = ", ".join(f"`{name}`" for name in missing)
        settings = " and ".join(environment_name(prefix, name) for name in missing)
        raise NotFound(
            f"The {kind} {listed} is not set." if len(missing) == 1 else f"The {kind}s {listed} are not set.",
            hint=f"Set {settings} in the environment (a deployment: of its web server), or `{kind}s:` in yarrow.yaml.",
        )
    return found
