"""The page of several layers: what stands in it, and how it behaves in a headless Chromium where there is one."""

import json
import re

import jax
import numpy as np
import pytest
from conftest import TINY, tiny_splits

from convert import load_restoration_model
from jaxsae.config import SAEConfig
from jaxsae.features import answers, report
from jaxsae.features.concepts import load_concepts
from jaxsae.features.inspection import inspect_all
from jaxsae.features.statistics import LayerSAE
from jaxsae.sae.architectures import init
from jaxsae.text.samples import Samples

LAYERS = (0, 2, 3)
D_SAE = 60
EVIL = "</script><img src=x onerror=alert(1)>"


def made(tiny_pt, layers=LAYERS, columns=None) -> str:
    """The page of random TopKs on text in which markup stands."""
    model = load_restoration_model(tiny_pt)
    rows = tiny_splits(seed=5, n=40)["test"]
    letters = np.array([ord(c) for c in "a-na šar-ri EN " + EVIL[: TINY.max_position - 15]])
    ids = np.where(rows["attention_mask"] != 0, np.resize(letters, rows["input_ids"].shape), 32).astype(np.int32)
    labels = np.where(rows["labels"] != -100, ids, -100).astype(np.int32)
    seen = np.where(labels != -100, 35, ids).astype(np.int32)
    samples = Samples(seen, labels, rows["attention_mask"], columns=columns or {})
    configs = [SAEConfig(TINY.d_model, D_SAE, k=6, architecture="topk") for _ in layers]
    saes = [LayerSAE(n, init(jax.random.key(n), c)) for n, c in zip(layers, configs, strict=True)]
    again = [[sae, sae] for _, sae in saes]  # other seeds that found the same
    inspections = inspect_all(model, samples, saes, concepts=load_concepts(), other_seeds=again)
    return report.page(inspections, [f"<b>sae_layer{n}.pt" for n in layers], f"tiny {EVIL}")


@pytest.fixture(scope="module")
def html(tiny_pt):
    return made(tiny_pt)


def places_of(feature: dict) -> list:
    return feature["strongest"] + [place for _, places in feature["intervals"] for place in places]


def number_of(layer: dict, feature: dict) -> int:
    return next(i for i, one in enumerate(layer["features"]) if one is feature)


def levels_of(encoded: str) -> list[int]:
    out: list[int] = []
    for one in encoded:
        silent = ord(one) - 96 if one.islower() else 26 * (ord(one) - 64)
        out += [int(one)] if one.isdigit() else [0] * silent
    return out


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
    assert any("<img" in text for _, text, _ in data_of(html)["texts"].values())


def test_the_figures_are_those_of_the_statistics(html):
    data = data_of(html)
    assert [layer["layer"] for layer in data["layers"]] == list(LAYERS)
    for number, layer in enumerate(data["layers"]):
        assert len(layer["features"]) == len(layer["rate"]) == D_SAE
        for rate, feature in zip(layer["rate"], layer["features"], strict=True):
            first, counts = feature["histogram"]
            assert 0 <= first <= first + len(counts) <= len(layer["edges"])
            np.testing.assert_allclose(sum(counts), rate * layer["rows"], rtol=1e-3)
            for fired, places in feature["intervals"]:
                assert len(places) <= min(4, fired)
            for sample, position, value in places_of(feature):
                _, text, runs = data["texts"][str(sample)]
                assert 0 <= position < len(text)
                assert value > 0
                assert levels_of(feature["fires"][str(sample)])[position] > 0
                assert sum(runs[1::2]) <= len(text)
            strongest = feature["strongest"]
            assert all(
                levels_of(feature["fires"][str(sample)])[at] == 9
                for sample, at, value in strongest
                if value > 0.95 * layer["max"][number_of(layer, feature)]
            )
            if strongest:
                assert sum(fired for fired, _ in feature["intervals"]) == round(rate * layer["rows"])
            assert ("match" in feature) == (number < 2)
            assert feature["caption"]
            assert feature["again"][:3] == [2, 1, 1]
        assert sorted(layer["order"]) == list(range(D_SAE))
        told = np.array(layer["tells"])[layer["order"]]
        assert (np.diff(told) <= 0).all()
        assert 0 <= told.min() <= told.max() <= 1
        for rate, feature in zip(layer["rate"], layer["features"], strict=True):
            assert ("place" in feature) == (rate > 0)


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


def test_of_a_long_text_some_samples_are_restored_without_the_features_and_that_is_said(tiny_pt, monkeypatch):
    whole = data_of(made(tiny_pt, (1,)))["answers"]
    monkeypatch.setattr(answers, "MOST_READ", 200)
    html = made(tiny_pt, (1,))
    few, said = data_of(html)["answers"], re.findall(r"fires at all \(of (\d+) of (\d+) texts\)", html)
    assert said
    assert all(int(a) < int(b) for a, b in said)
    for one, other in zip(few, whole, strict=True):
        assert one["sentences"] == other["sentences"]
        for c, all_texts in zip(one["causal"], other["causal"], strict=True):
            assert c["positions"] < all_texts["positions"]
            assert all_texts["read"] == ""


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
    page.execute_script("location.hash = arguments[0]", view)
    frame(page)


def frame(page) -> None:
    """Wait until what was done is drawn."""
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
        "feature", "tells", "caption", "F1", "seeds", "fires on", "max", "finds", "run", "strongest context",
    ]  # fmt: skip
    order = [str(i) for i in layer["order"]]
    assert texts(page, "#table tbody td:first-child") == order  # those that tell most first
    assert sorted_by(page) == ("tells", "descending")
    assert texts(page, "#table tbody td:nth-child(2)") == [f"{layer['tells'][int(i)]:.2f}" for i in order]
    captions = texts(page, "#table tbody td:nth-child(3)")
    assert captions == [layer["features"][int(i)]["caption"] for i in order]
    for name, number in (("F1", 4), ("seeds", 5), ("fires on", 6)):
        sort_by(page, name)
        shown = [float(t.rstrip("%") or 0) for t in texts(page, f"#table tbody td:nth-child({number})")]
        assert shown == sorted(shown, reverse=True), name
    sort_by(page, "feature")
    assert sorted_by(page) == ("feature", "ascending")
    assert texts(page, "#table tbody td:first-child") == [str(i) for i in range(D_SAE)]
    page.switch_to.active_element.click()  # the focus stays on the button
    assert sorted_by(page) == ("feature", "descending")
    sort_by(page, "tells")
    assert texts(page, "#table tbody td:first-child") == order
    search(page, "17")
    assert "17" in texts(page, "#table tbody td:first-child")
    search(page, "no such thing")
    assert texts(page, "#table tbody tr") == []
    assert page.find_element("id", "count").text == f"0 of {D_SAE} features"


def sorted_by(page) -> tuple[str, str]:
    (head,) = page.find_elements("css selector", "#table th:not([aria-sort=none])")
    return head.find_element("css selector", "button").get_property("textContent"), head.get_attribute("aria-sort")


def sort_by(page, name: str) -> None:
    buttons = page.find_elements("css selector", "#table th button")
    next(one for one in buttons if one.get_property("textContent") == name).click()


def search(page, text: str) -> None:
    box = page.find_element("id", "search")
    box.clear()
    box.send_keys(text)


SPELLINGS = [
    # what is typed, what it finds, what it does not
    ("šè", ["šè", "ŠÈ", "a-šè-e", "sze3", "szè"], ["še", "šé"]),
    ("sze3", ["šè", "sze3", "she3"], ["še", "se"]),
    ("she", ["šè", "še", "šé", "sze", "se"], ["sa"]),
    ("kur2", ["kúr", "KÚR", "lú-kúr", "kur₂"], ["kur", "kùr", "kúra"]),
    ("kúr", ["kúr", "kur2"], ["kur"]),
    ("t,up", ["ṭup-pi", "ŢUP"], ["du"]),
    ("s,a", ["ṣa-bi"], ["ta"]),
    ("hi", ["ḫi", "hi"], ["ki"]),
    ("geš", ["ŋeš", "ĝeš", "g̃eš", "ješ"], ["eš"]),
    ("lu2", ["lú", "lu₂"], ["lu", "lù"]),
    ("lu", ["lú", "lu₂", "lù", "LU"], ["la"]),
    ("'a", ["ʾa", "ʿa"], ["-a"]),
    ("vowel", ["vowels a, u", "Vowel"], ["consonants"]),
]


@pytest.mark.parametrize(("typed", "finds", "not_these"), SPELLINGS, ids=[row[0] for row in SPELLINGS])
def test_every_spelling_of_a_sign_finds_it(page, typed, finds, not_these):
    found = page.execute_script(
        "const of = wanted(arguments[0], []).of; return arguments[1].map((one) => hits(one, of).length)",
        typed,
        finds + not_these,
    )
    assert dict(zip(finds + not_these, found, strict=True)) == dict.fromkeys(finds, 1) | dict.fromkeys(not_these, 0)


def test_a_hit_is_marked_where_it_stands(page):
    def marked(text: str, typed: str) -> list[str]:
        return page.execute_script(
            "return hits(arguments[0], wanted(arguments[1], []).of).map(([a, b]) => arguments[0].slice(a, b))",
            text,
            typed,
        )

    assert marked("a-na KÚR ù lú-kúr", "kur2") == ["KÚR", "kúr"]
    assert marked("šè šú-šè", "sze3") == ["šè", "šè"]
    assert marked("sze3 šè", "she") == ["sze", "šè"]
    assert marked("𒀭 šè", "šè") == ["šè"]  # beyond the first plane
    assert marked("g̃eš", "ges") == ["g̃eš"]
    assert marked("abc", "") == []


def test_it_is_searched_by_class_promoted_character_caption_and_concept(page, html):
    layer = data_of(html)["layers"][0]
    order, features = layer["order"], layer["features"]

    def found(typed: str) -> list[int]:
        go(page, "#/features?layer=0")
        search(page, typed)
        return [int(number) for number in texts(page, "#table tbody td:first-child")]

    classes = next(one["classes"] for one in features if one["classes"])
    named = classes[0]
    assert found(f"class:{named}") == [i for i in order if any(named in one for one in features[i]["classes"])]
    assert set(found(named)) >= set(found(f"class:{named}")) > set()
    promoted = features[order[0]]["promotes"][0][0]
    if promoted.strip():
        hits = found(f"promotes:{promoted}")
        assert order[0] in hits
        assert len(hits) < D_SAE
        note = page.find_element("css selector", "#table .where-found")
        assert note.text.startswith("promotes: ")
        assert note.find_element("css selector", "mark.hit").text.lower() == promoted.lower()
    assert found("caption:unclear") == [i for i in order if "unclear" in features[i]["caption"]]
    marks = page.find_elements("css selector", "#table td.caption mark.hit")
    assert {mark.text for mark in marks} == {"unclear"}
    assert found("<img")  # of a context, as text
    assert not page.find_elements("css selector", "#table img")
    assert page.find_elements("css selector", "#table mark.hit")


def test_what_is_searched_comes_in_the_order_of_how_much_a_hit_says(page):
    go(page, "#/features?layer=0")
    numbers = page.execute_script(
        """
        const l = data.layers[0], known = (i, what) => Object.assign(l.features[i], { fields: undefined }, what);
        const name = l.concepts[0].name, nothing = { caption: "b", f1: 0, classes: [], characters: [], promotes: [], concepts: [] };
        l.features.forEach((f, i) => known(i, nothing));
        known(l.order[0], { promotes: [["zzz", 1]] });
        known(l.order[1], { caption: "unclear; 80% of firings on zzz" });
        known(l.order[2], { concepts: [[0, 0.3]] });
        known(l.order[3], { concepts: [[0, 0.6]] });
        known(l.order[4], { caption: "zzz before a", f1: 0.6 });
        known(l.order[5], { classes: ["zzz"] });
        known(l.order[6], { caption: "strongest on zzz" });  // not of every firing: its F1 is not said
        Object.assign(l.concepts[0], { name: "zzz", title: "zzz" });
        const found_ = (typed) => found(wanted(typed, fieldNames)).map(({ i }) => l.order.indexOf(i));
        const out = [found_("zzz")];
        state.sort = "feature", state.up = true;
        out.push(found(wanted("zzz", fieldNames)).map(({ i }) => i));
        return [...out, l.order];
        """
    )
    page.refresh()
    by_word, by_number, order = numbers
    assert by_word == [4, 6, 3, 2, 5, 0, 1]  # captions, finds by its score, class, promotes, an unclear caption
    assert by_number == sorted(order[:7])  # what is sorted by something else stays so


def test_what_is_chosen_stands_in_the_address_and_stays(page, html):
    go(page, "#/features")
    state = "return [location.hash, scrollY, history.length, document.documentElement.dataset.theme ?? null]"
    length = page.execute_script(state)[2]
    search(page, "a")
    sort_by(page, "max")
    page.find_element("css selector", "#layer option:nth-child(2)").click()
    page.find_element("id", "sparse").click()
    address, _, now, _ = page.execute_script(state)
    assert now == length  # typing and choosing are no steps back
    assert set(address.partition("?")[2].split("&")) == {f"layer={LAYERS[1]}", "q=a", "sort=max", "sparse=1"}
    page.find_element("id", "sparse").click()
    page.find_element("id", "theme").click()
    chosen = page.execute_script(state)[3]
    page.execute_script("scrollTo(0, 600)")
    frame(page)
    rows = texts(page, "#table tbody td:first-child")
    assert len(rows) > 20

    def as_it_was() -> None:
        frame(page)
        assert page.find_element("id", "search").get_property("value") == "a"
        assert sorted_by(page) == ("max", "descending")
        assert page.find_element("id", "layer").get_property("value") == "1"
        assert texts(page, "#table tbody td:first-child") == rows
        assert page.execute_script(state)[1] == 600
        assert page.execute_script(state)[3] == chosen
        assert f"theme={chosen}" in page.execute_script(state)[0]

    as_it_was()
    page.refresh()
    as_it_was()
    page.execute_script("document.querySelector('#table tbody tr:nth-child(12) a').click()")
    frame(page)
    assert page.find_element("id", "feature").is_displayed()
    assert page.execute_script(state)[1] == 0
    page.execute_script("scrollTo(0, 100)")
    frame(page)
    page.find_element("css selector", "nav a[data-view=concepts]").click()
    frame(page)
    page.back()
    frame(page)
    assert page.find_element("id", "feature").is_displayed()
    assert page.execute_script(state)[1] == 100
    page.back()
    as_it_was()
    page.forward()
    frame(page)
    page.find_element("css selector", "#feature a[data-table]").click()  # the link leads to the table as it was left
    frame(page)
    assert texts(page, "#table tbody td:first-child") == rows
    page.find_element("id", "theme").click()


def test_an_address_brings_its_theme_along(page):
    for theme in ("dark", "light"):
        go(page, f"#/concepts?theme={theme}")
        assert page.execute_script("return document.documentElement.dataset.theme") == theme
        assert page.find_element("id", "theme").get_attribute("aria-pressed") == str(theme == "dark").lower()


def test_a_feature_opens_with_its_contexts_and_the_keys_move_on(page, html):
    data = data_of(html)
    layer = data["layers"][1]
    number = int(np.argmax(layer["rate"]))
    go(page, f"#/feature/{layer['layer']}/{number}")
    assert page.find_element("id", "feature-title").text == (
        f"Layer {layer['layer']}, feature {number}: {layer['features'][number]['caption']}"
    )
    assert page.find_element("css selector", "#feature-body p:nth-of-type(2)").text.startswith(
        "Found again in 2 of 2 other"
    )
    assert page.switch_to.active_element.get_attribute("id") == "feature-title"
    markup = 0
    for i in np.argsort(layer["rate"])[::-6]:
        go(page, f"#/feature/{layer['layer']}/{i}")
        feature = layer["features"][i]
        contexts = page.find_elements("css selector", ".contexts .text")
        places = places_of(feature)
        assert len(contexts) == len(places)
        for element, (sample, at, _) in zip(contexts, places, strict=True):
            text, levels = data["texts"][str(sample)][1], levels_of(feature["fires"][str(sample)])
            levels += [0] * (len(text) - len(levels))
            part = slice(max(0, at - 30), at + 19)
            shown = page.execute_script("return arguments[0].textContent", element)
            assert shown == ("…" if at > 30 else "") + text[part] + ("…" if at + 19 < len(text) else "")
            pairs = list(zip(text[part], levels[part], strict=True))
            markup += bool(re.search("<img [a-z]", "".join("_" if level else c for c, level in pairs)))
            marks = [m.get_property("textContent") for m in element.find_elements("css selector", "mark")]
            assert marks == [c for c, level in pairs if level]
            assert element.find_element("css selector", "mark.peak").get_property("textContent") == text[at]
    assert markup  # a tag stood in a run of text somewhere, and stayed text
    go(page, f"#/feature/{layer['layer']}/{number}")
    assert len(page.find_elements("css selector", "#feature-body svg[role=img]")) == 3
    from selenium.webdriver.common.keys import Keys

    page.find_element("id", "feature-title").send_keys(Keys.ARROW_RIGHT)
    frame(page)
    assert page.find_element("id", "feature-title").text.startswith(
        f"Layer {layer['layer']}, feature {(number + 1) % D_SAE}: "
    )
    page.find_element("css selector", "body").send_keys("/")
    assert page.switch_to.active_element.get_attribute("id") == "search"


def test_values_are_drawn_as_densities(page, html):
    layer = data_of(html)["layers"][0]
    number = int(np.argmax(layer["rate"]))
    go(page, f"#/feature/{layer['layer']}/{number}")
    first, counts = layer["features"][number]["histogram"]
    bounds = np.array(layer["edges"][first : first + len(counts) + 1])
    densities = np.array(counts) / np.diff(np.log2(bounds))
    charts = "#feature-body figure:first-of-type svg"
    heights = page.execute_script(
        "return [...document.querySelectorAll(`${arguments[0]} [aria-label=rect] rect`)].map((one) => one.height.baseVal.value)",
        charts,
    )
    drawn = np.array(counts) > 0
    heights = np.array(heights)[np.array(heights) > 0] if len(heights) > drawn.sum() else np.array(heights)
    np.testing.assert_allclose(heights / heights.max(), densities[drawn] / densities.max(), atol=0.02)
    assert "characters per octave" in page.execute_script(
        "return document.querySelector(arguments[0]).textContent", charts
    )


def test_a_context_leads_to_its_whole_text(page, html):
    data = data_of(html)
    layer = data["layers"][0]
    number = layer["order"][0]
    feature = layer["features"][number]
    go(page, f"#/feature/{layer['layer']}/{number}")
    page.find_elements("css selector", ".contexts a")[1].click()
    frame(page)
    sample, at, _ = places_of(feature)[1]
    name, text, runs = data["texts"][str(sample)]
    assert page.find_element("id", "text-title").text == name[0].upper() + name[1:]
    whole = page.find_element("css selector", "#text .text")
    assert whole.get_property("textContent") == text
    marks = [m.get_property("textContent") for m in whole.find_elements("css selector", "mark")]
    assert marks == [
        text[i] for i, level in enumerate(levels_of(feature["fires"][str(sample)])) if level
    ]  # over all of it
    assert whole.find_element("css selector", "mark.peak").get_property("textContent") == text[at]
    assert len(whole.find_elements("css selector", ".damaged")) == sum(runs[1::2])
    page.find_element("css selector", "#text-back a").click()
    frame(page)
    assert page.find_element("id", "feature-title").text.startswith(f"Layer {layer['layer']}, feature {number}:")
    go(page, "#/text/99999?feature=0/1")
    assert page.find_element("id", "text-title").text == "There is no such text here"


def test_a_text_has_the_tablets_own_number(tiny_pt):
    data = data_of(made(tiny_pt, (1,), columns={"_id": np.array([f"P{i:06}" if i else "" for i in range(40)])}))
    names = {int(sample): name for sample, (name, *_) in data["texts"].items()}
    assert names == {i: f"P{i:06} (text {i})" if i else "text 0" for i in names}
    assert len(names) > 5


def test_bookmarks_and_notes_stay_and_go_out_and_in(page, html, tmp_path):
    data = data_of(html)
    layer, number = data["layers"][1], 7
    page.execute_script("localStorage.clear(); notes.read()")
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    go(page, f"#/feature/{layer['layer']}/{number}")
    page.find_element("id", "star").click()
    page.find_element("id", "note").send_keys(EVIL)
    page.refresh()
    frame(page)
    assert page.find_element("id", "star").get_attribute("aria-pressed") == "true"
    assert page.find_element("id", "note").get_property("value") == EVIL
    go(page, f"#/features?layer={layer['layer']}&marked=1")
    assert texts(page, "#table tbody td:first-child") == [f"★ {number}"]
    search(page, "note:onerror")
    assert texts(page, "#table tbody td:first-child") == [f"★ {number}"]
    search(page, "note:nothing")
    assert texts(page, "#table tbody td:first-child") == []
    search(page, "a")
    page.execute_script("document.querySelector('#features details').open = true")
    page.find_element("id", "export").click()
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, 10).until(lambda _: list(tmp_path.glob("*.json")))
    (file,) = tmp_path.glob("*.json")
    content = json.loads(file.read_text())
    caption = layer["features"][number]["caption"]
    row = {"layer": layer["layer"], "feature": number, "bookmarked": True, "note": EVIL, "caption": caption}
    assert content["notes"] == [row]
    assert content["saes"] == [one["name"] for one in data["layers"]]
    page.execute_script("localStorage.clear(); notes.read()")
    go(page, f"#/features?layer={layer['layer']}&marked=1&n=400")
    assert texts(page, "#table tbody tr") == []
    content["notes"] += [{"layer": 99, "feature": 0}, {"layer": layer["layer"], "feature": 10**6}, None]
    file.write_text(json.dumps(content))
    page.find_element("id", "import-file").send_keys(str(file))
    WebDriverWait(page, 10).until(lambda _: "1 note taken" in page.find_element("id", "notes-said").text)
    assert texts(page, "#table tbody td:first-child") == [f"★ {number}"]
    file.write_text("nonsense")
    page.find_element("id", "import-file").send_keys(str(file))
    WebDriverWait(page, 10).until(lambda _: "no JSON" in page.find_element("id", "notes-said").text)
    page.execute_script("localStorage.clear()")


def test_where_nothing_can_be_kept_it_is_said(page, html):
    layer = data_of(html)["layers"][0]["layer"]
    page.execute_script("Storage.prototype.setItem = () => { throw new Error('no room'); }")
    go(page, f"#/feature/{layer}/3")
    page.find_element("id", "star").click()
    assert "export what you note" in page.find_element("css selector", ".note output").text
    assert page.find_element("id", "star").get_attribute("aria-pressed") == "true"


def click_on(page, element) -> None:
    from selenium.webdriver import ActionChains

    page.execute_script("arguments[0].scrollIntoView({ block: 'center' })", element)
    ActionChains(page).move_to_element(element).pause(0.05).click().perform()
    frame(page)


def opened(page) -> list[int]:
    """(layer, feature) of the feature that is shown."""
    return [int(part) for part in page.execute_script("return location.hash").split("?")[0].split("/")[2:]]


def test_dots_open_the_features_they_show(page, html):
    data = data_of(html)
    answers = {answer["chart"]["kind"]: answer["chart"] for answer in data["answers"] if answer["chart"]}
    assert {"scatter", "dumbbell", "changes"} >= set(answers)
    for kind in {"scatter", "dumbbell"} & set(answers):
        number = next(
            i for i, one in enumerate(data["answers"]) if one["chart"] is not None and one["chart"]["kind"] == kind
        )
        go(page, "#/answers")
        chart = answers[kind]
        known = [[chart["layer"], p[0]] for p in chart["points"]] if kind == "scatter" else chart["opens"]
        for dot in (-1, -2):  # the first click leaves no tip behind that would take the second
            click_on(page, page.find_elements("css selector", f"[data-chart='{number}'] [aria-label=dot] circle")[dot])
            assert opened(page) in known
            assert page.find_element("id", "feature").is_displayed()
            page.back()
            frame(page)
    for number, layer in enumerate(data["layers"][:2]):
        go(page, f"#/map?layer={layer['layer']}")
        alive = sum(rate > 0 for rate in layer["rate"])
        dots = page.find_elements("css selector", "#map [aria-label=dot] circle")
        assert len(dots) == alive
        dot = dots[number + 3]
        index = page.execute_script("return arguments[0].__data__", dot)
        assert isinstance(index, int)
        click_on(page, dot)
        assert opened(page)[0] == layer["layer"]
        assert layer["rate"][opened(page)[1]] > 0
    go(page, "#/layers")
    click_on(page, page.find_elements("css selector", "#layers [aria-label=dot] circle")[0])
    assert page.find_element("id", "feature").is_displayed()


def test_the_map_is_coloured_by_families_which_its_address_keeps(page, html):
    go(page, "#/map")
    for colour in ("character", "concept", "caption", "class"):
        page.find_element("css selector", f"#map-colour option[value={colour}]").click()
        assert ("colour=" + colour in page.execute_script("return location.hash")) == (colour != "class")
        legend = page.execute_script("return [...document.querySelectorAll('#map-body [class*=swatch]')].length")
        assert legend
        colours = page.execute_script(
            "return new Set([...document.querySelectorAll('#map [aria-label=dot] circle')].map((one) => one.getAttribute('fill'))).size"
        )
        assert 1 <= colours <= 10
    page.find_element("css selector", "#map-colour option[value=character]").click()
    page.refresh()
    frame(page)
    assert page.find_element("id", "map-colour").get_property("value") == "character"


VIEWS = [
    "#/answers",
    "#/features",
    "#/features?q=a",
    "#/feature/0/5",
    "#/text/1?feature=0/5",
    "#/map",
    "#/concepts",
    "#/layers",
]


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_overflows_and_all_can_be_read(page, width, theme):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.refresh()
        page.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        for view in VIEWS:
            go(page, f"{view}{'&' if '?' in view else '?'}theme={theme}")
            assert page.execute_script("return document.documentElement.dataset.theme") == theme
            wide, room = page.execute_script(
                "const { scrollWidth, clientWidth } = document.documentElement; return [scrollWidth, clientWidth]"
            )
            assert wide <= room <= width, view
            assert page.execute_script(HARD_TO_READ) == [], view
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


HARD_TO_READ = """
// texts whose colour has a contrast below 4.5 (WCAG 2) with what lies behind them
const channel = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const rgba = (colour) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255);
};
const over = ([r, g, b, a], below) => [r, g, b].map((v, i) => v * a + below[i] * (1 - a));
const light = (rgb) => rgb.map(channel).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
function behind(element) {
  const own = rgba(getComputedStyle(element).backgroundColor);
  return own[3] === 1 || !element.parentElement ? own.slice(0, 3) : over(own, behind(element.parentElement));
}
const out = new Map();
for (const element of document.querySelectorAll("body *")) {
  const texts = [...element.childNodes].some((one) => one.nodeType === 3 && one.textContent.trim());
  if (!texts || !element.checkVisibility() || element.closest(".skip")) continue;
  const style = getComputedStyle(element), below = behind(element);
  let colour = style.color;
  if (element.closest("svg")) colour = style.fill === "none" ? style.color : style.fill;
  const [a, b] = [light(over(rgba(colour), below)), light(below)].sort((x, y) => y - x);
  const contrast = (a + 0.05) / (b + 0.05);
  const name = `${element.tagName} ${element.getAttribute("class")}`;
  if (contrast < 4.5) out.set(name, `${name} ${contrast.toFixed(2)} ${element.textContent.slice(0, 20)}`);
}
return [...out.values()];
"""


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
