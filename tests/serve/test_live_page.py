"""The live page in a headless Chromium where there is one: typed into, clicked on, dragged. The model is made up."""

import contextlib
import json
import threading

import jax
import pytest
from conftest import TINY, tiny_splits
from fake_live import FakeLive

from convert import load_restoration_model
from jaxsae.config import SAEConfig
from jaxsae.features import report
from jaxsae.features.inspection import inspect_all
from jaxsae.features.statistics import LayerSAE
from jaxsae.sae.architectures import init
from jaxsae.serve import run
from jaxsae.serve.asked import Limits
from jaxsae.text.samples import Samples

LAYERS, D_SAE = (1, 2), 60
TEXT = "a-na be-lí-ia qí-#í-ma ## [...] LUG#L"
EVIL = "<img src=x onerror=alert(1)> # &amp; </script>"


@pytest.fixture(scope="module")
def html(tiny_pt):
    columns = tiny_splits(seed=5, n=12)["test"]
    samples = Samples(columns["input_ids"], columns["labels"], columns["attention_mask"])
    config = SAEConfig(TINY.d_model, D_SAE, k=6, architecture="topk")
    saes = [LayerSAE(n, init(jax.random.key(n), config)) for n in LAYERS]
    model = load_restoration_model(tiny_pt)
    return report.page(inspect_all(model, samples, saes), [f"sae_layer{n}.pt" for n in LAYERS], "tiny", live=True)


class Site:
    """The server of the page in a thread."""

    def __init__(self, html):
        self.live, self.errors, self.ready = FakeLive(dict.fromkeys(LAYERS, D_SAE)), [], threading.Event()
        self.thread = threading.Thread(target=self._serve, args=(html,), daemon=True)
        self.thread.start()
        assert self.ready.wait(10)

    def _serve(self, html):
        def on_ready(address):
            self.address = address
            self.ready.set()

        run.serve(run.listen(0), html, self.live, scripts=report.scripts(live=True), limits=Limits(seconds=2.0),
                  on_ready=on_ready, on_error=self.errors.append,
                  on_server=lambda server: setattr(self, "server", server))  # fmt: skip

    def asked(self, kind):
        return [call for call in self.live.calls if call[0] == kind]


@pytest.fixture(scope="module")
def site(html):
    one = Site(html)
    yield one
    one.server.should_exit = True
    one.thread.join(10)
    assert one.errors == []


@pytest.fixture
def page(browser, site):
    """The page opened; when the test ends, its console had no error but refusals, and it asked its server alone."""
    site.live.calls.clear()
    browser.get_log("browser"), browser.get_log("performance")
    browser.get("about:blank")
    browser.get(site.address)
    wait(browser, lambda: browser.find_elements("css selector", ".place"))
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert [message for message in severe if "/api/" not in message] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    root = site.address.partition("?")[0]
    assert {url for url in asked if not url.startswith((root, "data:", "about:"))} == set()
    headers = [m["params"]["request"]["headers"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert not [one for one in headers if one.get("Referer")]  # the address has the token in it


def wait(page, what):
    """What it gives once that is something; it is asked again where the page changes under it."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    waiting = WebDriverWait(page, 10, poll_frequency=0.02, ignored_exceptions=[StaleElementReferenceException])
    return waiting.until(lambda _: what())


def texts(page, selector):
    return page.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)", selector
    )


def one(page, selector):
    return page.find_element("css selector", selector)


def type_text(page, text):
    """Type it in place of what is there, and wait until it is what the page is about."""
    box = one(page, "#typed")
    box.clear()
    box.send_keys(text)
    of_page = "return new URLSearchParams(location.hash.split('?')[1]).get('text')"
    wait(page, lambda: page.execute_script(of_page) == text)
    still(page)


def open_place(page, number):
    page.find_elements("css selector", ".place")[number].click()
    wait(page, lambda: texts(page, "#latents .what") and texts(page, "#parallels li"))


def still(page):
    """Wait until nothing more is computed."""
    wait(page, lambda: one(page, "#line").get_attribute("aria-busy") == "false")


def drag(page, number, share):
    """Move a slider as a pointer does: many values on the way, then it is let go."""
    page.execute_script(
        """const range = document.querySelectorAll("#latents input[type=range]")[arguments[0]];
        for (let i = 1; i <= 20; i++) {
          range.value = Number(range.max) * (0.5 + (arguments[1] - 0.5) * i / 20);
          range.dispatchEvent(new Event("input", { bubbles: true }));
        }
        range.dispatchEvent(new Event("change", { bubbles: true }));""",
        number,
        share,
    )


def answer(site, text=TEXT, settings=()):
    return FakeLive(site.live.layers).restore(text, settings, True)


def test_it_begins_with_an_example(page, site):
    assert one(page, "nav a[aria-current=page]").text == "Restore"
    assert one(page, "nav a").text == "Restore"
    first = one(page, "#typed").get_property("value")
    assert "#" in first
    assert [call[1] for call in site.asked("restore")] == [first]
    one(page, "#example").click()
    wait(page, lambda: len(site.asked("restore")) == 2)
    assert site.asked("restore")[1][1] != first
    page.back()
    wait(page, lambda: one(page, "#typed").get_property("value") == first)


def test_a_typed_text_is_restored_in_place(page, site):
    places = page.execute_script("return history.length")
    type_text(page, TEXT)
    assert len(texts(page, ".place")) == 5
    assert page.execute_script("return history.length") == places  # Back is not a letter less
    found = answer(site)
    best = [place["candidates"][0]["character"] for gap in found["gaps"][:2] for place in gap["places"]]
    last = found["gaps"][3]["places"][0]["candidates"][0]["character"]
    shown = [*best, found["gaps"][2]["fillings"][0]["text"], last]
    assert texts(page, ".place") == [name.replace(" ", "␣") for name in shown]
    assert texts(page, "#line .line") == [found["restored"].replace(" ", " ")]
    assert site.asked("restore")[-1] == ("restore", TEXT, [], True)
    titles = [place.get_attribute("title") for place in page.find_elements("css selector", ".place")]
    assert titles[0].count("%") == 5
    assert titles[3].startswith("gap of unknown length: ")
    sure = page.execute_script(
        "return [...document.querySelectorAll('.place > span')].map((s) => getComputedStyle(s).opacity)"
    )
    assert len({float(value) for value in sure}) > 1
    # and again from the address alone
    page.refresh()
    wait(page, lambda: len(texts(page, ".place")) == 5)
    assert one(page, "#typed").get_property("value") == TEXT


def test_a_place_opens_its_reasons(page, site):
    type_text(page, TEXT)
    assert len(texts(page, ".place")) == 5
    assert not one(page, "#why").is_displayed()
    open_place(page, 1)
    position = TEXT.index("##")
    found = FakeLive(site.live.layers).explain(TEXT, position, None, None, [])
    assert site.asked("explain") == [("explain", TEXT, position, None, None, [])]
    assert site.asked("parallels") == [("parallels", TEXT, position)]
    assert one(page, ".place[aria-current]").get_attribute("data-position") == str(position)
    assert one(page, "#why-title").text == f"Why {found['candidate']} rather than {found['against']}?"
    rows = answer(site)["gaps"][1]["places"][0]["candidates"]
    assert texts(page, "#candidates .letters") == [row["character"].replace(" ", "␣") for row in rows[:8]]
    assert texts(page, "#candidates .figure")[0] == f"{100 * rows[0]['probability']:.1f}%"
    # every word is shaded, by its effect
    shaded = page.find_elements("css selector", "#words .text .for, #words .text .against")
    assert len(shaded) == len(found["words"])
    by_start = sorted(found["words"], key=lambda word: word["start"])
    for element, word in zip(shaded, by_start, strict=True):
        assert element.get_attribute("class") == ("for" if word["effect"] > 0 else "against")
        assert element.get_attribute("title").startswith(f"{word['word']}: ")
    assert texts(page, "#words .asked") == [found["candidate"]]
    assert texts(page, "#words tbody td:first-child") == [word["word"] for word in found["words"]]
    # the latents of the first layer, and the table that leads to the other
    latents = found["layers"][0]["latents"]
    assert texts(page, "#latents .what a") == [str(latent["feature"]) for latent in latents[:12]]
    assert texts(page, "#latents .much .figure")[0].replace("−", "-") == f"{latents[0]['effect']:+.2f}"
    page.execute_script("[...document.querySelectorAll('#latents > button')].at(-1).click()")
    assert len(texts(page, "#latents .what")) == len(latents)
    buttons = page.find_elements("css selector", ".depth button")
    assert [button.text for button in buttons] == [str(layer) for layer in LAYERS]
    buttons[1].click()
    assert (
        one(page, "#latents .what a")
        .get_attribute("href")
        .endswith(f"#/feature/{LAYERS[1]}/{latents[0]['feature'] % D_SAE}")
    )
    assert one(page, "#latents figure svg[role=img]").is_displayed()
    assert len(texts(page, "#parallels li.card")) == 4
    passage = FakeLive(site.live.layers).parallels(TEXT, None)["parallels"][0]["passage"]
    assert texts(page, "#parallels .text")[0] == passage


def test_another_candidate_is_explained_and_back(page, site):
    type_text(page, TEXT)
    assert len(texts(page, ".place")) == 5
    open_place(page, 1)
    title = one(page, "#why-title").text
    third = page.find_elements("css selector", "#candidates button")[2]
    name = third.get_attribute("data-candidate")
    third.send_keys(" ")  # the keyboard does
    wait(page, lambda: one(page, "#why-title").text.startswith(f"Why {name} rather than"))
    assert site.asked("explain")[-1][3] == name
    assert len(site.asked("parallels")) == 1  # they are those of the place
    assert one(page, "#candidates [aria-current]").get_attribute("data-candidate") == name
    page.back()
    wait(page, lambda: one(page, "#why-title").text == title)
    page.back()
    wait(page, lambda: not one(page, "#why").is_displayed())
    one(page, ".place").send_keys("\n")
    wait(page, lambda: one(page, "#why").is_displayed())


def test_a_latent_is_dragged_and_the_candidates_change(page, site):
    type_text(page, TEXT)
    assert len(texts(page, ".place")) == 5
    open_place(page, 1)
    before = texts(page, ".place")
    figures = texts(page, "#candidates .figure")
    site.live.calls.clear()
    drag(page, 0, 1.0)
    wait(page, lambda: "→" in texts(page, "#candidates .figure")[0] and texts(page, ".place") != before)
    wait(page, lambda: site.asked("restore") and site.asked("restore")[-1][3])
    latent = FakeLive(site.live.layers).explain(TEXT, 0 + TEXT.index("##"), None, None, [])["layers"][0]["latents"][0]
    settings = [(LAYERS[0], latent["feature"], 2 * latent["value"])]
    assert site.asked("restore")[-1] == ("restore", TEXT, settings, True)
    assert len(site.asked("restore")) < 6  # of twenty-one values
    after = answer(site, settings=settings)["gaps"][1]["places"][0]["candidates"]
    wait(page, lambda: texts(page, ".place")[1] == after[0]["character"].replace(" ", "␣"))
    still(page)
    moved = ["moved" in place.get_attribute("class") for place in page.find_elements("css selector", ".place")]
    assert moved == [old != new for old, new in zip(before, texts(page, ".place"), strict=True)]
    assert any(moved)
    assert one(page, "#changes").is_displayed()
    assert one(page, "#outcome").text.count("%") == 2
    # a second, then each is undone: by itself, and all
    drag(page, 3, 0.0)
    wait(page, lambda: len(site.asked("restore")[-1][2]) == 2 and len(texts(page, "#changes li")) == 2)
    still(page)
    one(page, "#changes li button").click()
    wait(page, lambda: len(texts(page, "#changes li")) == 1)
    page.refresh()  # what is set stands in the address
    wait(page, lambda: len(texts(page, "#changes li")) == 1 and texts(page, "#latents .what"))
    one(page, "#reset").click()
    wait(page, lambda: texts(page, ".place") == before and texts(page, "#candidates .figure") == figures)
    assert not one(page, "#changes").is_displayed()
    assert "set=" not in page.current_url


def test_a_gap_may_be_read_as_longer_while_a_latent_is_set(page, site):
    type_text(page, TEXT)
    assert len(texts(page, ".place")) == 5
    positions = [place.get_attribute("data-position") for place in page.find_elements("css selector", ".place")]
    for number, title in ((3, "gap"), (4, "the place after it")):
        open_place(page, number)
        drag(page, 1, 0.8)
        wait(page, lambda: one(page, "#changes").is_displayed())
        still(page)
        changed = answer(site, settings=site.asked("restore")[-1][2])
        assert [gap["cleaned_end"] - gap["cleaned_start"] for gap in changed["gaps"]] == [1, 2, 6, 1], title
        shown = [place.get_attribute("data-position") for place in page.find_elements("css selector", ".place")]
        assert shown == positions, title
        assert texts(page, "#line .line") == [changed["restored"].replace(" ", " ")], title
        after = changed["gaps"][3]["places"][0]["candidates"]
        figures = texts(page, "#candidates .figure")
        if number == 4:
            names = texts(page, "#candidates .letters")
            place = names.index(after[0]["character"].replace(" ", "␣"))
            assert figures[place].endswith(f"→ {100 * after[0]['probability']:.0f}%")
        else:  # of its characters, which are others now, no candidates can be compared; its fillings can
            assert not any("→" in figure for figure in figures)
            assert texts(page, "#fillings .fillings .letters")[0] == changed["gaps"][2]["fillings"][0]["text"].replace(
                " ", "␣"
            )
        one(page, "#reset").click()
        still(page)


def test_a_latent_leads_to_its_page_and_back(page, site):
    type_text(page, TEXT)
    assert len(texts(page, ".place")) == 5
    open_place(page, 2)
    drag(page, 1, 0.9)
    wait(page, lambda: "→" in texts(page, "#candidates .figure")[0])
    still(page)
    shown = [texts(page, selector) for selector in ("#line", "#why-title", "#candidates", "#changes", "#latents .what")]
    asked = len(site.asked("explain"))
    link = one(page, "#latents .what a")
    number = link.text
    link.click()
    wait(page, lambda: one(page, "#feature").is_displayed())
    assert one(page, "#feature-title").text.startswith(f"Layer {LAYERS[0]}, feature {number}:")
    for back in (lambda: one(page, "#back a").click(), page.back, lambda: one(page, "nav a").click()):
        back()
        wait(page, lambda: one(page, "#why").is_displayed())
        again = [
            texts(page, selector) for selector in ("#line", "#why-title", "#candidates", "#changes", "#latents .what")
        ]
        assert again == shown
        page.forward() if back == page.back else None
        page.execute_script("location.hash = arguments[0]", f"#/feature/{LAYERS[0]}/{number}")
        wait(page, lambda: one(page, "#feature").is_displayed())
    assert len(site.asked("explain")) == asked  # nothing is computed anew
    page.execute_script("location.hash = '#/features'")
    wait(page, lambda: texts(page, "#table tbody tr"))


def test_what_cannot_be_read_is_said(page, site):
    type_text(page, "a-na @ #")
    wait(page, lambda: one(page, "#said").text == "text must be of characters that the model knows, got @")
    assert "wrong" in one(page, "#said").get_attribute("class")
    assert not one(page, "#line").is_displayed()
    type_text(page, "a-na be-lí-ia")
    wait(page, lambda: "Nothing is damaged here" in one(page, "#line").text)
    assert one(page, "#said").text == ""
    type_text(page, " ")
    wait(page, lambda: "Type or paste a text" in one(page, "#line").text)
    site.live.gate.clear()
    one(page, "#typed").clear()
    one(page, "#typed").send_keys("wait")
    wait(page, lambda: one(page, "#said").text == "reading …")
    wait(page, lambda: "at most 2 seconds" in one(page, "#said").text)
    site.live.gate.set()


def test_markup_stays_text(page, site):
    type_text(page, EVIL)
    assert len(texts(page, ".place")) == 1
    assert texts(page, "#line .line")[0].startswith("<img src=x onerror=alert(1)> ")
    open_place(page, 0)
    assert "<img" in "".join(texts(page, "#words"))
    assert page.find_elements("css selector", "#restore img") == []


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_window_shows_all_of_it(page, dark):
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    if dark:
        one(page, "#theme").click()
    type_text(page, TEXT * 4 + "š" * 80 + "#")
    assert len(texts(page, ".place")) == 21
    open_place(page, 4)
    drag(page, 0, 1.0)
    wait(page, lambda: one(page, "#changes").is_displayed() and "→" in texts(page, "#candidates .figure")[0])
    assert page.execute_script("return document.documentElement.scrollWidth") <= 390


def test_without_the_server_it_says_so(html, browser):
    own = Site(html)
    browser.get("about:blank")
    browser.get(own.address)
    wait(browser, lambda: browser.find_elements("css selector", ".place"))
    own.server.should_exit = True
    own.thread.join(10)
    one(browser, "#typed").send_keys("#")
    wait(browser, lambda: one(browser, "#said").text.startswith("The server does not answer"))
    browser.execute_script("location.hash = '#/concepts'")
    assert one(browser, "#concepts").is_displayed()
    with contextlib.suppress(Exception):
        browser.get_log("browser")


def test_the_page_of_a_file_has_none_of_it(html):
    assert 'id="restore"' in html
    assert "Content-Security-Policy" not in html  # the server's header says it, with the scripts' hashes
    for script in report.scripts(live=True):
        assert f"<script>{script}</script>" in html
    assert html.count("<script>") == len(report.scripts(live=True)) == len(report.scripts(live=False)) + 1
