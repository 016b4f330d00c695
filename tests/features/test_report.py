"""The page of several layers: what stands in it, and how it behaves in a headless Chromium where there is one."""

import json
import re

import jax
import numpy as np
import pytest
from conftest import TINY, tiny_splits

from convert import load_restoration_model
from jaxsae.config import SAEConfig
from jaxsae.features import report
from jaxsae.features.concepts import load_concepts
from jaxsae.features.inspection import inspect_all
from jaxsae.features.statistics import LayerSAE
from jaxsae.sae.architectures import init
from jaxsae.text.samples import Samples

LAYERS = (0, 2, 3)
D_SAE = 60
EVIL = "</script><img src=x onerror=alert(1)>"


def made(tiny_pt, layers=LAYERS) -> str:
    """The page of random TopKs on text in which markup stands."""
    model = load_restoration_model(tiny_pt)
    columns = tiny_splits(seed=5, n=40)["test"]
    letters = np.array([ord(c) for c in "a-na šar-ri EN " + EVIL[: TINY.max_position - 15]])
    ids = np.where(columns["attention_mask"] != 0, np.resize(letters, columns["input_ids"].shape), 32).astype(np.int32)
    labels = np.where(columns["labels"] != -100, ids, -100).astype(np.int32)
    samples = Samples(np.where(labels != -100, 35, ids).astype(np.int32), labels, columns["attention_mask"])
    configs = [SAEConfig(TINY.d_model, D_SAE, k=6, architecture="topk") for _ in layers]
    saes = [LayerSAE(n, init(jax.random.key(n), c)) for n, c in zip(layers, configs, strict=True)]
    again = [[sae, sae] for _, sae in saes]  # other seeds that found the same
    inspections = inspect_all(model, samples, saes, concepts=load_concepts(), other_seeds=again)
    return report.page(inspections, [f"<b>sae_layer{n}.pt" for n in layers], f"tiny {EVIL}")


@pytest.fixture(scope="module")
def html(tiny_pt):
    return made(tiny_pt)


def data_of(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


def test_the_page_is_whole_and_asks_for_nothing(html):
    markup = re.sub(r"<script.*?</script>|<style>.*?</style>", "", html, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]', markup)
    assert "default-src 'none'" in html
    assert len(html) < 2e6
    assert html.count("<article>") == 5


def test_text_from_the_data_is_escaped(html):
    assert "onerror" in html
    assert EVIL not in html
    assert "<img" not in html
    assert "<b>sae" not in html
    contexts = data_of(html)["layers"][0]["features"][0]["contexts"] or [[0, 0, EVIL]]
    assert isinstance(contexts[0][2], str)


def test_the_figures_are_those_of_the_statistics(html):
    data = data_of(html)
    assert [layer["layer"] for layer in data["layers"]] == list(LAYERS)
    for number, layer in enumerate(data["layers"]):
        assert len(layer["features"]) == len(layer["rate"]) == D_SAE
        for rate, feature in zip(layer["rate"], layer["features"], strict=True):
            first, counts = feature["histogram"]
            assert 0 <= first <= first + len(counts) <= len(layer["edges"])
            np.testing.assert_allclose(sum(counts), rate * layer["rows"], rtol=1e-3)
            for _, position, text, at, _, damaged, digits, value, level in feature["contexts"]:
                assert digits[at] == "9" or level != "strongest"
                assert len(text) == len(digits)
                assert digits[at] != "0"
                assert 0 <= at <= position
                assert value > 0
                assert all(0 <= hole < len(text) for hole in damaged)
            assert ("match" in feature) == (number < 2)
            assert feature["caption"]
            assert feature["again"][:3] == [2, 1, 1]
        assert sorted(layer["order"]) == list(range(D_SAE))


def test_the_answers_say_when_there_is_nothing(html):
    found = data_of(html)["answers"]
    assert [a["question"].split()[0] for a in found] == ["What", "Which", "Which", "Which", "How"]
    damage = " ".join(found[1]["sentences"])
    assert "damaged characters" in damage
    # random latents of a random model: no ending has a feature, or there are too few to say
    assert re.search("No clear feature|too few|no clear feature", " ".join(found[3]["sentences"]))
    assert len(found[0]["points"]) == len(found[0]["features"])
    for answer in found:  # a discovery is only told
        removed = [] if answer["points"] else answer["features"]
        assert [c["feature"] for c in answer["causal"]] == [f["feature"] for f in removed]


def test_one_layer_has_no_view_of_layers(tiny_pt):
    html = made(tiny_pt, (1,))
    assert 'id="layers"' not in html
    assert "One layer was looked at" in html


# ---- in a browser


@pytest.fixture
def page(browser, html, tmp_path):
    """The page opened; when the test ends, its console had no error and nothing was asked of a network."""
    path = tmp_path / "page.html"
    path.write_text(html, encoding="utf-8")
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(path.as_uri())
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith(("file:", "data:"))} == set()


def go(page, view: str) -> None:
    page.execute_script(f"location.hash = '{view}'")
    page.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def texts(page, selector: str) -> list[str]:
    return [element.text for element in page.find_elements("css selector", selector)]


def test_the_answers_have_a_picture_each(page, html):
    assert texts(page, "#answers h3") == [a["question"] for a in data_of(html)["answers"]]
    charts = sum(a["chart"] is not None for a in data_of(html)["answers"])
    assert len(page.find_elements("css selector", "#answers figure svg[role=img]")) >= charts >= 2
    assert not page.find_element("id", "features").is_displayed()
    assert page.find_element("css selector", "nav a[aria-current=page]").text == "Five answers"


def test_the_table_sorts_and_searches(page, html):
    go(page, "#/features")
    rows = page.find_elements("css selector", "#table tbody tr")
    assert len(rows) == D_SAE
    layer = data_of(html)["layers"][0]
    assert texts(page, "#table thead th") == [
        "feature", "caption", "F1", "seeds", "fires on", "max", "finds", "run", "strongest context",
    ]  # fmt: skip
    order = [str(i) for i in layer["order"]]
    assert texts(page, "#table tbody td:first-child") == order  # the best named first
    captions = texts(page, "#table tbody td:nth-child(2)")
    assert captions == [layer["features"][int(i)]["caption"] for i in order]
    for name, column in (("F1", 3), ("seeds", 4), ("fires on", 5)):
        page.find_elements("css selector", "#table th button")[column - 1].click()
        shown = [float(t.rstrip("%") or 0) for t in texts(page, f"#table tbody td:nth-child({column})")]
        assert shown == sorted(shown, reverse=True), name
    page.find_elements("css selector", "#table th button")[0].click()
    assert texts(page, "#table tbody td:first-child") in (order, order[::-1])
    header = page.find_elements("css selector", "#table th")[0]
    first = header.get_attribute("aria-sort")
    page.switch_to.active_element.click()  # the focus stays on the button
    assert {first, page.find_elements("css selector", "#table th")[0].get_attribute("aria-sort")} == {
        "ascending",
        "descending",
    }
    search = page.find_element("id", "search")
    search.send_keys("17")
    assert "17" in texts(page, "#table tbody td:first-child")
    search.clear()
    search.send_keys("no such thing")
    assert texts(page, "#table tbody tr") == []
    assert page.find_element("id", "count").text == f"0 of {D_SAE} features"


def test_a_feature_opens_with_its_contexts_and_the_keys_move_on(page, html):
    data = data_of(html)
    layer = data["layers"][1]
    number = int(np.argmax(layer["rate"]))
    go(page, f"#/feature/{layer['layer']}/{number}")
    assert page.find_element("id", "feature-title").text == (
        f"Layer {layer['layer']}, feature {number}: {layer['features'][number]['caption']}"
    )
    assert page.find_element("css selector", "#feature-body p:nth-of-type(2)").text.startswith("Found in 2 of 2 other")
    assert page.switch_to.active_element.get_attribute("id") == "feature-title"
    markup = 0
    for i in np.argsort(layer["rate"])[::-6]:
        go(page, f"#/feature/{layer['layer']}/{i}")
        feature = layer["features"][i]
        contexts = page.find_elements("css selector", ".contexts .text")
        assert len(contexts) == len(feature["contexts"])
        for element, (*_, text, at, cut, _, digits, _, _) in zip(contexts, feature["contexts"], strict=True):
            shown = page.execute_script("return arguments[0].textContent", element)
            assert shown == ("…" if cut[0] else "") + text + ("…" if cut[1] else "")
            markup += bool(
                re.search("<img [a-z]", "".join("_" if d != "0" else c for c, d in zip(text, digits, strict=True)))
            )
            marks = [m.get_property("textContent") for m in element.find_elements("css selector", "mark")]
            assert marks == [c for c, digit in zip(text, digits, strict=True) if digit != "0"]
            assert element.find_element("css selector", "mark.peak").get_property("textContent") == text[at]
    assert markup  # a tag stood in a run of text somewhere, and stayed text
    go(page, f"#/feature/{layer['layer']}/{number}")
    assert len(page.find_elements("css selector", "#feature-body svg[role=img]")) == 3
    from selenium.webdriver.common.keys import Keys

    page.find_element("id", "feature-title").send_keys(Keys.ARROW_RIGHT)
    page.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert page.find_element("id", "feature-title").text.startswith(
        f"Layer {layer['layer']}, feature {(number + 1) % D_SAE}: "
    )
    page.find_element("css selector", "body").send_keys("/")
    assert page.switch_to.active_element.get_attribute("id") == "search"


def test_concepts_and_layers_are_shown(page, html):
    data = data_of(html)
    go(page, "#/concepts")
    assert len(page.find_elements("css selector", "#concepts table")) == 3
    assert len(page.find_elements("css selector", "#concepts tbody tr")) == sum(
        len(x["concepts"]) for x in data["layers"]
    )
    head = [
        "concept",
        "best feature, and others",
        "n",
        "run",
        "95 %",
        "random",
        "windows",
        "neurons",
        "precision",
        "recall",
    ]
    assert texts(page, "#concepts thead th")[:10] == head
    first, best = data["layers"][0]["concepts"][0], data["layers"][0]["concepts"][0]["best"][0]
    row = texts(page, "#concepts tbody tr:first-child td")[:7]
    assert row[0].startswith(f"{best['feature']}: ")
    assert row[1:3] == [f"{first['instances']:,}", f"{best['run']:.2f}"]
    assert row[4:] == [f"{first[name]:.2f}" for name in ("random", "windows", "neurons")]
    page.find_element("css selector", "#concepts tbody a").click()
    assert page.find_element("id", "feature").is_displayed()
    go(page, "#/layers")
    assert "Features matched across layers" in texts(page, "#layers h3")
    assert len(page.find_elements("css selector", "#layers svg[role=img]")) >= 4
    head = texts(page, "#layers table.small caption")
    assert "Run score of the best feature" in head


def test_light_and_dark(page):
    before = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    page.find_element("id", "theme").click()
    assert page.execute_script("return getComputedStyle(document.body).backgroundColor") != before
