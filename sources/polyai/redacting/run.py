"""Runs that convert what is loaded to a stricter privacy mode."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import dlt

from ..api.throttle import Traffic
from ..clock import Clock, utc_now
from ..config.settings import Pii, Transcripts
from ..console.exit_codes import ExitCode
from ..copying.sides import agents
from ..errors import ConfigurationError, StoreError
from ..forgetting.copies import remake_copies
from ..forgetting.rewriting import discard_pending, rewrite_files
from ..load.exclusive import exclusive_committer
from ..load.memory import fix_mmap_threshold
from ..load.report import RunReport
from ..locking.files import LockTimeout
from ..shape.column_rules import NO_RULES, ColumnRules
from ..shape.held_redaction import HeldRedaction
from ..shape.held_rows import HeldRows, redacted_tables
from ..shape.held_transcripts import EMPTIED_TABLES
from ..shape.privacy_mode import PrivacyMode
from ..tables.audit import SYNC_RUNS
from ..tables.children import NOTES
from ..tables.declaration import Table
from ..warehouse.duckdb_destination import merges_in_transactions
from ..warehouse.holds import NO_KEYS, Holds
from ..warehouse.open import destination_label
from ..warehouse.privacy_modes import REDACT, privacy_modes
from ..warehouse.queries import Warehouse
from .conversion import Conversion

PIPELINE_NAME = "polyai_redact"
"""dlt pipeline and schema of the load packages of converted rows."""

_LOCK_ENDING = ".redact.lock"


@dataclass(frozen=True)
class Privacy:
    """Settings of the mode to convert to."""

    pii: Pii
    secret: str = field(repr=False)
    transcripts: Transcripts
    region: str
    rules: ColumnRules = NO_RULES

    @property
    def mode(self) -> PrivacyMode:
        """Mode as recorded by runs."""
        return PrivacyMode.named(self.pii, self.transcripts, self.secret)


@dataclass
class AgentRedaction:
    """Result, or plan, of the conversion for one agent.

    Attributes:
        agent_id: The agent.
        modes: Modes of its rows before; empty if they are not known.
        rows: Numbers of converted rows, by table.
        error: Error that prevented the completion.
    """

    agent_id: str
    modes: list[str]
    rows: Counter[str] = field(default_factory=Counter)
    error: str | None = None


@dataclass(frozen=True)
class Redactions:
    """Result, or plan, of a run.

    Attributes:
        mode: Mode that rows are converted to.
        agents: One conversion per agent.
        is_rewritten: True if the warehouse is files that were rewritten without the old values.
        is_interrupted: True if `stop` was set before the end.
    """

    mode: str
    agents: list[AgentRedaction]
    is_rewritten: bool = False
    is_interrupted: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the command."""
        if self.is_interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.CONFIGURATION if any(a.error for a in self.agents) else ExitCode.DONE


def plan(warehouse: Warehouse, privacy: Privacy, agent_ids: Sequence[str]) -> Redactions:
    """Counts what a run would convert.

    Raises:
        ConfigurationError: As for `redact`.
    """
    modes = _modes(warehouse, privacy, agent_ids)
    counts: dict[str, Counter[str]] = {}
    with warehouse.kept_open():
        for drops_hashes, chosen in _by_hashes(modes, privacy):
            counts |= _conversion(warehouse, privacy, chosen, drops_hashes=drops_hashes).count()
    return Redactions(
        str(privacy.mode),
        [AgentRedaction(one, _named(modes[one]), counts[one]) for one in modes],
    )


def redact(
    pipeline: dlt.Pipeline,
    privacy: Privacy,
    agent_ids: Sequence[str] = (),
    *,
    lock_wait: timedelta = timedelta(0),
    stop: threading.Event | None = None,
    clock: Clock = utc_now,
) -> Redactions:
    """Converts what is loaded to a stricter mode: rows, copies, and the bytes of files.

    Sends no request to PolyAI. Can be killed at any time; the next run completes it, and no load
    under either mode is accepted until then. Idempotent.

    Args:
        pipeline: Pipeline of the warehouse: `open_pipeline` with the name `PIPELINE_NAME`.
        privacy: The mode to convert to.
        agent_ids: Agents; all of the warehouse if empty.
        lock_wait: Time to wait for other runs; no other run may write at the same time.
        stop: When set, the run ends before the next part.
        clock: Current time.

    Raises:
        BusyError: Another run writes into the warehouse.
        ConfigurationError: The mode drops and hashes nothing, or what is loaded is stricter; an
            agent is unknown; or the destination cannot replace rows safely.
        DestinationError: The destination cannot be read or written.
        LeaseLostError: Another machine has taken over a lease because this run was suspended.
    """
    stop = stop or threading.Event()
    if not merges_in_transactions(pipeline):
        raise ConfigurationError(
            f"{destination_label(pipeline)} cannot replace rows safely: load into another dataset "
            "under the new settings, and drop this one"
        )
    fix_mmap_threshold()
    timeout = LockTimeout(lock_wait, stop)

    def chosen() -> list[str]:
        return list(agent_ids) or agents(Warehouse(pipeline, locks_file=True))

    with exclusive_committer(pipeline, timeout, chosen, _LOCK_ENDING) as committer:
        committer.create_tables(redacted_tables())
        modes = _modes(committer.warehouse, privacy, agent_ids)
        reports = [_report(agent_id, privacy.mode, clock) for agent_id in modes]
        killed = [
            row
            for report in reports
            for row in committer.begin(report, [REDACT], redacted_tables())
        ]
        counts: dict[str, Counter[str]] = {}
        for drops_hashes, some in _by_hashes(modes, privacy):
            conversion = _conversion(committer.warehouse, privacy, some, drops_hashes=drops_hashes)
            counts |= conversion.run(committer, stop)
        problem: StoreError | None = None
        is_rewritten = False
        if not stop.is_set():
            discard_pending(committer)
            is_rewritten = rewrite_files(committer)
            if left := remake_copies(pipeline, wait=lock_wait).problems:
                problem = StoreError(f"copies still contain the former rows: {'; '.join(left)}")
        for report in reports:
            report.rows.update(counts[report.agent_id])
            report.finish(problem, interrupted=stop.is_set(), now=clock())
        committer.write({SYNC_RUNS: [*(report.as_row() for report in reports), *killed]})
    return Redactions(
        str(privacy.mode),
        [
            AgentRedaction(one.agent_id, _named(modes[one.agent_id]), one.rows, one.error)
            for one in reports
        ],
        is_rewritten,
        stop.is_set(),
    )


def _modes(
    warehouse: Warehouse, privacy: Privacy, agent_ids: Sequence[str]
) -> dict[str, frozenset[PrivacyMode]]:
    """Returns the modes of the rows by agent.

    Raises:
        ConfigurationError: Rows cannot be converted to the mode; conversations are on legal hold;
            or an agent is unknown.
    """
    known = agents(warehouse)
    if unknown := [one for one in agent_ids if one not in known]:
        raise ConfigurationError(f"{', '.join(unknown)}: not in the warehouse")
    mode = privacy.mode
    modes = {one: privacy_modes(warehouse, one) for one in agent_ids or known}
    for agent_id, loaded in modes.items():
        for other in sorted(loaded, key=str):
            if not other.can_become(mode):
                what = (
                    "with another pii_secret" if other.has_other_secret(mode) else f"under {other}"
                )
                raise ConfigurationError(
                    f"rows of {agent_id} were loaded {what}, and what was hashed or dropped cannot "
                    f"be brought back: {mode} cannot be applied. Set the former, or a stricter one"
                )
    if on_hold := [one for one in modes if Holds(warehouse, one, NO_KEYS)]:
        raise ConfigurationError(
            f"{', '.join(on_hold)}: conversations are on legal hold, whose words and numbers have "
            "to stay. Release the holds first, if that is allowed (see hold), or name other agents"
        )
    if (mode.pii, mode.transcripts) == ("keep", "keep") and not privacy.rules.dropped:
        raise ConfigurationError(
            "pii = keep and transcripts = keep: nothing is to be redacted. Set POLYAI_PII to hash "
            "or drop, or POLYAI_TRANSCRIPTS to drop"
        )
    return modes


def _by_hashes(
    modes: dict[str, frozenset[PrivacyMode]], privacy: Privacy
) -> list[tuple[bool, list[str]]]:
    """Groups agents by whether their rows have hashes that are to be dropped."""
    drops = {
        agent_id: privacy.pii == "drop"
        and (not loaded or any(mode.pii == "hash" for mode in loaded))
        for agent_id, loaded in modes.items()
    }
    return [
        (flag, chosen)
        for flag in (False, True)
        if (chosen := [agent_id for agent_id, is_dropped in drops.items() if is_dropped is flag])
    ]


def _conversion(
    warehouse: Warehouse, privacy: Privacy, agent_ids: Sequence[str], *, drops_hashes: bool
) -> Conversion:
    drops_transcripts = privacy.transcripts == "drop"
    redaction = HeldRedaction(
        privacy.pii, privacy.secret, privacy.transcripts, privacy.region, privacy.rules
    )
    redaction.drops_hashes = drops_hashes
    rows = HeldRows(redaction, drops_transcripts=drops_transcripts, rules=privacy.rules)
    emptied: tuple[Table, ...] = EMPTIED_TABLES if drops_transcripts else ()
    if privacy.rules.drops_notes and NOTES not in emptied:
        emptied = (*emptied, NOTES)
    return Conversion(warehouse, rows, agent_ids, emptied)


def _report(agent_id: str, mode: PrivacyMode, clock: Clock) -> RunReport:
    report = RunReport(agent_id, REDACT, Traffic(), started_at=clock())
    report.pii, report.transcripts, report.pii_key = mode
    return report


def _named(modes: frozenset[PrivacyMode]) -> list[str]:
    return sorted(map(str, modes))
