"""``lightning export RUN DST``: the best or last student of a run as a complete model folder."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

from bsa_lightning.cli.call import call
from bsa_lightning.cli.run_names import Named, run_of
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import atomic_write, refuse_existing
from bsa_lightning.evaluation.system_name import DDIM_NAME

TEACHER = "the fine-tuned teacher"
"""What stands for a student where a run has fine-tuned a teacher."""


def run(words: list[str]) -> None:
    """Runs the command."""
    call(export, words, positional=True)


def export(
    run: Path,
    dst: Path,
    student: str = "last",
    metric: str = "fd_logmel",
    push_to_hub: str | None = None,
    private: bool = True,
    adapter: bool = False,
) -> None:
    """Writes a student with its teacher's codec and text encoder, ready for its pipeline class, with a model card.

    If the student was trained with ``model.adapter``, its adapter is merged into the weights or, with ``adapter``,
    written alone, in peft's format, which diffusers' load_lora_adapter reads into the network of the first teacher.

    If the run has fine-tuned a teacher, the teacher is exported.

    Args:
        run: the folder of the run, or of one of its students in rounds/.
        dst: the folder to write, which must not exist.
        student: the student to export: "last" is the one with the fewest steps, "best" the one with the lowest score;
            or the name of a folder in rounds/.
        metric: the column of scores.csv by which "best" is chosen; the lowest value is the best.
        push_to_hub: the repository on the Hugging Face hub, as owner/name, to which the folder is uploaded, too.
        private: whether that repository, if it is new, can be seen by its owner alone.
        adapter: whether to write the adapter of the student alone, a small file beside its scheduler.
    """
    from bsa_lightning.distillation.export import export_adapter, export_student
    from bsa_lightning.models.hub_upload import refuse_upload, upload_model
    from bsa_lightning.models.provenance import read_student

    if push_to_hub is not None:
        refuse_upload(push_to_hub, Path(dst))
    run, student = _chosen(Path(run), Path(dst), student, metric)
    if student == TEACHER:
        if adapter:
            raise UserError(f"adapter is true, but {run} has fine-tuned a teacher, which has no adapter; leave it out")
        _copy(run / "model", Path(dst))
        print(f"the fine-tuned teacher of {run}: {dst}")
    else:
        read_student(run / "rounds" / student)
        write = export_adapter if adapter else export_student
        write(run / "rounds" / student, Path(dst), scores=_scores(run))
        print(f"{'the adapter of ' if adapter else ''}{student} of {run}: {dst}")
    if push_to_hub is not None:
        print(f"uploaded: {upload_model(Path(dst), push_to_hub, private=private)}")


def _chosen(given: Path, dst: Path, student: str, metric: str) -> tuple[Path, str]:
    """Returns the run, and the name of the student to export, or ``TEACHER`` for a teacher that was fine-tuned.

    Raises:
        UserError: if there is no such student, or ``dst`` lies among them.
    """
    Named(given, "run").refuse_adapter()
    run, named = run_of(given, setting="run")
    if named is None and Named(given, "run").is_model:
        raise UserError(f"run is {given}, a whole model already; copy it, or name the folder of a run")
    if (run / "rounds").resolve() in dst.resolve().parents:
        raise UserError(f"dst is {dst}, which is among the students of the run; name a folder elsewhere")
    names = Named(run, "run").students()
    if not names and Named(run / "model", "run").is_model:
        return run, TEACHER
    if not names:
        raise UserError(f"run is {run}, but it has no finished student in rounds/; name a run that lightning fit made")
    if named is not None:
        if student not in ("last", named):
            raise UserError(f"student is {student}, but run is {given}, another student; name the run, {run}")
        return run, named
    if student not in ("last", "best", *names):
        raise UserError(f'student is "{student}", but must be last, best or one of {", ".join(names)}')
    return run, {"last": names[-1], "best": ""}.get(student, student) or _best(run, names, metric)


def _copy(model: Path, dst: Path) -> None:
    """Writes a copy of a whole model folder, once it is known to be as it was written."""
    from bsa_lightning.models.loading import load_parts

    refuse_existing(dst, setting="dst")
    load_parts(model)
    with atomic_write(dst) as partial:
        shutil.copytree(model, partial)


def _best(run: Path, names: list[str], metric: str) -> str:
    """Returns the student with the lowest mean of a metric over its repeats."""
    from bsa_lightning.reporting.results import read_results

    means = {
        result.num_steps: result.metrics.get(metric, (math.nan, math.nan))[0]
        for result in read_results([run])
        if result.model == "student" and result.sampler == DDIM_NAME
    }
    scored = {name: mean for name in names if not math.isnan(mean := means.get(_num_steps(name), math.nan))}
    if not scored:
        raise UserError(f'student is "best", but scores.csv of {run} has no {metric} of any; run lightning test first')
    return min(scored, key=lambda name: scored[name])


def _scores(run: Path) -> list[str]:
    """Returns the lines of a run's table of scores, for the model card; empty if it has none that can be read."""
    from bsa_lightning.reporting.results import read_results
    from bsa_lightning.reporting.table import markdown

    if not (run / "scores.csv").is_file():
        return []
    try:
        return markdown(read_results([run])).splitlines()
    except UserError as error:  # such as for a run that was stopped in its first scoring
        print(f"lightning export: the card has no table of scores, since {error}", file=sys.stderr)
        return []


def _num_steps(name: str) -> int:
    return int(name.split("-")[1].removesuffix("steps"))
