"""Whether a training run fits into the memory of its devices: told before it begins."""

import jax
from jax.sharding import Mesh

from jaxsae import processes
from jaxsae.config import MeshShape, SAEConfig
from jaxsae.errors import require
from jaxsae.runtime import in_words, memory_of_machine
from jaxsae.train.step import members_at_once

BLOCKS = 3
"""Arrays [batch, latents] that a step holds at the same time, as measured where such an array is large."""
WORTH_TELLING = 2**30


def memory_needed(
    config: SAEConfig, batch_size: int, shape: MeshShape, *, least: bool = False, matrices: int = 2
) -> int:
    """Bytes that training an SAE takes of each device besides the rows, about; known without compiling anything.

    Weights, two moments, gradients and what Adam makes of them; and what a batch makes of its latents.

    Args:
      least: leave out what a compiler may do without.
      matrices: of latents and d_in: three where it denoises.
    """
    weights = 4 * (matrices * config.d_in + 3) * config.d_sae // shape.latents
    block = 4 * batch_size * config.d_sae // shape.size
    return 4 * weights + block if least else 5 * weights + BLOCKS * block


def check_memory(
    config: SAEConfig, batch_size: int, saes: int, meshes: list[Mesh], rows: int, matrices: int = 2
) -> str | None:
    """What training takes of each device, in words; None where that is little.

    Args:
      saes: how many are trained on these meshes, those of this process.
      rows: bytes of those that are held in memory.
      matrices: as `memory_needed`.

    Raises:
      InputError: more than each device has.
    """
    shape, at_once = MeshShape(**meshes[0].shape), min(members_at_once(config), -(-saes // len(meshes)))
    needed = (memory_needed(config, batch_size, shape, least=sure, matrices=matrices) for sure in (True, False))
    least, about = (at_once * bytes_each for bytes_each in needed)
    held = rows // shape.size
    here = min(map(_memory_of, jax.local_devices()))
    has = min(processes.each(here))
    require(
        least + held <= has,
        f"training must fit into the memory of each device, which has {in_words(has)}, got about "
        f"{in_words(about + held)} for d_sae {config.d_sae:,} and a batch_size of {batch_size}; give more devices "
        "(mesh=latents=N), a smaller expansion or a smaller batch_size",
    )
    return f"about {in_words(about + held)} of {in_words(has)} on each device" if about > WORTH_TELLING else None


def _memory_of(device: jax.Device) -> int:
    """Bytes that a device may hold; on CPU all of all processes here share those of the machine."""
    limit = (device.memory_stats() or {}).get("bytes_limit", 0) if device.platform != "cpu" else 0
    return limit or memory_of_machine() // (processes.here() * len(jax.local_devices()))
