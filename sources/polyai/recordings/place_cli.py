"""Commands `polyai-warehouse recordings move`, `recordings adopt` and `recordings prove`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..config.settings import shared_setting
from ..console.exit_codes import ExitCode
from ..console.options import (
    DatasetOption,
    DestinationOption,
    JsonOption,
    LockWaitOption,
    RecordingsUrlOption,
    WorkersOption,
)
from ..console.process import stop_on_signals
from ..console.progress import FilesProgress
from ..console.terminal import print_json, stderr, stdout
from ..warehouse.read_only import open_to_read
from ..warehouse.target import Target
from . import show_places as show
from .prove import prove
from .relocate import adopt, move
from .run import PIPELINE_NAME


def move_command(
    to: Annotated[
        str, typer.Option("--to", help="New folder or fsspec URL of the archive.", metavar="URL")
    ],
    wait: LockWaitOption = None,
    workers: WorkersOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the archive to another place, compare all hashes, and switch to it.

    Can be killed at any time; the next call resumes. Nothing is deleted in the
    old place. Set recordings_url to the new one afterwards.
    """
    with stop_on_signals("stopping") as stop, FilesProgress(stderr) as progress:
        result = move(
            Target(destination, dataset).open(PIPELINE_NAME),
            to,
            lock_wait=wait or shared_setting("lock_wait"),
            workers=workers or shared_setting("workers"),
            stop=stop,
            on_files=progress.update,
        )
    code = ExitCode.INTERRUPTED if stop.is_set() else ExitCode.DONE
    if as_json:
        print_json(show.relocation_as_json(result, code))
    else:
        show.moved(stdout, result, is_stopped=stop.is_set())
    raise typer.Exit(code)


def adopt_command(
    url: Annotated[str, typer.Argument(help="Folder or fsspec URL of the archive.")],
    wait: LockWaitOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Use the archive in this place from now on, without a download.

    For an archive that was moved by other means, and for one of version 0.1 or
    of another warehouse, with which this one shares it from now on.
    """
    result = adopt(
        Target(destination, dataset).open(PIPELINE_NAME),
        url,
        lock_wait=wait or shared_setting("lock_wait"),
    )
    if as_json:
        print_json(show.relocation_as_json(result, ExitCode.DONE))
    else:
        show.adopted(stdout, result)


def prove_command(
    conversation: Annotated[str, typer.Argument(help="Conversation id.")],
    recordings_url: RecordingsUrlOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print and check the chain of custody of a call's recordings.

    Exits with 1 if the log is broken, or does not prove every stored file.
    """
    url = recordings_url or shared_setting("recordings_url")
    with open_to_read(destination, dataset) as warehouse:
        proof = prove(warehouse, url, conversation)
    code = ExitCode.DONE if proof.is_proven else ExitCode.CONFIGURATION
    if as_json:
        print_json(show.proof_as_json(proof, code))
    else:
        show.proof(stdout, proof)
    raise typer.Exit(code)
