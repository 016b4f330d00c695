"""Training that is divided over eight devices: the same as on one; `test_mesh.py` runs it where there are eight."""

import dataclasses
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training import D_IN, ensemble_of_one, many_rows, some_rows

from jaxsae import mesh as mesh_lib
from jaxsae.activations.rows import RowsOnDisk
from jaxsae.activations.store import open_stores
from jaxsae.config import ARCHITECTURES, MeshShape, SAEConfig, TrainConfig
from jaxsae.errors import InputError
from jaxsae.mesh import arrange, make_mesh
from jaxsae.sae.architectures import encode, init
from jaxsae.sae.loss import dealt, in_order
from jaxsae.train.checkpointer import Checkpointer
from jaxsae.train.events import Finished, Resumable, StepEnd
from jaxsae.train.footprint import footprint
from jaxsae.train.loop import train, train_sae, train_saes
from jaxsae.train.memory import memory_needed
from jaxsae.train.plan import Member, plan_parts
from jaxsae.train.run import train_run
from jaxsae.train.step import MemberConstants, Stepper, divisor_of_latents, optimizer

assert os.environ["JAX_NUM_CPU_DEVICES"] == "8"
MESHES = [MeshShape(data=8), MeshShape(latents=8), MeshShape(data=4, latents=2)]
D_SAE = 16 * D_IN
SPARSE = {"relu": {"l1_coef": 0.01}, "topk": {"k_sparse": 20}}


def config_of(architecture, **more):
    """The modern recipe, slow enough that rounding does not grow to another SAE."""
    how = SPARSE.get(architecture, {"target_l0": 6})
    usual = {"epochs": 3, "batch_size": 32, "lr": 1e-4, "expansion": 16, "decay": 0.2}
    return TrainConfig(recipe="modern", architecture=architecture, **how, **usual | more)


def leaves(sae):
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(sae)]


@pytest.mark.parametrize(("architecture", "whiten"), [*((name, 0.0) for name in ARCHITECTURES), ("batchtopk", 0.5)])
def test_every_mesh_trains_what_one_device_does(architecture, whiten):
    """384 steps: losses to 1e-5, weights to 1e-4 of how far they went."""
    rows, config = many_rows(), config_of(architecture, whiten=whiten)
    one = train_sae(rows, config)
    start = train_sae(rows, dataclasses.replace(config, epochs=1, lr=1e-12))
    for shape in MESHES:
        found = train_sae(rows, config, make_mesh(shape))
        ours, theirs = ([epoch.loss for epoch in of.epochs] for of in (found, one))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
        for a, b, at_first in zip(leaves(found.sae), leaves(one.sae), leaves(start.sae), strict=True):
            assert np.linalg.norm(a - b) < 1e-4 * np.linalg.norm(b - at_first), shape


@pytest.mark.parametrize("denoise", [0.0, 0.5])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_in_float64_is_the_same(architecture, denoise):
    config = config_of(architecture).sae(D_IN)
    with jax.enable_x64(True):
        rows = jnp.asarray(some_rows(64))
        if denoise:
            rows = jnp.concatenate([rows, some_rows(64, seed=1)], axis=1)
        saes = ensemble_of_one(config, dtype=jnp.float64)

        def stepped(shape):
            how = {"revive": 1.0, "sparse": False, "denoise": denoise}
            stepper = Stepper(config, optimizer(1e-2), **how, mesh=make_mesh(shape))
            # more are dead than AuxK takes: it must take the same
            idle = np.where(np.arange(D_SAE) % 5 == 0, 10**6, 0).astype(np.int32)
            if architecture == "matryoshka":
                idle = np.asarray(dealt(jnp.asarray(idle), shape.latents, 0))
            placed = mesh_lib.place(stepper.mesh, idle[None], None, "latents")
            state = stepper.begin(saes, 0.01, 6.0)._replace(idle=placed)
            members = MemberConstants.of([config], 32)
            for batch in (np.arange(32), np.arange(32, 64)):
                state = stepper.step(state, members, rows, batch)
            return stepper.to_saved(state)

        one = stepped(MeshShape())
        for shape in MESHES:
            for a, b in zip(leaves(stepped(shape)), leaves(one), strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1, np.abs(b).max()))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_members_on_devices_of_their_own_are_those_trained_alone(architecture):
    """To the last bit: no device knows of the others."""
    rows = {0: many_rows(), 3: many_rows()[::-1]}
    members = [Member(layer, config_of(architecture, seed=seed)) for layer in rows for seed in (0, 1)]
    meshes = arrange(None, len(members), D_SAE, 32).meshes
    assert [mesh.size for mesh in meshes] == [2, 2, 2, 2]
    together = train_saes(rows, members, [make_mesh(devices=[device]) for device in jax.devices()[4:]])
    for member, found in zip(members, together, strict=True):
        alone = train_sae(rows[member.layer], member.config)
        assert all((a == b).all() for a, b in zip(leaves(found.sae), leaves(alone.sae), strict=True))
        assert found.epochs == alone.epochs


def test_rows_on_disk_are_the_same_rows():
    """Streamed, or held on the devices of which each reads its part."""
    rows, config = np.asarray(many_rows())[:1003], config_of("batchtopk")
    of_disk = RowsOnDisk([rows[:400], rows[400:]])

    def trained(some, streamed, shape=MESHES[2]):
        events = train({0: some}, {"0": Member(0, config)}, meshes=[make_mesh(shape)], streamed=streamed)
        return next(event.trained for event in events if isinstance(event, Finished))

    held, in_memory = trained(of_disk, False), trained(jnp.asarray(rows), None)
    assert all((a == b).all() for a, b in zip(leaves(held.sae), leaves(in_memory.sae), strict=True))
    streamed, one = trained(of_disk, True), trained(of_disk, True, MeshShape())
    np.testing.assert_allclose([e.loss for e in streamed.epochs], [e.loss for e in one.epochs], rtol=1e-5)


def test_a_run_goes_on_with_other_devices(tmp_path):
    """To the same bits with the same mesh, to the same figures with another; members saved together stay together."""
    rows, members = {0: many_rows()}, {f"{seed}.pt": Member(0, config_of("matryoshka", seed=seed)) for seed in (0, 1)}

    def run(folder, meshes, stop_after=None):
        files = {name: folder / name for name in members}
        checkpointer = Checkpointer(files, {name: {"lr": 1} for name in members}, (), every=1e9)
        saved, found, steps = checkpointer.saved_together(), {}, 0
        for event in train(rows, members, load=checkpointer.load, together=saved, meshes=meshes):
            stop = isinstance(event, Resumable) and (steps := steps + 1) == stop_after
            checkpointer.listen(event, save=bool(stop))
            if stop:
                break
            if isinstance(event, Finished):
                found[event.member] = event.trained
        checkpointer.close()
        return found, saved

    first, second = [make_mesh(MeshShape(2, 4))], [make_mesh(MeshShape(latents=2), jax.devices()[:2])]
    (tmp_path / "whole").mkdir()
    expected, _ = run(tmp_path / "whole", first)
    for number, meshes in enumerate((first, second, [make_mesh(devices=[d]) for d in jax.devices()[:2]])):
        folder = tmp_path / str(number)
        folder.mkdir()
        run(folder, first, stop_after=150)
        found, saved = run(folder, meshes)
        assert saved == [["0.pt", "1.pt"]]
        for name in members:
            a, b = leaves(found[name].sae), leaves(expected[name].sae)
            if number == 0:
                assert all((x == y).all() for x, y in zip(a, b, strict=True))
            np.testing.assert_allclose(
                [e.loss for e in found[name].epochs], [e.loss for e in expected[name].epochs], rtol=1e-5
            )
        assert not list(folder.glob("*.state"))


BATCH, WIDTH = 64, 48
HOW = {
    name: {"k_sparse": 20} if name == "topk" else {} if name == "relu" else {"target_l0": 6} for name in ARCHITECTURES
}


def exchanges(architecture, shape):
    config = TrainConfig(
        recipe="modern", architecture=architecture, batch_size=BATCH, expansion=32, **HOW[architecture]
    )
    return config.sae(WIDTH).d_sae, footprint(config, WIDTH, make_mesh(shape), rows=1000)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_devices_exchange(architecture):
    """Gradients once for `data`, rows for `latents`: never a batch's latents, never weights."""
    _, alone = exchanges(architecture, MeshShape())
    assert alone.exchanges == []
    d_sae, over_data = exchanges(architecture, MeshShape(data=8))
    gradients = 2 * 4 * WIDTH * d_sae
    assert gradients <= over_data.exchanged < 1.25 * gradients + 4 * 31 + 8 * 4 * BATCH * WIDTH
    d_sae, over_latents = exchanges(architecture, MeshShape(latents=8))
    rows, chosen, flags = 4 * BATCH * WIDTH, 2 * 4 * WIDTH * WIDTH, 4 * d_sae
    # the batch itself; what it is reconstructed as, by each nested SAE; what AuxK takes; counts
    nested = 5 if architecture == "matryoshka" else 1
    assert over_latents.exchanged < (nested + 3) * rows + chosen + flags + 31 * 4 * BATCH + 4096
    assert all(one.bytes * 2 < 4 * BATCH * d_sae for one in over_latents.exchanges), "latents of a batch are gathered"
    _, over_both = exchanges(architecture, MeshShape(data=4, latents=2))
    assert over_both.exchanged < gradients


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_memory_of_a_device_falls_with_their_number(architecture):
    states, temporary = [], []
    config = TrainConfig(recipe="modern", architecture=architecture, batch_size=256, expansion=64, **HOW[architecture])
    for n in (1, 2, 4, 8):
        found = footprint(config, WIDTH, make_mesh(MeshShape(latents=n)))
        states.append(found.state)
        temporary.append(found.temporary)
        told = memory_needed(config.sae(WIDTH), 256, MeshShape(latents=n))
        assert 0.7 * (found.state + found.temporary) < told
    for n, state in zip((1, 2, 4, 8), states, strict=True):
        assert state < 1.02 * states[0] / n + 4 * 2048
    assert temporary[-1] < temporary[0] / 4


def test_the_start_is_the_same_on_every_mesh():
    config = SAEConfig(D_IN, D_SAE)
    starts = []
    for shape in (MeshShape(), *MESHES):
        stepper = Stepper(config, optimizer(1e-3), mesh=make_mesh(shape), sparse=False)
        state = stepper.begin(partial(ensemble_of_one, config, seed=3))
        starts.append(leaves(stepper.saes(state.sae)))
        for a, b in zip(starts[-1], starts[0], strict=True):  # newer versions of XLA sum a norm in another order
            np.testing.assert_allclose(a, b, rtol=3e-7, atol=0)
        assert {leaf.sharding.spec for leaf in jax.tree.leaves(state.sae) if leaf.ndim == 3} == {
            mesh_lib.spec(None, None, "latents")
        }


def test_latents_are_dealt_and_put_in_order():
    a = jnp.arange(48).reshape(2, 24)
    assert dealt(a, 4, 1)[0, :6].tolist() == [0, 4, 8, 12, 16, 20]
    assert (in_order(dealt(a, 4, 1), 4, -1) == a).all()


def test_top_k_over_devices_chooses_what_one_device_does():
    sae = init(jax.random.key(0), SAEConfig(D_IN, D_SAE, k=7, architecture="topk"))
    rows = jnp.asarray(some_rows(96), jnp.float32)
    mesh = make_mesh(MeshShape(2, 4))

    def divided(sae, rows):
        with mesh_lib.computing_on(mesh):
            return encode(sae, mesh_lib.lay(rows, "batch", None))

    np.testing.assert_allclose(jax.jit(divided)(sae, rows), encode(sae, rows), rtol=1e-6, atol=1e-6)
    assert ((np.asarray(jax.jit(divided)(sae, rows)) > 0).sum(axis=1) <= 7).all()


def test_devices_are_divided():
    def shapes(*asked):
        return [dict(mesh.shape) for mesh in arrange(*asked).meshes]

    assert shapes(None, 1, 96, 32) == [{"data": 1, "latents": 8}]
    assert shapes(None, 1, 100, 32) == [{"data": 2, "latents": 4}]
    assert shapes(None, 16, 96, 32) == [{"data": 1, "latents": 1}] * 8
    assert shapes(None, 3, 96, 32) == [{"data": 1, "latents": 4}] * 2
    assert shapes(MeshShape(2, 2), 3, 96, 32) == [{"data": 2, "latents": 2}] * 2
    for shape, match in ((MeshShape(16), "at most the 8 devices"), (MeshShape(data=3), "batch evenly")):
        with pytest.raises(InputError, match=match):
            arrange(shape, 1, 96, 32)
    with pytest.raises(InputError, match="must divide the 96 latents evenly, got latents=5"):
        Stepper(SAEConfig(24, 96), optimizer(1), mesh=make_mesh(MeshShape(latents=5)))
    nested = SAEConfig(24, 96, architecture="matryoshka", target_l0=5)
    with pytest.raises(InputError, match="latents=2"):
        Stepper(nested, optimizer(1), mesh=make_mesh(MeshShape(latents=8)))


class Given:
    """A source of rows that are there."""

    layers, hook, d_in, paired = [0], "resid_post", D_IN, False
    checkpoint_sha256 = model_name = None

    def __init__(self, rows):
        self.rows, self.size = rows, rows.nbytes
        self.origin = {"split": None, "model_sha256": None, "dataset_sha256": None, "streamed": False}

    def load(self, *given, **more):
        raise AssertionError("nothing is extracted")


def test_a_mesh_that_does_not_divide_the_latents_is_refused_before_rows_are_made(tmp_path):
    """And none such is chosen where none is given: nested SAEs are divided as far as the smallest can be."""
    source = Given(some_rows().astype(np.float32))
    nested = config_of("matryoshka", expansion=4)
    for config, shape in ((nested, MeshShape(latents=8)), (config_of("batchtopk"), MeshShape(latents=5))):
        with pytest.raises(InputError, match=f"latents evenly, got latents={shape.latents} for"):
            train_run(source, config, tmp_path, save=lambda *of, **more: None, mesh=shape)
    with pytest.raises(AssertionError, match="nothing is extracted"):
        train_run(source, nested, tmp_path, save=lambda *of, **more: None)
    alike = divisor_of_latents(nested.sae(D_IN))
    assert dict(arrange(None, 1, alike, 32).meshes[0].shape) == {"data": 4, "latents": 2}
    assert alike % 2 == 0 < alike % 4


@pytest.mark.parametrize("of_text", [True, False])
def test_rows_of_several_devices_are_on_none_whole(tmp_path, tiny_pt, tiny_dataset, of_text):
    """Each device has its share: of a model's rows, and of stored ones."""
    from convert.checkpoints import read_checkpoint
    from jaxsae.text.loading import load_samples
    from jaxsae.train.sources import StoreSource, TextSource

    if of_text:
        source = TextSource(read_checkpoint(tiny_pt), load_samples(tiny_dataset, "train"), [1])
    else:
        np.save(tmp_path / "rows.npy", some_rows(4096).astype(np.float32))
        source = StoreSource(open_stores([str(tmp_path / "rows.npy")], 0))
    seen = []

    def listen(event):
        if isinstance(event, StepEnd) and not seen:
            arrays = [a for a in jax.live_arrays() if not a.is_deleted() and a.ndim == 2 and a.shape[1] == source.d_in]
            seen.extend(shard.data.nbytes for a in arrays for shard in a.addressable_shards)

    config = config_of("batchtopk", epochs=1)
    (tmp_path / "out").mkdir()
    run = train_run(source, config, tmp_path / "out", save=lambda path, *of: path.write_text(""), listen=listen)
    assert len(run.results) == 1
    assert source.size // 8 <= max(seen) < source.size // 4


def test_parts_are_as_many_as_train_at_the_same_time():
    rows = {0: many_rows()}
    members = {str(seed): Member(0, config_of("relu", seed=seed)) for seed in range(6)}
    assert [part.members for part in plan_parts(rows, members, 3)[0]] == [("0", "1"), ("2", "3"), ("4", "5")]
    saved = plan_parts(rows, members, 2, [["4", "1", "0"]])[0]
    assert [part.members for part in saved] == [("2", "3"), ("4", "1", "0"), ("5",)]
