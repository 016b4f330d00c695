"""A run that was stopped goes on to the very same bits; what is of another run is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsae.activations import rows as rows_lib
from jaxsae.activations.rows import RowsOnDisk
from jaxsae.config import TrainConfig
from jaxsae.errors import InputError
from jaxsae.files import atomic_path, exclusive
from jaxsae.train.checkpointer import Checkpointer, state_folder
from jaxsae.train.events import Finished, PartEnd, Position, Resumable, Resumed, StepEnd
from jaxsae.train.loop import train
from jaxsae.train.plan import Member, Part

GUIDE = TrainConfig(epochs=6, batch_size=32, lr=1e-3, patience=2)
MODERN = TrainConfig(recipe="modern", epochs=4, batch_size=32)


def rows_of(layer):
    rng = np.random.default_rng(layer)
    directions = rng.standard_normal((30, 16))
    return jnp.asarray((rng.exponential(1, (200, 30)) * (rng.random((200, 30)) < 0.2)) @ directions, jnp.float32)


def with_(config, **changes):
    return dataclasses.replace(config, **changes)


RUNS = {
    "guide": [Member(0, GUIDE)],
    "topk": [Member(0, with_(GUIDE, architecture="topk", k_sparse=4))],
    "bfloat16": [Member(0, with_(GUIDE, precision="bfloat16"))],
    "modern": [Member(0, with_(MODERN, target_l0=5))],
    "jumprelu": [Member(0, with_(MODERN, architecture="jumprelu", target_l0=5))],
    "denoise": [Member(0, with_(MODERN, architecture="topk", k_sparse=4, denoise=0.5))],
    "whitened": [Member(0, with_(MODERN, architecture="batchtopk", target_l0=5, whiten=0.5))],
    "denoise, densely": [Member(0, with_(MODERN, architecture="batchtopk", target_l0=5, denoise=0.5))],
    # some stop early, and leave the batch; seeds and layers differ; another group follows
    "several": [Member(n, with_(GUIDE, epochs=20, patience=1, lr=0.3, seed=n)) for n in range(3)]
    + [Member(0, with_(MODERN, architecture="batchtopk", target_l0=n)) for n in (3, 9)],
}


def named(members):
    return {f"{i}.pt": member for i, member in enumerate(members)}


def checkpointer_of(members, folder, done=(), every=0.0):
    settings = {name: {"layer": m.layer, **m.config.settings()} for name, m in named(members).items()}
    return Checkpointer({name: folder / name for name in settings}, settings, set(done), every)


def run(rows, members, folder, done=(), stop_after=None):
    """Train with states in `folder`, save every epoch, and stop after so many steps; {name: trained} of what came."""
    checkpointer, steps, resumed, found = checkpointer_of(members, folder, done), 0, [], {}
    for event in train(rows, named(members), load=checkpointer.load, done=done):
        steps += isinstance(event, StepEnd)
        if isinstance(event, Resumed):
            resumed.append(event.position)
        if isinstance(event, Finished):
            found[event.member] = event.trained
        stop = stop_after is not None and steps >= stop_after and isinstance(event, Resumable | PartEnd)
        checkpointer.listen(event, stop or None)
        if stop:
            break
    checkpointer.close()
    return found, steps, resumed


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, one in found.items():
        assert one.epochs == expected[name].epochs
        assert one.config == expected[name].config
        for a, b in zip(jax.tree.leaves(one.sae), jax.tree.leaves(expected[name].sae), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("stream", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_stopped_ends_as_one_that_is_not(name, stream, tmp_path, monkeypatch):
    members = RUNS[name]
    rows = {m.layer: rows_of(m.layer) for m in members}
    if stream:
        monkeypatch.setattr(rows_lib, "PIECE", 16 * 16 * 4)
        monkeypatch.setattr(rows_lib, "BUFFER", 4 * rows_lib.PIECE)
        rows = {layer: RowsOnDisk([np.asarray(of[:90]), np.asarray(of[90:])]) for layer, of in rows.items()}
    expected, total, _ = run(rows, members, tmp_path / "unstopped")
    assert not list((tmp_path / "unstopped").glob("*.state"))
    found = {}
    for after in (4, 6, 7, total):  # in the first epoch, at the end of one, ...
        got, _, taken_up = run(rows, members, tmp_path / "stopped", done=found, stop_after=after)
        found |= got
        assert bool(taken_up) == (after != 4)
    got, _, _ = run(rows, members, tmp_path / "stopped", done=found)
    assert_same(found | got, expected)
    assert not list((tmp_path / "stopped").glob("*.state"))


def test_states_of_another_run_are_refused(tmp_path):
    rows, members = {0: rows_of(0)}, RUNS["guide"]
    run(rows, members, tmp_path, stop_after=9)
    with pytest.raises(InputError, match=r"0.state holds a run with another lr, seed; resume with the same, or"):
        run(rows, [Member(0, with_(GUIDE, lr=2e-3, seed=1))], tmp_path)
    with pytest.raises(InputError, match=r"0.state holds a run with another lr; resume"):
        run(rows, [Member(0, with_(GUIDE, lr=2e-3))], tmp_path, done=["0.pt"])
    more = [Member(0, with_(GUIDE, seed=n)) for n in (0, 1)]
    with pytest.raises(InputError, match="holds a run with another files, "):
        run(rows, more, tmp_path)
    assert state_folder(tmp_path / "0.pt").is_dir()


def test_what_had_stopped_must_be_there(tmp_path):
    members = RUNS["several"][:3]
    rows = {m.layer: rows_of(m.layer) for m in members}
    stop = 1
    while not (found := run(rows, members, tmp_path, stop_after=stop)[0]):
        stop = 6
    with pytest.raises(InputError, match=rf"{min(found)} was written before the run was stopped, and must be there"):
        run(rows, members, tmp_path)


def test_the_newest_whole_state_is_taken(tmp_path):
    rows, members = {0: rows_of(0)}, RUNS["guide"]
    expected, _, _ = run(rows, members, tmp_path / "unstopped")
    run(rows, members, tmp_path, stop_after=15)
    steps = sorted(int(path.name) for path in state_folder(tmp_path / "0.pt").iterdir())
    assert len(steps) == 2
    (newest,) = (state_folder(tmp_path / "0.pt") / str(steps[-1])).glob("state")
    for path in newest.rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            path.write_bytes(path.read_bytes()[:50])
    found, _, taken_up = run(rows, members, tmp_path)
    assert (taken_up[0].epoch - 1) * 6 + taken_up[0].done == steps[0]
    assert_same(found, expected)


def test_a_save_that_fails_is_told(tmp_path):
    checkpointer = Checkpointer({"0.pt": tmp_path / "0.pt"}, {"0.pt": {"lr": 1}}, done=(), every=0)
    state_folder(tmp_path / "0.pt").write_text("in the way")
    event = Resumable(Part(("0.pt",), 9), Position(2, 0, ("0.pt",), {"0.pt": []}), 1, lambda: {"a": np.zeros(3)})
    with pytest.raises(OSError, match=r"the state could not be saved in .*0.state"):
        checkpointer.listen(event)


def test_a_state_is_of_the_moment_that_it_is_saved(tmp_path):
    """The buffers are given to the next step while it is being written."""
    from jaxsae.train.states import States

    states, add = States(tmp_path / "s", {}), jax.jit(lambda a: a + 1, donate_argnums=0)
    a = jnp.zeros(2**20)
    for step in range(5):
        states.save(step, {"a": a}, {"step": step})
        for _ in range(20):
            a = add(a)
    position, state = states.load(lambda position: {"a": np.zeros(2**20, np.float32)}) or ({}, {})
    assert position == {"step": 4}
    assert (np.asarray(state["a"]) == 80).all()
    states.discard()
    assert not (tmp_path / "s").exists()


def test_one_claim_at_a_time(tmp_path):
    folder = tmp_path / "a" / "b"
    with exclusive(folder):
        with pytest.raises(InputError, match=r"one run at a time may write to .*b, another does"), exclusive(folder):
            pass
        assert folder.is_dir()
    assert not folder.parent.exists()
    with exclusive(folder):
        (folder / "file").touch()
    with exclusive(folder):
        pass
    assert folder.exists()


def test_what_a_killed_process_has_left_is_removed(tmp_path):
    left, other = tmp_path / ".a.pt.part-1234", tmp_path / ".b.pt.part-1234"
    for folder in (left, other):
        folder.mkdir()
        (folder / "half").touch()
    with atomic_path(tmp_path / "a.pt") as first:
        first.write_text("1")
        assert not left.exists()
        with atomic_path(tmp_path / "a.pt") as second:  # one that is alive is let be
            second.write_text("2")
        assert first.exists()
    assert (tmp_path / "a.pt").read_text() == "1"
    assert other.exists()


# ----------------------------------------------------------------------------------------------------------- train.py


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
    """States are due at every step; the last one saved is that before the step that the error names."""
    rows = {0: rows_of(0).at[77, 3].set(jnp.nan)}
    saved, checkpointer = [], checkpointer_of(RUNS["guide"], tmp_path, every=-100.0)

    def go_on():
        for event in train(rows, named(RUNS["guide"]), load=checkpointer.load):
            checkpointer.listen(event)
            if isinstance(event, Resumable):
                saved.append(event.position.done)
                assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(event.state().sae))

    with pytest.raises(InputError, match=r"did not in step (\d) of epoch 1") as refused:
        go_on()
    checkpointer.close()
    step = int(str(refused.value).split("step ")[1][0])
    assert saved == list(range(1, step))
    assert step > 1


def test_states_have_one_layout_whatever_the_device(tmp_path, monkeypatch):
    """Where a step gathers single latents, as on a CPU, W_enc is transposed: a state saved there goes on elsewhere."""
    from jaxsae.train import step as step_lib

    rows, config = {0: rows_of(0)}, TrainConfig(epochs=6, batch_size=32, lr=1e-3, patience=6, k_sparse=2, expansion=4)
    members = [Member(0, config)]

    def on(gathers):
        monkeypatch.setattr(step_lib, "sparse_pays", lambda config: gathers)

    on(True)
    expected, _, _ = run(rows, members, tmp_path / "unstopped")
    run(rows, members, tmp_path, stop_after=15)
    on(False)
    found, _, resumed = run(rows, members, tmp_path)
    assert resumed
    ours, theirs = found["0.pt"].sae, expected["0.pt"].sae
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-4)


def test_a_state_of_an_older_layout_is_refused(tmp_path, monkeypatch):
    from jaxsae.train import states

    rows, members = {0: rows_of(0)}, RUNS["guide"]
    with monkeypatch.context() as older:
        older.setattr(states, "STATE_FORMAT", 1)
        run(rows, members, tmp_path, stop_after=9)
    with pytest.raises(
        InputError, match=r"0.state holds a state of format 1, and must be of 3; finish it with the vers"
    ):
        run(rows, members, tmp_path)
