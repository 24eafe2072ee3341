"""``lightning dashboard RUN... --entity NAME``: the W&B workspace that compares these runs."""

from __future__ import annotations

from pathlib import Path

from bsa_lightning.cli.call import call
from bsa_lightning.common.errors import UserError


def run(words: list[str]) -> None:
    """Runs the command."""
    call(dashboard, words, several="runs")


def dashboard(runs: list[Path], entity: str, project: str = "bsa-lightning", save: bool = False) -> None:
    """Prints the workspace as JSON, or saves it on W&B, where the runs must be (`wandb sync` brings offline ones).

    Args:
        runs: the folders of scored runs.
        entity: the user or team on W&B.
        project: the project of the runs on W&B.
        save: whether to save the workspace on W&B, which needs a network and a login.
    """
    from bsa_lightning.reporting.dashboard import as_json, workspace

    board = workspace([Path(run) for run in runs], entity=entity, project=project)
    if not save:
        print(as_json(board))
        return
    try:
        board.save()
    except Exception as error:  # the client raises many types of errors without a network, a login or permission
        reason = str(error).strip().split("\n", 1)[0]
        raise UserError(f"the workspace cannot be saved ({reason}); run `wandb login`, or leave --save out") from error
    print(board.url)
