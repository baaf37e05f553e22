"""Chromium for tests, without requests to its vendor."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

LAPTOP = (1366, 768)
PHONE = (390, 844)


@contextmanager
def chromium() -> Iterator[BrowserContext]:
    """Starts a browser whose pages share one cache; without one, skips the test or fails in CI."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        path = None
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs chromium and playwright")
        pytest.skip("needs a browser: install the package chromium and pip's playwright")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        yield browser.new_context(locale="en-GB")
        browser.close()


class Visit:
    """A page with its errors and its requests to other hosts.

    Attributes:
        page: The page.
        errors: Console errors and exceptions.
        foreign_urls: Requested URLs of other hosts.
    """

    def __init__(self, browser: BrowserContext, url: str) -> None:
        self._url, _, self._token = url.partition("/?token=")
        self.errors: list[str] = []
        self.foreign_urls: list[str] = []
        self.page: Page = browser.new_page()
        self.look(LAPTOP, "light")
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.route(self._is_foreign, lambda route: route.abort())

    def look(self, size: tuple[int, int], scheme: Any) -> None:
        """Sets the window size, and the colour scheme to `light` or `dark`."""
        self.page.set_viewport_size({"width": size[0], "height": size[1]})
        self.page.emulate_media(color_scheme=scheme)

    def open(self, query: str = "") -> Page:
        """Opens the dashboard with a query and waits for the page."""
        token = f"token={self._token}&" if self._token else ""
        self.page.goto(f"{self._url}/?{token}{query}")
        self.page.wait_for_selector(".pw-page, .pw-message")
        return self.page

    def close(self) -> None:
        """Closes the window, and asserts that there were no errors and no foreign requests."""
        self.page.close()
        assert self.errors == []
        assert self.foreign_urls == []

    def _on_console(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _is_foreign(self, url: str) -> bool:
        parts = urlsplit(url)
        is_foreign = bool(parts.netloc) and parts.netloc != urlsplit(self._url).netloc
        if is_foreign:
            self.foreign_urls.append(url)
        return is_foreign
