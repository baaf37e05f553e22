"""Table of newcomers: each kind of key, form of the ids and region, right and wrong.

Each one follows what `check` prints until it has settings, and loads with them.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from command import AGENT, query, run
from polyai.config import regions
from polyai.sandbox import Sandbox, SandboxConfig, serve

pytestmark = pytest.mark.load

ACCOUNT = "ws-sandbox"
COUNT = 5
HOME, ELSEWHERE = "eu", "us"
DATA_KEY, V3_KEY, EVERY_KEY = "sandbox-data-key", "sandbox-v3-key", "sandbox-key"

KEYS = {
    "data": {"POLYAI_API_KEY": DATA_KEY},
    "v3": {"POLYAI_V3_API_KEY": V3_KEY},
    "v3 as api_key": {"POLYAI_API_KEY": V3_KEY},
    "data as v3_api_key": {"POLYAI_V3_API_KEY": DATA_KEY},
    "both": {"POLYAI_API_KEY": DATA_KEY, "POLYAI_V3_API_KEY": V3_KEY},
    "both swapped": {"POLYAI_API_KEY": V3_KEY, "POLYAI_V3_API_KEY": DATA_KEY},
    "of all rights": {"POLYAI_API_KEY": f'Bearer "{EVERY_KEY}"'},
    "data in quotes": {"POLYAI_API_KEY": f"'{DATA_KEY}'"},
    "v3 with Bearer": {"POLYAI_V3_API_KEY": f"Bearer {V3_KEY}"},
    "both with Bearer in quotes": {
        "POLYAI_API_KEY": f'"Bearer {DATA_KEY}"',
        "POLYAI_V3_API_KEY": f'"Bearer {V3_KEY}"',
    },
}

IDS = {
    "id": {"POLYAI_AGENT_ID": AGENT},
    "id and account": {"POLYAI_AGENT_ID": AGENT, "POLYAI_ACCOUNT_ID": ACCOUNT},
    "slugs": {"POLYAI_AGENT_ID": "acme-bookings", "POLYAI_ACCOUNT_ID": "acme"},
    "wrong account": {"POLYAI_AGENT_ID": AGENT, "POLYAI_ACCOUNT_ID": "ws-other"},
    "Studio URL": {"POLYAI_AGENT_ID": "https://studio.REGION.poly.ai/acme/acme-bookings/home"},
    "Jupiter URL": {"POLYAI_AGENT_ID": f"https://jupiter.polyai.app/{ACCOUNT}/{AGENT}/home"},
}

PLACES = {"right region": HOME, "wrong region": ELSEWHERE}

ALWAYS = {("v3", "id", "wrong region")}
"""Newcomers of the fast suite."""


@pytest.fixture(scope="module", params=[401, 403, 404], ids="refused with {}".format)
def hosts(request: pytest.FixtureRequest) -> Iterator[pytest.MonkeyPatch]:
    """Serves the agent in one region, and other regions that refuse its keys."""
    slugs = {"acme": ACCOUNT, "acme-bookings": AGENT}
    home = SandboxConfig(conversations=COUNT, slugs=slugs, region=HOME, detail="small")
    other = SandboxConfig(
        conversations=COUNT,
        region=ELSEWHERE,
        foreign_status=request.param,
        api_key="-1",
        data_api_key="-2",
        v3_api_key="-3",
        keys={name: SandboxConfig(foreign_status=request.param).key("sandbox-key-eu") for name in
              (DATA_KEY, V3_KEY, EVERY_KEY)},
    )  # fmt: skip
    with (
        serve(Sandbox(home)) as here,
        serve(Sandbox(other)) as there,
        pytest.MonkeyPatch.context() as patch,
    ):
        urls = dict.fromkeys(regions.REGIONS, there) | {HOME: here}
        v3_urls = {region: url for region, url in urls.items() if region != "studio"}
        patch.setattr(regions, "data_api_url", urls.__getitem__)
        patch.setattr(regions, "conversations_v3_url", v3_urls.get)
        yield patch


def cases() -> Iterator[object]:
    """Yields every kind of key with every form of the ids.

    An eighth of the common ones are no matrix, each in one of the regions.
    """
    for position, (key, ids, place) in enumerate(itertools.product(KEYS, IDS, PLACES)):
        marks = [] if (key, ids, place) in ALWAYS else [pytest.mark.slow]
        is_common = key in ("data", "v3", "both") or ids in ("id", "id and account")
        # the right region after the wrong one and the other way round, from one form to the next
        if marks and not (is_common and position % 32 in (0, 19)):
            marks.append(pytest.mark.matrix)
        yield pytest.param(key, ids, place, id=f"{key}-{ids}-{place}", marks=marks)


def environment(key: str, ids: str, place: str) -> dict[str, str]:
    found = KEYS[key] | IDS[ids]
    if "REGION" in found["POLYAI_AGENT_ID"]:
        return found | {
            "POLYAI_AGENT_ID": found["POLYAI_AGENT_ID"].replace("REGION", PLACES[place])
        }
    return found | {"POLYAI_REGION": PLACES[place]}


Follow = Callable[[str, dict[str, str]], dict[str, str]]
"""Function that does what `check` printed; returns the variables that are then set."""


def paste_into_shell(printed: str, given: dict[str, str]) -> dict[str, str]:
    """Runs the printed lines in a shell with the given variables."""
    exports = re.findall(r"^export .*$", printed, re.MULTILINE)
    shown = subprocess.run(
        ["/bin/sh", "-euc", "\n".join([*exports, "/usr/bin/env"])],
        env=given,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    pairs = (line.partition("=") for line in shown.splitlines())
    return {name: value for name, _, value in pairs if name.startswith("POLYAI_")}


def write_files(printed: str, given: dict[str, str]) -> dict[str, str]:
    """Writes the printed file, and unsets and moves what it names."""
    heading, _, text = printed.partition("\nor in .dlt/config.toml")[2].partition("\n")
    text = text.partition("ready: ")[0]
    unset = heading.partition("`unset ")[2].partition("`")[0].split()
    Path(".dlt").mkdir(exist_ok=True)
    Path(".dlt", "config.toml").write_text(text, encoding="utf-8")
    assert tomllib.loads(text)["sources"]["polyai"]["agent_id"]
    left = {name: value for name, value in given.items() if name not in unset}
    moved = re.findall(r"^# .* as (\w+): the key that is now (\w+)", text, re.MULTILINE)
    return left | {name: given[f"POLYAI_{now.upper()}"] for name, now in moved}


@pytest.mark.parametrize("hosts", [401], indirect=True)
@pytest.mark.parametrize(("key", "ids", "place"), list(cases()))
def test_follows_check_to_a_load(
    key: str,
    ids: str,
    place: str,
    hosts: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    load_as_told(environment(key, ids, place), paste_into_shell, record_property)


@pytest.mark.parametrize("hosts", [401], indirect=True)
@pytest.mark.parametrize(
    "key",
    [
        pytest.param("data", marks=pytest.mark.matrix),
        pytest.param("v3", marks=pytest.mark.matrix),
        pytest.param("both swapped", marks=pytest.mark.slow),
    ],
)
def test_follows_check_to_a_load_with_files(
    key: str, hosts: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    load_as_told(environment(key, "id and account", "wrong region"), write_files, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [403, pytest.param(404, marks=pytest.mark.matrix)], indirect=True)
@pytest.mark.parametrize(
    "key",
    [pytest.param(key, marks=[] if key == "v3" else pytest.mark.matrix) for key in KEYS],
)
def test_follows_check_whatever_another_region_answers(
    key: str, hosts: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    load_as_told(
        environment(key, "id and account", "wrong region"), paste_into_shell, record_property
    )


def load_as_told(
    given: dict[str, str], follow: Follow, record: Callable[[str, object], None]
) -> None:
    """Follows `check` to a load of everything."""
    checked = run("check", **given)
    record("check", checked.stdout)
    if "settings to use" not in checked.stdout:
        # the one thing that only Agent Studio shows
        assert checked.returncode == 1, checked.stdout
        assert re.search(r"set account_id|POLYAI_ACCOUNT_ID", checked.stdout)
        given |= {"POLYAI_ACCOUNT_ID": ACCOUNT}
        checked = run("check", **given)
        record("check with the account", checked.stdout)
    assert "Traceback" not in checked.stderr
    left = follow(checked.stdout, given)
    loaded = run("load", **left)
    record("exit code of load", int(loaded.returncode))
    assert loaded.returncode == 0, loaded.stderr
    assert query("SELECT count(*) FROM polyai.conversations") == [(COUNT,)]
    again = run("check", **left)
    assert again.returncode == 0, again.stdout
    assert again.stdout.rstrip().endswith("ready: polyai-warehouse load")


@pytest.mark.parametrize("hosts", [401], indirect=True)
@pytest.mark.slow
@pytest.mark.usefixtures("hosts")
def test_a_gateway_without_the_route_may_be_of_another_region(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sandbox = Sandbox(SandboxConfig(conversations=COUNT))
    sandbox.faults.add("no_route", path=".")
    with serve(sandbox) as url:
        urls = dict.fromkeys(regions.REGIONS, url) | {HOME: regions.data_api_url(HOME)}
        monkeypatch.setattr(regions, "data_api_url", urls.__getitem__)
        checked = run("check", **environment("data", "id", "wrong region"))
    assert "set region to 'eu' (POLYAI_REGION)" in checked.stdout
    assert "export POLYAI_REGION=eu\n" in checked.stdout


@pytest.mark.parametrize("hosts", [401], indirect=True)
@pytest.mark.slow
def test_an_expired_key_leads_to_no_settings(hosts: pytest.MonkeyPatch) -> None:
    checked = run("check", POLYAI_API_KEY="sandbox-key-expired", **IDS["id and account"])
    assert checked.returncode == 1
    assert "The other regions refuse it as well" in checked.stdout
    assert "expired" in checked.stdout
    assert "settings to use" not in checked.stdout
