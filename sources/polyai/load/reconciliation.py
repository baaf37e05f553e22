"""Comparison of the API's count and whole list with what is loaded."""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import pyarrow as pa

from ..listing.protocol import Listed, Listing
from ..tables.rules import missing
from ..warehouse.held import LoadState
from ..warehouse.run_history import WholeWalks
from .report import RunReport

logger = logging.getLogger("polyai")

WALK_AGAIN_AFTER = timedelta(days=1)
"""Time after which conversations that a walk over the whole list did not find are searched again.

They are reported in every run.
"""


class Reconciliation:
    """Conversations of one agent that the API counts or lists, against those that are loaded.

    Args:
        warehouse: State of the load.
        agent_id: The agent.
        report: Takes the counts.
        now: Start of the run.
    """

    def __init__(
        self, warehouse: LoadState, agent_id: str, report: RunReport, now: datetime
    ) -> None:
        self._warehouse = warehouse
        self._agent_id = agent_id
        self._report = report
        self._now = now
        self._listed = array("Q")
        self._too_old = array("Q")
        self._known = WholeWalks()
        self._loaded = self._pending = 0

    def start(self) -> None:
        """Reads what earlier runs found out about the whole list, and what is known now."""
        self._known = self._warehouse.whole_walks(self._agent_id, self._now)
        self._report.count_excess = self._known.count_excess
        self._report.known_absent = self._known.absent
        if self._report.range_from is None:
            # before this run commits what it finds
            self._count()

    def add(self, rows: Iterable[Listed]) -> None:
        """Adds conversations of the whole list."""
        self._listed.extend(_short_hash(row.conversation_id) for row in rows)

    def add_too_old(self, conversation_id: str) -> None:
        """Adds a conversation of the whole list that is too old to be loaded."""
        self._too_old.append(_short_hash(conversation_id))

    def end_walk(self, listing: Listing, *, is_whole: bool) -> None:
        """Records how a walk over a list ended."""
        report = self._report
        report.is_proven = report.is_proven and listing.is_proven
        if not is_whole:
            return
        report.too_old = len(pa.array(self._too_old, pa.uint64()).unique())
        report.walks += listing.walks
        if listing.count_excess is not None:
            report.count_excess = listing.count_excess
            if listing.count_excess:
                logger.warning(
                    "%s: PolyAI counts %s conversations and lists %d fewer: the count is wrong",
                    self._agent_id,
                    listing.api_count,
                    listing.count_excess,
                )
        elif listing.has_count and not listing.is_proven:
            logger.warning(
                "%s: %d walks over the whole list did not agree: conversations may be missing",
                self._agent_id,
                listing.walks,
            )

    def must_walk(self, listing: Listing, found: int, malformed: int) -> bool:
        """Returns whether the API counts conversations of which the run knows nothing.

        Those that a walk within the last day did not find either are not searched again.

        Args:
            listing: The list, of which a part was read.
            found: Conversations to load that were neither loaded nor failed when the run began.
            malformed: List rows without an id that the run has found for the first time.
        """
        if not listing.has_count:
            return False
        report, known = self._report, self._known
        unaccounted = self._unaccounted(listing, found, malformed)
        if unaccounted and not report.load_ids:
            # a backfill may have committed some since the run began; this run has not
            self._count()
            unaccounted = self._unaccounted(listing, found, malformed)
        if not unaccounted:
            return False
        is_recent = known.walked_at is not None and known.walked_at > self._now - WALK_AGAIN_AFTER
        if is_recent and known.unaccounted == unaccounted:
            return False
        logger.warning(
            "%s: PolyAI counts %d conversations that are neither loaded nor in the newest part of "
            "the list: the whole list is read",
            self._agent_id,
            unaccounted,
        )
        return True

    def _count(self) -> None:
        """Counts what is known without this run."""
        with self._warehouse.kept_open():
            self._loaded = self._warehouse.count_conversations(self._agent_id)
            self._pending = self._warehouse.count_unloaded_failures(self._agent_id)

    def _unaccounted(self, listing: Listing, found: int, malformed: int) -> int | None:
        """Returns how many conversations the API counts that are not known."""
        report = self._report
        return missing(
            listing.api_count,
            self._loaded + found,
            erased=report.forgotten,
            absent=report.known_absent,
            pending=self._pending + malformed,
            excess=report.count_excess,
            too_old=report.too_old,
        )

    def end(self, environments: Sequence[str], *, is_first_load: bool) -> None:
        """Counts the distinct conversations listed, and the loaded ones that are not listed.

        Only meaningful after proven walks over whole lists.
        """
        import pyarrow.compute as pc

        listed = pa.array(self._listed, pa.uint64()).unique()
        self._report.listed = len(listed)
        if self._report.replaced_api is not None:
            return  # the API whose listing is gone may still have what this one does not list
        absent = 0
        for ids in (
            () if is_first_load else self._warehouse.conversation_ids(self._agent_id, environments)
        ):
            loaded = pa.array([_short_hash(name) for name in ids], pa.uint64())
            absent += len(ids) - (pc.sum(pc.is_in(loaded, value_set=listed)).as_py() or 0)
        self._report.absent = self._report.known_absent = absent


def _short_hash(conversation_id: str) -> int:
    """Hashes an id to 8 bytes, because a million of them are kept in memory."""
    return int.from_bytes(hashlib.blake2b(conversation_id.encode(), digest_size=8).digest())
