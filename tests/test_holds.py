"""Legal holds: what they name stays, whatever deletes, until they are released."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import AGENT, query, run
from erasing import IDS_IN, Company, calls_of, first_column, open_company, row_counts
from loaded import restore
from polyai.errors import ConfigurationError
from polyai.holding.command import hold
from polyai.shape.caller_identity import keyed_hash, normalize_caller
from polyai.shape.callers_on_hold import CallersOnHold, caller_on_hold

SECRET = "pepper of some length"


@pytest.fixture
def company() -> Iterator[Company]:
    with open_company() as company:
        yield company


@pytest.mark.slow
@pytest.mark.load
def test_what_is_on_hold_stays_until_it_is_released(company: Company) -> None:
    company.fetch_recordings()
    calls, caller = calls_of(company.sandbox, "+")[0]
    named, erased = [name for name in company.recorded() if name not in calls][:2]
    before = row_counts()
    placed = hold(named, callers=[caller], reason="CASE-12", by="counsel")
    assert len(placed.placed) == 2
    assert hold(named, callers=[f"tel:{caller}"], reason="CASE-12").placed == []
    rows = query(
        "SELECT agent_id, conversation_id, caller_hash IS NULL, method, reason, placed_by, "
        "released_at FROM polyai.holds ORDER BY conversation_id NULLS LAST"
    )
    assert rows == [
        (AGENT, named, True, None, "CASE-12", "counsel", None),
        (AGENT, None, False, "scrypt", "CASE-12", "counsel", None),
    ]
    assert caller.lstrip("+") not in str(query("SELECT * FROM polyai.holds"))

    done = run(
        *("forget", named, erased, calls[0], "--caller", caller, "--yes", "--json"),
        **company.environment,
    )
    assert done.returncode == 3, done.stderr
    (report,) = json.loads(done.stdout)["agents"]
    assert report["conversations"] == [erased]
    assert report["on_hold"] == dict.fromkeys(sorted([named, *calls]), "CASE-12")
    assert report["callers_on_hold"] == {caller: "CASE-12"}
    assert f"{named} is on legal hold (CASE-12)" in done.stderr
    assert query("SELECT conversation_id FROM polyai.forgotten") == [(erased,)]
    assert query("SELECT count(*) FROM polyai.forgotten_callers") == [(0,)]

    stored = set(company.recorded())
    kept = sorted(stored & {named, *calls})
    done = run(
        *("recordings", "prune", "--older-than", "0s", "--yes", "--json"), **company.environment
    )
    assert done.returncode == 3, done.stderr
    (report,) = json.loads(done.stdout)["agents"]
    assert report["files"] == len(stored) - len(kept)
    assert {*kept} <= report["on_hold"].keys() <= {named, *calls}
    assert sorted(company.recorded()) == kept
    assert len(list(Path("recordings").rglob("*.wav"))) == len(kept)
    verified = run("recordings", "verify", **company.environment)
    assert verified.returncode == 0, verified.stdout
    after = row_counts()
    for name in (named, *calls):
        assert {table: n[name] for table, n in after.items() if table != "holds"} == {
            table: n[name] for table, n in before.items() if table != "holds"
        }

    refused = run("redact", "--yes", POLYAI_PII="drop", **company.environment)
    assert refused.returncode == 1
    assert "legal hold" in refused.stderr
    assert hold(named, callers=[caller], release=True, reason="CASE-1").not_found == [
        named,
        caller,
    ]
    assert len(hold(named, callers=[caller], release=True, by="judge").released) == 2
    (erasure,) = company.forget(named, callers=[caller]).agents
    assert sorted(erasure.conversations) == sorted([named, *calls])
    assert not set(first_column(f"{IDS_IN}conversations")) & {named, *calls}
    assert query("SELECT DISTINCT reason, released_by FROM polyai.holds") == [("CASE-12", "judge")]


@pytest.mark.slow
@pytest.mark.load
def test_a_warehouse_of_version_0_1_takes_holds_without_a_request() -> None:
    restore(Path(__file__).parent / "fixtures" / "warehouse_0_1")
    environment = {"POLYAI_AGENT_ID": AGENT}
    (name,) = first_column("SELECT conversation_id FROM conversations LIMIT 1")
    arguments = ("hold", name)
    missing = run(*arguments, **environment)
    assert missing.returncode == 1
    assert "--reason" in missing.stderr
    assert run(*arguments, "--reason", "CASE-12", **environment).returncode == 0
    listed = json.loads(run("hold", "--json", **environment).stdout)
    assert [(one["conversation_id"], one["reason"]) for one in listed["holds"]] == [
        (name, "CASE-12")
    ]
    kept = run("forget", name, "--yes", **environment)
    assert kept.returncode == 3, kept.stdout + kept.stderr
    assert first_column(
        f"SELECT conversation_id FROM conversations WHERE conversation_id = '{name}'"
    )


@pytest.mark.unit
class TestCallersOnHold:
    """A caller is recognized in every spelling, and by nothing that is stored alone."""

    def test_without_a_secret_by_a_slow_hash(self) -> None:
        one = caller_on_hold("+44 20 7946 0018", "salt", region="GB")
        callers = CallersOnHold([one], "GB")
        assert one.method == "scrypt"
        assert callers.hashes_of("sip:02079460018@pbx.example.com") == (one.caller_hash,)
        assert callers.hashes_of("+442079460019") == ()

    def test_with_a_secret_also_once_numbers_are_hashed(self) -> None:
        one = caller_on_hold("+442079460018", "salt", secret=SECRET)
        callers = CallersOnHold([one], secret=SECRET)
        stored = keyed_hash(normalize_caller("+44 (0)20 7946 0018"), SECRET)
        assert callers.hashes_of("0044 20 7946 0018") == (one.caller_hash,)
        assert callers.hashes_of(stored) == (one.caller_hash,)
        other = CallersOnHold([one], secret="another one of some length")
        with pytest.raises(ConfigurationError, match="pii_secret"):
            other.check_key()
