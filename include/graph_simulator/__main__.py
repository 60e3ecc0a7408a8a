"""Run the local Graph API: `python -m graph_simulator --port 8085`."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from graph_simulator.server import Simulator
from graph_simulator.switches import Profile


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer until SIGINT or SIGTERM. Return 2 if a file or the port cannot be had."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr
    )
    try:
        tokens = options.token_file.read_text().split() if options.token_file else []
    except OSError as error:
        sys.stderr.write(
            f"{options.token_file} cannot be read ({error.strerror}); name a file with "
            "--token-file.\n"
        )
        return 2
    try:
        simulator = Simulator(
            host=options.host,
            port=options.port,
            profile=Profile(options.profile),
            tokens=tokens,
            datasets=options.dataset,
            record=options.record,
        )
    except OSError as error:
        sys.stderr.write(
            f"The local Graph API cannot listen on {options.host}:{options.port} "
            f"({error.strerror}); choose another --port.\n"
        )
        return 2
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with ExitStack() as stack:
        if options.pid_file is not None:
            options.pid_file.write_text(f"{os.getpid()}\n", encoding="ascii")
            stack.callback(options.pid_file.unlink, missing_ok=True)
        stack.enter_context(simulator)
        sys.stdout.write(
            f"The local Graph API listens on {simulator.url} "
            f"(profile {options.profile}).\n"
        )
        sys.stdout.flush()
        ended.wait()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graph_simulator",
        description="A local Graph API that keeps the rules of Meta's Conversions API.",
        allow_abbrev=False,
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_port, default=8085, help="0 takes any free one")
    parser.add_argument(
        "--profile", choices=[str(p) for p in Profile], default=str(Profile.DOCUMENTED)
    )
    # A file, because every user of a machine can read its command lines.
    parser.add_argument(
        "--token-file",
        type=Path,
        help="tokens that are good, one a line; without it every one is",
    )
    parser.add_argument(
        "--dataset",
        action="append",
        default=[],
        help="a dataset that exists; repeatable; without it every one does",
    )
    parser.add_argument(
        "--record", type=Path, help="keep what arrived in this file across restarts"
    )
    parser.add_argument("--pid-file", type=Path)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or (number := int(text)) > 65_535:
        raise argparse.ArgumentTypeError("write a number from 0 to 65535")
    return number


if __name__ == "__main__":
    sys.exit(main())
