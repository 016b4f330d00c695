"""What is divided over devices needs several: the tests of `on_eight_devices.py` run in a process that has them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxsae.activations.rows import LANES
from jaxsae.mesh import smallest_part

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("processes", "data", "latents"), [(1, 8, 1), (2, 8, 1), (3, 4, 3), (16, 16, 1), (5, 5, 2), (6, 4, 3), (4, 12, 2)]
)
def test_a_process_reads_a_part_in_which_is_all_that_its_devices_take(processes, data, latents):
    """However the devices of processes lie on the mesh: of 3 processes with 4 each, one may have rows 1 and 2 of 4."""
    of = (np.arange(data * latents) * processes // (data * latents)).reshape(data, latents)
    batch = 240
    for process in range(processes):
        held = {int(row) for row in np.nonzero((of == process).any(axis=1))[0]}
        index, count = smallest_part(held, data, LANES)
        assert LANES % count == 0
        assert index in range(count)
        assert index * batch // count <= min(held) * batch // data
        assert (max(held) + 1) * batch // data <= (index + 1) * batch // count
    assert smallest_part({1, 2}, 4, LANES) == (0, 1)
    assert smallest_part({2, 3}, 4, LANES) == (1, 2)
    assert smallest_part({3}, 16, LANES) == (1, 8)
    assert smallest_part({3}, 4, 2) == (1, 2)
    assert smallest_part({0, 1, 2, 3}, 4, LANES) == (0, 1)


def test_saes_are_dealt_so_that_a_process_needs_few_layers():
    from jaxsae.config import TrainConfig
    from jaxsae.train.plan import Member
    from jaxsae.train.run import _dealt

    members = {f"{layer}{seed}": Member(layer, TrainConfig(seed=seed)) for layer in range(4) for seed in range(2)}
    names = list(members)
    assert _dealt(members, set(), [], 2) == [names[:4], names[4:]]
    assert _dealt(members, set(), [], 3) == [names[:3], names[3:6], names[6:]]
    assert _dealt(members, set(), [], 1) == [names]
    assert _dealt(members, {"00"}, [["10", "30"]], 2) == [["01", "10", "30", "11"], ["20", "21", "31"]]
    assert _dealt(members, set(), [names], 2) == [names, []]


def test_a_process_that_trains_apart_reads_its_own_layers_alone(tmp_path):
    import contextlib

    from jaxsae.activations.store import open_stores
    from jaxsae.train.sources import StoreSource

    class Unread:
        shape, nbytes = (50, 6), 0

        def __len__(self):
            return 50

        def __getitem__(self, which):
            raise AssertionError("rows of another's layer are read")

    array = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    np.save(tmp_path / "rows.npy", array)
    source = StoreSource(open_stores([str(tmp_path / "rows.npy")], 1))
    source.layers, source.found = [0, 1], {0: Unread(), 1: source.found[1]}
    with contextlib.ExitStack() as cleanup:
        found = source.load(tmp_path, cleanup, lambda line: None, lambda rows: None, [1])
        none = source.load(tmp_path, cleanup, lambda line: None, lambda rows: None, [])
    assert list(found.train) == list(found.scored) == [1]
    assert (found.train[1][:] == array).all()
    assert not none.train


def test_processes_of_a_machine_share_its_memory(monkeypatch):
    from jaxsae import processes
    from jaxsae.config import SAEConfig
    from jaxsae.errors import InputError
    from jaxsae.mesh import make_mesh
    from jaxsae.train import memory, sources

    needed = memory.memory_needed(SAEConfig(64, 512), 32, memory.MeshShape(), least=True)
    for module in (memory, sources):
        monkeypatch.setattr(module, "memory_of_machine", lambda: 4 * needed)
    memory.check_memory(SAEConfig(64, 512), 32, 1, [make_mesh()], 0)
    assert sources._limit(None) == 2 * needed
    monkeypatch.setattr(processes, "_here", 8)
    with pytest.raises(InputError, match="must fit into the memory of each device"):
        memory.check_memory(SAEConfig(64, 512), 32, 1, [make_mesh()], 0)
    assert sources._limit(None) == needed // 4
    assert sources._limit(5) == 5


def test_on_eight_devices():
    """They are simulated: eight in one processor."""
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--show-capture=no", "-x"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ran = subprocess.run(
        [*line, str(ROOT / "tests" / "train" / "on_eight_devices.py")],
        env={**environment, "JAX_NUM_CPU_DEVICES": "8"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
