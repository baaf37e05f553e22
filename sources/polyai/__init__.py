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

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config.settings import resolve
    from .console.exit_codes import ExitCode
    from .console.process import run_script
    from .copying.command import copy
    from .debug_chats.command import debug_chat
    from .errors import PolyAIError
    from .forgetting.command import forget
    from .holding.command import hold
    from .jobs.backfill import backfill
    from .jobs.load import load
    from .load.refetch import Span
    from .load.source import polyai
    from .recordings.command import recordings
    from .redacting.command import redact
    from .retention.command import prune
    from .status.command import status
    from .views.command import views
    from .warehouse.open import open_pipeline
    from .warehouse.target import Target
    from .write_backs.command import annotate, note

__all__ = [
    "ExitCode",
    "PolyAIError",
    "Span",
    "Target",
    "annotate",
    "backfill",
    "copy",
    "debug_chat",
    "forget",
    "hold",
    "load",
    "note",
    "open_pipeline",
    "polyai",
    "prune",
    "recordings",
    "redact",
    "resolve",
    "run_script",
    "status",
    "views",
]

_MODULES = {
    "ExitCode": ".console.exit_codes",
    "PolyAIError": ".errors",
    "Span": ".load.refetch",
    "Target": ".warehouse.target",
    "annotate": ".write_backs.command",
    "backfill": ".jobs.backfill",
    "copy": ".copying.command",
    "debug_chat": ".debug_chats.command",
    "forget": ".forgetting.command",
    "hold": ".holding.command",
    "load": ".jobs.load",
    "note": ".write_backs.command",
    "open_pipeline": ".warehouse.open",
    "polyai": ".load.source",
    "prune": ".retention.command",
    "recordings": ".recordings.command",
    "redact": ".redacting.command",
    "resolve": ".config.settings",
    "run_script": ".console.process",
    "status": ".status.command",
    "views": ".views.command",
}
"""Module of each public name."""


class _Public:
    """Attribute of the package that is imported when it is first used.

    All of them, with dlt, take a CPU second to import, which `polyai-warehouse --help` does not
    need. An attribute of the class, because importing a subpackage of the same name, such as
    `load`, would replace one of the module.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, module: ModuleType, owner: type) -> Any:
        found = import_module(_MODULES[self._name], __name__)
        return getattr(found, self._name)

    def __set__(self, module: ModuleType, value: object) -> None:
        """Ignores a subpackage of the same name."""


class _Package(ModuleType):
    """The package, with its public names."""


for _name in _MODULES:
    setattr(_Package, _name, _Public(_name))
sys.modules[__name__].__class__ = _Package
