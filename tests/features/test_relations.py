import jax
import jax.numpy as jnp
import numpy as np
from conftest import TINY
from helpers import sample
from scipy.sparse import csr_array

from convert import load_restoration_model
from jaxsae.config import SAEConfig
from jaxsae.features import relations
from jaxsae.features.judged_text import JudgedText
from jaxsae.features.statistics import LatentStatistics
from jaxsae.sae.architectures import init
from jaxsae.sae.autoencoder import SAE


def test_direct_logits_are_what_the_decoder_row_adds(tiny_pt):
    """The change of the head's logits for a small step along the decoder row, but for the last norm's factor."""
    model = load_restoration_model(tiny_pt)
    sae = init(jax.random.key(0), SAEConfig(TINY.d_model, 7))
    ids = np.array([40, 97, 353, 7000])
    effect = relations.direct_logits(model, sae, ids)
    x = np.random.default_rng(0).standard_normal(TINY.d_model).astype(np.float32)
    # final_ln without its division: centred, scaled; as if the stream had variance 1
    w, scale = np.asarray(model.head.kernel[...], np.float64)[:, ids], np.asarray(model.final_ln.scale[...], np.float64)
    for latent in range(7):
        row = np.asarray(sae.W_dec[latent], np.float64)
        step = ((row - row.mean()) * scale) @ w
        np.testing.assert_allclose(effect[latent], step - step.mean(), atol=1e-5)
    # and it is what the model does: the same order of changes to first order in a tiny step that keeps the variance
    before = np.asarray(model.unembed(jnp.asarray(x[None, None] * 1e3)))[0, 0, ids]
    after = np.asarray(model.unembed(jnp.asarray((x * 1e3 + 50 * np.asarray(sae.W_dec[2]))[None, None])))[0, 0, ids]
    moved = (after - before) - (after - before).mean()
    assert np.corrcoef(moved, effect[2])[0, 1] > 0.98


def test_nearest_by_decoder_row_and_by_firing():
    W_dec = jnp.array([[1.0, 0], [0.9, 0.1], [0, 2.0], [-1, 0]])
    sae = SAE(W_dec.T, jnp.zeros(4), W_dec, jnp.zeros(2))
    latents, cosines = relations.nearest(sae, count=2)
    assert latents[:, 0].tolist()[:3] == [1, 0, 1]
    np.testing.assert_allclose(cosines[2, 0], 0.1 / np.hypot(0.9, 0.1), rtol=1e-6)
    same, ones = relations.nearest(sae, sae, count=1)
    assert same[:, 0].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(ones, 1, rtol=1e-6)

    fires = np.array([[1, 1, 0, 0]] * 30 + [[1, 0, 1, 0]] * 5 + [[0, 0, 1, 0]] * 65, np.float32)
    statistics = LatentStatistics(4, np.array([97]), JudgedText.of(sample("a")))
    statistics.rows, statistics.fired = 100, fires.sum(0).astype(int)
    statistics.cofiring.add(csr_array(fires), csr_array(fires))
    found = relations.fires_with(statistics, 0)
    assert found[0] == (1, 30 / 35, 30 * 100 / (35 * 30))
    assert [other for other, *_ in found] == [1, 2]  # 3 never fires
