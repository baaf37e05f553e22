"""Settings `keep_columns` and `drop_columns`: what is not redacted, and what is never loaded."""

from __future__ import annotations

from datetime import timedelta

import pytest

from command import KEY, access, error_of, query, run
from loaded import put_loaded
from polyai import open_pipeline, resolve
from polyai.errors import ConfigurationError
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.shape.column_rules import ColumnRules

pytestmark = pytest.mark.load

CONFIG = SandboxConfig(conversations=12, span=timedelta(days=4))
KEEP = "conversations.to_number,phone_numbers.number"
DROP = "turns.metadata,conversations.note,deployments.created_by"


def assert_follows_the_rules() -> None:
    """Asserts that columns are dropped and kept, and their neighbours are not."""
    dropped = "count(metadata), count(user_input)"
    ((metadata, inputs),) = query(f"SELECT {dropped} FROM turns")
    assert (metadata, bool(inputs)) == (0, True)
    assert query("SELECT count(*) FROM notes") == [(0,)]
    assert query("SELECT count(note), count(from_number) > 3 FROM conversations") == [(0, True)]
    ((by, messages),) = query("SELECT count(created_by), count(message) FROM deployments")
    assert (by, bool(messages)) == (0, True)
    numbers = query("SELECT number FROM phone_numbers")
    assert numbers
    assert all(str(number).startswith("+") for (number,) in numbers)
    callers = "direction IS DISTINCT FROM 'outbound' AND from_number LIKE '+%'"
    assert query(f"SELECT count(*) FROM conversations WHERE {callers}") == [(0,)]
    called = "to_number LIKE '+%'"
    assert query(f"SELECT count(*) > 3 FROM conversations WHERE {called}") == [(True,)]


def test_a_load_follows_them() -> None:
    sandbox = Sandbox(CONFIG)
    with serve(sandbox) as url:
        settings = resolve(
            agent_id=CONFIG.agents[0],
            api_key=KEY,
            base_url=url,
            pii="drop",
            keep_columns=KEEP,
            drop_columns=DROP,
        )
        (report,) = load(settings, open_pipeline(), clock=lambda: sandbox.now)
        assert report.status == "complete"
        assert_follows_the_rules()
        unknown = run("load", **access(url), POLYAI_DROP_COLUMNS="turns.metdata")
    assert unknown.returncode == 1
    assert "turns.metadata" in error_of(unknown)


@pytest.mark.slow
def test_redact_follows_them() -> None:
    put_loaded(CONFIG)
    settings = {"POLYAI_KEEP_COLUMNS": KEEP, "POLYAI_DROP_COLUMNS": DROP}
    assert run("redact", "--yes", POLYAI_PII="drop", **settings).returncode == 0
    assert_follows_the_rules()


class TestNames:
    @pytest.mark.unit
    @pytest.mark.parametrize(
        ("keep", "drop", "reason"),
        [
            ("", "conversations.form_number", "conversations.from_number"),
            ("", "turn.metadata", "turns.metadata"),
            ("", "nothing", "table.column"),
            ("", "turns.turn_index", "key"),
            ("", "conversations.conversation_id", "key"),
            ("", "phone_numbers.number", "key"),
            ("", "conversations.created_at", "needs it"),
            ("", "conversations.fetched_at", "not from PolyAI"),
            ("", "notes.note", "conversations.note"),
            ("turn_entities.value", "", "other columns"),
            ("conversations.fetched_at", "", "not from PolyAI"),
            ("recordings.path", "", "no column"),
        ],
    )
    def test_wrong_ones_are_errors(self, keep: str, drop: str, reason: str) -> None:
        names = [name for name in (keep,) if name], [name for name in (drop,) if name]
        with pytest.raises(ConfigurationError, match=reason):
            ColumnRules.named(*names)
