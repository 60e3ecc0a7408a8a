"""The workbench of the ledger's tests, for the tests of its faults."""

from tests.ledger.conftest import bench, ledger

__all__ = ["bench", "ledger"]
