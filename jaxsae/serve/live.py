"""What answers the live page: a model, its SAEs with what their latents do on a corpus, and an index of passages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxsae.errors import listed, require
from jaxsae.explain.explanation import explain_place
from jaxsae.explain.parallel_index import Index
from jaxsae.explain.parallels import find
from jaxsae.features.inspection import Inspection
from jaxsae.features.splice import steer
from jaxsae.features.statistics import LayerSAE
from jaxsae.models.changes import LayerChange
from jaxsae.models.protocol import ResidualModel
from jaxsae.restore.answer import restore_text
from jaxsae.restore.places import around, encoded
from jaxsae.serve.app import Settings
from jaxsae.text.damaged_text import DAMAGED, DamagedText, read_damaged

BEAM = 8
"""Partial fillings of a gap that are carried along: half of what the command takes, as a person waits."""
KEPT = 32
"""Texts of which it is remembered how long their gaps were found to be."""


MOST_GAPS, MOST_DAMAGED = 24, 200
"""Gaps of a text, and damaged characters in all, that are restored while a person waits and others queue."""


def bounded(text: DamagedText) -> DamagedText:
    """The text, if its gaps are few enough to be filled in one answer."""
    gaps, damaged = len(text.gaps), sum(gap.lengths[-1] for gap in text.gaps)
    require(
        gaps <= MOST_GAPS and damaged <= MOST_DAMAGED,
        f"a text must have at most {MOST_GAPS} gaps and {MOST_DAMAGED} damaged characters here, got {gaps} and {damaged}; "
        "`jaxsae restore` takes more",
    )
    return text


@dataclass
class Session:
    """Implements `jaxsae.serve.app.Live`.

    `read`: what each SAE's latents do on a corpus, one SAE a layer; its model must be whole. `names`: what they are
    called. `temperature`: logits are divided by it. `index`: of passages, for one of these SAEs.
    """

    read: Sequence[Inspection]
    names: Sequence[str]
    temperature: float = 1.0
    index: Index | None = None
    _texts: dict[str, DamagedText] = field(default_factory=dict)

    @property
    def model(self) -> ResidualModel:
        """The model that all are of."""
        return self.read[0].model

    def restore(self, text: str, settings: Settings, fill: bool) -> Mapping[str, Any]:
        """The damaged places of a text with their candidates; with `fill`, what fits whole gaps as well."""
        damaged = self._sized(text) if not fill else bounded(read_damaged(text))
        answer = restore_text(
            self.model,
            damaged,
            beam=BEAM,
            top=10,
            change=self._change(settings),
            temperature=self.temperature,
            whole_gaps=fill,
        )
        if fill and not settings:
            self._remember(text, answer.text)
        return answer.as_json()

    def explain(
        self, text: str, position: int, candidate: str | None, against: str | None, settings: Settings
    ) -> Mapping[str, Any]:
        """Why a candidate, the best if None, is given at a position, rather than another, the next best if None.

        With latents set, the SAE that they are of is explained alone.
        """
        damaged = self._sized(text)
        ids = encoded(self.model, damaged)
        require(0 <= position < len(ids), f"position must be in 0..{len(ids) - 1}, got {position}")
        if damaged.cleaned[position] != DAMAGED:  # it is asked what stands there, and may not be seen
            ids[position] = self._token(DAMAGED)
        seen = around(len(ids), position, position + 1, self.model.max_position)
        change = self._change(settings)
        saes = {
            name: LayerSAE(one.layer, one.sae)
            for name, one in zip(self.names, self.read, strict=True)
            if change is None or one.layer == change[0]
        }
        found = explain_place(
            self.model,
            ids[seen],
            position - seen.start,
            saes,
            candidate=self._token(candidate),
            against=self._token(against),
            change=change,
            temperature=self.temperature,
        )
        content = found.as_json({one.layer: one for one in self.read})
        for place in [
            content,
            *content["words"],
            *(latent for layer in content["layers"] for latent in layer["latents"]),
        ]:
            for key in ("position", "start", "end"):
                if key in place:
                    place[key] += seen.start
        return {"text": text} | content | {"cleaned": damaged.cleaned}

    def parallels(self, text: str, position: int | None) -> Mapping[str, Any]:
        """Passages that are like the text, or like the neighbourhood of a position in it."""
        if self.index is None:
            return {"layer": None, "parallels": None}
        layer = int(self.index.about["layer"])
        sae = self._of_layer(layer).sae
        found = find(self.index, self.model, sae, self._sized(text).cleaned, position=position)
        return {"layer": layer, "parallels": [one.as_json() for one in found]}

    def warm_up(self) -> None:
        """Answer once, so that what is compiled for most texts is there before somebody waits for it."""
        first = self.read[0].samples.text_of(0)[:90]
        text = f"{first[:40]}##{first[42:]}"
        self.explain(text, self._sized(text).gaps[0].start, None, None, [])

    def _sized(self, text: str) -> DamagedText:
        """The text, its gaps of unknown length as long as their best fillings; found once, with no latent set."""
        if text not in self._texts:
            self._remember(
                text,
                restore_text(self.model, bounded(read_damaged(text)), beam=BEAM, temperature=self.temperature).text,
            )
        return self._texts[text]

    def _remember(self, text: str, sized: DamagedText) -> None:
        self._texts[text] = sized
        if len(self._texts) > KEPT:
            del self._texts[next(iter(self._texts))]

    def _of_layer(self, layer: int) -> Inspection:
        found = next((one for one in self.read if one.layer == layer), None)
        every = listed(one.layer for one in self.read)
        require(found is not None, f"layer must be one of those served, {every}, got {layer}")
        assert found is not None
        return found

    def _change(self, settings: Settings) -> LayerChange | None:
        if not settings:
            return None
        layers = {layer for layer, _, _ in settings}
        require(len(layers) == 1, f"latents must be set in one layer, got layers {listed(sorted(layers))}")
        layer = layers.pop()
        return layer, steer(
            self._of_layer(layer).sae, [(latent, value) for _, latent, value in settings], where_active=True
        )

    def _token(self, character: str | None) -> int | None:
        if character is None:
            return None
        ids = self.model.tokenizer.encode(character)
        require(len(ids) == 1, f"a candidate must be one character, got {character!r}")
        return int(np.asarray(ids)[0])
