"""The sides of a benchmark: each loads an API's conversations into a new DuckDB file.

`python -m benchmarks.sides SIDE` runs one side in the working directory and writes its cost as
JSON. Each side imports its own libraries, so that none bears the cost of another's.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

AGENT_ID = "PROJECT-BOOKINGS"
DATABASE = "benchmark.duckdb"
PAGE_SIZE = 100


def ours(base_url: str, workers: int) -> None:
    """Loads with this package and its defaults, except for the number of workers."""
    import dlt

    from polyai.config.settings import resolve
    from polyai.load.run import load
    from polyai.warehouse.open import open_pipeline

    agent = {"agent_id": AGENT_ID, "api_key": "key", "base_url": base_url}
    pipeline = open_pipeline(dlt.destinations.duckdb(DATABASE), pipelines_dir="pipelines")
    (report,) = load(resolve(agents=[agent], workers=workers), pipeline)
    if report.status != "complete":
        raise RuntimeError(f"{report.status}: {report.error}")


def floor(base_url: str, workers: int) -> None:
    """Writes the bodies to disk and reads them into one table: the minimum of work."""
    from concurrent.futures import ThreadPoolExecutor

    import duckdb
    import urllib3

    listing = f"{base_url}/v1/agents/{AGENT_ID}/conversations"
    details = Path("details.jsonl")
    with (
        urllib3.PoolManager(maxsize=workers, block=True) as http,
        ThreadPoolExecutor(workers) as pool,
        details.open("wb") as file,
    ):

        def page(offset: int) -> Any:
            answer = http.request("GET", f"{listing}?limit={PAGE_SIZE}&offset={offset}")
            return orjson.loads(answer.data)

        def detail(conversation_id: str) -> bytes:
            return http.request("GET", f"{listing}/{quote(conversation_id, safe='')}").data

        count = page(0)["count"]
        pages = list(pool.map(page, range(0, count, PAGE_SIZE)))
        ids = [row["conversationId"] for rows in pages for row in rows["conversations"]]
        for body in pool.map(detail, ids):
            file.write(body + b"\n")
    texts = {name: "VARCHAR" for rows in pages[:1] for row in rows["conversations"] for name in row}
    nested = {"turns": "JSON[]", "metrics": "JSON", "functionEvents": "JSON"}
    with duckdb.connect(DATABASE) as connection:
        # DuckDB cannot infer the columns: some names of metrics differ in case only
        relation = connection.read_json(
            str(details),
            columns=texts | nested,
            format="newline_delimited",
            maximum_object_size=2**26,
        )
        relation.create("conversations")


def rest_api(base_url: str, workers: int) -> None:
    """Loads with dlt's generic REST source, whose normalizer creates the tables."""
    import dlt
    from dlt.sources.rest_api import rest_api_source

    dlt.config["extract.workers"] = workers
    source = rest_api_source(
        {
            "client": {"base_url": f"{base_url}/v1/agents/{AGENT_ID}/"},
            "resources": [
                {
                    "name": "listing",
                    "endpoint": {
                        "path": "conversations",
                        "data_selector": "conversations",
                        "paginator": {
                            "type": "offset",
                            "limit": PAGE_SIZE,
                            "total_path": "count",
                        },
                    },
                },
                {
                    "name": "conversations",
                    "primary_key": "conversationId",
                    "write_disposition": "merge",
                    "parallelized": True,
                    "endpoint": {
                        "path": "conversations/{conversation_id}",
                        "data_selector": "$",
                        "paginator": "single_page",
                        "params": {
                            "conversation_id": {
                                "type": "resolve",
                                "resource": "listing",
                                "field": "conversationId",
                            }
                        },
                    },
                },
            ],
        }
    ).with_resources("conversations")
    pipeline = dlt.pipeline(
        "rest_api",
        pipelines_dir="pipelines",
        destination=dlt.destinations.duckdb(DATABASE),
        dataset_name="polyai",
    )
    pipeline.run(source)


SIDES: dict[str, tuple[Callable[[str, int], None], tuple[str, ...]]] = {
    "ours": (ours, ("polyai.load.run", "duckdb")),
    "floor": (floor, ("urllib3", "duckdb")),
    "rest_api": (rest_api, ("dlt.sources.rest_api", "dlt.destinations", "duckdb")),
}
"""Each side, and the modules that it imports before its time is measured."""


def peak_rss_bytes() -> int:
    """Returns the peak memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():
        # the kernel's maxrss includes the memory of the parent at the fork
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def main() -> None:
    """Runs one side and writes its cost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sides", description=__doc__)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--workers", type=int, default=8)
    options = parser.parse_args()
    run, modules = SIDES[options.side]
    began = time.perf_counter()
    for module in modules:
        importlib.import_module(module)
    imported, cpu = time.perf_counter(), time.process_time()
    run(options.base_url, options.workers)
    cost = {
        "start_up_seconds": imported - began,
        "start_up_cpu_seconds": cpu,
        "seconds": time.perf_counter() - imported,
        "cpu_seconds": time.process_time() - cpu,
        "peak_rss_bytes": peak_rss_bytes(),
    }
    sys.stdout.write(orjson.dumps(cost).decode() + "\n")


if __name__ == "__main__":
    main()
