"""Answers about the planted latents of `planted.py`: every sentence is made again, its figures counted from them.

What stands beside a score (random directions, windows, neurons) is read off it.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from planted import (
    CONCEPTS,
    IDENTITY,
    LENGTH,
    TEXTS,
    D,
    Scored,
    best,
    has_of,
    inspections,
    is_sumerian,
    planted,
    planted_in_layer_3,
)

from jaxsae.features import answers
from jaxsae.features.answer import TRY_NEXT, Feature, best_detector_sentence, score_of
from jaxsae.features.captions import described
from jaxsae.features.concept_scores import ConceptScores
from jaxsae.features.concepts import concepts_from_truth
from jaxsae.features.detection import DetectionScore
from jaxsae.features.inspection import Inspection
from jaxsae.features.questions import load_questions
from jaxsae.sae.autoencoder import SAE

DISCOVERIES, DAMAGE, LANGUAGE, MORPHOLOGY, DATASET, LAYERS = load_questions().questions


def caption(found: Inspection, latent: int, x: np.ndarray) -> str:
    """Its words with the figures counted again on odd texts; they are only shown so if they are good."""
    one = found.captions[latent]
    places = described([one], found.marked.text, found.marked)[0].reshape(len(x), LENGTH)[1::2]
    fires = x[1::2, :, latent] > 0
    both = (places & fires).sum()
    precision, recall = both / fires.sum(), both / places.sum()
    rate = fires.mean()
    everywhere = 2 * rate / (1 + rate)  # F1 of saying "everywhere"
    if 2 * precision * recall / (precision + recall) < (1 + everywhere) / 2:
        return f"unclear; {precision:.0%} of firings on {one.text}" if precision >= 0.7 else "unclear"
    return f"{one.text} ({precision:.0%} of firings, {recall:.0%} of places)"


def sentence(found: Inspection, name: str, characters: str, x: np.ndarray) -> str:
    """The best feature of a concept, with the verdict."""
    latent, score = best(x, has_of(name))
    scores = found.scores_of(name)
    told = (
        f"Feature {latent} of layer {found.layer} ({caption(found, latent, x)}) finds {characters} best: at its threshold "
        f"{score.precision:.0%} of the characters on which it fires are such, and it finds {score.recall:.0%} of their "
        f"{score.n:,} stretches ({score.beside(scores)})."
    )
    others = max(scores.random, scores.windows, scores.neurons)
    if score.run < 0.3 or score.low <= scores.random:
        hint = "More text, another layer, a wider SAE or one of whitened rows may show one."
        if others > max(score.run, 0.3):
            name = "window of text" if others == scores.windows else "random direction"
            name = "neuron" if others == scores.neurons > scores.random else name
            meaning = "the layer tells it, and this SAE does not single it out"
            meaning = "it can be read off the text" if name == "window of text" else meaning
            hint = f"A {name} finds them better ({others:.2f}): {meaning}."
        return f"No clear feature. {told} {hint}"
    return f"{told}{verdict_of(score, others)}"


def verdict_of(score: Scored, others: float) -> str:
    """What is added where something else finds them too."""
    if score.low > others:
        return ""
    return f" What is no feature finds them as well{', within the interval' if score.run > others else ' or better'}."


@pytest.fixture(scope="module")
def one_layer() -> list[Inspection]:
    return inspections({1: planted()})


@pytest.fixture(scope="module")
def two_layers() -> list[Inspection]:
    # the second SAE's decoder rows: e_i + e_29, of unit norm
    W_dec = jnp.eye(D).at[:, D - 1].add(1.0)
    second = IDENTITY.replace(W_dec=W_dec / jnp.linalg.norm(W_dec, axis=1, keepdims=True))
    return inspections({1: planted(), 3: planted_in_layer_3()}, saes=[IDENTITY, second])


# ---- the answers


def test_damage(one_layer):
    answer = answers.answer(one_layer, DAMAGE)
    scores = one_layer[0].scores_of("damaged")
    assert answer.question == "Which features fire in damaged regions?"
    assert scores.windows == 1 > scores.random  # the window is of #
    assert answer.sentences[0].endswith(" What is no feature finds them as well or better.")
    assert answer.sentences == [
        sentence(one_layer[0], "damaged", "damaged characters", planted()),
        # 2 of 22; latents 0, 1 and 4 are there, 1 more weakly on a third character, 4 on three others
        "9% of the text is damaged. Of 7 features that fire at least 20 times, each at its threshold, 2 fire on damaged "
        "characters nine times out of ten or more, 4 practically never.",
    ]
    assert (
        "at its threshold 100% of the characters on which it fires are such, and it finds 100% of their 120"
        in (answer.sentences[0])
    )
    assert answer.features[:2] == [
        Feature(1, 0),
        Feature(1, 1),
    ]  # both find every stretch, the first of equals is first
    # what is drawn are the figures of the sentences
    mine = [Scored(np.maximum(planted()[:, :, i], 0), has_of("damaged")) for i in (0, 1, 4)]
    drawn = [[i, one.recall, one.precision] for i, one in zip((0, 1, 4), mine, strict=True)]
    assert answer.chart["points"] == drawn == [[0, 1.0, 1.0], [1, 1.0, 1.0], [4, 1.0, 0.25]]
    assert answer.chart["named"] == answer.chart["points"]  # the three best
    assert answer.chart["base"] == pytest.approx(2 / 22)


def test_language_by_what_spellings_show(one_layer):
    answer = answers.answer(one_layer, LANGUAGE)
    sumerian, akkadian = (one_layer[0].scores_of(name) for name in ("sumerian", "akkadian"))
    assert sumerian.clear
    assert answer.sentences == [
        sentence(one_layer[0], "sumerian", "characters of Sumerian texts", planted()),
        "Language is here which language's common words and endings a text has more of.",
        sentence(one_layer[0], "akkadian", "characters of Akkadian texts", planted()),
        "50% of the characters stand in Sumerian texts. Of 7 features that fire at least 20 times, each at its "
        "threshold, 1 have at least 90% of their firings there, 1 at most 10%.",
    ]
    assert akkadian.best[0].latent == 7
    assert answer.sentences[2].startswith("No clear feature. Feature 7")
    assert answer.features == [Feature(1, 6), Feature(1, 7)]
    assert answer.chart["shares"] == [0.5, 0.5, 0.5, 0.5, 1.0, 0.0, 0.5]
    assert answer.chart["x"] == "share of a feature's firings in Sumerian texts"


def test_what_is_known_of_the_language_comes_before_spellings():
    has = {"language Sumerian": np.repeat(is_sumerian(), LENGTH)}
    truth = concepts_from_truth(has, {"language Sumerian": "language"}, TEXTS * LENGTH)
    answer = answers.about_texts(inspections({1: planted()}, [*CONCEPTS, *truth]), LANGUAGE)
    assert len(answer.sentences) == 2  # nothing of common words
    assert answer.sentences[1].startswith("50% of the characters stand in Sumerian texts.")


def test_a_family_of_concepts(one_layer):
    answer = answers.answer(one_layer, MORPHOLOGY)
    [found] = one_layer
    latent, score = best(planted(), has_of("-um"))
    scores = found.scores_of("-um")
    others = max(scores.random, scores.windows, scores.neurons)
    ahead, verdict = "all" if score.low > others else "none", verdict_of(score, others)
    assert answer.sentences == [
        f"1 of 2 endings and prefixes have a clear feature. For {ahead} of these it is ahead of random directions, windows "
        "of text and neurons.",
        f"nominative: feature {latent} of layer 1 ({caption(found, latent, planted())}), {score.beside(scores)}; 120 "
        f"instances.{verdict}",
        "No clear feature: -i.",
    ]
    assert (latent, score.run, score.n) == (8, 1, 120)
    assert answer.features == [Feature(1, 8)]
    assert [row[:2] for row in answer.chart["rows"]] == [["-um", 1.0], ["-i", 0.0]]
    assert answer.chart["rows"][0][2] == round(others, 3)
    assert answer.chart["opens"][0] == [1, 8]


def test_a_family_without_a_clear_feature():
    found = inspections({1: planted()}, CONCEPTS[4:])
    answer = answers.about_family(found, MORPHOLOGY)
    assert answer.sentences == [
        "0 of 1 endings and prefixes have a clear feature.",
        f"No feature finds instances of genitive. {TRY_NEXT}",
    ]
    assert len(answer.features) == 1


def test_what_is_known_of_a_family_comes_before_spellings():
    at = np.zeros((TEXTS, LENGTH), bool)
    at[:, 20] = True
    truth = concepts_from_truth({"case ending": at.reshape(-1)}, {"case ending": "morphology"}, TEXTS * LENGTH)
    answer = answers.about_family(inspections({1: planted()}, [*CONCEPTS, *truth]), MORPHOLOGY)
    assert answer.sentences[0] == "0 of 1 endings and prefixes have a clear feature."
    assert [row[0] for row in answer.chart["rows"]] == ["=case ending"]


def test_on_few_instances_no_sentence_is_made():
    """98 texts have 49 damaged stretches in odd ones."""
    few = inspections({1: planted(98)}, CONCEPTS[:1])
    assert few[0].scores_of("damaged").best[0].run == 1
    assert answers.about_characters(few, DAMAGE).sentences[0] == (
        "Of damaged characters there are 49 stretches in the texts on which is scored, too few to say."
    )
    enough = inspections({1: planted(100)}, CONCEPTS[:1])
    assert "100% of their 50 stretches" in answers.about_characters(enough, DAMAGE).sentences[0]


def test_one_layer(one_layer):
    answer = answers.answer(one_layer, LAYERS)
    fired = (planted() > 0).sum(axis=(0, 1))
    assert answer.sentences == [
        "One layer was looked at, 1; with the SAEs of several (--layer 2,8,14) this compares them.",
        f"In layer 1, {fired.sum() / TEXTS / LENGTH:.1f} of 30 features fire on a character; {22 / 30:.1%} never fire, "
        f"{(fired > 528).mean():.1%} on more than a tenth of the text.",
    ]
    assert sum(count for *_, count in answer.chart["bins"]) == 8


# ---- discoveries


def seeds() -> list[SAE]:
    """One that has every latent, and one with the first five alone: the others never fire, and have one direction."""
    W_dec = np.eye(D, dtype=np.float32)
    W_enc = np.where(np.arange(D) < 5, W_dec, 0)
    W_dec[5:] = 1 / np.sqrt(D)
    return [IDENTITY, SAE(jnp.asarray(W_enc), jnp.zeros(D), jnp.asarray(W_dec), jnp.zeros(D))]


@pytest.mark.parametrize("with_seeds", [False, True])
def test_discoveries(with_seeds):
    [found] = inspections({1: planted()}, others=[seeds()] if with_seeds else None)
    answer = answers.answer([found], DISCOVERIES)
    clear = sum("unclear" not in caption(found, i, planted()) for i in (0, 1, 2, 4, 6, 7, 8))  # 3 is in few texts
    summary = (
        f"Layer 1: of 8 features that fire, {clear} ({clear / 8:.0%}) have a caption that predicts their firing on "
        "held-out texts (F1 of 0.5 or more)."
    )
    if with_seeds:  # five of the eight; cosines are 1, and of half of the pairs 1 (twice) or those of five latents
        mean = (1 + 2 * (5 + 25 / np.sqrt(D)) / D) / 3
        summary += f" {5 / 8:.0%} are found again in each of 2 other seeds (PW-MCC {mean:.2f})."
    assert answer.sentences == [summary]
    assert {8} <= {feature.feature for feature in answer.features} <= {0, 1, 2, 4, 7, 8}
    gains = []
    for feature, scores, point in zip(answer.features, found.discoveries, answer.points, strict=True):
        latent = feature.feature
        words = found.captions[latent].text
        has = described([found.captions[latent]], found.marked.text, found.marked)[0].reshape(TEXTS, LENGTH)
        score = Scored(np.maximum(planted()[:, :, latent], 0), has)
        expected = (
            f"At its threshold {score.precision:.0%} of its firings are on them, and it finds "
            f"{score.recall:.0%} of their {score.n:,} stretches ({score.beside(scores)})."
        )
        others = max(scores.random, scores.windows, scores.neurons)
        if score.low <= others:
            expected += " Not clearly ahead of what is no feature."
        if with_seeds:
            expected += f" Found again in {2 if latent < 5 else 1} of 2 other seeds."
        assert point == (words, expected)
        assert score.n >= 50
        assert score.run >= 0.3
        gains.append(score.low - others)
    assert gains == sorted(gains, reverse=True)
    assert [row[0] for row in answer.chart["rows"]] == [f"feature {one.feature}" for one in answer.features]


def test_where_nothing_is_named_the_answer_says_so():
    answer = answers.answer(inspections({1: 0 * planted()}), DISCOVERIES)
    assert answer.sentences == [
        "Layer 1: of 0 features that fire, 0 (0%) have a caption that predicts their firing on held-out texts (F1 of 0.5 or "
        "more).",
        f"{DISCOVERIES.missing} {TRY_NEXT}",
    ]
    assert (answer.features, answer.chart) == ([], None)


# ---- over layers


def test_named_features_persist_vanish_and_appear(two_layers):
    first, second = two_layers
    match = first.matched_latents(second)
    fires = [x > 0 for x in (planted(), planted_in_layer_3())]

    def jaccard(i: int, j: int) -> float:
        a, b = fires[0][:, :, i], fires[1][:, :, j]
        return (a & b).sum() / max((a | b).sum(), 1)

    partners = {i: max(range(D), key=lambda j: jaccard(i, j)) for i in (0, 1, 2, 4, 6, 7, 8)}
    assert {i: j for i, j in partners.items() if i not in (4, 6)} == {
        0: 0,
        1: 1,
        2: 2,
        7: 7,
        8: 9,
    }  # the others have none
    np.testing.assert_allclose([match[i].jaccard for i in partners], [jaccard(i, j) for i, j in partners.items()])
    assert [match[i].by_firing for i in partners] == list(partners.values())

    def named(found: Inspection, x: np.ndarray) -> list[int]:
        fired = (x > 0).sum(axis=(0, 1))
        return [i for i in found.reading_order if fired[i] >= 20 and "unclear" not in caption(found, i, x)]

    def listed(found: Inspection, some: list[int]) -> str:
        return f" ({'; '.join(f'{i}, {found.captions[i].text}' for i in some[:3])})" if some else ""

    before, after = named(first, planted()), named(second, planted_in_layer_3())

    def alike(i: int, j: int) -> bool:
        """At least a half, and half of the way from what latents of their rates share by chance to 1."""
        a, b = (fires[0][:, :, i].mean(), fires[1][:, :, j].mean())
        chance = a * b / max(a + b - a * b, 1e-9)
        return jaccard(i, j) >= max(0.5, (1 + chance) / 2)

    persist = [i for i in before if any(alike(i, j) for j in range(D))]
    vanish = [i for i in before if i not in persist]
    appear = [j for j in after if not any(alike(i, j) for i in range(D))]
    assert {1, 8} <= set(persist)
    assert sorted(vanish) == [0, 4]  # 0 shares exactly half of its characters
    assert sorted(appear) == [0, 20]
    answer = answers.answer(two_layers, LAYERS)
    assert answer.sentences == [
        f"From layer 1 to 3, of {len(before)} named features {len(persist)} are found again{listed(first, persist)} "
        f"and {len(vanish)} are not{listed(first, vanish)}; {len(appear)} are new{listed(second, appear)}."
    ]
    assert answer.chart["rows"] == [["1 to 3", len(persist), len(vanish), len(appear)]]
    assert answer.features[:2] == [Feature(1, persist[0]), Feature(1, vanish[0])]


def test_a_question_is_answered_for_the_layer_with_the_best_score(two_layers):
    answer = answers.about_texts(two_layers[::-1], LANGUAGE)
    assert answer.features[0] == Feature(1, 6)  # in layer 3 it never fires
    assert answers.about_texts(two_layers[1:], LANGUAGE).features[0].layer == 3


def test_without_its_concepts_a_question_says_what_is_missing():
    nothing = inspections({1: planted()}, [])
    for question in (DAMAGE, LANGUAGE, MORPHOLOGY):
        answer = answers.answer(nothing, question)
        assert answer.sentences == [question.missing]
        assert answer.features == []
        assert answer.chart is None


@pytest.mark.parametrize(
    ("run", "low", "n", "windows", "says"),
    [
        (0.8, 0.7, 50, 0.69, ""),
        (0.8, 0.7, 50, 0.7, "as well, within the interval."),
        (0.8, 0.7, 49, 0.7, "too few to say"),
        (0.8, 0.7, 50, 0.8, "What is no feature finds them as well or better."),
        (0.29, 0.28, 50, 0.1, "No clear feature."),
        (0.29, 0.28, 50, 0.4, "A window of text finds them better (0.40): it can be read off the text."),
        (0.8, 0.2, 50, 0.1, "No clear feature."),  # random directions may be as good
    ],
)
def test_the_verdict_is_what_the_numbers_say(one_layer, run, low, n, windows, says):
    score = DetectionScore(6, run, low, 0.9, 0.25, 0.5, 0.4, 0.4, 0.9, 1.0)
    none = np.zeros(6, np.float32)
    scores = ConceptScores(CONCEPTS[3], 80, 0.1, n, [score], 0.2, windows, "abc", None, none, none)
    told = best_detector_sentence(one_layer[0], scores, "endings")
    if n >= 50:
        assert "25% of the characters on which it fires are such, and it finds 50% of their 50 stretches" in told
        assert f"({score_of(scores)})" in told
        assert (
            f"{run:.2f}, {low:.2f} to 0.90; the best random direction 0.20, window of text ('abc') {windows:.2f})"
            in told
        )
    verdicts = ("too few to say", "as well or better", "within the interval", "No clear feature")
    assert says in told
    assert sum(one in told for one in verdicts) == bool(says)
