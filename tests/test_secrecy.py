"""Keys and passwords in messages: however they are written, and wherever they were pasted."""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from urllib.parse import quote

import pytest

from command import AGENT, access, error_of, run, run_process
from odd_server import Answer, OddServer, in_turn
from polyai.api.client import DataApi
from polyai.api.key_mask import KeyMask
from polyai.config.agent import Agent
from polyai.config.lookup import without_keys
from polyai.config.settings import resolve
from polyai.console.process import ConsoleHandler
from polyai.errors import ConfigurationError, PolyAIError, StoreError, without_credentials

pytestmark = pytest.mark.unit

KEY = "k3y-Zr8qVb51Wc0p+Lm/9xQ="

SPELLINGS = {
    "as it is": KEY,
    "in capitals": KEY.upper(),
    "first half": KEY[: len(KEY) // 2],
    "second half": KEY[len(KEY) // 2 :],
    "eight characters": KEY[9:17],
    "on two lines": f"{KEY[:12]}\n  {KEY[12:]}",
    "letter by letter": " ".join(KEY),
    "percent": quote(KEY, safe=""),
    "percent, all of it": "".join(f"%{ord(letter):02x}" for letter in KEY),
    "percent twice": quote(quote(KEY, safe=""), safe=""),
    "JSON": "".join(f"\\u{ord(letter):04x}" for letter in KEY),
    "HTML": "".join(f"&#{ord(letter)};" for letter in KEY),
    "hexadecimal": KEY.encode().hex(),
    "hexadecimal, half": KEY.encode().hex()[:24],
    **{
        f"Base64 after {before!r}": base64.b64encode(before + KEY.encode()).decode()
        for before in (b"", b"u:", b"user:")
    },
    "Base64 for URLs": base64.urlsafe_b64encode(b"?" + KEY.encode()).decode(),
    "Base64 of a half": base64.b64encode(KEY[:12].encode()).decode(),
}


def leaks(text: str) -> bool:
    """Returns whether a run of eight characters of the key can be read, in plain or Base64."""
    encoded = base64.b64encode(KEY.encode()).decode()
    plain = [KEY[start : start + 8] for start in range(len(KEY) - 7)]
    coded = [encoded[start : start + 12] for start in range(len(encoded) - 11)]
    compact = "".join(text.split()).casefold()
    return any(run.casefold() in compact for run in (*plain, *coded, KEY.encode().hex()[:16]))


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
class TestEchoes:
    def test_a_spelling_of_the_key_is_masked(self, spelling: str) -> None:
        masked = KeyMask(KEY).masked(f"no access with {spelling}, ask for another")
        assert masked.startswith("no access with ")
        assert "***" in masked
        assert masked.endswith("ask for another")
        assert len(masked) < 60
        assert not leaks(masked)

    @pytest.mark.server
    def test_no_error_contains_what_a_server_echoes(
        self, spelling: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        envelope = {"error_code": spelling, "error_message": f"bad: {spelling}", "error_id": "c"}
        for status in (400, 401, 503):
            with OddServer(in_turn(Answer(envelope, status))) as server:
                agent = Agent(AGENT, KEY, "us", None, server.url, None)
                with (
                    DataApi(agent, max_attempts=1) as api,
                    pytest.raises(PolyAIError) as caught,
                ):
                    api.conversation("CA1")
            assert not leaks(f"{caught.value} {vars(caught.value)} {caplog.text}")


class TestMask:
    def test_other_text_stays(self) -> None:
        text = "Conversation CA1f04 of k3y-Zr8 was not found: 100 % of pages, see a%2Fb"
        assert KeyMask(KEY, "", "abc").masked(text) == text

    def test_each_key_is_masked(self) -> None:
        assert KeyMask(KEY, "pa55").masked(f"{KEY} or pa55") == "*** or ***"


class TestCredentialsInUrls:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("s3://key:se/cr@et@bucket/path is gone", "s3://***@bucket/path is gone"),
            ("sftp://user@host/recordings", "sftp://***@host/recordings"),
            ("'postgresql://u:p%40ss@db:5432/x' refused", "'postgresql://***@db:5432/x' refused"),
            ("host=db password=hidden dbname=x", "host=db password=*** dbname=x"),
            ("password='hid den' user=x", "password=*** user=x"),
            ("az://c/p?sv=1&sig=hidden&x=2", "az://c/p?sv=1&sig=***&x=2"),
            ("https://b/x?X-Amz-Signature=hidden", "https://b/x?X-Amz-Signature=***"),
            ("http://127.0.0.1:8787/v1/a@b", "http://127.0.0.1:8787/v1/a@b"),
            ("https://api.us.poly.ai/v1/a@b", "https://api.us.poly.ai/v1/a@b"),
            ("page_size = 100, a@b.c", "page_size = 100, a@b.c"),
        ],
    )
    def test_are_masked_in_each_message(self, text: str, shown: str) -> None:
        assert without_credentials(text) == shown
        assert str(StoreError(text)) == shown

    def test_no_message_can_control_the_terminal(self) -> None:
        assert str(StoreError("a\x1b[2J\x9b\u202eb\n\tc")) == "a␛[2J\ufffd\ufffdb\n\tc"

    def test_are_masked_in_the_log(self, capsys: pytest.CaptureFixture[str]) -> None:
        record = logging.LogRecord("dlt", 30, "", 0, "at %s", ("s3://key:hidden@bucket",), None)
        ConsoleHandler().emit(record)
        assert "hidden" not in "".join(capsys.readouterr())

    @pytest.mark.load
    @pytest.mark.parametrize("url", ["nope://user:hidden@host/x", "s3://user:hidden@bucket/x"])
    def test_are_not_printed_by_a_command(self, url: str) -> None:
        result = run(
            "recordings", "--recordings-url", url, **access("http://127.0.0.1:1"), AWS_REGION="x"
        )
        assert result.returncode == 1
        assert "hidden" not in result.stdout + result.stderr


class TestPastedKeys:
    @pytest.mark.parametrize(
        "name",
        ["region", "api", "environments", "workers", "lookback", "settle_after", "max_body",
         "details", "pii", "reporting_time_zone", "base_url", "names", "directions", "agents"],
    )  # fmt: skip
    def test_a_key_in_another_setting_is_not_shown(self, name: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            resolve(**{"agent_id": AGENT, "api_key": "other", name: "k3y-Zr8qVb51Wc0pLm"})
        assert name in str(caught.value)
        assert "Zr8q" not in str(caught.value)

    @pytest.mark.parametrize("name", ["agent_id", "account_id", "base_url"])
    def test_the_key_in_a_setting_that_is_sent_is_refused(self, name: str) -> None:
        value = f"https://{KEY[:16]}.example" if name == "base_url" else KEY[:16]
        with pytest.raises(ConfigurationError, match=f"{name} contains the API key") as caught:
            resolve(**{"agent_id": AGENT, "api_key": KEY[:16], name: value})
        assert KEY[:16] not in str(caught.value)

    def test_names_are_shown(self) -> None:
        for name in ("conversations_v4", "America/New_Yorks", "PROJECT-1A2B3C4D5E6F7G", "12 weeks"):
            assert without_keys(f"{name!r} is wrong") == f"{name!r} is wrong"

    @pytest.mark.load
    def test_an_option_is_not_shown(self) -> None:
        for option in ("--agent", "--destination", "--region"):
            result = run("load", option, "k3y-Zr8qVb51Wc0pLm", **access("http://127.0.0.1:1"))
            assert result.returncode in (1, 2)
            assert "Zr8q" not in result.stdout + result.stderr


@pytest.mark.process
@pytest.mark.slow
def test_a_torn_file_of_secrets_is_one_line() -> None:
    Path(".dlt").mkdir()
    Path(".dlt/secrets.toml").write_text(f'[sources.polyai]\napi_key = "{KEY}', encoding="utf-8")
    for command in ("load", "check", "status", "views", "recordings", "backfill --from 2020-01-01"):
        result = run_process(*command.split())
        assert result.returncode == 1
        assert "secrets.toml, line 2" in error_of(result)
        assert not leaks(result.stdout + result.stderr)
