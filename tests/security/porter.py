"""An auth manager that knows which DAGs somebody may read, as Airflow's bigger ones do."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import (
    SimpleAuthManager,
)

__all__ = ["USERS", "Porter"]

# Who may read which DAGs, and who may trigger any.
READS: dict[str, frozenset[str] | None] = {
    "admin": None,  # all
    "leads": frozenset({"send_crm_leads"}),
    "outsider": frozenset(),
}
USERS = "admin:admin,leads:user,outsider:user"


class Porter(SimpleAuthManager):
    """Airflow's simple auth manager, with DAGs that not everybody may read."""

    def is_authorized_dag(
        self, *, method: Any, user: Any, access_entity: Any = None, details: Any = None
    ) -> bool:
        """Answer by the table above."""
        readable = READS[user.username]
        if readable is not None and (details is None or details.id not in readable):
            return False
        return super().is_authorized_dag(
            method=method, user=user, access_entity=access_entity, details=details
        )
