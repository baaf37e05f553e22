"""Tables and examples of `pipelines/destinations.md`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dlt.destinations
import pytest

from command import files_read_again
from optional import are_installed
from polyai.warehouse.capabilities import DATABASES, DESTINATIONS, SQLALCHEMY, Support

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent

GUIDE = (ROOT / "pipelines" / "destinations.md").read_text(encoding="utf-8")

EXAMPLES = re.findall(r"(?s)```toml\n(.*?)```", GUIDE)


def rows() -> Iterator[tuple[str, Support]]:
    """Yields all destinations and databases, in the order of the guide."""
    all_rows = {
        **{name: one for name, one in DESTINATIONS.items() if name != SQLALCHEMY},
        **{f"{SQLALCHEMY}, {name}": one for name, one in DATABASES.items()},
        f"{SQLALCHEMY}, others": DESTINATIONS[SQLALCHEMY],
    }
    for level in ("proven", "supported", "refused"):
        yield from ((name, one) for name, one in all_rows.items() if one.level == level)


def usable(name: str, support: Support) -> str:
    machines = "locks" if name == "duckdb" else "leases" if support.has_leases else "none"
    views = ", ".join(f"`{view}`" for view in support.without_views)
    tested = support.reason + (f"; without the views {views}" if views else "")
    packages = f"`{support.packages}`" if support.packages else "–"
    return f"| `{name}` | {support.level} | {tested} | {machines} | {packages} |"


def refused(name: str, support: Support) -> str:
    return f"| `{name}` | {support.reason} | {support.alternative} |"


def test_tables_are_those_of_the_check() -> None:
    expected = [
        (refused if support.level == "refused" else usable)(name, support)
        for name, support in rows()
    ]
    found = [line for line in GUIDE.splitlines() if line.startswith("| `")]
    assert found == expected, "the tables have to be:\n" + "\n".join(expected)


def test_every_usable_destination_has_an_example() -> None:
    names = {match for one in EXAMPLES for match in re.findall(r"^\[destination\.(\w+)", one)}
    assert names == {
        name for name, support in DESTINATIONS.items() if support.level != "refused"
    } | {SQLALCHEMY}


@pytest.mark.parametrize(
    "example", EXAMPLES, ids=[one.partition("\n")[0].strip("[]") for one in EXAMPLES]
)
def test_dlt_accepts_the_example(example: str, tmp_path: Path) -> None:
    found = re.match(r"\[destination\.(\w+)", example)
    assert found
    if found[1] == SQLALCHEMY and not are_installed("sqlalchemy", "pymysql"):
        pytest.skip("needs SQLAlchemy and PyMySQL")
    (tmp_path / ".dlt").mkdir(exist_ok=True)
    (tmp_path / ".dlt" / "secrets.toml").write_text(example, encoding="utf-8")
    with files_read_again():
        config = resolved(found[1])
    assert config.credentials.is_resolved()
    for name, value in re.findall(r'(?m)^(\w+) = "?(.*?)"?$', example):
        assert name == "credentials" or str(value)[:5] in str(_values(config)), name


def test_the_command_of_the_guide_sets_what_dlt_reads() -> None:
    ((name, value),) = re.findall(r"(?m)^export (\w+)=(\S+)$", GUIDE)
    with patch.dict(os.environ, {name: value}):
        config = resolved("postgres")
    assert config.credentials.host == "warehouse.example"
    assert config.credentials.database == "analytics"


def resolved(name: str) -> Any:
    """Resolves the configuration of a destination, but for the dataset, which a pipeline has."""
    destination: Any = getattr(dlt.destinations, name)()
    return destination.configuration(destination.spec(), accept_partial=True)


def _values(config: Any) -> dict[str, Any]:
    """Returns all values of a configuration and of those in it."""
    return {
        name: _values(value) if hasattr(value, "get_resolvable_fields") else value
        for name, value in dict(config).items()
    }
