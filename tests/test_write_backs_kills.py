"""Write-backs that are killed at any time: no annotation is duplicated or lost.

The annotations in the sandbox are compared at the end. Some of its responses are incomplete after
the request was carried out, some are errors instead of it. The small version runs with the other
tests; a hundred kills in the middle of a file of 500:

    python -m pytest -m slow tests/test_write_backs_kills.py
"""

from __future__ import annotations

import csv
import random
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from command import AGENT, access, query, run, start
from polyai.sandbox import Sandbox, SandboxConfig, serve

pytestmark = pytest.mark.process

POSTS = "^POST .*/annotation"
COLUMNS = ("conversation_id", "turn_index", "role", "annotation_type")

_AN_HOUR = timedelta(hours=1)

Flag = tuple[str, int, str, str]


def in_sandbox(sandbox: Sandbox) -> dict[Flag, int]:
    """All annotations, with the number of occurrences."""
    found: dict[Flag, int] = {}
    for index in sandbox.listed(AGENT):
        conversation_id = sandbox.traits(AGENT, index).conversation_id
        for number, turn in enumerate(sandbox.conversation(AGENT, index).turns or ()):
            for one in turn.annotations:
                flag = (conversation_id, number, str(one.role), str(one.annotation_type))
                found[flag] = found.get(flag, 0) + 1
    return found


def new_flags(sandbox: Sandbox, count: int) -> list[Flag]:
    """Annotations that do not exist yet."""
    there = in_sandbox(sandbox)
    flags = [
        (sandbox.traits(AGENT, index).conversation_id, number, role, label)
        for index in sandbox.listed(AGENT)
        for number, _ in enumerate(sandbox.conversation(AGENT, index).turns or ())
        for role, label in (("user", "wrong_transcript"), ("agent", "wrong_info"))
    ]
    wanted = [flag for flag in flags if flag not in there][:count]
    assert len(wanted) == count
    return wanted


def killed_and_finished(kills: int, rows: int, seed: int) -> None:
    pick = random.Random(seed)
    sandbox = Sandbox(SandboxConfig(conversations=rows, oddities=False, span=rows * _AN_HOUR))
    before, flags = in_sandbox(sandbox), new_flags(sandbox, rows)
    with Path("flags.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *flags])
    sandbox.faults.add("truncated", path="/annotation", rate=0.1)
    sandbox.faults.add("status", status=503, path="/annotation", rate=0.1)
    # so that a kill meets requests in flight, and a run does not finish
    sandbox.faults.add("delay", seconds=0.1, path="/annotation")
    with serve(sandbox) as base_url:
        environment: dict[str, Any] = access(base_url) | {"POLYAI_UNCERTAIN_WAIT": "1s"}
        for _ in range(kills):
            kill_one(sandbox, environment, pick)
        sandbox.faults.clear()
        last = run("annotate", "flags.csv", **environment)
        assert last.returncode == 0, last.stderr + last.stdout
        expected = before | dict.fromkeys(flags, 1)
        assert in_sandbox(sandbox) == expected
        recorded = query(
            f"SELECT {', '.join(COLUMNS)}, status, count(*) FROM polyai.write_backs GROUP BY ALL"
        )
        assert sorted(recorded) == sorted((*flag, "sent", 1) for flag in flags)
        assert query("SELECT count(*) FROM polyai.sync_runs WHERE status = 'running'") == [(0,)]
        sandbox.requests.clear()
        assert run("annotate", "flags.csv", **environment).returncode == 0
        assert sandbox.requests.count() == 0


def kill_one(sandbox: Sandbox, environment: dict[str, str], pick: random.Random) -> None:
    """Starts a run and kills it before it has sent anything, or after some rows."""
    wanted = sandbox.requests.count(POSTS) + pick.choice([0, 1, 2, 4, 8])
    process = start("annotate", "flags.csv", "--workers", "2", **environment)
    deadline = time.monotonic() + 60
    while sandbox.requests.count(POSTS) < wanted and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(pick.choice([0, 0.01, 0.05, 0.2, 1.0, 3.0]))
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_few_kills() -> None:
    killed_and_finished(kills=4, rows=40, seed=1)


@pytest.mark.matrix
def test_a_hundred_kills_in_the_middle_of_a_file_of_500() -> None:
    killed_and_finished(kills=100, rows=500, seed=2)
