"""What is divided over devices needs several: the tests of `on_eight_devices.py` run in a process that has them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


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
