"""What a command has done and what it has left undone, in its last line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from bsa_lightning.common.files import read_json
from bsa_lightning.distillation.module import ProgressiveDistillation
from bsa_lightning.evaluation.scoring import Scoring
from bsa_lightning.generation.predict import Captions
from bsa_lightning.models.provenance import PROVENANCE
from bsa_lightning.training.run_files import CONFIG


@dataclass(frozen=True)
class Outcome:
    """What a command has done.

    Args:
        text: the last line of the command.
        is_whole: whether nothing is left undone.
        table: the table of scores, which goes before the line; empty if there is none.
    """

    text: str
    is_whole: bool = True
    table: str = ""


def fit_outcome(trainer: Trainer, module: LightningModule, run: Path) -> Outcome:
    """Returns what ``fit`` has done: the rounds and updates out of those that are planned.

    Args:
        trainer: the trainer, which has ended.
        module: the module.
        run: the folder of the run.
    """
    done = trainer.global_step
    if isinstance(module, ProgressiveDistillation):
        rounds = module.plan.rounds
        finished = sum((run / "rounds" / round_.folder).is_dir() for round_ in rounds)
        if finished == len(rounds):
            back = _rolled_back(module, run)
            return Outcome(f"done: {_count(finished, 'round')}, {_updates(done)}{back}, all in {run}")
        planned = module.planned_updates
        where = f"in round {module.round + 1} of {len(rounds)}; {finished} of {_count(len(rounds), 'student')} finished"
    else:
        total = trainer.estimated_stepping_batches
        if done >= total or total == float("inf"):
            return Outcome(f"done: {_updates(done)}, all in {run}")
        planned, where = int(total), "so that the learning rate has not fallen to zero"
    why, how = _limit(trainer)
    return Outcome(
        f"stopped after {done} of {_updates(planned)}{why}, {where}; go on with lightning fit --config {run / CONFIG}"
        f" --ckpt_path last{how}",
        is_whole=False,
    )


def test_outcome(trainer: Trainer, module: LightningModule, run: Path) -> Outcome:
    """Returns what ``test`` has scored, with the table of all scores of the run.

    Args:
        trainer: the trainer, which has ended.
        module: the module.
        run: the folder of the run.
    """
    scoring = next(callback for callback in trainer.callbacks if isinstance(callback, Scoring))  # type: ignore[attr-defined]
    if not isinstance(module, ProgressiveDistillation):
        return Outcome(f"done; {run} has no students, so that nothing was scored")
    if not scoring.has_scored:
        zero = " (trainer.limit_test_batches is 0)" if trainer.limit_test_batches == 0 else ""
        return Outcome(f"nothing was scored{zero}; run the same command without it", is_whole=False)
    from bsa_lightning.reporting.results import read_results
    from bsa_lightning.reporting.table import markdown

    rounds = module.plan.rounds
    finished = sum((run / "rounds" / round_.folder).is_dir() for round_ in rounds)
    table = markdown(read_results([run]))
    lacking = f"; {len(rounds) - finished} are not trained yet" if finished < len(rounds) else ""
    text = f"scored {finished} of {_count(len(rounds), 'student')}{lacking}; lightning report {run} makes a page of it"
    return Outcome(text, is_whole=finished == len(rounds), table=table)


def predict_outcome(trainer: Trainer, data: LightningDataModule | None, run: Path) -> Outcome:
    """Returns how many clips ``predict`` has made, out of how many captions.

    Args:
        trainer: the trainer, which has ended.
        data: the data module.
        run: the folder of the run.
    """
    if not isinstance(data, Captions):
        return Outcome(f"done, and all of it is in {run}")
    made, asked = sum(1 for _ in (run / "samples").glob("[0-9]*.wav")), len(data.captions)
    if made >= asked:
        return Outcome(f"done: {_count(made, 'clip')} in {run / 'samples'}")
    limit = trainer.limit_predict_batches
    why = "trainer.fast_dev_run" if trainer.fast_dev_run else f"trainer.limit_predict_batches {limit}"  # type: ignore[attr-defined]
    return Outcome(
        f"made {made} of {_count(asked, 'clip')}, because of {why}; leave it out and add --overwrite true for all",
        is_whole=False,
    )


def _limit(trainer: Trainer) -> tuple[str, str]:
    """Returns which setting has ended a fit, and the option without it."""
    if 0 <= trainer.max_steps <= trainer.global_step:
        return f" (trainer.max_steps is {trainer.max_steps})", " --trainer.max_steps -1"
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch:
        return f" (trainer.max_epochs is {trainer.max_epochs})", " --trainer.max_epochs -1"
    timers = [callback for callback in trainer.callbacks if type(callback).__name__ == "Timer"]  # type: ignore[attr-defined]
    return (" (trainer.max_time is over)", " --trainer.max_time null") if timers else ("", "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _updates(number: int) -> str:
    return _count(number, "update")


def _rolled_back(module: ProgressiveDistillation, run: Path) -> str:
    """Returns words on the rounds that went back to earlier weights; empty if none did."""
    if not module.plan.is_adaptive:
        return ""
    known = (read_json(run / "rounds" / round_.folder / PROVENANCE) for round_ in module.plan.rounds)
    decisions = [entries.get("budget", {}).get("decisions", []) for entries in known]
    back = [i for i, made in enumerate(decisions, 1) if any(each.startswith("rolled back") for each in made)]
    return f" (rolled back to earlier weights: round {', '.join(map(str, back))})" if back else ""
