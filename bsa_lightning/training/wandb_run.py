"""The W&B run of a run folder: one and the same for all processes of the run, however often it is resumed."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import make_folder, read_json

_SECONDS = 10
_LOGIN = "run `wandb login` once, or leave it out"


class WandbRun(WandbLogger):
    """Logs to W&B under the id that the run folder keeps.

    Args:
        folder: the folder of the run, below which W&B writes its files.
        id: the id of the W&B run.
        config: the resolved configuration, which W&B shows.
        online: whether to send to the server at once; otherwise the files can be sent later with ``wandb sync``.

    Raises:
        UserError: if the server does not answer, or there is no valid key for it on this machine.
    """

    def __init__(self, folder: Path, *, id: str, config: dict[str, Any], online: bool) -> None:
        if online:
            refuse_unreachable()
        else:
            import wandb

            wandb.setup(wandb.Settings(silent=True, mode="offline"))
        folder = folder.resolve()
        super().__init__(
            project="bsa-lightning",
            name=folder.name,
            group=folder.parent.name,
            id=id,
            save_dir=folder,
            offline=not online,
            config=config,
        )
        self._num_skipped = 0
        self._has_begun = False

    @property
    def experiment(self) -> Any:  # noqa: ANN401 - W&B's run, whose type Lightning does not import either
        """The run of W&B; ``None`` until :meth:`save`, since Lightning asks for it before all settings are checked."""
        if not self._has_begun:
            return None
        if self._experiment is None:
            make_folder(Path(str(self.save_dir)))
        return super().experiment

    def save(self) -> None:
        """Begins the run, with its folder: Lightning calls this when all is set up, so that a refusal leaves none."""
        self._has_begun = True

    def skip(self, rows: int) -> None:
        """Skips the next rows, which an earlier process of the run has logged already.

        Args:
            rows: the number of rows to skip.
        """
        self._num_skipped = rows

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.save()
        if self._num_skipped:
            self._num_skipped -= 1
        else:
            super().log_metrics(metrics, step)

    @rank_zero_only
    def log_student(self, folder: Path) -> None:
        """Registers the folder of a student as a version of an artifact of the run, with its provenance.

        The artifact refers to the files where they are, and holds their digests; weights of gigabytes are not copied
        into W&B's folder after each round, nor sent.

        Args:
            folder: the folder of the student, in ``rounds/`` of the run.
        """
        import wandb

        artifact = wandb.Artifact(
            f"student-{self.version}", type="model", metadata=read_json(folder / "provenance.json")
        )
        artifact.add_reference(folder.resolve().as_uri())
        self.experiment.log_artifact(artifact, aliases=[folder.name])


def wandb_mode() -> str:
    """Returns the mode that the environment variable ``WANDB_MODE`` asks for, "offline" if it is not set.

    Raises:
        UserError: if it is no mode of W&B.
    """
    mode = os.environ.get("WANDB_MODE") or "offline"
    if mode not in ("offline", "online", "disabled"):
        raise UserError(f'WANDB_MODE is "{mode}", but must be offline, online or disabled; set it to one of them')
    return mode


@rank_zero_only
def refuse_unreachable() -> None:
    """Refuses a server that cannot be logged to within seconds, where W&B itself would retry for minutes.

    Raises:
        UserError: if the server does not answer, or there is no valid key for it on this machine.
    """
    import wandb

    server = wandb.setup().settings.base_url
    try:
        urllib.request.urlopen(server, timeout=_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # the server has answered
    except (OSError, ValueError) as error:
        raise UserError(
            f"wandb is online, but {server} does not answer ({getattr(error, 'reason', error)}); leave it out, and send"
            " the run later with `wandb sync`"
        ) from error
    try:
        known = wandb.login(prompt=False)
    except wandb.errors.AuthenticationError as error:
        raise UserError(
            f"wandb is online, but {server} does not accept the key that this machine has; {_LOGIN}"
        ) from error
    if not known:
        raise UserError(f"wandb is online, but this machine has no key for {server}; {_LOGIN}")
