"""The W&B workspace that compares weightings, built from run folders without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bsa_lightning.reporting.metric_titles import title_of
from bsa_lightning.reporting.results import REFERENCE, metrics_of, read_results

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

WEIGHTING = "model.init_args.weighting.class_path"
"""The key of the weighting in a run's configuration."""
_TRAINING = ("train/loss", "val/distillation_error", "val/trajectory_error", "num_steps")


def workspace(runs: Sequence[Path], *, entity: str, project: str) -> Workspace:
    """Returns a workspace with scores over network evaluations, curves of the training, errors by SNR, and sounds.

    Args:
        runs: the folders of scored runs, whose metrics and systems decide the panels.
        entity: the user or team on W&B.
        project: the project of the runs on W&B.

    Raises:
        UserError: if a folder has no scores, or the runs cannot be compared.
    """
    from wandb_workspaces.reports.v2 import LinePlot, MediaBrowser, RunComparer
    from wandb_workspaces.workspaces import Config, RunsetSettings, Section, Workspace

    results = [result for result in read_results(runs) if result.model != REFERENCE]
    scores = [
        LinePlot(
            title=title_of(metric),
            x="nfe",
            metric_regex=rf"scores/.*/{metric}",
            log_x=True,
            title_x="network evaluations a clip",
            title_y="mean of runs; band: least to most",
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
        )
        for metric in metrics_of(results)
    ]
    training = [LinePlot(title=name, y=[name]) for name in _TRAINING]
    by_snr = LinePlot(title="distillation error by SNR", metric_regex="val/error_snr.*", log_y=True)
    names = sorted({path.name for run in runs for path in (run / "samples").glob("*") if path.is_dir()})
    media = [MediaBrowser(title=name, media_keys=[f"samples/{name}", f"spectrograms/{name}"]) for name in names]
    return Workspace(
        entity=entity,
        project=project,
        name="Weightings",
        sections=[
            Section(name="Scores over evaluations", panels=[*scores], is_open=True),
            Section(name="Training", panels=[*training, by_snr], is_open=True),
            Section(name="Listen", panels=[*media]),
            Section(name="Configurations", panels=[RunComparer(diff_only="split")]),
        ],
        runset_settings=RunsetSettings(groupby=[Config(WEIGHTING)], pinned_columns=[f"config:{WEIGHTING}"]),
    )


def as_json(board: Workspace) -> str:
    """Returns the JSON that would be saved, without a request to the server."""
    text: str = board._to_model().model_dump_json(indent=2)
    return text
