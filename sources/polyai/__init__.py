"""PolyAI conversations in your own warehouse: a dlt source, and the jobs that run it.

Each command of `polyai-warehouse` is a function here. Settings come from the environment and from
dlt's configuration unless they are given; results are typed reports with an `exit_code`; expected
errors are subclasses of `PolyAIError`.

```
import polyai

result = polyai.load(settings=polyai.resolve(lookback="30d"))
for report in result.reports:
    print(report.agent_id, report.status, report.new, report.changed)
```
"""

from .config.settings import resolve
from .console.exit_codes import ExitCode
from .console.process import run_script
from .debug_chats.command import debug_chat
from .errors import PolyAIError
from .forgetting.command import forget
from .jobs.backfill import backfill
from .jobs.load import load
from .load.plan import Span
from .load.source import polyai
from .recordings.command import recordings
from .status.command import status
from .views.command import views
from .warehouse.open import open_pipeline
from .warehouse.target import Target
from .write_backs.command import annotate, note

# bound last: importing the subpackages `load`, `recordings`, `status` and `views` binds their
# names to the modules first, and no later import binds them again
__all__ = [
    "ExitCode",
    "PolyAIError",
    "Span",
    "Target",
    "annotate",
    "backfill",
    "debug_chat",
    "forget",
    "load",
    "note",
    "open_pipeline",
    "polyai",
    "recordings",
    "resolve",
    "run_script",
    "status",
    "views",
]
