"""A real browser for the tests that look at pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Request, Response

T = TypeVar("T")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
TRIES = 10


@contextmanager
def chromium(*options: str, env: Mapping[str, str] | None = None) -> Iterator[Browser]:
    """Start Chromium without a window, with more command-line options and an environment."""
    from playwright.sync_api import sync_playwright

    # Drawn without a GPU, ZenML's animated sign-in page takes a busy machine's whole time.
    shared = ("--disable-background-networking", "--disable-gpu", "--disable-3d-apis")
    root = ("--no-sandbox",) if os.geteuid() == 0 else ()
    args = [*shared, "--disable-dev-shm-usage", *root, *options]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=CHROMIUM, args=args, env=dict(os.environ if env is None else env)
        )
        yield opened
        opened.close()


def undisturbed(pages: BrowserContext, look: Callable[[], T]) -> T:
    """Close the windows and look again where Chromium gives up what it is loading.

    It does when a network interface comes or goes, as those of containers do, Docker's tests
    beside this one. A person would load the page again. A failure tells what a person would see.
    """
    given_up: list[str] = []
    failed: list[str] = []

    def note_failed(request: Request) -> None:
        failed.append(f"{request.failure} {request.method} {request.url}")
        if "ERR_NETWORK_CHANGED" in (request.failure or ""):
            given_up.append(request.url)
            for page in pages.pages:  # whoever waits for something in it need not wait any more
                page.close()

    def note_status(response: Response) -> None:
        if response.status >= 400:
            failed.append(f"{response.status} {response.request.method} {response.url}")

    pages.on("requestfailed", note_failed)
    pages.on("response", note_status)
    try:
        for _ in range(TRIES - 1):
            try:
                return look()
            except Exception:
                if not given_up:
                    raise
                given_up.clear()
        return look()
    except Exception as error:
        error.add_note("\n".join([*map(_seen, pages.pages), *failed]))
        raise
    finally:
        pages.remove_listener("requestfailed", note_failed)
        pages.remove_listener("response", note_status)


def _seen(page: Page) -> str:
    """The address and the text of a page."""
    from playwright.sync_api import Error

    try:
        return f"{page.url}\n{page.inner_text('body', timeout=5_000)}"
    except Error as error:  # crashed, or it never loaded
        return f"{page.url}\n{error}"


def sign_in(page: Page, zenml: str, username: str, password: str) -> None:
    """Sign in to the ZenML server at the address ``zenml``.

    At its page for that: from another one, its dashboard now and then (seen in ZenML 0.98)
    leads back to the sign-in page after a sign-in.
    """
    page.goto(f"{zenml}/login")
    page.locator("input[name=username]").fill(username)
    page.locator("input[name=password]").fill(password)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "/login" not in url)
