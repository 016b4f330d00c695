"""Training against PyTorch, step for step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import needs_torch, torch
from training import BATCH, LR, config_of, ensemble_of_one, some_rows

from jaxsae.config import SAEConfig
from jaxsae.sae.autoencoder import SAE
from jaxsae.train.group import batch_indices
from jaxsae.train.step import MemberConstants, Stepper, TrainState, optimizer

nn = torch and torch.nn


class TorchTrainer:
    """The guide's step in PyTorch, from given weights."""

    def __init__(self, sae: SAE, l1_coef: float, k: int | None, lr: float = LR):
        if not torch:
            pytest.skip("needs torch")
        self.params = {
            name: nn.Parameter(torch.from_numpy(np.array(getattr(sae, name))))
            for name in ("W_enc", "b_enc", "W_dec", "b_dec")
        }
        self.optimizer = torch.optim.Adam(self.params.values(), lr=lr)
        self.l1_coef, self.k = l1_coef, k

    def step(self, x: np.ndarray) -> float:
        """One step; gives the gradient norm before clipping."""
        p, x = self.params, torch.from_numpy(x)
        pre = x @ p["W_enc"] + p["b_enc"]
        if self.k is None:
            latents = pre.relu()
        else:
            top = pre.topk(self.k, dim=1)
            latents = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
        x_hat = latents @ p["W_dec"] + p["b_dec"]
        loss = (x_hat - x).pow(2).mean() + self.l1_coef * latents.abs().mean()
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(p.values(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            p["W_dec"] /= p["W_dec"].norm(dim=1, keepdim=True)
        return float(norm)

    def take(self, stepper: Stepper, state: TrainState) -> None:
        """Go on from a state of ours: weights, both moments and the step count."""
        adam = state.opt_state[1][0]
        weights, mu, nu = (stepper.saes(of) for of in (state.sae, adam.mu, adam.nu))
        for name, parameter in self.params.items():
            parameter.data = torch.from_numpy(np.array(getattr(weights, name)[0]))
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(adam.count[0])),
                "exp_avg": torch.from_numpy(np.array(getattr(mu, name)[0])),
                "exp_avg_sq": torch.from_numpy(np.array(getattr(nu, name)[0])),
            }

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: p.detach().numpy().copy() for name, p in self.params.items()}


def assert_both_kinds(norms: list[float]) -> None:
    """Some steps were clipped and some were not."""
    clipped = sum(norm > 1 for norm in norms)
    assert min(clipped, len(norms) - clipped) >= 10, clipped


@pytest.mark.parametrize(
    ("l1_coef", "k", "sparse"),
    [(1e-2, None, False), (0.0, 8, False), (0.0, 8, True)],
    ids=["l1", "topk", "topk-sparse"],
)
def test_float64_training_is_pytorchs_after_300_steps(l1_coef, k, sparse):
    with jax.enable_x64(True):
        config = config_of(l1_coef, k)
        rows = jnp.asarray(some_rows())
        assert rows.dtype == jnp.float64
        saes = ensemble_of_one(config, dtype=jnp.float64)
        torch_side = TorchTrainer(jax.tree.map(lambda a: a[0], saes), l1_coef, k)
        stepper = Stepper(config, optimizer(LR), sparse=sparse)
        state, members, norms = stepper.begin(saes, l1_coef), MemberConstants.of([config], BATCH), []
        for epoch in range(15):
            for batch in batch_indices(len(rows), BATCH, seed=0, epoch=epoch):
                norms.append(torch_side.step(np.asarray(rows)[batch]))
                state = stepper.step(state, members, rows, jnp.asarray(batch))
        assert len(norms) == 300
        assert_both_kinds(norms)
        for name, theirs in torch_side.arrays().items():
            ours = getattr(stepper.saes(state.sae), name)[0]
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(
    ("l1_coef", "k", "sparse"),
    [(1e-2, None, False), (0.0, 8, False), (0.0, 8, True)],
    ids=["l1", "topk", "topk-sparse"],
)
def test_each_float32_step_is_pytorchs_from_the_same_state(l1_coef, k, sparse):
    """At a learning rate whose updates stand clear of the decoder's rounding.

    Dividing a row by its norm leaves either side a rounding error of the row, not of the update. At the guide's 1e-4 on
    real rows PyTorch's W_dec is itself up to 3.4e-4 of its update away from float64 (ours 3.0e-4; all other tensors of
    both below 3e-5), so that nothing can be within 1e-4 of it there.
    """
    lr = 3e-3
    config = config_of(l1_coef, k)
    rows = jnp.asarray(some_rows(), jnp.float32)
    saes = ensemble_of_one(config)
    torch_side = TorchTrainer(jax.tree.map(lambda a: a[0], saes), l1_coef, k, lr)
    stepper = Stepper(config, optimizer(lr), sparse=sparse)
    state, members, norms = stepper.begin(saes, l1_coef), MemberConstants.of([config], BATCH), []
    for epoch in range(15):
        for batch in batch_indices(len(rows), BATCH, seed=0, epoch=epoch):
            if norms:  # PyTorch's Adam has no state to replace before its first step
                torch_side.take(stepper, state)
            before = torch_side.arrays()
            norms.append(torch_side.step(np.asarray(rows)[batch]))
            state = stepper.step(state, members, rows, jnp.asarray(batch))
            for name, theirs in torch_side.arrays().items():
                difference = np.linalg.norm(np.asarray(getattr(stepper.saes(state.sae), name)[0]) - theirs)
                update = np.linalg.norm(theirs - before[name])
                assert difference <= 1e-4 * update, (len(norms), name, difference / update)
    assert_both_kinds(norms)


@needs_torch
def test_clipping_is_pytorchs():
    from jaxsae.train.step import clip_by_global_norm

    for scale in (0.01, 1.0, 30.0):
        grads = [scale * np.random.default_rng(i).standard_normal(5).astype(np.float32) for i in range(3)]
        parameters = [nn.Parameter(torch.zeros(5)) for _ in grads]
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = torch.from_numpy(grad.copy())
        nn.utils.clip_grad_norm_(parameters, 1.0)
        transform = clip_by_global_norm(1.0)
        ours, _ = transform.update([jnp.asarray(g) for g in grads], transform.init(grads))
        for mine, parameter in zip(ours, parameters, strict=True):
            np.testing.assert_allclose(mine, parameter.grad, rtol=1e-6)


@needs_torch
def test_adam_is_optaxs_with_pytorchs_defaults():
    assert torch.optim.Adam([nn.Parameter(torch.zeros(1))]).defaults["eps"] == 1e-8
    state = Stepper(SAEConfig(3, 4), optimizer(LR)).begin(ensemble_of_one(SAEConfig(3, 4)))
    assert isinstance(state.opt_state[1][0], optax.ScaleByAdamState)
