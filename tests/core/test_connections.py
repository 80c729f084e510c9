"""Connections: where a URI comes from and what is read from it."""

import pytest

from yarrow.config import Config
from yarrow.connections import Connection, environment_name, resolve_connections, resolve_variables
from yarrow.errors import ConfigError, NotFound


def test_every_part_of_a_uri_is_percent_decoded() -> None:
    connection = Connection.from_uri(
        "warehouse", "postgres://etl%40corp:p%40ss%2Fw%3Ard@db.example.org:5433/sales%20eu?sslmode=require&token=a%26b"
    )

    assert connection.type == "postgres"
    assert connection.host == "db.example.org"
    assert connection.port == 5433
    assert connection.login == "etl@corp"
    assert connection.password == "p@ss/w:rd"
    assert connection.schema == "sales eu"
    assert connection.extra == {"sslmode": "require", "token": "a&b"}


def test_what_a_uri_does_not_say_is_none() -> None:
    connection = Connection.from_uri("c", "https://example.org")

    assert (connection.port, connection.login, connection.password, connection.schema) == (None, None, None, None)
    assert connection.extra == {}


def test_repr_hides_the_password_and_everything_that_contains_it() -> None:
    text = repr(Connection.from_uri("c", "https://me:hunter22@example.org/?api_key=hunter33"))

    assert "hunter" not in text
    assert "example.org" in text


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("postgres://u:p%40@h/db", "postgresql+psycopg://u:p%40@h/db"),
        ("postgresql://u:p@h:1/db?sslmode=require", "postgresql+psycopg://u:p@h:1/db?sslmode=require"),
        ("postgresql+psycopg2://h/db", "postgresql+psycopg2://h/db"),
        ("sqlite:////data/a.db", "sqlite:////data/a.db"),
    ],
)
def test_sqlalchemy_url(uri: str, url: str) -> None:
    assert Connection.from_uri("c", uri).sqlalchemy_url() == url


@pytest.mark.parametrize(
    ("uri", "base"),
    [
        ("https://me:pw@example.org:8443/api/v1/?x=1", "https://example.org:8443/api/v1"),
        ("http://example.org/", "http://example.org"),
        ("http://[::1]:80/a%20b", "http://[::1]:80/a%20b"),
    ],
)
def test_http_base_has_no_credentials(uri: str, base: str) -> None:
    assert Connection.from_uri("c", uri).http_base() == base


def test_http_base_of_another_kind_of_connection_is_refused() -> None:
    with pytest.raises(ConfigError, match="`warehouse` is not an HTTP connection"):
        Connection.from_uri("warehouse", "postgres://h/db").http_base()


@pytest.mark.parametrize("uri", ["hunter22", "https://h:port/", "https://[::1/", "https://h/ hunter22", "//hunter22@h"])
def test_a_bad_uri_is_reported_by_name_and_never_shown(uri: str) -> None:
    with pytest.raises(ConfigError, match="connection `billing`") as caught:
        Connection.from_uri("billing", uri)

    assert "hunter22" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_environment_wins_over_the_file() -> None:
    config = Config(connections={"my-db": "sqlite:///file.db", "api": "https://file"}, variables={"region": "file"})
    env = {"YARROW_CONN_MY_DB": "sqlite:///env.db", "YARROW_VAR_REGION": "env"}

    assert resolve_connections(config, env, ["my-db", "api"]) == {"my-db": "sqlite:///env.db", "api": "https://file"}
    assert resolve_variables(config, env, ["region"]) == {"region": "env"}


def test_only_what_is_named_is_handed_out() -> None:
    config = Config(variables={"a": "1", "b": "2"})

    assert resolve_variables(config, {"YARROW_VAR_C": "3"}, ["a"]) == {"a": "1"}


def test_all_missing_names_are_reported_at_once_with_the_mend() -> None:
    with pytest.raises(NotFound) as caught:
        resolve_connections(Config(connections={"here": "sqlite://"}), {}, ["here", "my-db", "api.v2"])

    message = str(caught.value)
    assert "`my-db`, `api.v2`" in message
    assert "YARROW_CONN_MY_DB and YARROW_CONN_API_V2" in message
    assert "yarrow.yaml" in message
    assert "`here`" not in message


def test_an_empty_value_is_a_value() -> None:
    assert resolve_variables(Config(), {"YARROW_VAR_SUFFIX": ""}, ["suffix"]) == {"suffix": ""}


def test_environment_name() -> None:
    assert environment_name("YARROW_VAR_", "flights_zip") == "YARROW_VAR_FLIGHTS_ZIP"
    assert environment_name("YARROW_CONN_", "a.b-c") == "YARROW_CONN_A_B_C"
