"""Answers about planted latents: every figure in a sentence is counted by hand from the table below.

Forty texts of twenty characters, `xxxxxxxxxxxxxxxxumi` and `s` or `a`; the first two characters are damaged. Twenty
texts end in `s`: Sumerian; the others in `a`: Akkadian. In layer 1,

    latent 0 fires on the first character                       40 times
    latent 1 on the first three                                120
    latent 2 on characters 5 to 9                              200
    latent 3 on the first, in ten texts                         10
    latent 6 on characters 10 to 14 of Sumerian texts          100
    latent 7 on character 15 of Akkadian texts                  20
    latent 8 on `um`                                            80

and the other 23 of 30 never do.
"""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY
from flax import nnx
from helpers import sample

from jaxsae.activations.extraction import StreamBatch
from jaxsae.features import answers
from jaxsae.features.answers import Feature
from jaxsae.features.concept_scores import ConceptScores
from jaxsae.features.concepts import Concept, concept_masks, concepts_from_truth
from jaxsae.features.detection import DetectionScore
from jaxsae.features.inspection import Inspection
from jaxsae.features.questions import load_questions
from jaxsae.features.statistics import LayerSAE, collect_statistics
from jaxsae.models.restoration import RestorationModel
from jaxsae.sae.autoencoder import SAE
from jaxsae.text.samples import Samples

TEXTS, LENGTH, D = 40, 20, 30
SUMERIAN = np.arange(TEXTS) % 4 < 2  # as many with even numbers as with odd ones
DAMAGE, LANGUAGE, MORPHOLOGY, LAYERS = load_questions().questions
CONCEPTS = [
    Concept("damaged", "damage", "damaged character", labels="damage"),
    Concept("sumerian", "language", "text in Sumerian", re.compile("s"), re.compile("a")),
    Concept("akkadian", "language", "text in Akkadian", re.compile("a"), re.compile("s")),
    Concept("-um", "morphology", "nominative", re.compile("um")),
    Concept("-i", "morphology", "genitive", re.compile("i")),
]
MODEL = RestorationModel(TINY, rngs=nnx.Rngs(0))  # is asked nothing
IDENTITY = SAE(jnp.eye(D), jnp.zeros(D), jnp.eye(D), jnp.zeros(D))


def texts() -> Samples:
    each = [sample(f"{16 * 'x'}umi{'s' if s else 'a'}", {0: "#", 1: "#"}, LENGTH) for s in SUMERIAN]
    return Samples(*(np.concatenate([getattr(one, name) for one in each]) for name in ("ids", "labels", "mask")))


def planted() -> np.ndarray:
    """A stream [text, position, latent] that an identity SAE reads as the latents of the table.

    Latents that do not fire are far below 0, so that random directions find nothing.
    """
    x = -10 * np.abs(np.random.default_rng(0).standard_normal((TEXTS, LENGTH, D))).astype(np.float32)
    x[:, :, :9] = 0
    x[:, 0, 0] = x[:, :3, 1] = x[:, 5:10, 2] = x[:10, 0, 3] = x[:, 16:18, 8] = 1
    x[SUMERIAN, 10:15, 6] = x[~SUMERIAN, 15, 7] = 1
    return x


def planted_in_layer_3() -> np.ndarray:
    """As in layer 1, but latent 1 fires on the two damaged characters alone, 2 on two characters of five, 6 never,

    7 in ten of twenty texts; and latent 9 in place of 8.
    """
    x = planted()
    x[:, 2, 1] = x[:, 7:10, 2] = x[:, :, 6] = x[20:, :, 7] = 0
    x[:, :, [8, 9]] = x[:, :, [9, 8]]
    return x


def inspections(layers: dict[int, np.ndarray], concepts=CONCEPTS, saes=None) -> list[Inspection]:
    samples = texts()
    saes = [LayerSAE(layer, sae) for layer, sae in zip(layers, saes or [IDENTITY] * len(layers), strict=True)]
    kept = np.ones((TEXTS, LENGTH), bool)
    batch = StreamBatch(np.arange(TEXTS), kept, {layer: jnp.asarray(x) for layer, x in layers.items()})
    found = collect_statistics([batch], samples, saes, concept_masks(concepts, samples) if concepts else None)
    return [
        Inspection(MODEL, samples, layer, sae, statistics, concepts, None, cofiring)
        for (layer, sae), statistics, cofiring in zip(saes, found.statistics, [*found.cofiring, None], strict=True)
    ]


@pytest.fixture(scope="module")
def one_layer() -> list[Inspection]:
    return inspections({1: planted()})


@pytest.fixture(scope="module")
def two_layers() -> list[Inspection]:
    # the second SAE's decoder rows: e_i + e_29, of unit norm
    W_dec = jnp.eye(D).at[:, D - 1].add(1.0)
    second = IDENTITY.replace(W_dec=W_dec / jnp.linalg.norm(W_dec, axis=1, keepdims=True))
    return inspections({1: planted(), 3: planted_in_layer_3()}, saes=[IDENTITY, second])


def test_damage(one_layer):
    answer = answers.about_characters(one_layer, DAMAGE)
    chance = one_layer[0].scores_of("damaged").chance_f1
    assert chance < 0.3
    assert answer.question == "Which features fire in damaged regions?"
    assert answer.sentences == [
        "Feature 1 of layer 1 tells damaged characters best: above its threshold it fires on 100% of them, and 67% of "
        f"the characters it then fires on are such (F1 0.80; the best random direction reaches {chance:.2f}).",
        "10% of the text is damaged. Of 6 features that fire at least 20 times, 1 fire on damaged characters nine "
        "times out of ten or more, 4 practically never.",
    ]
    assert answer.features[:2] == [Feature(1, 1), Feature(1, 0)]  # F1 0.80 and 0.67
    assert answer.chart["points"] == [[0, 0.5, 1.0], [1, 1.0, 0.6667]]
    assert answer.chart["named"] == answer.chart["points"]
    assert answer.chart["base"] == 0.1


def test_language_by_what_spellings_show(one_layer):
    answer = answers.about_texts(one_layer, LANGUAGE)
    sumerian, akkadian = (one_layer[0].scores_of(name).chance_f1 for name in ("sumerian", "akkadian"))
    assert answer.sentences == [
        "No clear feature. Feature 6 of layer 1 tells characters of Sumerian texts best: above its threshold it fires "
        "on 25% of them, and 100% of the characters it then fires on are such (F1 0.40; the best random direction "
        f"reaches {sumerian:.2f}).",
        "Language is here which language's common words and endings a text has more of.",
        "No clear feature. Feature 2 of layer 1 tells characters of Akkadian texts best: above its threshold it fires "
        "on 25% of them, and 50% of the characters it then fires on are such (F1 0.33; the best random direction "
        f"reaches {akkadian:.2f}).",
        "50% of the characters stand in Sumerian texts. Of 6 features that fire at least 20 times, 1 have at least 90% "
        "of their firings there, 1 at most 10%.",
    ]
    assert answer.features == [Feature(1, 6), Feature(1, 7)]
    assert answer.chart["shares"] == [0.5, 0.5, 0.5, 1.0, 0.0, 0.5]
    assert answer.chart["x"] == "share of a feature's firings in Sumerian texts"


def test_what_is_known_of_the_language_comes_before_spellings():
    truth = concepts_from_truth(
        {"language Sumerian": np.repeat(SUMERIAN, LENGTH)}, {"language Sumerian": "language"}, 800
    )
    answer = answers.about_texts(inspections({1: planted()}, [*CONCEPTS, *truth]), LANGUAGE)
    assert len(answer.sentences) == 2  # nothing of common words
    assert answer.sentences[1].startswith("50% of the characters stand in Sumerian texts.")


def test_a_family_of_concepts(one_layer):
    answer = answers.about_family(one_layer, MORPHOLOGY)
    chance = one_layer[0].scores_of("-um").chance_f1
    assert answer.sentences == [
        "1 of 2 endings and prefixes have a clear feature. nominative: feature 8 of layer 1, F1 1.00 "
        f"(chance {chance:.2f}).",
        "No clear feature: -i.",
    ]
    assert answer.features == [Feature(1, 8)]
    assert [row[:2] for row in answer.chart["rows"]] == [["-um", 1.0], ["-i", 0.0]]


def test_a_family_without_a_clear_feature():
    answer = answers.about_family(inspections({1: planted()}, CONCEPTS[4:]), MORPHOLOGY)
    assert answer.sentences[0] == "No clear feature for any of 1 endings and prefixes."
    assert answer.sentences[1].startswith("No clear feature. Feature ")
    assert "tells genitive: its characters best: above its threshold it fires on 0% of them" in answer.sentences[1]
    assert len(answer.features) == 1


def test_what_is_known_of_a_family_comes_before_spellings():
    at = np.zeros((TEXTS, LENGTH), bool)
    at[:, 18] = True
    truth = concepts_from_truth({"case ending": at.reshape(-1)}, {"case ending": "morphology"}, 800)
    answer = answers.about_family(inspections({1: planted()}, [*CONCEPTS, *truth]), MORPHOLOGY)
    assert answer.sentences[0] == "No clear feature for any of 1 endings and prefixes."
    assert [row[0] for row in answer.chart["rows"]] == ["=case ending"]


def test_one_layer(one_layer):
    answer = answers.answer(one_layer, LAYERS, [])
    assert answer.sentences == [
        "One layer was looked at, 1; with the SAEs of several (--layer 2,8,14) this compares them.",
        # 570 firings on 800 characters; latents 1, 2 and 6 fire on more than 80
        "In layer 1, 0.7 of 30 features fire on a character; 76.7% never fire, 10.0% on more than a tenth of the text.",
    ]
    assert sum(count for *_, count in answer.chart["bins"]) == 7


def test_change_over_layers(two_layers):
    first, second = two_layers
    match = first.matched_latents(second)
    # of the characters on which either fires, both fire on: 40/40, 80/120, 80/200, 0/100, 10/20, 80/80
    np.testing.assert_allclose([match[i].jaccard for i in (0, 1, 2, 6, 7, 8)], [1, 2 / 3, 0.4, 0, 0.5, 1])
    assert [match[i].by_firing for i in (0, 1, 2, 7, 8)] == [0, 1, 2, 7, 9]
    answer = answers.answer(two_layers, LAYERS, [match])
    assert answer.sentences == [
        # layer 1: 1 - 40/720/2, (1 + 1/4)/2, (1 + 1/20)/2, 1, 1/2; layer 3: 1, (1 + 3/200 - 2/200)/2 of latent 3,
        # (1 + 1/40)/2, 1, 1/2
        "The best feature's AUROC, median over 5 concepts: layer 1 0.62, layer 3 0.51. From layer 1 to 3 it grows most "
        "for damaged (0.97 to 1.00) and falls most for sumerian (0.62 to 0.50).",
        # four of the six latents that fire at least 20 times; the decoder rows e_i and (e_i + e_29) / sqrt(2)
        "From layer 1 to 3: 67% of the features have a partner that fires on at least half of the same characters "
        "(median Jaccard 0.58; median cosine of the most alike decoder row 0.71).",
    ]
    assert answer.chart["points"][:2] == [[1, "sumerian", 0.625], [3, "sumerian", 0.5025]]


def test_a_question_is_answered_for_the_layer_with_the_best_f1(two_layers):
    answer = answers.about_characters(two_layers, DAMAGE)
    assert answer.features[0] == Feature(3, 1)  # F1 1.00, in layer 1 0.80
    assert "nine times out of ten or more, 2 practically never" in answer.sentences[1]


def test_without_its_concepts_a_question_says_what_is_missing():
    nothing = inspections({1: planted()}, [])
    for question in (DAMAGE, LANGUAGE, MORPHOLOGY):
        answer = answers.answer(nothing, question, [])
        assert answer.sentences == [question.missing]
        assert answer.features == []
        assert answer.chart is None


@pytest.mark.parametrize(
    ("f1", "clear", "verdict"), [(0.8, True, ""), (0.55, False, "no clear feature"), (0.4, False, "No clear feature")]
)
def test_the_verdict_is_what_the_numbers_say(f1, clear, verdict):
    best = [DetectionScore(0.9, 0.25, 0.5, f1, (5,), 1.0)]
    scores = ConceptScores(CONCEPTS[3], 80, 0.1, best, best, 0.6, 0.52, clear, np.zeros(6))
    sentence = answers.best_detector_sentence(scores, 8, "endings")
    assert "Feature 5 of layer 8" in sentence
    assert "fires on 50% of them, and 25% of the characters" in sentence
    assert verdict in sentence
    assert clear == ("clear feature" not in sentence)
