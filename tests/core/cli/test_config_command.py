"""`yarrow config`."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from yarrow.config import SETTINGS
from yarrow.tokens import check_worker_token, load_or_create_key

Yarrow = Callable[..., Any]


def test_show_lists_every_setting(yarrow: Yarrow) -> None:
    text = yarrow("config", "show").stdout
    assert all(f"\n{name} " in text for name in SETTINGS)
    assert "Configuration file: none" in text
    assert set(yarrow("config", "show", "--json").json()["settings"]) == set(SETTINGS)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("BROKER_URL", "redis://:hunter2@h:1/0", "redis://:***@h:1/0"),
        ("DATABASE_URL", "postgresql://me:hunter2@h/db", "postgresql://me:***@h/db"),
        ("OBJECTS_URL", "s3://bucket/x?secret=hunter2&key=hunter2", "s3://bucket/x?secret=***&key=***"),
        ("WORKER_TOKEN", "hunter2", "***"),
        ("VARIABLES", "api_key=hunter2,region=eu", {"api_key": "***", "region": "eu"}),
        (
            "CONNECTIONS",
            '{"a": "https://hunter2@h", "b": "postgresql://u:hunt/@er2@h/d", "c": "hunter2"}',
            {"a": "https://***@h", "b": "postgresql://u:***@h/d", "c": "***"},
        ),
    ],
)
def test_secrets_are_masked(
    yarrow: Yarrow, monkeypatch: pytest.MonkeyPatch, name: str, value: str, shown: object
) -> None:
    monkeypatch.setenv(f"YARROW_{name}", value)
    assert yarrow("config", "show", "--json").json()["settings"][name.lower()]["value"] == shown
    assert "hunter2" not in yarrow("config", "show").stdout


def test_what_is_wrong_is_one_error(yarrow: Yarrow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YARROW_PORT", "http")
    answer = yarrow("config", "show")
    assert answer.exit_code == 2
    assert answer.stderr.startswith("Error: `port`, set in the environment (YARROW_PORT), must be a whole number")


def test_the_worker_token_is_good_and_its_key_private(yarrow: Yarrow, home: Path) -> None:
    token = yarrow("config", "worker-token").stdout.strip()
    key_file = home / "signing.key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    check_worker_token(load_or_create_key(key_file), token)
    assert yarrow("config", "worker-token").stdout.strip() == token
