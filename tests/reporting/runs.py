"""A scored run with sounds, such as reports are made from."""

import json
import wave

import numpy as np

from bsa_lightning.evaluation.scores import Score, ScoreFile

RATE = 16000
SYSTEMS = ("reference", "teacher-4steps", "student-bsa-4steps")
CLIPS = "bsa_lightning.data.captions.TangoManifest"
CAPTIONS = ("A dog barks", "A bell rings twice")


def write_wav(path, samples, *, rate=RATE):
    """Mono 16-bit PCM, written without the libraries that the report reads with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(np.asarray(samples) * 32767).astype("<i2").tobytes())


def sine(frequency, *, seconds=1.5, rate=RATE, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)


def write_scores(run):
    """The teacher at 8 and 4 steps, a student at 4, three seeds."""
    file = ScoreFile(run / "scores.csv")
    file.append(Score("reference", "", 0, 0, "", 0.0, 0, 0, 100, {"fd_logmel": 0.5}))
    for seed in range(3):
        for steps, fd in ((8, 1.0), (4, 2.0)):
            metrics = {"fd_logmel": fd + 0.1 * seed, "trajectory_error": 0.0 if steps == 8 else 0.3}
            file.append(Score("teacher", "", 0, steps, "outside", 2.0, 2 * steps, seed, 64, metrics))
        file.append(Score("student", "bsa", 1, 4, "baked", 2.0, 4, seed, 64, {"fd_logmel": 1.2}))
    return run


def write_run(run, *, captions=CAPTIONS):
    """Scores, details with a long line, and a sine of its own for every system and caption."""
    write_scores(run)
    config = f"model:\n  init_args:\n    teacher: {'a-long-name' * 30}\n    seed: 0\n"
    (run / "config.yaml").write_text(f"{config}scoring:\n  clips:\n    class_path: {CLIPS}\n")
    (run / "scores.json").write_text(json.dumps({"clips": "0" * 64}))
    (run / "differences.csv").write_text(
        "first,second,seed,metric,difference,low,high,num_clips,best_rival\n"
        "student-bsa-4steps,teacher-4steps,0,fd_logmel,-1.23456,-2.5,0.03,64,yes\n"
    )
    (run / "metrics.csv").write_text("step,val/num_steps,val/error_snr<0.1,val/error_snr<1\n59,4.0,0.3,0.1\n")
    for i, system in enumerate(SYSTEMS):
        for k, caption in enumerate(captions):
            name = f"{k:02d}-{caption.lower().replace(' ', '-')}.wav"
            write_wav(run / "samples" / system / name, sine(200 * (1 + i + 3 * k)))
    return run
