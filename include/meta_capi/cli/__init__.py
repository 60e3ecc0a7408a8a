"""The command line: the core's questions and answers on a terminal, without Airflow.

Exit codes: 0 all is well, 1 something was found, 2 wrong usage or configuration. No
command shows what a customer typed: values are described by their shape.
"""

from meta_capi.cli.program import main

__all__ = ["main"]
