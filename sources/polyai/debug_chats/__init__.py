"""Debug chats: scenarios that are tried with an agent, and chats by hand.

In a notebook:

```
from polyai.debug_chats import load_suite, run_suites

run = run_suites([load_suite("booking.yaml")], label="v12")
[(one.scenario, one.outcome, one.reasons) for one in run.scenarios]
```
"""

from .junit import write_junit
from .keeping import keep_results
from .results import ChatsRun, Check, ScenarioResult, TurnResult
from .runner import run_suites
from .suite import Scenario, Suite, Turn, load_suite, load_suites

__all__ = [
    "ChatsRun",
    "Check",
    "Scenario",
    "ScenarioResult",
    "Suite",
    "Turn",
    "TurnResult",
    "keep_results",
    "load_suite",
    "load_suites",
    "run_suites",
    "write_junit",
]
