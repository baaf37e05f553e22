"""Findings of a verification."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from .archive import Short, is_awaited
from .manifest import Row
from .report import RecordingsReport

Trouble = Literal[
    "missing",
    "changed",
    "moved",
    "doubled",
    "manifest",
    "untold",
    "unregistered",
    "custody",
    "version",
    "short",
]
"""Kind of a discrepancy.

`missing`: the file does not exist. `changed`: it has another size or hash than in its row. `moved`:
it has another place than in its row. `doubled`: a recording has two rows. `manifest`: the manifest
is damaged, or differs from the warehouse. `untold`: neither warehouse nor manifest answers for the
file. `unregistered`: only another warehouse does, although this one has the call. `custody`: the
custody log is broken. `version`: PolyAI gave other bytes than before, which are beside the
recording. `short`: the recording is much shorter than its call.
"""


@dataclass(frozen=True)
class Finding:
    """Discrepancy.

    Attributes:
        trouble: Its kind.
        agent_id: The agent; empty for a file of no agent.
        uri: Address of the file.
        detail: Explanation.
        row: The file's row in the warehouse; None for other files.
        path: Path of the file in the archive.
        is_repaired: The file was downloaded again or set aside, or the manifest rewritten.
        call_seconds: Length of the call that the recording is much shorter than.
        is_final: Nothing is left to do: PolyAI had nothing longer `recordings_wait` after the call,
            or the recording itself is intact beside another version.
    """

    trouble: Trouble
    agent_id: str
    uri: str
    detail: str
    row: Row | None = None
    path: str = ""
    is_repaired: bool = False
    call_seconds: float | None = None
    is_final: bool = False

    @property
    def is_harmless(self) -> bool:
        """True if the archive has all that PolyAI had, in spite of it."""
        return self.is_final


@dataclass
class Verification:
    """Result for the files of all agents.

    Attributes:
        files: Number of files checked.
        bytes: Their total size.
        files_of: Numbers of this warehouse's files, by agent.
        findings: Discrepancies.
        writers: Warehouses that have written to the archive.
        heads: Heads of this warehouse's custody logs, by agent.
        is_stopped: It ended early.
        reports: One report per agent whose recordings were downloaded again.
    """

    files: int = 0
    bytes: int = 0
    files_of: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    writers: set[str] = field(default_factory=set)
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)
    is_stopped: bool = False
    reports: list[RecordingsReport] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """True if there was nothing to verify, which is no proof of anything."""
        return not (self.files or self.findings or self.is_stopped)

    @property
    def is_sound(self) -> bool:
        """True if all discrepancies are repaired or harmless, or there are none."""
        return not self.is_empty and all(
            one.is_repaired or one.is_harmless for one in self.findings
        )

    @property
    def is_intact(self) -> bool:
        """True if files, manifest and warehouse agree, although recordings may be too short."""
        return not self.is_empty and all(
            one.is_repaired or one.is_harmless or one.trouble == "short" for one in self.findings
        )

    def left(self, agent_id: str | None = None) -> Counter[str]:
        """Numbers of discrepancies that are not repaired, by kind.

        Args:
            agent_id: Only those of an agent, and of files of no agent.
        """
        return Counter(
            one.trouble
            for one in self.findings
            if not (one.is_repaired or one.is_harmless)
            and (agent_id is None or one.agent_id in (agent_id, ""))
        )


def short_finding(agent_id: str, short: Short, wait: timedelta) -> Finding:
    """Finding for a recording that is much shorter than its call."""
    row, seconds = short.row, short.row["duration_seconds"]
    is_final = not is_awaited(row, short.ended_at, wait)
    detail = f"{seconds:.1f} s of a call of {short.call_seconds:.0f} s; "
    if is_final:
        attempts, last = row["attempts"] or 1, row["fetched_at"]
        detail += f"PolyAI had nothing longer in {attempts:,} runs until {last:%Y-%m-%d}"
    else:
        detail += "`recordings` requests it again until recordings_wait is over"
    return Finding(
        "short",
        agent_id,
        row["uri"],
        detail,
        row,
        row["path"],
        call_seconds=short.call_seconds,
        is_final=is_final,
    )
