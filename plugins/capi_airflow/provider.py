"""What Airflow asks a provider: the connection type and its form.

A plugin cannot register a connection type; a distribution with this entry point can
(docs/decisions/0004). Nothing is imported here: every Airflow process calls it.
"""

from __future__ import annotations

from typing import Any

__all__ = ["get_provider_info"]


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata."""
    return {
        "package-name": "meta-capi-airflow",
        "name": "Meta Conversions API",
        "description": "Sends warehouse conversions to Meta's Conversions API.",
        "connection-types": [
            {
                "connection-type": "meta_capi",
                "hook-class-name": "capi_airflow.hook.MetaCapiHook",
                "hook-name": "Meta Conversions API",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "extra"],
                    "relabeling": {
                        "login": "Dataset ID",
                        "password": "Access token",
                        "host": "Base URL",
                    },
                    "placeholders": {
                        "login": "5 to 20 digits, from Events Manager",
                        "host": "empty for https://graph.facebook.com",
                        # Airflow 3.3's Test button sends 0 for an empty port, and then
                        # refuses the test because 0 is not what it has stored.
                        "port": "443",
                        "password": "from Events Manager or a system user",
                    },
                },
                "conn-fields": {
                    "environment": {
                        "label": "Environment",
                        "description": "production refuses test event codes; local allows "
                        "the base URL of a local Graph API.",
                        "schema": {
                            "type": "string",
                            "enum": ["production", "test", "local"],
                            "default": "production",
                        },
                    },
                    "graph_version": {
                        "label": "Graph version",
                        "description": "As v26.0. Empty for the version this release knows best.",
                        "schema": {
                            "type": ["string", "null"],
                            "pattern": r"^(v\d{1,2}\.\d)?$",
                        },
                    },
                    "app_secret": {
                        "label": "App secret",
                        "description": "Only where the app requires proof of it (appsecret_proof).",
                        "schema": {"type": ["string", "null"], "format": "password"},
                    },
                    "token_expires": {
                        "label": "Token expires",
                        "description": "As 2027-01-31, of a token that does: an alert comes "
                        "in time.",
                        "schema": {
                            "type": ["string", "null"],
                            "pattern": r"^(\d{4}-\d{2}-\d{2})?$",
                        },
                    },
                    "quality_scores": {
                        "label": "Quality scores",
                        "description": "web, offline, or both: Meta's own scores of these "
                        "events are read once a day. The token must be allowed to.",
                        "schema": {
                            "type": ["string", "null"],
                            "pattern": r"^((web|offline)(, ?(web|offline))?)?$",
                        },
                    },
                    "partner_agent": {
                        "label": "Partner agent",
                        "description": "For partners: fewer than 23 characters, agreed with Meta.",
                        "schema": {"type": ["string", "null"], "maxLength": 22},
                    },
                },
            }
        ],
    }
