"""The laws of the training loop."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training import BATCH, CONFIG, D_IN, D_SAE, LR, ensemble_of_one, some_rows

from jaxsae.config import ARCHITECTURES, SAEConfig, TrainConfig
from jaxsae.errors import InputError
from jaxsae.sae import basis as basis_lib
from jaxsae.sae.architectures import Aim
from jaxsae.sae.loss import loss
from jaxsae.sae.metrics import score
from jaxsae.train.events import EpochEnd, Finished
from jaxsae.train.group import batch_indices
from jaxsae.train.loop import train, train_sae, train_saes
from jaxsae.train.plan import Member
from jaxsae.train.step import MemberConstants, Stepper, optimizer


@pytest.fixture(scope="module")
def rows():
    return jnp.asarray(some_rows(200), jnp.float32)


@pytest.mark.parametrize("k", [None, 5])
def test_decoder_rows_have_unit_norm_and_l0_is_at_most_k(rows, k):
    config = TrainConfig(
        epochs=3, batch_size=BATCH, lr=0.01, expansion=2, k_sparse=k, architecture="topk" if k else "relu"
    )
    trained = train_sae(rows, config)
    np.testing.assert_allclose(np.linalg.norm(trained.sae.W_dec, axis=1), 1, atol=1e-6)
    assert trained.config == config.sae(D_IN)
    if k:
        assert all(epoch.l0 <= k for epoch in trained.epochs)


def test_epoch_figures_are_means_over_the_batches(rows):
    """Recomputed from the weights before each step."""
    events = list(train({0: rows}, {"a": Member(0, CONFIG)}))
    seen = [event.epoch for event in events if isinstance(event, EpochEnd)]
    [trained] = [event.trained for event in events if isinstance(event, Finished)]
    assert seen == trained.epochs
    sae_config = CONFIG.sae(D_IN)
    stepper, members = Stepper(sae_config, optimizer(LR)), MemberConstants.of([sae_config], BATCH)
    state = stepper.begin(ensemble_of_one(sae_config), 1e-3)
    losses, l0s = [], []
    for batch in batch_indices(len(rows), BATCH, seed=0, epoch=1):
        sae, x = jax.tree.map(lambda a: a[0], stepper.saes(state.sae)), rows[jnp.asarray(batch)]
        value, step_figures = loss(sae, x, Aim(jnp.float32(1e-3), 0.0, 1.0))
        losses.append(float(value))
        l0s.append(float(step_figures.l0))
        state = stepper.step(state, members, rows, jnp.asarray(batch))
    assert seen[0].number == 1
    np.testing.assert_allclose(seen[0].loss, np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(seen[0].l0, np.mean(l0s), rtol=1e-6)


def test_same_seed_same_bits_other_seed_other_bits(rows):
    first, again = train_sae(rows, CONFIG), train_sae(rows, CONFIG)
    for a, b in zip(jax.tree.leaves(first.sae), jax.tree.leaves(again.sae), strict=True):
        np.testing.assert_array_equal(a, b)
    other = train_sae(rows, dataclasses.replace(CONFIG, seed=1))
    assert (np.asarray(other.sae.W_enc) != np.asarray(first.sae.W_enc)).any()


def test_batches_are_a_permutation_of_whole_batches():
    epoch = np.concatenate(list(batch_indices(103, 10, seed=0, epoch=1)))
    assert len(epoch) == 100
    assert len(set(epoch.tolist())) == 100
    assert (epoch != np.arange(100)).any()
    again = np.concatenate(list(batch_indices(103, 10, seed=0, epoch=1)))
    np.testing.assert_array_equal(epoch, again)
    for seed, number in ((0, 2), (1, 1)):
        assert (np.concatenate(list(batch_indices(103, 10, seed=seed, epoch=number))) != epoch).any()


def test_it_stops_after_patience_epochs_without_a_new_lowest_loss(rows):
    """A learning rate of next to nothing: after some epochs no loss is the lowest."""
    config = TrainConfig(epochs=60, patience=3, batch_size=BATCH, lr=1e-12, expansion=2)
    losses = [epoch.loss for epoch in train_sae(rows, config).epochs]
    assert len(losses) < 60
    assert len(losses) == int(np.argmin(losses)) + 1 + 3
    assert min(losses[-3:]) >= min(losses[:-3])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_ensemble_is_its_members_side_by_side(architecture):
    """Members with other penalties, targets and seeds, in one step: each moves as it does alone."""
    with jax.enable_x64(True):
        rows = jnp.asarray(some_rows(64))
        batch = jnp.arange(BATCH)
        k = 5 if architecture == "topk" else None
        configs = [SAEConfig(D_IN, D_SAE, l1, k, architecture, t) for l1, t in ((0.0, 3), (1e-2, 6), (1.0, 20))]
        alone = [ensemble_of_one(c, seed, jnp.float64) for seed, c in enumerate(configs)]
        together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *alone)

        def steppers(configs):
            return Stepper(configs[0], optimizer(LR), revive=1.0)

        def begun(saes, configs):
            # some latents have long been silent: those of all members are revived
            state = steppers(configs).begin(saes)._replace(idle=jnp.full(saes.b_enc.shape, 49).at[:, :9].set(60))
            numbers = [
                jnp.asarray(values, float) for values in zip(*((c.l1_coef, c.target_l0) for c in configs), strict=True)
            ]
            return state._replace(penalty=numbers[0], aim=numbers[1])

        def stepped(saes, configs):
            return steppers(configs).step(begun(saes, configs), MemberConstants.of(configs, BATCH), rows, batch)

        after = stepped(together, configs)
        for i, config in enumerate(configs):
            single = stepped(alone[i], [config])
            for a, b in zip(
                jax.tree.leaves(jax.tree.map(lambda leaf, i=i: leaf[i], after)), jax.tree.leaves(single), strict=True
            ):
                np.testing.assert_allclose(a, b[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("modern", [False, True], ids=["guide", "modern"])
def test_a_member_of_other_rows_and_batches_moves_as_it_does_alone(modern):
    """Of several layers and seeds, in one step, each in its own basis; float64."""
    with jax.enable_x64(True):
        layers = [jnp.asarray(some_rows(64, seed=i) * (1 + i) + i) for i in range(3)]
        orders = np.stack([np.random.default_rng(i).permutation(64)[:BATCH] for i in range(3)])
        configs = [SAEConfig(D_IN, D_SAE, l1) for l1 in (0.0, 1e-2, 1.0)]
        bases = [basis_lib.principal_basis(rows) for rows in layers] if modern else [None] * 3
        alone = [ensemble_of_one(c, seed, jnp.float64) for seed, c in enumerate(configs)]

        def step(numbers, rows, batch, basis):
            saes = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *(alone[i] for i in numbers))
            stepper, some = Stepper(configs[0], optimizer(LR)), [configs[i] for i in numbers]
            state = stepper.begin(saes, np.array([c.l1_coef for c in some]))
            return stepper.step(state, MemberConstants.of(some, BATCH, bases=basis if modern else ()), rows, batch)

        after = step(range(3), tuple(layers), jnp.asarray(orders), bases)
        for i in range(3):
            single = step([i], layers[i], jnp.asarray(orders[i]), bases[i : i + 1])
            mine = jax.tree.map(lambda leaf, i=i: leaf[i], after)
            for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(single), strict=True):
                np.testing.assert_allclose(a, b[0], rtol=0, atol=1e-12)


def test_several_saes_are_those_trained_alone():
    """Layers, seeds, penalties, targets and ks; some stop early and leave the others."""
    rows = {
        2: jnp.asarray(some_rows(340, seed=1), jnp.float32),
        5: jnp.asarray(some_rows(340, seed=2) + 1, jnp.float32),
    }
    guide = {"batch_size": BATCH, "expansion": 2, "lr": 1e-2, "patience": 1, "epochs": 12}
    modern = {"recipe": "modern", "batch_size": BATCH, "expansion": 2, "lr": 1e-2, "epochs": 3}
    still = guide | {"lr": 1e-12}  # no loss is the lowest for long
    configs = [
        TrainConfig(**how, l1_coef=l1, seed=s) for how in (still, guide) for l1, s in ((0, 0), (1, 1), (1e-2, 0))
    ]
    configs += [TrainConfig(**modern, architecture="batchtopk", target_l0=n) for n in (3, 9)]
    configs += [TrainConfig(**modern, target_l0=n, seed=n) for n in (4, 8)]
    configs += [TrainConfig(**guide, architecture="topk", k_sparse=k) for k in (3, 4)]
    members = [Member(layer, config) for config in configs for layer in (2, 5)]
    events = list(train(rows, {str(number): member for number, member in enumerate(members)}))
    ended = [(event.member, event.epoch.number) for event in events if isinstance(event, EpochEnd)]
    finished = {event.member: event.trained for event in events if isinstance(event, Finished)}
    together = [finished[str(number)] for number in range(len(members))]
    lengths = [len(t.epochs) for t in together[:6]]
    assert len(set(lengths)) > 1  # they did not all stop at once
    assert {name for name, _ in ended} == set(finished)
    for number, (member, trained) in enumerate(zip(members, together, strict=True)):
        if number % 4 not in (0, 3):  # of each kind one, on the one layer or the other
            continue
        alone = train_sae(rows[member.layer], member.config)
        numbers = [e.number for e in alone.epochs]
        assert [n for name, n in ended if name == str(number)] == [e.number for e in trained.epochs] == numbers
        np.testing.assert_allclose([e.loss for e in trained.epochs], [e.loss for e in alone.epochs], rtol=2e-3)
        one, other = (score(t.sae, rows[member.layer]) for t in (trained, alone))
        np.testing.assert_allclose(one.fvu, other.fvu, rtol=5e-3)
        np.testing.assert_allclose(one.l0, other.l0, rtol=2e-2)
        assert trained.config.architecture == alone.config.architecture
        np.testing.assert_allclose(trained.config.l1_coef, alone.config.l1_coef, rtol=1e-2)


def test_no_tracer_leaks(rows):
    with jax.checking_leaks():
        train_sae(rows, TrainConfig(epochs=1, batch_size=100, expansion=1))


def test_the_state_is_donated(rows):
    config = CONFIG.sae(D_IN)
    stepper = Stepper(config, optimizer(LR))
    state = stepper.begin(ensemble_of_one(config))
    stepper.step(state, MemberConstants.of([config], BATCH), rows, jnp.arange(BATCH))
    assert state.sae.W_enc.is_deleted()


def test_no_step_waits_for_the_device(rows, monkeypatch):
    """Values are fetched once an epoch: loss and L0."""
    fetched = []
    original = type(rows).__float__
    monkeypatch.setattr(type(rows), "__float__", lambda self: fetched.append(1) or original(self))
    with jax.transfer_guard_device_to_host("disallow_explicit"):
        train_sae(rows, CONFIG)
    assert len(fetched) == 2 * CONFIG.epochs


def test_bfloat16_trains_close_to_float32(rows):
    config = dataclasses.replace(CONFIG, epochs=20)
    exact, rounded = (
        train_sae(rows, config),
        train_sae(rows, dataclasses.replace(config, precision="bfloat16")),
    )
    assert rounded.sae.W_enc.dtype == jnp.float32
    assert (np.asarray(rounded.sae.W_enc) != np.asarray(exact.sae.W_enc)).any()
    np.testing.assert_allclose(rounded.epochs[-1].loss, exact.epochs[-1].loss, rtol=0.02)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("members", [1, 2])
def test_every_architecture_trains_in_bfloat16(rows, architecture, members):
    settings = {"architecture": architecture, "k_sparse" if architecture == "topk" else "target_l0": 3}
    configs = [
        TrainConfig(recipe="modern", **settings, epochs=1, batch_size=33, precision="bfloat16", seed=seed)
        for seed in range(members)
    ]
    for result in train_saes({0: rows}, [Member(0, config) for config in configs]):
        assert np.isfinite(np.asarray(result.sae.W_enc)).all()


def test_bad_rows_are_refused(rows):
    with pytest.raises(InputError, match="rows must be at least a batch, got 200 rows and a batch_size of 256"):
        train_sae(rows, TrainConfig(epochs=1))
    with pytest.raises(InputError, match=r"loss and gradient must stay finite, and did not in step . of epoch 1"):
        train_sae(rows.at[3, 3].set(jnp.nan), CONFIG)
    with pytest.raises(InputError, match="rows must be finite numbers"):
        train_sae(rows.at[3, 3].set(jnp.inf), TrainConfig(recipe="modern", epochs=1, batch_size=BATCH))
    with pytest.raises(InputError, match="k must be in"):
        train_sae(rows, TrainConfig(batch_size=8, expansion=1, k_sparse=25, architecture="topk"))
