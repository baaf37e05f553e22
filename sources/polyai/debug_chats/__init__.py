"""Debug chats: automated test scenarios and interactive chats with an agent.

Example for a notebook; reading scenario files needs the extra `debug-chats`:

```
from polyai.debug_chats import load_suite, run_suites

run = run_suites([load_suite("booking.yaml")], label="v12")
[(one.scenario, one.outcome, one.reasons) for one in run.scenarios]
```
"""

from .junit import write_junit
from .result_store import store_results
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
    "load_suite",
    "load_suites",
    "run_suites",
    "store_results",
    "write_junit",
]
