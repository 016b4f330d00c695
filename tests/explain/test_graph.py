"""The graph of an explanation has the form that Neuronpedia's viewer and circuit-tracer's ask for.

The form is that of `graph-schema.json` (hijohnnylin/neuronpedia) and of `graph_models.py`
(safety-research/circuit-tracer) of 2026, in our own words: field -> (types, whether it must be there).
"""

import json

import pytest

from jaxsae.errors import InputError
from jaxsae.explain.graph import paired, to_graph
from jaxsae.files import to_json

NUMBER, NONE = (int, float), type(None)
METADATA = {
    "slug": (str, True),
    "scan": (str, True),
    "prompt_tokens": ([str], True),
    "prompt": (str, True),
    "transcoder_list": ([str], False),
    "node_threshold": (NUMBER, False),
    "schema_version": (int, False),
    "info": (dict, False),
}
QPARAMS = {
    "pinnedIds": ([str], True),
    "supernodes": ([list], True),
    "linkType": (str, True),
    "clickedId": (str, True),
    "sg_pos": (str, True),
}
NODE = {
    "node_id": (str, True),
    "feature": (int, True),
    "layer": (str, True),
    "ctx_idx": (int, True),
    "feature_type": (str, True),
    "jsNodeId": (str, True),
    "clerp": (str, True),
    "token_prob": (NUMBER, False),
    "is_target_logit": (bool, False),
    "run_idx": (int, False),
    "reverse_ctx_idx": (int, False),
    "influence": ((*NUMBER, NONE), False),
    "activation": ((*NUMBER, NONE), False),
}
LINK = {"source": (str, True), "target": (str, True), "weight": (NUMBER, True)}
TYPES = ("embedding", "cross layer transcoder", "mlp reconstruction error", "logit")


def check_fields(found, form):
    assert found.keys() <= form.keys()
    for name, (kind, needed) in form.items():
        if name not in found:
            assert not needed, name
        elif isinstance(kind, list):
            assert isinstance(found[name], list), name
            assert all(isinstance(one, kind[0]) for one in found[name]), name
        else:
            right = isinstance(found[name], kind) and (kind is bool or not isinstance(found[name], bool))
            assert right, (name, found[name])


def check(graph):
    assert set(graph) == {"metadata", "qParams", "nodes", "links"}
    check_fields(graph["metadata"], METADATA)
    check_fields(graph["qParams"], QPARAMS)
    for node in graph["nodes"]:
        check_fields(node, NODE)
        assert node["feature_type"] in TYPES
        assert 0 <= node["ctx_idx"] < len(graph["metadata"]["prompt_tokens"])
        assert node["influence"] is None or 0 <= node["influence"] <= 1
    for link in graph["links"]:
        check_fields(link, LINK)
    for name in ("node_id", "jsNodeId"):
        names = [node[name] for node in graph["nodes"]]
        assert len(set(names)) == len(names)
    by_name = {node["node_id"]: node for node in graph["nodes"]}
    assert all(link["source"] in by_name and link["target"] in by_name for link in graph["links"])
    assert all(by_name[link["target"]]["feature_type"] == "logit" for link in graph["links"])
    linked = {link["source"] for link in graph["links"]}
    assert all((name in linked) == (node["feature_type"] != "logit") for name, node in by_name.items())


def latent(feature, position, effect, value=1.5):
    return {
        "feature": feature,
        "caption": f"caption {feature}",
        "position": position,
        "character": "a",
        "value": value,
        "attribution": 0.1,
        "effect": effect,
        "context": None,
    }


def explanation():
    """Two layers; latent 3 on two characters of one word, and in both layers; the place is in the last word."""
    return {
        "text": "a-na be-lí-ia q#",
        "cleaned": "a-na be-lí-ia q#",
        "position": 15,
        "candidate": "í",
        "candidate_id": ord("í"),
        "against": "a",
        "unit": "character",
        "probability": 0.93,
        "against_probability": 0.01,
        "logit_difference": 4.5,
        "words": [
            {"word": "be-lí-ia", "start": 5, "end": 13, "effect": 2.0, "candidate_after": "a"},
            {"word": "a-na", "start": 0, "end": 4, "effect": -1.0, "candidate_after": "í"},
            {"word": "q#", "start": 14, "end": 16, "effect": 0.5, "candidate_after": "í"},
        ],
        "layers": [
            {
                "layer": index,
                "sae": f"sae_layer{index}_optimized.pt",
                "d_sae": 10,
                "error_share": 0.1,
                "error_effect": 0.25,
                "latents": [latent(3, 5, 1.0), latent(3, 6, -0.5), latent(0, 15, 0.25), latent(7, 4, 0.125)],
                "faithfulness": {},
            }
            for index in (4, 8)
        ],
    }


def test_it_has_the_published_form():
    graph = to_graph(explanation(), scan="demo", n_layers=16)
    check(graph)
    check(json.loads(to_json(graph)))


@pytest.mark.parametrize("change", [{"layers": []}, {"position": 4}, {"position": 0}, {"candidate": "#"}])
def test_it_has_the_published_form_in_odd_cases(change):
    check(to_graph(explanation() | change, scan="demo"))


def test_it_says_what_the_explanation_says():
    graph = to_graph(explanation(), scan="demo", slug="mine", n_layers=16)
    assert graph["metadata"]["prompt_tokens"] == ["a-na", "be-lí-ia", "q#"]
    assert (graph["metadata"]["slug"], graph["metadata"]["scan"]) == ("mine", "demo")
    assert graph["metadata"]["prompt"] == explanation()["cleaned"]
    assert "not measured" in graph["metadata"]["info"]["description"]
    assert "4.5000" in graph["metadata"]["info"]["description"]
    nodes = {node["node_id"]: node for node in graph["nodes"]}
    weights = {link["source"]: link["weight"] for link in graph["links"]}
    kinds = [sum(node["feature_type"] == kind for node in graph["nodes"]) for kind in TYPES]
    assert kinds == [3, 8, 2, 1]
    assert [weights[f"E_{i}_{i}"] for i in range(3)] == [-1.0, 2.0, 0.5]
    assert (weights["4_3_5"], weights["8_3_6"], weights["8_0_15"]) == (1.0, -0.5, 0.25)
    assert weights["4_-1_15"] == weights["8_-1_15"] == 0.25
    assert [nodes[name]["ctx_idx"] for name in ("8_3_5", "8_3_6", "8_0_15", "8_7_4", "8_-1_15")] == [1, 1, 2, 0, 2]
    assert nodes["8_3_5"]["clerp"] == "caption 3 (on 'a' at 5)"
    assert nodes["8_3_5"]["activation"] == 1.5
    (logit,) = (node for node in graph["nodes"] if node["feature_type"] == "logit")
    assert (logit["layer"], logit["ctx_idx"], logit["token_prob"], logit["is_target_logit"]) == ("17", 2, 0.93, True)
    assert 'Output "í" (p=0.930)' in logit["clerp"]
    assert all(link["target"] == logit["node_id"] for link in graph["links"])


def test_influence_is_the_share_of_the_nodes_that_are_as_strong():
    graph = to_graph(explanation(), scan="demo")
    shares = {node["node_id"]: node["influence"] for node in graph["nodes"] if node["feature_type"] != "logit"}
    weights = {link["source"]: abs(link["weight"]) for link in graph["links"]}
    total = sum(weights.values())
    assert shares["E_1_1"] == pytest.approx(2 / total)
    assert max(shares.values()) == pytest.approx(1)
    for name, share in shares.items():
        stronger = sum(weight for weight in weights.values() if weight > weights[name])
        as_strong = sum(weight for weight in weights.values() if weight >= weights[name])
        assert stronger < share * total <= as_strong + 1e-9


def test_features_have_one_number_each():
    numbers = {paired(layer, feature) for layer in range(20) for feature in range(200)}
    assert len(numbers) == 4000
    assert (paired(0, 0), paired(0, 1), paired(1, 0)) == (0, 2, 1)


def test_what_makes_no_graph_is_refused():
    with pytest.raises(InputError, match="must have words"):
        to_graph(explanation() | {"words": []}, scan="demo")
    with pytest.raises(InputError, match=r"node_threshold must be in 0..1, got 2"):
        to_graph(explanation(), scan="demo", node_threshold=2)
