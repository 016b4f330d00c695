"""What a model would answer the live page, made up: quick, the same every time, and changed by what is set."""

import re
import threading

from jaxsae.errors import require

LETTERS = "aiušnmtlrbkdqpgzḫṣṭe- "
LEFT = "####"


def candidates(position: int, shift: float = 0.0) -> list[dict]:
    """Ten, of which the first loses to the second as the shift grows."""
    weights = [1 / (1 + i) ** (1.2 + position % 3) for i in range(10)]
    weights[0] /= 1 + 3 * abs(shift)
    names = [LETTERS[(7 * position + 3 * i) % len(LETTERS)] for i in range(10)]
    total = sum(weights) * 1.05
    rows = [{"character": c, "probability": w / total} for c, w in zip(names, weights, strict=True)]
    return sorted(rows, key=lambda row: -row["probability"])


class FakeLive:
    """A `Live` of layers whose features are numbered from 0; the calls are kept."""

    def __init__(self, layers: dict[int, int]) -> None:
        self.layers, self.calls = layers, []
        self.gate = threading.Event()
        """What the text `wait` waits for."""

    def _read(self, text: str, left: str = LEFT):
        require(text.strip() != "", "text must have at least one character, got none")
        require("@" not in text, "text must be of characters that the model knows, got @")
        if text.startswith("raise"):
            raise {"raise exit": SystemExit, "raise stop": StopIteration}.get(text, RuntimeError)("secret path")
        if text == "wait":
            assert self.gate.wait(20)
        gaps, cleaned, last = [], "", 0
        for found in re.finditer(r"#+|\[\.\.\.\]", text):
            cleaned += text[last : found.start()]
            unknown = found[0].startswith("[")
            n = len(left) if unknown else len(found[0])
            span = {"start": found.start(), "end": found.end(), "cleaned_start": len(cleaned)}
            gaps.append({**span, "cleaned_end": len(cleaned) + n, "lengths": [1, 12] if unknown else [n, n]})
            cleaned, last = cleaned + "#" * n, found.end()
        return gaps, cleaned + text[last:]

    def restore(self, text, settings, fill):
        self.calls.append(("restore", text, list(settings), fill))
        shift = sum(abs(value - self.value(layer, feature)) for layer, feature, value in settings) / 10
        gaps, cleaned = self._read(text, LEFT + "##" if shift and fill else LEFT)  # the best length is another one
        for gap in gaps:
            places = range(gap["cleaned_start"], gap["cleaned_end"])
            gap["places"] = [{"position": p, "candidates": candidates(p, shift)} for p in places]
            best = "".join(place["candidates"][0]["character"] for place in gap["places"])
            second = "".join(place["candidates"][1]["character"] for place in gap["places"])
            long = second + "-ma" if gap["lengths"][0] < gap["lengths"][1] else second[::-1]
            gap["fillings"] = [
                {"text": t, "score": -i, "probability": 0.5 / (i + 1) ** 2, "length": len(t)}
                for i, t in enumerate(dict.fromkeys([best, second, long]) if fill else [])
            ]
        restored, last = "", 0
        for gap in gaps:
            best = (
                gap["fillings"][0]["text"] if fill else "".join(p["candidates"][0]["character"] for p in gap["places"])
            )
            restored, last = restored + text[last : gap["start"]] + best, gap["end"]
        return {"text": text, "cleaned": cleaned, "restored": restored + text[last:], "temperature": 1.0, "gaps": gaps}

    def value(self, layer: int, feature: int) -> float:
        return 4.0 + (feature * 37 + layer) % 20

    def explain(self, text, position, candidate, against, settings):
        self.calls.append(("explain", text, position, candidate, against, list(settings)))
        _, cleaned = self._read(text)
        require(position < len(cleaned) and cleaned[position] == "#", f"position must be damaged, got {position}")
        rows = candidates(position)
        candidate = candidate or rows[0]["character"]
        against = against or next(row["character"] for row in rows if row["character"] != candidate)
        probability = {row["character"]: row["probability"] for row in rows}
        words = [
            {"word": m[0], "start": m.start(), "end": m.end(), "candidate_after": rows[i % 2]["character"],
             "effect": (3.0 if i % 3 else -2.0) / (1 + abs(m.start() - position) / 12)}
            for i, m in enumerate(re.finditer(r"\S+", cleaned))
        ]  # fmt: skip
        words.sort(key=lambda word: -abs(word["effect"]))
        return {
            "text": text, "cleaned": cleaned, "position": position, "candidate": candidate, "against": against,
            "probability": probability.get(candidate, 0.001), "against_probability": probability.get(against, 0.001),
            "logit_difference": 2.37, "words": words,
            "layers": [self._layer(n, layer, d_sae, cleaned, position) for n, (layer, d_sae) in enumerate(self.layers.items())],
        }  # fmt: skip

    def _layer(self, n, layer, d_sae, cleaned, position):
        latents = []
        for i in range(40):
            feature = (451 + 83 * i) % d_sae
            at = max(0, position - i % 7)
            effect = (1.6 if i % 4 else -1.1) / (1 + i / 3)
            caption = ["ú (94% of firings, 100% of places)", "L of [L]UGAL (100% of firings, 89% of places)",
                       "unclear; 86% of firings on what stands before hyphens", "i between d and n (83% of firings)"][i % 4]  # fmt: skip
            latents.append({
                "feature": feature, "caption": caption, "position": at, "character": cleaned[at],
                "value": self.value(layer, feature), "attribution": effect * 1.1, "effect": effect, "context": None,
            })  # fmt: skip
        counts = [0, 1, 2, 4, 8, 16, 32, 64, 128]
        kept = [1 - 0.7**count if count < 20 else 1 - 0.01 * n for count in counts]
        return {
            "layer": layer, "sae": f"sae_layer{layer}_optimized.pt", "d_sae": d_sae, "error_share": 0.12 + 0.05 * n,
            "error_effect": 0.4 - 0.1 * n, "latents": latents,
            "faithfulness": {"counts": counts, "latents": kept, "random": [0.2 * k for k in kept],
                             "neurons": [0.6 * k for k in kept], "needed": {"latents": 8, "random": None, "neurons": None}},
        }  # fmt: skip

    def parallels(self, text, position):
        self.calls.append(("parallels", text, position))
        self._read(text)
        passage = "a-na be-lí-ia qí-bí-ma um-ma ia-si-im-AN-ma LUGAL a-na a-lim il-li-ik"
        shared = [
            {"feature": 451, "caption": "ú (94% of firings)", "share": 0.4},
            {"feature": 12, "caption": "L of [L]UGAL", "share": 0.2},
        ]
        return {"by": "latents", "parallels": [
            {"text_number": 12 + 3 * i, "score": 0.91 - 0.07 * i, "passage": passage[4 * i :], "start": 8, "end": 24,
             "shared": [{**one, "feature": one["feature"] % min(self.layers.values())} for one in shared]}
            for i in range(4)
        ]}  # fmt: skip
