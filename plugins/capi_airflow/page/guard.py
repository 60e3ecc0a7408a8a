"""Who may see what: Airflow's own answer, asked for every request.

A feed's deliveries are shown to whoever may read the feed's DAG. That is what Airflow's
roles are about, it can be given DAG by DAG, and it needs no permission of its own.
"""
# No `from __future__ import annotations` here: FastAPI reads these annotations itself.

from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models.dag import DagModel
from fastapi import Depends, Request

from capi_airflow.page.house import House

__all__ = ["ForbiddenError", "Reader", "ReaderDep", "SignedInDep"]

SignedInDep = GetUserDep
REPLAY_DAG = "replay_deliveries"


class ForbiddenError(Exception):
    """Airflow knows who asks, and that they may not read this feed's DAG."""


class Reader:
    """Who asks, and the feeds that they may see."""

    def __init__(self, user: GetUserDep, house: House) -> None:
        self._user = user
        self.house = house
        self.feeds = [name for name in house.names if self._may_read(name)]

    def expect(self, feed: str) -> str:
        """Return the feed's name.

        Raises:
            ForbiddenError: they may not see it, or nobody has heard of it.
        """
        if feed not in self.feeds:
            raise ForbiddenError(
                "You may not read this feed's DAG, or there is no such feed."
            )
        return feed

    @property
    def may_replay(self) -> bool:
        """Whether Airflow would let them trigger the replay's DAG."""
        return _allowed(REPLAY_DAG, "POST", self._user)

    def _may_read(self, feed: str) -> bool:
        return _allowed(self.house.dag_id(feed), "GET", self._user)


def _allowed(dag_id: str, method: str, user: GetUserDep) -> bool:
    from airflow.api_fastapi.auth.managers.models.resource_details import (
        DagAccessEntity,
    )

    return bool(
        get_auth_manager().is_authorized_dag(
            method=method,  # type: ignore[arg-type]
            access_entity=DagAccessEntity.RUN if method == "POST" else None,
            details=DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id)),
            user=user,
        )
    )


def reader(request: Request, user: GetUserDep) -> Reader:
    """Return who asks; 401 for a stranger, 403 for one who may see no feed.

    Raises:
        ForbiddenError: there are feeds, and none of them is theirs to see.
    """
    house: House = request.app.state.house()
    found = Reader(user, house)
    if house.names and not found.feeds:
        raise ForbiddenError("You may not read the DAG of any feed.")
    return found


ReaderDep = Annotated[Reader, Depends(reader)]
