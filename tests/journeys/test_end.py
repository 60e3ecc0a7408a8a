"""The demo stops when it is told to, and leaves nothing running."""

from __future__ import annotations

import psutil  # type: ignore[import-untyped]  # as in demo.processes
import pytest
from tests.journeys.conftest import Demo

from demo.processes import leftovers, port_is_taken

pytestmark = pytest.mark.slow


def lives(process: psutil.Process) -> bool:
    """Tell whether a process does anything yet."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class TestTheEnd:
    def test_every_process_is_known_by_the_folder_it_has_in_hand(
        self, demo: Demo
    ) -> None:
        # What `down` looks for at its end; some of them hide their environment.
        assert {each.pid for each in demo.processes()} <= set(leftovers(demo.folder))

    def test_down_leaves_no_process_and_no_port(self, demo: Demo) -> None:
        ran = demo.processes()
        assert len(ran) > 10, "little ran, so stopping it would prove little"
        assert all(map(port_is_taken, demo.ports.values()))
        done = demo.command("down")
        assert done.returncode == 0, done.stderr
        assert [each for each in ran if lives(each)] == []
        assert leftovers(demo.folder) == []
        assert not any(map(port_is_taken, demo.ports.values()))

    def test_down_again_is_fine(self, demo: Demo) -> None:
        assert demo.command("down").returncode == 0
