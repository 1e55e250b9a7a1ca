"""The browser of these tests while network interfaces come and go, in a network of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.chromium import CHROMIUM, chromium, undisturbed
from tests.e2e.conftest import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

pytestmark = pytest.mark.e2e
SCRIPTS = 24  # more than a browser asks for at once: those that wait are given up


class Page(BaseHTTPRequestHandler):
    """A page of scripts, each of which writes a letter."""

    # Once some scripts were asked for, and while others wait.
    change = threading.Event()
    changed = threading.Event()

    def do_GET(self) -> None:
        kind, body = "text/html", "".join(f"<script src=/{n}.js></script>" for n in range(SCRIPTS))
        if self.path.endswith(".js"):
            kind, body = "text/javascript", "document.documentElement.append('x')"
            self.change.set()
            self.changed.wait()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


def change_network() -> None:
    Page.change.wait()
    for words in ("link add v1 type veth", "addr add 192.0.2.1/24 dev v1", "link set v1 up"):
        subprocess.run(["ip", *words.split()], check=True)
    Page.changed.set()


def main() -> None:
    """Load the page while an interface comes; print how often it was loaded until it was whole."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    tries = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server, chromium() as browser:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        threading.Thread(target=change_network, daemon=True).start()
        pages = browser.new_context()
        pages.set_default_timeout(60_000)

        def look() -> None:
            tries.append(None)
            page = pages.new_page()
            page.goto(f"http://127.0.0.1:{server.server_port}/")
            page.get_by_text("x" * SCRIPTS).wait_for()

        undisturbed(pages, look)
        server.shutdown()
    print(len(tries))


@pytest.mark.skipif(
    CHROMIUM is None or os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("ip")),
    reason="needs Chromium, and root for a network of its own",
)
def test_a_page_is_loaded_again_where_the_network_changed() -> None:
    words = ["unshare", "--net", sys.executable, "-m", "tests.e2e.test_chromium"]
    tried = subprocess.run(
        words, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert tried.stdout.strip() == "2"


def test_a_failure_tells_what_a_person_would_see(pages: BrowserContext) -> None:
    def look() -> None:
        pages.new_page().set_content("Something went wrong!")
        raise TimeoutError

    with pytest.raises(TimeoutError) as failure:
        undisturbed(pages, look)
    assert failure.value.__notes__ == ["about:blank\nSomething went wrong!"]


if __name__ == "__main__":
    main()
