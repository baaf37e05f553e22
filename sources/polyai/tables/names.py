"""Tables of the names behind ids, as the Agents API has them: read by `load` once a day at most.

They have one row per id. A row that the API no longer lists stays, and a new name replaces the
loaded one, which goes into `earlier_names`: no view has to choose among several rows of an id.
"""

from __future__ import annotations

from .common_columns import AGENT_ID, EXTRA, PACKAGE_ID
from .declaration import Column, Reference, Table

_OF_AGENT = Reference("agents", ("agent_id",))
_FIRST_SEEN_AT = Column(
    "first_seen_at", "timestamp", "First load that found the id at PolyAI.", unit="UTC"
)
_EARLIER_NAMES = Column(
    "earlier_names",
    "json",
    "List of replaced names, oldest first, as `name` and `until`, the load that found another one; "
    "NULL if it was never renamed.",
    pii="label",
)


def _created_at(source: str) -> Column:
    return Column("created_at", "timestamp", "Creation at PolyAI.", source, unit="UTC")


AGENTS = Table(
    "agents",
    "One row per agent whose name was read; absent if the key may not read names.",
    (
        AGENT_ID,
        Column("agent_name", "text", "Name of the agent.", "agents[].agentName", pii="label"),
        _created_at("agents[].createdAt"),
        Column(
            "updated_at", "timestamp", "Latest change at PolyAI.", "agents[].updatedAt", unit="UTC"
        ),
        _FIRST_SEEN_AT,
        _EARLIER_NAMES,
        EXTRA,
        PACKAGE_ID,
    ),
    key=(),
    merge_key=("agent_id",),
    written_by="names",
    outline=("agent_name", "updated_at"),
)

DEPLOYMENTS = Table(
    "deployments",
    "One row per deployment of an agent to an environment; stays when PolyAI no longer lists it.",
    (
        AGENT_ID,
        Column(
            "deployment_id",
            "text",
            "Deployment of the agent that answered.",
            "deployments[].id",
            required=True,
            pii="label",
        ),
        Column(
            "environment",
            "text",
            "Environment: live, sandbox or pre-release.",
            "deployments[].environment",
            pii="label",
        ),
        Column(
            "version",
            "text",
            "Hash of the deployed version, the same in all environments.",
            "deployments[].version",
            pii="label",
        ),
        Column(
            "created_by",
            "text",
            "User who deployed it: an e-mail address, which `pii` covers.",
            "deployments[].createdBy",
            pii="staff",
        ),
        _created_at("deployments[].createdAt"),
        Column(
            "message",
            "text",
            "Message of the user who deployed it.",
            "deployments[].metadata.deployment_message",
            pii="free_text",
        ),
        _FIRST_SEEN_AT,
        EXTRA,
        PACKAGE_ID,
    ),
    key=("deployment_id",),
    merge_key=("agent_id", "deployment_id"),
    written_by="names",
    references=(_OF_AGENT,),
    outline=("environment", "version", "created_at"),
)

VARIANTS = Table(
    "variants",
    "One row per variant of an agent, from any of its branches, or that only conversations of v3 "
    "name; stays when PolyAI no longer lists it.",
    (
        AGENT_ID,
        Column(
            "variant_id",
            "text",
            "Variant of the agent that answered.",
            "variants[].id",
            required=True,
            pii="label",
        ),
        Column("variant_name", "text", "Name of the variant.", "variants[].name", pii="label"),
        Column(
            "is_default",
            "bool",
            "The agent uses it where none is chosen.",
            "variants[].isDefault",
        ),
        _FIRST_SEEN_AT,
        _EARLIER_NAMES,
        EXTRA,
        PACKAGE_ID,
    ),
    key=("variant_id",),
    merge_key=("agent_id", "variant_id"),
    written_by="names",
    references=(_OF_AGENT,),
    outline=("variant_name", "is_default"),
)

PHONE_NUMBERS = Table(
    "phone_numbers",
    "One row per phone number of an agent; stays when PolyAI no longer lists it.",
    (
        AGENT_ID,
        Column(
            "number",
            "text",
            "The company's own number, which `pii` covers as it does in conversations: hashed "
            "alike by `hash`; no row with `drop`.",
            "phoneNumbers[].number",
            required=True,
            pii="contact",
        ),
        Column(
            "environment",
            "text",
            "Environment: live, sandbox or pre-release.",
            "phoneNumbers[].clientEnv",
            pii="label",
        ),
        Column(
            "connector_id",
            "text",
            "Connector to which its calls are routed.",
            "phoneNumbers[].connectorId",
            pii="label",
        ),
        _FIRST_SEEN_AT,
        EXTRA,
        PACKAGE_ID,
    ),
    key=("number",),
    merge_key=("agent_id", "number"),
    written_by="names",
    references=(_OF_AGENT,),
    outline=("environment", "connector_id"),
)
