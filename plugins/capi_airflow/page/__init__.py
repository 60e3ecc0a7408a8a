"""The Conversions page in Airflow's UI: a window on the ledger, curtains drawn over people.

It only reads. Every route asks Airflow who it is, and whether the feed's DAG may be read.
"""
