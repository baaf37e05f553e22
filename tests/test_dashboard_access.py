"""Access to the dashboard, over HTTP: token, cookie, other sites, and files outside the archive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from optional import needs_dashboard
from polyai.errors import ConfigurationError
from polyai.warehouse.stores import open_store

pytestmark = [pytest.mark.server, needs_dashboard]

TOKEN = "a chosen token, long enough"


@pytest.fixture(scope="module")
def served() -> Iterator[Any]:
    """A dashboard with a random token; its pages need no warehouse until a socket is opened."""
    from polyai.dashboard.server import serve

    with serve(None, port=0) as found:  # type: ignore[arg-type]  # no page is opened
        yield found


@pytest.fixture
def access() -> Any:
    from polyai.dashboard.access import Access

    return Access


def get(url: str, cookies: Any = None, **headers: str) -> requests.Response:
    return requests.get(url, headers=headers, cookies=cookies, timeout=10, allow_redirects=False)


class TestToken:
    def test_a_page_without_a_token_asks_for_it(self, served: Any) -> None:
        for path in ("/", "/api/status", "/assets/x.js", "/@file/1-a.wav", "/?days=7d"):
            answer = get(f"{served.url}{path}")
            assert (answer.status_code, "password" in answer.text) == (401, True)
            assert "set-cookie" not in answer.headers

    def test_the_url_with_the_token_sets_a_cookie(self, served: Any) -> None:
        answer = get(f"{served.token_url}&days=7d&agent=a%26b")
        assert answer.status_code == 200
        cookie = answer.headers["set-cookie"]
        assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict")
        assert served.access.token not in answer.text + cookie
        assert 'content="0;url=./?days=7d&amp;agent=a%26b"' in answer.text
        page = get(served.url, answer.cookies)
        assert (page.status_code, "PolyAI warehouse" in page.text) == (200, True)
        assert page.headers["cache-control"] == "no-store"

    def test_the_form_sets_a_cookie(self, served: Any) -> None:
        for token, status in ((served.access.token, 200), ("wrong", 401), ("ü" * 9_000, 401)):
            answer = requests.post(f"{served.url}/login", {"token": token}, timeout=10)
            assert answer.status_code == status
            assert ("set-cookie" in answer.headers) == (status == 200)

    def test_the_url_of_the_browser_works_once(self, served: Any) -> None:
        url = served.once_url
        assert served.access.token not in url
        assert [get(url).status_code for _ in range(2)] == [200, 401]

    def test_behind_tls_the_cookie_is_secure(self, served: Any) -> None:
        answer = get(served.token_url, **{"X-Forwarded-Proto": "https"})
        assert answer.headers["set-cookie"].endswith("; Secure")

    @pytest.mark.parametrize("cookie", ["", "x", "polyai_dashboard_{port}=x", "a=[;;=,"])
    def test_another_cookie_opens_nothing(self, served: Any, cookie: str) -> None:
        port = urlsplit(served.url).port
        assert get(served.url, Cookie=cookie.format(port=port)).status_code == 401

    def test_the_cookie_is_found_among_odd_ones(self, served: Any) -> None:
        own = get(served.token_url).headers["set-cookie"].partition(";")[0]
        assert get(served.url, Cookie=f"a=[; b; {own}; c=d").status_code == 200

    def test_a_web_socket_needs_the_cookie(self, served: Any) -> None:
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }
        assert get(f"{served.url}/ws?session_id=a", **headers).status_code == 403

    def test_ten_wrong_tokens_block_all_for_a_minute(self, access: Any) -> None:
        now = 0.0
        one = access(TOKEN, clock=lambda: now)
        assert one.accepts(TOKEN)
        assert not any(one.accepts(f"wrong {number}") for number in range(10))
        assert one.is_blocked
        assert not one.accepts(TOKEN)
        now = 59.9
        assert not one.accepts(TOKEN)
        now = 60.1
        assert one.accepts(TOKEN)

    def test_after_ten_wrong_tokens_the_server_waits(self) -> None:
        from polyai.dashboard.server import serve

        with serve(None, port=0, token=TOKEN) as served:  # type: ignore[arg-type]
            cookies = get(served.token_url).cookies
            codes = [get(f"{served.url}/?token=wrong-{number}").status_code for number in range(12)]
            assert codes == [401] * 9 + [429] * 3
            assert get(served.token_url).status_code == 429
            assert get(served.url, cookies).status_code == 200

    def test_a_short_token_is_refused(self, access: Any) -> None:
        with pytest.raises(ConfigurationError, match="at least 16"):
            access("fifteen letters")
        assert len(access().token) >= 32
        assert access().token != access().token


class TestPolicy:
    def test_only_scripts_of_the_page_run(self, served: Any) -> None:
        cookies = get(served.token_url).cookies
        policies = set()
        for _ in range(2):
            page = get(served.url, cookies)
            policy = page.headers["content-security-policy"]
            policies.add(policy)
            found = re.search(r"script-src 'self' 'nonce-([^']+)';", policy)
            assert found
            scripts = re.findall(r"<script[^>]*>", page.text)
            assert scripts
            assert all(f'nonce="{found[1]}"' in script for script in scripts)
            assert "frame-ancestors 'none'" in policy
            assert "unsafe-eval" not in policy
            assert page.headers["x-frame-options"] == "DENY"
        assert len(policies) == 2
        assert "frame-ancestors 'none'" in get(served.url).headers["content-security-policy"]

    @pytest.mark.parametrize(
        "headers",
        [
            {"Host": "evil.example"},
            {"Origin": "https://evil.example"},
            {"Host": "evil.example", "Origin": "http://evil.example"},
            {"Origin": "null"},
        ],
        ids=["dns rebinding", "cross-origin", "both", "sandboxed"],
    )
    def test_requests_from_other_sites_are_rejected(
        self, served: Any, headers: dict[str, str]
    ) -> None:
        cookies = get(served.token_url).cookies
        assert get(served.url, cookies).status_code == 200
        assert get(served.url, cookies, **headers).status_code == 403
        assert get(served.token_url, **headers).status_code == 403


class TestPlayer:
    @pytest.mark.unit
    def test_only_files_of_the_archive_are_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from polyai.dashboard.player import player

        archive = tmp_path / "archive"
        archive.mkdir()
        (archive / "call.wav").write_bytes(b"RIFF")
        (tmp_path / "secret.wav").write_bytes(b"secret")
        (archive / "link.wav").symlink_to(tmp_path / "secret.wav")
        monkeypatch.setenv("POLYAI_RECORDINGS_URL", str(archive))
        played = []
        for uri in (
            f"{archive}/call.wav",
            "/etc/passwd",
            f"{tmp_path}/secret.wav",
            f"{archive}/../secret.wav",
            f"{archive}/link.wav",
            f"file://{tmp_path}/secret.wav",
            "s3://bucket/call.wav",
        ):
            row = {"status": "stored", "uri": uri, "bytes": 4, "redacted": True}
            shown = player(_Reader({**row, "duration_seconds": 1}), "a", "c")  # type: ignore[arg-type]
            if "<audio" in shown or "missing from the archive" not in shown:
                played.append(uri)
        assert played == [f"{archive}/call.wav"]

    @pytest.mark.unit
    def test_links_within_the_archive_are_followed(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "archive").symlink_to(tmp_path / "real")
        assert open_store(str(tmp_path / "archive")).is_within("a/b.wav")


class _Reader:
    """Reader with one recording."""

    def __init__(self, row: dict[str, object]) -> None:
        self._row = row

    def query(self, sql: str, **parameters: object) -> list[dict[str, object]]:
        return [self._row]
