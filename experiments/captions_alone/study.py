"""Students from the teacher's own latents against students from data: ``python -m experiments.captions_alone.study``.

Both train on the same captions with as many updates; stopped at any time, it goes on where it was. Runs are in
``runs/captions_alone``; each is scored twice, and the reports are in ``soundscapes/`` and ``teacher/`` there, named
after what the sound is compared with.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import bsa_lightning as bsa
from bsa_lightning.common.files import atomic_write
from bsa_lightning.data.clips import Clips
from bsa_lightning.data.prepare import prepare_folder
from bsa_lightning.data.prepared_sound import PreparedSound
from bsa_lightning.data.teacher_samples import TeacherSamples

ROOT = Path("runs/captions_alone")
TRAIN, TEST = bsa.Soundscapes(512, seed=1), bsa.Soundscapes(128, seed=3)
STEPS, UPDATES, SCALE = (16, 1), 60, 1.0
"""As in the comparison of weightings: without guidance, so that what students learn is steps alone."""
TRAINING_SEEDS, SAMPLING_SEEDS, NUM_CAPTIONS = (0, 1, 2), [0, 1, 2], 48
SETTINGS = {
    "data.batch_size": 8,
    "model.optimizer.init_args.lr": 3e-5,  # the best of BSA in the comparison of weightings
    "scoring.during_fit": False,
    "scoring.cache": str(ROOT / "cache"),
    "trainer.enable_progress_bar": False,
    "ckpt_path": "last",
}


def captions_of(clips: Clips, name: str) -> Path:
    """Writes the captions of clips to a file, and returns its path."""
    path = ROOT / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{clips.captions(i)[0]}\n" for i in range(len(clips))), encoding="utf-8")
    return path


def sampled(clips: Clips, name: str) -> TeacherSamples:
    """Returns the captions of clips, each with one latent that the teacher samples."""
    return TeacherSamples(captions_of(clips, name), num_steps=STEPS[0], guidance_scale=SCALE)


def train(clips: Clips, run: Path, seed: int) -> None:
    """Trains and scores a run against soundscapes."""
    scoring = bsa.ScoringSettings(
        TEST,
        num_captions=NUM_CAPTIONS,
        seeds=SAMPLING_SEEDS,
        rivals=[],
        num_samples=2,
        embeddings=[bsa.LogMelStatistics(), bsa.SoundscapeListener()],
    )
    guidance = bsa.Baked(SCALE)
    bsa.distill(
        "tiny",
        train=clips,
        out=run,
        steps=STEPS,
        updates=UPDATES,
        guidance=guidance,
        scoring=scoring,
        seed=seed,
        settings=SETTINGS,
    )
    bsa.evaluate(run)


def score_against_teacher(run: Path, copy: Path, sound: PreparedSound) -> None:
    """Scores the students of a run, in a copy of it, against the teacher's own sound."""
    if not copy.is_dir():
        with atomic_write(copy) as partial:
            left_out = shutil.ignore_patterns("scores.*", "differences.csv", "rows", "samples")
            shutil.copytree(run, partial, ignore=left_out)
    bsa.evaluate(copy, {"scoring.clips": sound})


def main() -> None:
    """Trains and scores what is not done yet, and writes both reports."""
    test = ROOT / "test"
    prepare_folder(sampled(TEST, "test"), test)
    sources: dict[str, Clips] = {"data": TRAIN, "captions": sampled(TRAIN, "train")}
    runs = {seed: {name: ROOT / "soundscapes" / name / str(seed) for name in sources} for seed in TRAINING_SEEDS}
    for seed, arms in runs.items():
        for name, run in arms.items():
            train(sources[name], run, seed)
            score_against_teacher(run, ROOT / "teacher" / name / str(seed), PreparedSound(test))
    for reference in ("soundscapes", "teacher"):
        done = [ROOT / reference / name / str(seed) for name in sources for seed in TRAINING_SEEDS]
        print(bsa.report(*done, out=ROOT / reference / "report").table)


if __name__ == "__main__":
    main()
