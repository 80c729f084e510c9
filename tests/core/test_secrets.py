"""Masking: a secret must not be readable in a log, whatever wrote it there."""

import base64
import json
import shlex
import subprocess
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yarrow.secrets import MASK, Masker, looks_secret, masker_for

CANARY = "kanariø/+ p\"w'd$1\\&x"


@pytest.mark.parametrize(
    "spelled",
    [
        CANARY,
        quote(CANARY),
        quote(CANARY, safe=""),
        quote_plus(CANARY),
        quote(CANARY, safe="").lower(),
        json.dumps({"x": CANARY}),
        json.dumps({"x": CANARY}, ensure_ascii=False),
        json.dumps(json.dumps(CANARY)),
        repr(CANARY),
        shlex.quote(CANARY),
        base64.b64encode(CANARY.encode()).decode(),
        base64.urlsafe_b64encode(CANARY.encode()).decode(),
        CANARY.encode().hex(),
        CANARY.encode().hex().upper(),
    ],
)
def test_every_encoding_of_a_secret_is_masked(spelled: str) -> None:
    masked = Masker([CANARY]).mask(f"before {spelled} after")

    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert MASK in masked
    # What is left is what the encoding put around it: quotes, padding, `{"x": `, half bytes at the ends.
    assert len(masked.replace(MASK, "").replace("before", "").replace("after", "")) < 16


@given(prefix=st.binary(max_size=5), suffix=st.binary(max_size=5))
def test_a_secret_inside_other_base64_text_is_masked(prefix: bytes, suffix: bytes) -> None:
    secret = "correct-horse"
    text = base64.b64encode(prefix + secret.encode() + suffix).decode()

    masked = Masker([secret]).mask(text)

    assert MASK in masked
    assert len(masked) - len(MASK) <= 4 * (len(prefix) + len(suffix) + 3) / 3 + 4


@given(st.lists(st.text(min_size=4), max_size=4), st.text(max_size=30), st.text(max_size=30))
def test_no_single_line_secret_survives(secrets: list[str], before: str, after: str) -> None:
    masker = Masker(secrets)
    for secret in secrets:
        plain = secret.strip()
        if len(plain) < 4 or len(plain.splitlines()) != 1 or plain in MASK * 2:
            continue
        masked = masker.mask(f"{before}{plain}{after}")
        assert plain not in masked.replace(MASK, "\0")


def test_a_value_of_several_lines_is_masked_line_by_line() -> None:
    pem = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----\n"
    masker = Masker([pem])

    masked = [masker.mask(line) for line in pem.splitlines()]

    assert masked == [MASK] * 4
    assert "MIIE" not in masker.mask(json.dumps({"pem": pem}))
    assert "MIIE" not in masker.mask(base64.b64encode(pem.encode()).decode())
    assert base64.b64encode(pem.encode()).decode()[8:40] not in masker.mask(base64.b64encode(pem.encode()).decode())


def test_short_values_are_left_alone() -> None:
    masker = Masker(["abc", "", "  "])

    assert not masker
    assert masker.mask("abc abc") == "abc abc"


def test_the_longer_of_two_secrets_with_one_beginning_goes_whole() -> None:
    assert Masker(["pass", "password-long"]).mask("x password-long y pass z") == "x *** y *** z"


def test_a_mask_is_not_masked_again() -> None:
    masker = Masker(["hunter22"])

    assert masker.mask(masker.mask("a hunter22 b")) == "a *** b"


def test_masker_for_takes_passwords_secret_extras_and_secret_variables() -> None:
    masker = masker_for(
        {
            "db": "postgres://etl:p%40ssw0rd@db.example.org/sales",
            "api": "https://api.example.org/v1?api_key=k-1234567&region=eu-west",
            "git": "https://ghp_0123456789@git.example.org",
            "odd": "not a uri but secret",
        },
        {"OPENAI_TOKEN": "sk-abcdef", "region": "eu-central"},
    )

    for secret in ("p@ssw0rd", "p%40ssw0rd", "k-1234567", "ghp_0123456789", "sk-abcdef", "not a uri but secret"):
        assert masker.mask(f"<{secret}>") == "<***>"
    for plain in ("etl", "db.example.org", "eu-west", "eu-central", "sales"):
        assert masker.mask(f"<{plain}>") == f"<{plain}>"
    header = base64.b64encode(b"etl:p@ssw0rd").decode()
    assert masker.mask(f"Authorization: Basic {header}") == "Authorization: Basic ***"


@pytest.mark.parametrize("name", ["password", "DB_PASSWD", "apiKey", "client-secret", "auth.token", "Credentials"])
def test_names_that_look_secret(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["region", "flights_zip", "threshold"])
def test_names_that_do_not(name: str) -> None:
    assert not looks_secret(name)


@pytest.mark.skipif(subprocess.run(["bash", "-c", "true"]).returncode != 0, reason="no bash")
def test_what_bash_prints_when_it_traces_is_masked() -> None:
    secret = 'it\'s a "secret"!'
    traced = subprocess.run(
        ["bash", "-xc", 'true "$SECRET"'], env={"SECRET": secret}, capture_output=True, text=True, check=True
    ).stderr

    assert "secret" not in Masker([secret]).mask(traced)


def test_long_logs_are_masked_in_one_pass(calls: Callable[[Callable[[], object]], int]) -> None:
    masker = Masker([f"secret-value-{n}-{'x' * n}" for n in range(10)])
    log = "2013-01-01 12:00:00 INFO scored 4096 rows of 27004 in 0.31 s; p99 7.9 us\n"

    assert masker.mask(log * 15_000) == log * 15_000
    assert calls(lambda: masker.mask(log * 15_000)) == calls(lambda: masker.mask(log)) < 100
