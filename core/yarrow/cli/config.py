"""`yarrow config`: what this process would be configured as, and the token for workers elsewhere."""

from __future__ import annotations

import re
from typing import Any

import click

from yarrow.cli.output import json_option, print_json, print_table
from yarrow.config import SETTINGS, Config, load, load_config
from yarrow.secrets import MASK, looks_secret
from yarrow.tokens import api_token as make_api_token
from yarrow.tokens import load_or_create_key
from yarrow.tokens import worker_token as make_worker_token


@click.group()
def config() -> None:
    """Show the configuration; make a token for workers."""


@config.command()
@json_option
def show(as_json: bool) -> None:
    """Show every setting, its value and where it comes from. Secrets are masked."""
    loaded = load()
    shown = {key: _masked(loaded.config, key) for key in SETTINGS}
    if as_json:
        print_json(
            {
                "file": loaded.file,
                "settings": {key: {"value": shown[key], "source": loaded.sources[key]} for key in SETTINGS},
            }
        )
        return
    click.echo(f"Configuration file: {loaded.file or 'none'}")
    rows = [(key, _one_line(value), loaded.sources[key]) for key, value in shown.items()]
    print_table(("SETTING", "VALUE", "SOURCE"), rows, empty="There is no setting.")


@config.command("worker-token")
def worker_token() -> None:
    """Print the token that a worker on another machine needs, as YARROW_WORKER_TOKEN.

    It lets a worker send heartbeats. Keep it as you keep a password.
    """
    click.echo(make_worker_token(load_or_create_key(load_config().signing_key_file)))


@config.command("api-token")
def api_token() -> None:
    """Print the token with which programs use the API, such as /api/v1/approvals.

    Keep it as you keep a password.
    """
    click.echo(make_api_token(load_or_create_key(load_config().signing_key_file)))


def _masked(settings: Config, key: str) -> Any:
    value = getattr(settings, key)
    if not SETTINGS[key].metadata["secret"] or not value:
        return value
    if key == "variables":
        return {name: MASK if looks_secret(name) else text for name, text in value.items()}
    if key == "connections":
        return {name: _masked_url(uri) for name, uri in value.items()}
    return _masked_url(value) if key.endswith("_url") else MASK


def _masked_url(url: str) -> str:
    """The URL without its password, a login that stands alone (it is a token), and the values of its query."""
    if "://" not in url:
        return MASK
    url = re.sub(r"://([^/?#:@]*):.*@", rf"://\1:{MASK}@", url)  # to the last @: a password may hold anything
    url = re.sub(r"://[^/?#:@]+@", f"://{MASK}@", url)
    return re.sub(r"([?&][^=&#]+)=[^&#]*", rf"\1={MASK}", url)


def _one_line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items())
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(value)
