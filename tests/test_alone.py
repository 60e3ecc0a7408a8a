"""Any folder of the tests may be asked for alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize(
    "folder", sorted(p.parent.name for p in TESTS.glob("*/conftest.py"))
)
def test_the_fixtures_of_a_folder_load_without_those_of_another(folder: str) -> None:
    asked = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "--collect-only",
            "--ignore-glob=*test_*.py", f"tests/{folder}",
        ],
        cwd=TESTS.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    # A fault of theirs is INTERNAL_ERROR, or USAGE_ERROR.
    assert asked.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, asked.stdout
