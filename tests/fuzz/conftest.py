"""The workbench of the ledger's tests, for rows that go the whole way."""

from tests.ledger.conftest import bench, ledger

__all__ = ["bench", "ledger"]
