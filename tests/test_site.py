"""The documentation as a site: built strictly, complete, without a request to anywhere, and readable on any screen."""

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT

import convert
import jaxsae

OWN = ROOT / ".venv-docs" / "bin" / "python"
"""Of the environment that `make site` makes."""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `make site` does; the tests are skipped where nothing is there to build it."""
    python = str(OWN) if OWN.exists() else sys.executable
    if not OWN.exists() and not importlib.util.find_spec("mkdocs"):
        pytest.skip("MkDocs is not here: `make site` installs it")
    folder = tmp_path_factory.mktemp("site")
    command = [python, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    # no proxy to be found: whoever asked the network would fail
    env = {
        **os.environ,
        "NO_MKDOCS_2_WARNING": "1",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return folder


def test_no_page_takes_anything_from_elsewhere(site):
    """Scripts, styles, fonts, pictures: of the site itself, or written into the page."""
    resource = re.compile(
        r"<(?:script|link|img|iframe|source|video|object)\b[^>]*?\b(?:src|href|data)=[\"']?([^\"'\s>]+)"
    )
    pages, found = sorted(site.rglob("*.html")), set()
    for page in pages:
        found |= {target for target in resource.findall(page.read_text()) if re.match(r"(?:\w+:)?//", target)}
    for style in site.rglob("*.css"):
        targets = re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')\s;]+)", style.read_text())
        found |= {target for target in targets if re.match(r"(?:\w+:)?//", target)}
    assert len(pages) > 30
    assert not found


def test_every_name_for_users_is_in_the_reference(site):
    """Under the name by which it is imported."""
    anchors = {
        name for page in (site / "api").glob("*.html") for name in re.findall(r'id="([\w.]+)"', page.read_text())
    }
    named = {f"{module.__name__}.{name}" for module in (jaxsae, convert) for name in module.__all__}
    assert not named - anchors


@pytest.fixture
def address(site) -> Iterator[str]:
    """Where the site is served."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_in_a_browser_it_asks_its_own_server_alone_and_its_search_finds(browser, address):
    browser.get_log("performance")
    browser.get(f"{address}index.html?q=residual")
    found = "return [...document.querySelectorAll('.md-search-result__link')].map(a => a.href)"
    browser.set_script_timeout(30)
    links = browser.execute_async_script(
        f"const done = arguments[0], look = () => {{ const found = (() => {{ {found} }})();"
        " found.length ? done(found) : setTimeout(look, 100) }; look()"
    )
    assert any("glossary.html" in link for link in links)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith((address, "data:", "blob:", "chrome"))} == set()


def test_no_page_is_wider_than_a_phone(browser, site, address):
    """Tables and code scroll by themselves."""
    size = browser.get_window_size()
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        wide = []
        for page in sorted(site.rglob("*.html")):
            browser.get(address + page.relative_to(site).as_posix())
            width = browser.execute_script("return document.documentElement.scrollWidth")
            wide += [(page.name, width)] if width > 390 else []
        assert not wide
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.set_window_size(size["width"], size["height"])
