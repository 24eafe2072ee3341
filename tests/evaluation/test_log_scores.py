"""What W&B and TensorBoard are told, read back from what was written offline."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from ladder import data_of, module_of, trainer_of
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from bsa_lightning.evaluation.log_scores import log_mel_picture, log_samples, log_score, log_table
from bsa_lightning.evaluation.scores import Score, ScoreFile
from bsa_lightning.training.run_callbacks import StudentRecord
from bsa_lightning.training.wandb_run import WandbRun

SCORES = [
    Score("student", "bsa", 1, 4, "baked", 3.0, 4, 0, 8, {"fd_logmel": 1.5, "trajectory_error": 0.25}),
    Score("teacher", "", 0, 4, "outside", 3.0, 8, 0, 8, {"fd_logmel": 2.5}),
    Score("teacher", "", 0, 4, "outside", 1.0, 4, 0, 8, {"fd_logmel": 3.5}, sampler="dpm-solver++"),
]


@pytest.fixture
def wav(tmp_path):
    """A low tone in the first half, silence in the second."""
    time = np.arange(16_000) / 16_000
    path = tmp_path / "00-a-tone.wav"
    soundfile.write(path, np.where(time < 0.5, 0.5 * np.sin(2 * np.pi * 300 * time), 0), 16_000)
    return path


def test_weights_and_biases_holds_scores_sound_and_pictures(tmp_path, monkeypatch, wav):
    import wandb

    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    logger = WandbLogger(project="test", save_dir=tmp_path, offline=True, config={"weighting": "BSA"})
    for score in SCORES:
        log_score([logger], score)
    log_samples([logger], "student-bsa-4steps", [wav], ["A tone"])
    log_table([logger], rows_of(tmp_path, SCORES[0], SCORES[1], replace(SCORES[0], seed=1, metrics={"fd_logmel": 2.5})))
    summary = dict(logger.experiment.summary)
    wandb.finish()
    folder = next((tmp_path / "wandb").glob("offline-run-*"))
    records = records_of(folder)
    history = {}
    for record in records:
        history |= record.get("history", {}).get("item", {})
    assert float(history["scores/student-bsa/fd_logmel"]) == 1.5
    assert float(history["scores/teacher/fd_logmel"]) == 2.5
    assert float(history["scores/teacher-dpm-solver++-unguided/fd_logmel"]) == 3.5
    assert json.loads(json.dumps(history["num_steps"])) in (4, "4")
    axes = {
        record["metric"].get("name"): record["metric"].get("step_metric") for record in records if "metric" in record
    }
    assert axes["scores/student-bsa/fd_logmel"] == "nfe"
    kept = [path.relative_to(folder / "files" / "media").parts[:2] for path in folder.rglob("media/**/*.*")]
    assert ("audio", "samples") in kept
    assert ("images", "spectrograms") in kept
    assert any(parts[0] == "table" for parts in kept)

    assert summary["means/student-bsa-4steps/fd_logmel"] == 2.0
    assert summary["means/student-bsa-4steps/trajectory_error"] == 0.25
    assert summary["means/teacher-4steps/fd_logmel"] == 2.5
    kept = {name for record in records for name in record.get("summary", {}).get("update", {})}
    assert "means/teacher-4steps/fd_logmel" in kept
    assert not any(name.startswith("scores/") for name in kept)


def test_weights_and_biases_knows_the_students(teacher_folder, latents_folder, tmp_path):
    import wandb

    run = tmp_path / "run"
    logger = WandbRun(run, id="abc", config={}, online=False)
    trainer = trainer_of(run, StudentRecord(), logger=logger)
    trainer.fit(module_of(teacher_folder), data_of(latents_folder))
    wandb.finish()
    (folder,) = (run / "wandb").glob("offline-run-*")
    artifacts = [record["artifact"] for record in records_of(folder) if "artifact" in record]
    for artifact, name, num_steps in zip(artifacts, ("1-4steps", "2-2steps"), (4, 2), strict=True):
        assert (artifact["name"], artifact["type"]) == ("student-abc", "model")
        assert set(artifact["aliases"]) == {"latest", name}
        assert json.loads(artifact["metadata"])["num_steps"] == num_steps
        files = {entry["path"]: entry["ref"] for entry in artifact["manifest"]["contents"]}
        weights = "unet/diffusion_pytorch_model.safetensors"
        assert files[weights] == (run / "rounds" / name / weights).as_uri()


def rows_of(folder, *scores):
    for score in scores:
        ScoreFile(folder / "scores.csv").append(score)
    return ScoreFile(folder / "scores.csv").rows()


def records_of(folder):
    """Every record of an offline run, by the reader that W&B's wheel ships."""
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.skip(f"this wandb has no reader of offline runs: {result.stderr.strip()[:100]}")
    return [json.loads(line) for line in result.stdout.splitlines() if line.strip()]


def test_tensorboard_has_sound_pictures_and_captions(tmp_path, wav):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    log_samples([logger], "student-bsa-4steps", [wav], ["A tone"])
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir, size_guidance={"audio": 0})
    events.Reload()
    (sound,) = events.Audio("samples/student-bsa-4steps/00-a-tone")
    samples, rate = soundfile.read(io.BytesIO(sound.encoded_audio_string))
    expected, _ = soundfile.read(wav)
    assert (rate, sound.content_type) == (16_000, "audio/wav")
    np.testing.assert_allclose(samples, expected, atol=2 / 2**15)
    (picture,) = events.Images("spectrograms/student-bsa-4steps/00-a-tone")
    assert (picture.width, picture.height) == (100, 64)
    assert "captions/student-bsa-4steps/00-a-tone/text_summary" in events.Tags()["tensors"]


def test_tensorboard_has_the_evaluations_as_its_axis(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    for score in SCORES:
        log_score([logger], score)
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    (event,) = events.Scalars("scores/student-bsa/fd_logmel")
    assert (event.step, event.value) == (4, 1.5)
    values = {
        name: [(event.step, event.value) for event in events.Scalars(f"scores/{name}/fd_logmel")]
        for name in ("teacher", "teacher-dpm-solver++-unguided")
    }
    assert values == {"teacher": [(8, 2.5)], "teacher-dpm-solver++-unguided": [(4, 3.5)]}


def test_a_picture_is_bright_where_the_sound_is(wav):
    grey = log_mel_picture(wav).float()
    assert grey.shape == (64, 100)
    assert grey.max() == 255
    assert grey[:, :45].argmax() // 45 > 48  # 300 Hz is near the bottom
    assert grey[:, 60:].max() < 30
