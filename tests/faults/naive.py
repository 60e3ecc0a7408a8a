"""A naive sender, for comparison: select what is unsent, POST it, mark it.

What one writes in an afternoon: batches in order, any 200 is a success, a batch that
fails is logged and left, the task is tried again as Airflow does. It meets the same
kills, the same faults and the same books.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from random import Random
from typing import Any, Final

import psycopg
import requests
from tests.faults.books import Books, naive_balance
from tests.faults.kills import Speed, fates, mixture
from tests.faults.mortal import Trap
from tests.faults.play import Play
from tests.faults.worker import Process, start
from tests.faults.world import TOKEN, Shop, World

from meta_capi.names import event_id

_BATCH: Final = 10
_TRIES: Final = 4  # of the task, as with three of Airflow's retries
_UNSENT: Final = """
select o.order_id, o.bought_at, o.email, o.amount from shop.orders o
where o.consent and not exists (
    select from harness.sent s where s.dataset_id = %s and s.order_id = o.order_id
) order by 1
"""


class Sender:
    """One attempt of the naive task."""

    def __init__(self, shop: Shop) -> None:
        self._dataset = shop.dataset
        self._dsn = shop.world.dsn
        self._url = f"{shop.world.meta_url}/v26.0/{shop.dataset}/events"

    def __call__(self, _: Trap) -> None:
        """Send what is unsent."""
        failed = False
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            rows = connection.execute(_UNSENT, [self._dataset]).fetchall()
            for at in range(0, len(rows), _BATCH):
                batch = rows[at : at + _BATCH]
                try:
                    answer = requests.post(
                        self._url, data=self._body(batch), timeout=0.5,
                        headers={
                            "Authorization": f"Bearer {TOKEN}",
                            "Content-Type": "application/json",
                        },
                    )  # fmt: skip
                    answer.raise_for_status()
                except requests.RequestException:
                    failed = True
                    continue
                for order_id, *_ in batch:
                    connection.execute(
                        "insert into harness.sent values (%s, %s) on conflict do nothing",
                        [self._dataset, order_id],
                    )
        if failed:
            raise RuntimeError("Some batches failed; the task is tried again.")

    def _body(self, rows: list[tuple[str, datetime, str, str]]) -> bytes:
        return json.dumps({"data": [self._event(*row) for row in rows]}).encode()

    def _event(self, key: str, at: datetime, mail: str, amount: str) -> dict[str, Any]:
        return {
            "event_name": "Purchase",
            "event_time": int(at.timestamp()),
            "action_source": "physical_store",
            "event_id": event_id(self._dataset, "Purchase", key),
            "user_data": {"em": [hashlib.sha256(mail.encode()).hexdigest()]},
            "custom_data": {"value": float(amount), "currency": "EUR", "order_id": key},
        }


def naive(world: World, rng: Random, speed: Speed) -> tuple[Play, Books]:
    """Play one trial of the naive sender."""
    play = Play(world, rng)
    play.shop = world.open_shop(fates(rng, 160, rng.randint(1, 4)))
    world.arm(*mixture(rng))

    def attempt() -> Process:
        play.attempts += 1
        return start(Sender(play.shop), point=None, log=world.log)

    for _ in range(rng.randint(2, 6)):
        worker = attempt()
        moment = worker.began + rng.uniform(0, speed.empty + speed.sending(16, 0.0))
        play.kills += len(play.strike({worker: moment}))
    world.disarm(play.shop.orders)
    for _ in range(_TRIES):
        if attempt().wait() == "done":
            break
    query = "select order_id from harness.sent where dataset_id = %s"
    sent = {key for (key,) in world.sql(query, play.shop.dataset)}
    return play, naive_balance(play.shop, sent)
