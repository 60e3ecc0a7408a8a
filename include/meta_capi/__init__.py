"""Conversions live in the warehouse. Events go to Meta. A delivery is the promise in
between, and the ledger remembers it.

This package is that sentence. It knows no Airflow, no HTTP client and no clock: rows,
bytes and moments come in as arguments, and outcomes go out as values.
"""
