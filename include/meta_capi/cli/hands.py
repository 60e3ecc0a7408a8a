"""`erase`, `settle`, `restored` and `retain`: what a person does to the ledger.

Each says what it did and what it cannot do; what a person did is written down for ever.
"""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from meta_capi.cli.page import Page
from meta_capi.cli.report import read_time
from meta_capi.cli.wiring import Wiring
from meta_capi.errors import ConfigurationError
from meta_capi.feed import Feed
from meta_capi.names import joined_key, split_key
from meta_capi.people import Act, Word, erase, put_back, settle
from meta_capi.retention import removable, retain
from meta_capi.words import moment, number

__all__ = ["erase_keys", "restored", "retain_feeds", "settle_doubts"]

_MOST_KEYS: Final = 100_000
_ASK_EVERY: Final = 1.0  # seconds
_TO_THE_END: Final = 1_000_000  # steps; a task stops earlier, and goes on the next time


def erase_keys(wiring: Wiring, page: Page) -> int:
    """Remove conversions by their keys, for good; 1 if some are still on a desk."""
    options = wiring.options
    feed, act = wiring.feed(options.feed), _act(wiring)
    keys, ledger = _keys(wiring, feed), wiring.ledger(feed)
    done = erase(ledger, feed.feed, keys, act)
    gone, new_marks = done.deliveries, done.new_marks
    give_up = time.monotonic() + options.wait
    while done.on_desks and time.monotonic() < give_up:
        time.sleep(_ASK_EVERY)
        ledger.rescue()
        done = erase(ledger, feed.feed, keys, act)
        gone += done.deliveries
    page.say(
        f"{number(len(keys), 'key')} of {feed.feed}: "
        f"{number(gone.total(), 'delivery', 'deliveries')} erased"
        f"{_by_state(gone)}; {new_marks:,} new to the list of what is not sent again."
    )
    page.say(
        "What Meta has accepted cannot be recalled by us: erase it at Meta, too. Rows in "
        "the warehouse, Airflow's forms and logs, and backups are not touched."
    )
    if not done.on_desks:
        return 0
    page.say(
        f"{number(done.on_desks, 'delivery is', 'deliveries are')} on a worker's desk just "
        "now, so not erased yet; it may still go out, and is then never sent again. Run "
        "the same command again in a few minutes."
    )
    return 1


def settle_doubts(wiring: Wiring, page: Page) -> int:
    """Let a person's word settle what is in doubt; 1 if some of it was not in doubt."""
    options = wiring.options
    feed, word = wiring.feed(options.feed), Word(options.word)
    keys, ledger = _keys(wiring, feed), wiring.ledger(feed)
    done = settle(
        ledger, feed.feed, keys, word, _act(wiring), dataset_id=options.dataset
    )
    page.say(f"{number(done.settled, 'doubt')} of {feed.feed} settled: {word}.")
    if done.settled:
        page.say(_CONSEQUENCES[word])
    if done.others:
        page.say(f"Not in doubt, and left as they are: {_counts(done.others)}.")
    if unknown := len(keys) - done.settled - done.others.total():
        page.say(f"{number(unknown, 'key')} not known to the ledger.")
    return int(done.settled != len(keys))


_CONSEQUENCES: Final = {
    Word.RECEIVED: "Accepted is for ever: none of it is sent again.",
    Word.NOT_RECEIVED: "The next run or tend_deliveries sends it. If Meta has it after "
    "all, it may count twice: Meta drops repeats for 48 hours at most, 7 days for store "
    "events.",
    Word.GIVE_UP: "It stays in doubt, is not sent again, and is no longer shown as "
    "something that needs a person.",
}


def restored(wiring: Wiring, page: Page) -> int:
    """Put a ledger to use that was put back from an older copy."""
    options = wiring.options
    since, act = read_time("--since", options.since), _act(wiring)
    feeds, _ = wiring.feeds()
    moved = put_back(wiring.ledger(*feeds), since, act)
    page.say(
        f"{number(moved, 'delivery is', 'deliveries are')} in doubt, because they may have "
        f"gone out since {moment(since)}. So will be every row that became known before "
        "now and is new to this ledger."
    )
    page.say(
        "Feeds that say `resend` send them again inside Meta's window, counted from that "
        "time; what is left is shown by `meta-capi status`, and settled with `meta-capi "
        "settle`. Tasks run again from now on."
    )
    return 0


def retain_feeds(wiring: Wiring, page: Page) -> int:
    """Remove what is finished and older than it is kept; 1 if a feed was left out."""
    options = wiring.options
    feeds, left_out = wiring.feeds(options.feed)
    for feed in feeds:
        ledger = wiring.ledger(feed)
        until, found = removable(ledger, feed, wiring.now)
        if options.dry_run:
            page.say(
                f"{feed.feed}: {number(found.total(), 'delivery', 'deliveries')} from "
                f"before {moment(until)} would be removed{_by_state(found)}."
            )
            continue
        removed = retain(ledger, feed, wiring.now, steps=_TO_THE_END)
        page.say(
            f"{feed.feed}: removed from before {moment(until)}: {_counts(removed)}."
            if any(removed.values())
            else f"{feed.feed}: nothing is older than {moment(until)}."
        )
    return 1 if left_out else 0


def _act(wiring: Wiring) -> Act:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "somebody"  # a container's user may have no name
    return Act(f"{name}@{socket.gethostname()}"[:200], wiring.options.why)


def _keys(wiring: Wiring, feed: Feed) -> list[str]:
    """Return the keys that the options name, as the ledger writes them."""
    given = [*wiring.options.key]
    if path := wiring.options.keys_from:
        given += _lines(Path(path))
    if not given:
        raise ConfigurationError(
            "No key is named; give --key or --keys-from.", code="fault.form"
        )
    if len(given) > _MOST_KEYS:
        raise ConfigurationError(
            f"{len(given):,} keys are more than {_MOST_KEYS:,}; give them in parts.",
            code="fault.form",
        )
    return list(dict.fromkeys(_spelt(key, feed) for key in given))


def _lines(path: Path) -> Sequence[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"{path} is not UTF-8 text; save it as such.",
            code="fault.form",
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}.", code="fault.form"
        ) from None
    return [line for line in map(str.strip, text.splitlines()) if line]


def _spelt(key: str, feed: Feed) -> str:
    """Return a key in the ledger's spelling; of one column, it may be given in the row's.

    Which of several rows with the key is meant does not matter: it is all of them.
    """
    columns, parts = feed.source.key, split_key(key)
    if len(parts) == len(columns) and key.startswith(joined_key(parts)):
        return joined_key(parts)
    if len(columns) == 1:
        return joined_key([key])
    raise ConfigurationError(
        f"A key of {feed.feed} has {len(columns)} parts ({', '.join(columns)}), joined "
        "with |, and one of those given is not such a key. Nothing was done.",
        code="fault.form",
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(
        f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count
    )


def _by_state(counts: dict[str, int]) -> str:
    return f" ({_counts(counts)})" if counts else ""
