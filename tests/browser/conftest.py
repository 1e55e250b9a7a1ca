"""A real browser before the running stack of this checkout, after `make grid report`.

Pictures go to ``PICTURES`` (default: a temporary folder), one for each test that takes one.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from src.client import use_stack
from src.services.health import check_all
from src.settings import Settings, load_settings
from tests.chromium import CHROMIUM, chromium, sign_in, undisturbed

playwright = pytest.importorskip("playwright.sync_api", reason="make lint installs Playwright")
WAIT = 60_000  # ms for a page to show what it should, on a busy machine too
Take = Callable[[str], Path]


@pytest.fixture(scope="session")
def stack() -> Settings:
    """Return the settings of the running stack, which has a finished grid."""
    settings = load_settings()
    down = {service for service, fault in check_all(settings).items() if fault}
    if down:
        pytest.skip(f"not running: {', '.join(sorted(down))}: make grid report")
    use_stack(settings)
    return settings


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["playwright.Browser"]:
    """Return a browser that keeps nothing in the home folder."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH: on Debian, apt-get install chromium")
    home = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    home["HOME"] = str(tmp_path_factory.mktemp("home"))
    with chromium(env=home) as opened:
        yield opened


class Visit:
    """A fresh browser window, as a newcomer's, that notes which hosts it is sent to."""

    def __init__(self, pages: "playwright.BrowserContext", pictures: Path, name: str) -> None:
        self._sent: set[str] = set()
        pages.on("request", lambda request: self._sent.add(request.url))
        pages.on("requestfailed", self._note_failed)
        self._pages, self._pictures, self._name = pages, pictures, name

    @property
    def page(self) -> "playwright.Page":
        """The window; a new one where a changed network has closed it."""
        return self._pages.pages[0] if self._pages.pages else self._pages.new_page()

    def _note_failed(self, request: "playwright.Request") -> None:
        """Forget what the page's own policy kept in the browser."""
        if "csp" in (request.failure or "").lower():
            self._sent.discard(request.url)

    @property
    def hosts(self) -> set[str]:
        sent = (url for url in self._sent if url.startswith(("http", "ws")))
        return {urlsplit(url).hostname or "" for url in sent}

    def picture(self, name: str = "") -> Path:
        file = self._pictures / f"{name or self._name}.png"
        self.page.screenshot(path=file, animations="disabled")
        return file

    def shows(self, *texts: str) -> None:
        for text in texts:
            self.page.get_by_text(text).first.wait_for()


@pytest.fixture
def pages(browser: "playwright.Browser") -> Iterator["playwright.BrowserContext"]:
    made = browser.new_context(viewport={"width": 1400, "height": 900}, reduced_motion="reduce")
    made.set_default_timeout(WAIT)
    yield made
    made.close()


@pytest.fixture
def visit(
    pages: "playwright.BrowserContext",
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Visit]:
    folder = Path(os.environ.get("PICTURES") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    made = Visit(pages, folder, request.node.name.removeprefix("test_"))
    yield made
    assert made.hosts <= {load_settings().host}, "upstream's page sends the browser elsewhere"


@pytest.fixture
def zenml(visit: Visit, pages: "playwright.BrowserContext", stack: Settings) -> Visit:
    """A window signed in to ZenML with what `make credentials` shows."""

    account = stack.zenml_admin_username, stack.zenml_admin_password
    undisturbed(pages, lambda: sign_in(visit.page, stack.zenml_url, *account))
    return visit


@pytest.fixture(scope="session")
def runs(stack: Settings) -> list[dict]:
    """Return the experiment's finished runs, newest first, as MLflow's REST API gives them."""
    from src.training.tracking import EXPERIMENT

    api = f"{stack.mlflow_url}/api/2.0/mlflow"
    auth = (stack.mlflow_admin_username, stack.mlflow_admin_password)
    found = requests.get(
        f"{api}/experiments/get-by-name",
        params={"experiment_name": EXPERIMENT},
        auth=auth,
        timeout=10,
    )
    if found.status_code != 200:
        pytest.skip("nothing has been trained here: make grid report")
    body = {
        "experiment_ids": [found.json()["experiment"]["experiment_id"]],
        "order_by": ["attributes.start_time DESC"],
        "filter": "attributes.status = 'FINISHED'",
    }
    answer = requests.post(f"{api}/runs/search", json=body, auth=auth, timeout=10).json()
    if len(answer.get("runs", [])) < 2:
        pytest.skip("nothing to compare here: make grid report")
    return answer["runs"]
