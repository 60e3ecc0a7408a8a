"""The stage on which the project shows itself: a database, a shop, a day's work.

Needed by the demo and the tests, never by a deployment.
"""
