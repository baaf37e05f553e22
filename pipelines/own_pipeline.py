"""Your own dlt pipeline over the source, here together with a table of your own.

Use this to combine conversations with other sources in one pipeline. The functions of `polyai` add
what a plain dlt pipeline does not have: locks, commits in chunks, reconciliation, views.
"""

from collections.abc import Iterator

import dlt

from polyai import polyai


@dlt.resource(primary_key="number", write_disposition="merge")
def shops() -> Iterator[dict[str, str]]:
    """Your own names of the phone numbers that callers dial; join it on `to_number`."""
    yield {"number": "+442079460000", "shop": "London"}
    yield {"number": "+443069990000", "shop": "Guildford"}


def main() -> None:
    """Loads new and changed conversations with their turns, and the shops."""
    # conversations is required: the next run compares it with the listing to find what to fetch
    source = polyai().with_resources("conversations", "turns")
    # DuckDB names the database after the file, so the dataset needs another name
    pipeline = dlt.pipeline("my_calls", destination="duckdb", dataset_name="calls")
    print(pipeline.run([source, shops()]))


if __name__ == "__main__":
    main()
