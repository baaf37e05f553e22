"""The dashboard in a real browser."""

from __future__ import annotations

import itertools
import re
import signal
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import duckdb
import pytest

import kpis
from browser import LAPTOP, PHONE, Visit, chromium
from command import access, start
from dashboards import AGENTS, DAYS, Loaded, copied, dashboard, load_all
from polyai.sandbox import serve as serve_api
from polyai.sandbox import texts
from polyai.sandbox.model import Conversation
from polyai.views import query_reader as reader_module

pytestmark = pytest.mark.browser

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

PAGES = {
    "Overview": "Conversations per day",
    "Topics & handoffs": "Top topics",
    "Performance": "Latency per day",
    "Conversations": "Conversations",
    "Reviews": "Review queue",
    "Data": "Freshness",
}
"""Titles of the tabs, and of one card on each page."""

CHARTED = ("Overview", "Topics & handoffs", "Performance")

LABELS = [f"{name} ({agent})" for name, agent in zip(texts.AGENT_NAMES, AGENTS)]
"""Names of the agents with their ids."""

FROM, TO = date(2026, 9, 20), date(2026, 11, 3)

EVIL = (
    '<img src=x onerror="window.hacked = 1"><script>window.hacked = 2</script>'
    "</p></section><marimo-ui-element>[a](javascript:alert(1)) **bold** $$x$$ {{ 1 }}"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load_all(tmp_path_factory.mktemp("dashboard"))


@pytest.fixture(scope="module")
def url(loaded: Loaded) -> Iterator[str]:
    with dashboard(loaded.folder) as found:
        yield found


@contextmanager
def visit(browser: BrowserContext, url: str, query: str = "") -> Iterator[Page]:
    one = Visit(browser, url)
    try:
        yield one.open(query)
    finally:
        one.close()


def card(page: Page, title: str) -> Any:
    return page.locator(f'[data-card="{title}"]')


def expect_tile(page: Page, title: str, value: str) -> None:
    """Waits until a tile shows this value."""
    tile = page.locator(f'[data-tile="{title}"] .pw-value')
    try:
        tile.filter(has_text=re.compile(f"^{re.escape(value)}$")).wait_for(timeout=10_000)
    except Exception:
        assert tile.inner_text() == value
        raise


def selected(calls: list[Conversation], **wanted: str) -> list[Conversation]:
    return [
        call
        for call in calls
        if FROM <= kpis.local_date(call, "UTC") <= TO
        and all(getattr(call, name) == value for name, value in wanted.items())
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "looks",
    [
        # each size and each scheme; a scheme changes no sizes
        pytest.param(((LAPTOP, "light"), (PHONE, "dark")), id="each"),
        pytest.param(
            tuple(itertools.product((LAPTOP, PHONE), ("light", "dark"))),
            id="all",
            marks=pytest.mark.matrix,
        ),
    ],
)
def test_every_page_opens_light_and_dark_on_laptop_and_phone(
    browser: BrowserContext, url: str, looks: Sequence[tuple[Any, str]]
) -> None:
    one = Visit(browser, url)
    page = one.open(DAYS)
    for size, scheme in looks:
        one.look(size, scheme)
        for tab, title in PAGES.items():
            page.get_by_role("tab", name=tab).click()
            card(page, title).wait_for()
            if tab in CHARTED:
                page.wait_for_selector("main svg.marks")
            app = page.locator("#App")
            width, shown = app.evaluate("app => [app.scrollWidth, app.clientWidth]")
            assert width <= shown, f"{tab} is wider than {size}"
        ground = app.evaluate("app => getComputedStyle(app).backgroundColor")
        assert (max(map(int, re.findall(r"\d+", ground))) < 64) == (scheme == "dark")
    one.close()


@pytest.mark.slow
def test_filters_change_the_numbers_correctly(
    browser: BrowserContext, url: str, loaded: Loaded
) -> None:
    with visit(browser, url, DAYS) as page:
        for label, choice, wanted in (
            ("Environment", "live", {"environment": "live"}),
            ("Agent", LABELS[1], {"environment": "live", "agent_id": AGENTS[1]}),
            (
                "Channel",
                "VOICE-SIP",
                {"environment": "live", "agent_id": AGENTS[1], "channel": "VOICE-SIP"},
            ),
            ("Environment", "All environments", {"agent_id": AGENTS[1], "channel": "VOICE-SIP"}),
        ):
            page.get_by_label(label).select_option(choice)
            calls = selected(loaded.calls, **wanted)
            expect_tile(page, "Conversations", f"{len(calls):,}")
            finished = [call for call in calls if kpis.is_finished(call)]
            contained = sum(call.handoff is not True for call in finished)
            expect_tile(page, "Containment", f"{contained / len(finished) * 100:.1f} %")
        # tiles may be equal before and after a choice, and then do not tell that it was made
        page.wait_for_url(re.compile("environment=all"))
        assert f"agent={AGENTS[1]}" in page.url
        # the address restores the same state
        page.goto(page.url)
        expect_tile(page, "Conversations", f"{len(calls):,}")


@pytest.mark.matrix
def test_the_variant_filter_shows_the_variants_of_the_agent(
    browser: BrowserContext, url: str, loaded: Loaded
) -> None:
    calls = selected(loaded.calls, environment="live", agent_id=AGENTS[0])
    without = [call for call in calls if not kpis.words(call.variant_id)]
    with visit(browser, url, f"{DAYS}&agent={AGENTS[0]}") as page:
        page.get_by_label("Variant").select_option("No variant")
        expect_tile(page, "Conversations", f"{len(without):,}")


@pytest.mark.matrix
def test_tabs_back_button_and_reviews_change_the_page(browser: BrowserContext, url: str) -> None:
    with visit(browser, url, DAYS) as page:
        for tab, title in (("Performance", "Functions"), ("Data", "Last runs"), ("Reviews", None)):
            page.get_by_role("tab", name=tab).click()
            card(page, title or PAGES[tab]).wait_for()
        page.wait_for_url(re.compile("page=reviews"))
        page.go_back()
        card(page, "Last runs").wait_for()
        page.get_by_role("tab", name="Reviews").click()
        page.locator(".pw-row").first.click()
        page.wait_for_selector(".pw-transcript")
        page.get_by_role("button", name="Back to the list").click()
        card(page, "Review queue").wait_for()


def test_a_conversation_can_be_searched_and_opened(
    browser: BrowserContext, url: str, loaded: Loaded
) -> None:
    call = next(
        call
        for call in selected(loaded.calls, environment="live")
        if call.turns and len(call.turns) > 3 and call.turns[1].user_input and call.variant_name
    )
    version, _, deployed_by, _ = kpis.deployments(loaded.sandbox)[call.deployment_id]
    with visit(browser, url, f"{DAYS}&page=conversations") as page:
        page.get_by_label("Search").fill(call.conversation_id)
        page.get_by_label("Search").press("Enter")
        page.get_by_text("1 – 1 of 1").wait_for()
        page.locator(".pw-row").click()
        page.wait_for_selector(".pw-transcript")
        texts = page.locator(".pw-said").all_inner_texts()
        assert call.turns is not None
        for turn in call.turns:
            for text in (turn.user_input, turn.agent_response):
                assert not text or " ".join(text.split()) in map(" ".join, map(str.split, texts))
        assert page.get_by_text(LABELS[AGENTS.index(call.agent_id)]).count() == 1
        facts = card(page, "Facts").inner_text()
        for fact in (f"{call.variant_name} ({call.variant_id})", version, deployed_by):
            assert fact in facts
        assert quote(call.conversation_id, safe="") in page.url
        address = page.url
        page.get_by_role("button", name="Back to the list").click()
        page.wait_for_selector(".pw-row")
        page.goto(address)
        page.wait_for_selector(".pw-transcript")


@pytest.mark.matrix
def test_lists_have_pages(browser: BrowserContext, url: str, loaded: Loaded) -> None:
    number = len(selected(loaded.calls, environment="live"))
    with visit(browser, url, f"{DAYS}&page=conversations") as page:
        page.get_by_text(f"1 – 25 of {number}").wait_for()
        page.get_by_role("button", name="Next").click()
        page.get_by_text(f"26 – 50 of {number}").wait_for()
        page.get_by_label("Outcome").select_option("Handed off")
        page.get_by_text("1 – ").wait_for()


@pytest.mark.slow
def test_a_recording_can_be_played(
    browser: BrowserContext, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [
        call
        for call in selected(loaded.calls)
        if (call.channel or "").startswith("VOICE") and call.turns
    ][:3]
    sound = tmp_path / "agent_id=A" / "call.wav"
    sound.parent.mkdir()
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * 16_000)

    def add_recordings(connection: duckdb.DuckDBPyConnection) -> None:
        for call, status, uri in zip(
            calls, ("stored", "stored", "not_found"), (sound, sound.with_name("gone.wav"), None)
        ):
            connection.execute(
                "INSERT INTO recordings BY NAME SELECT ? AS agent_id, ? AS conversation_id, "
                "'combined' AS direction, TRUE AS redacted, ? AS status, ? AS uri, "
                "32044 AS bytes, 2 AS duration_seconds, 1 AS attempts, now() AS fetched_at, "
                "'1' AS _dlt_load_id",
                [call.agent_id, call.conversation_id, status, uri and str(uri)],
            )

    texts = ("2 s, redacted, 32.0 kB", "missing from the archive", "has no recording")
    monkeypatch.setenv("POLYAI_RECORDINGS_URL", str(tmp_path))
    with dashboard(copied(loaded, tmp_path), add_recordings) as url:
        for call, text in zip(calls, texts):
            key = quote(f"{call.agent_id}/{call.conversation_id}", safe="")
            with visit(browser, url, f"page=conversations&conversation={key}") as page:
                card(page, "Recording").get_by_text(text).wait_for()
                if call is calls[0]:
                    audio = page.locator("audio")
                    played = "async audio => { audio.muted = true; await audio.play(); }"
                    audio.evaluate(played)
                    page.wait_for_timeout(300)
                    length, at = audio.evaluate("audio => [audio.duration, audio.currentTime]")
                    assert length == pytest.approx(2)
                    assert at > 0


@pytest.mark.slow
def test_untrusted_text_is_escaped(browser: BrowserContext, loaded: Loaded, tmp_path: Path) -> None:
    def inject(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(
            "UPDATE conversations SET summary = $1, summary_heading = $1, note = $1, "
            "handoff_reason = CASE WHEN handoff THEN $1 END, from_number = $1",
            [EVIL],
        )
        connection.execute("UPDATE turns SET user_input = $1, agent_response = $1", [EVIL])
        connection.execute("UPDATE turn_topics SET topic = $1", [EVIL])
        connection.execute("UPDATE function_events SET name = $1, error = $1", [EVIL])
        connection.execute("UPDATE annotations SET comment = $1, annotated_by = $1", [EVIL])
        connection.execute("UPDATE conversation_tags SET tag = $1", [EVIL])
        connection.execute("UPDATE sync_runs SET error = $1, command = $1", [EVIL])
        connection.execute("UPDATE agents SET agent_name = $1", [EVIL])
        connection.execute("UPDATE variants SET variant_name = $1", [EVIL])
        connection.execute("UPDATE deployments SET created_by = $1, message = $1", [EVIL])

    with dashboard(copied(loaded, tmp_path), inject) as url, visit(browser, url, DAYS) as page:
        for tab, title in PAGES.items():
            page.get_by_role("tab", name=tab).click()
            card(page, title).wait_for()
            if tab == "Topics & handoffs":
                page.locator('main [aria-roledescription="bar"]').first.hover()
            if tab == "Conversations":
                page.locator(".pw-row").first.click()
                page.wait_for_selector(".pw-transcript")
                assert page.locator(".pw-said").first.inner_text() == EVIL
            page.wait_for_timeout(200)
            assert page.evaluate("window.hacked") is None
            assert page.locator("main img, main script, main a").count() == 0


@pytest.mark.matrix
def test_the_dashboard_works_during_a_load(
    browser: BrowserContext, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "CHECK_INTERVAL_SECONDS", 0.2)
    loaded.sandbox.advance(timedelta(minutes=30), arrivals=40)
    before = len(selected(loaded.calls, environment="live"))
    calls = kpis.all_calls(loaded.sandbox)
    after = len(selected(calls, environment="live"))
    assert after > before
    folder = copied(loaded, tmp_path)
    with (
        serve_api(loaded.sandbox) as api,
        dashboard(folder) as url,
        visit(browser, url, DAYS) as page,
    ):
        expect_tile(page, "Conversations", f"{before:,}")
        loading = start("load", **access(api, agent_id=",".join(AGENTS)))
        while loading.poll() is None:
            for label, agent in zip(LABELS, AGENTS):
                page.get_by_label("Agent").select_option(label)
                page.wait_for_url(f"**agent={agent}*")
                assert page.locator("[data-tile]").count() == 8
                # leaves the cores to the load
                page.wait_for_timeout(200)
        output, errors = loading.communicate()
        assert loading.returncode == 0, output + errors
        for _ in range(20):
            # the copy is updated with a short delay
            page.goto(f"{url}&{DAYS}")
            page.wait_for_selector("[data-tile]")
            if page.locator('[data-tile="Conversations"] .pw-value').inner_text() == f"{after:,}":
                break
        expect_tile(page, "Conversations", f"{after:,}")


@pytest.mark.matrix
def test_days_without_conversations_show_a_message(browser: BrowserContext, url: str) -> None:
    with visit(browser, url, "days=custom&from=2020-01-01&to=2020-01-07") as page:
        page.get_by_text("No conversations on these days").wait_for()
        page.get_by_text("20 Sep – 3 Nov 2026").wait_for()
        page.get_by_role("tab", name="Conversations").click()
        page.get_by_text("No conversation matches").wait_for()


@pytest.mark.matrix
def test_an_empty_selection_shows_dashes(browser: BrowserContext, url: str) -> None:
    with visit(browser, url, "days=custom&from=2026-10-01&to=2026-10-01&channel=SMS") as page:
        expect_tile(page, "PolyScore, of 5", "–")
        expect_tile(page, "Containment", "–")


@pytest.mark.matrix
def test_invalid_parts_of_an_address_are_ignored(browser: BrowserContext, url: str) -> None:
    with visit(
        browser, url, "page=nope&days=x&from=y&agent=%3Cb%3E&channel=&conversation=a"
    ) as page:
        page.wait_for_selector(".pw-filters")
    with visit(browser, url, "page=conversations&conversation=a%2Fb") as page:
        page.get_by_text("This conversation is not in the warehouse").wait_for()


@pytest.mark.matrix
def test_an_empty_warehouse_names_the_load_command(
    browser: BrowserContext, loaded: Loaded, tmp_path: Path
) -> None:
    def empty(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("DELETE FROM conversations")

    with dashboard(copied(loaded, tmp_path), empty) as url, visit(browser, url) as page:
        page.get_by_text("polyai-warehouse load").wait_for()


@pytest.mark.matrix
@pytest.mark.slow
def test_a_token_has_to_be_entered(browser: BrowserContext, loaded: Loaded, tmp_path: Path) -> None:
    token = "a secret of words"
    with dashboard(copied(loaded, tmp_path), token=token) as with_token:
        url = with_token.partition("/?")[0]
        one = Visit(browser, url)
        one.page.goto(url)
        one.page.locator("input[type=password]").fill(token)
        one.page.locator("input[type=password]").press("Enter")
        one.page.wait_for_selector(".pw-filters")
        one.open(DAYS).wait_for_selector("[data-tile]")
        assert "secret" not in one.page.url
        # the first page asked for the token
        assert [text for text in one.errors if "401" not in text] == []
        one.errors.clear()
        one.close()


@pytest.mark.slow
def test_the_command_serves_until_it_is_interrupted(
    browser: BrowserContext, loaded: Loaded, tmp_path: Path
) -> None:
    copied(loaded, tmp_path)
    process = start("dashboard", "--no-browser", "--port", "0")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = line.removeprefix("dashboard: ").strip()
        one = Visit(browser, url)
        one.open(DAYS)
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    one.page.close()
