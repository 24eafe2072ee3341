"""Wrong command lines, and odd ones that are good: see data_faults and command_faults."""

from __future__ import annotations

from pathlib import Path
from random import Random

from command_faults import run
from fault_case import Build, Case


def words(*choices: tuple[str, ...]) -> Build:
    """One of some command lines; FILE, FOLDER, SOUNDS and NOWHERE stand for such."""

    def build(folder: Path, rng: Random) -> Case:
        (folder / "file").write_text("mine")
        (folder / "folder").mkdir()
        (folder / "folder" / "thing").write_text("mine")
        places = {"FILE": "file", "FOLDER": "folder", "NOWHERE": "nowhere", "NEW": "new"}
        given = []
        for word in rng.choice(choices):
            name = next((name for name in places if word.startswith(name)), "")
            given.append(str(folder / places[name]) + word.removeprefix(name) if name else word)
        return Case(lambda: run(given), 0)

    return build


def generate(name: str, *values: str) -> Build:
    return words(*(("generate", "x", "--out", "NEW", f"--{name}", value) for value in values))


WORDS: dict[str, Build] = {
    "no command": words(("nope",), ("genrate", "x"), ("",), ("\udcff",), ("--nope",), ("x" * 3000,)),
    "nothing to do": words(
        ("generate",), ("report",), ("export",), ("score",), ("convert",), ("prepare",), ("dashboard",), ("fit",)
    ),
    "no caption": words(("generate", ""), ("generate", " "), ("generate", "a", ""), ("generate", "\udcff")),
    "steps of sampling": generate("steps", "0", "-1", "x", "1.5", "nan", "5000"),
    "guidance of sampling": generate("guidance", "-1", "nan", "inf", "x"),
    "seeds of sampling": generate("seed", "-1", "x", "1.5", "nan"),
    "samples of a caption": generate("num_samples", "0", "-1", "x"),
    "models that are none": generate("model", "NOWHERE", "FILE", "FOLDER", "", "x" * 300, "FILE/x"),
    "places that are none": words(
        ("generate", "x", "--out", "FILE"), ("generate", "x", "--out", "FILE/x"), ("generate", "x", "--out", "x" * 300)
    ),
    "options that are none": words(
        ("generate", "x", "--stps", "3"), ("report", "FOLDER", "--ou", "x"), ("score", "FOLDER", "FOLDER", "--n", "1"),
        ("prepare", "--nope"), ("fit", "--nope"), ("generate", "x", "--steps"), ("export", "FOLDER", "NEW", "--x=1"),
    ),
    "abbreviations": words(
        ("generate", "x", "--step", "1", "--out", "NEW"), ("report", "FOLDER", "--o", "x"), ("prepare", "--clip", "x"),
        ("distill", "tiny", "--caption", "FILE", "--update", "3"),
        ("fit", "--config", "demo", "--run", "NEW", "--trainer.max_step", "3"),
    ),
    "words without an option": words(
        ("fit", "demo", "--run", "NEW"), ("fit", "--config", "demo", "weighting/bsa"), ("test", "FOLDER"),
        ("runs", "FOLDER", "FOLDER"), ("score", "FOLDER", "--model", "tiny"),
    ),
    "files for captions and folders": words(
        ("generate", "FILE", "--out", "NEW"), ("generate", "x", "--model", "FILE", "--out", "NEW"),
        ("report", "FILE"), ("export", "FILE", "NEW"), ("runs", "FILE"), ("runs", "NOWHERE"), ("runs", "FOLDER"),
    ),
    "several mistakes": words(
        ("generate", "x", "--steps", "0", "--seed", "-1", "--out", "FILE"),
        ("fit", "--config", "demo", "--run", "NEW", "--data.batch_size", "0", "--model.plan.updates", "0"),
        ("distill", "tiny", "--captions", "NOWHERE", "--steps", "8", "3", "--out", "NEW", "--seed", "-1"),
    ),
    "runs that are none": words(
        *((name, place) for name in ("report", "dashboard") for place in ("NOWHERE", "FILE", "FOLDER", "", "x" * 300)),
    ),
    "exports that are none": words(
        ("export", "NOWHERE", "NEW"), ("export", "FILE", "NEW"), ("export", "FOLDER", "NEW"),
        ("export", "FOLDER", "FILE"), ("export", "FOLDER", "NEW", "--student", "best"), ("export", "FOLDER"),
    ),
    "checkpoints that are none": words(
        ("convert", "NOWHERE", "NEW"), ("convert", "FILE", "NEW"), ("convert", "FOLDER", "NEW"),
        ("convert", "FOLDER", "FILE"), ("convert", "FOLDER", "FOLDER"), ("convert", "", "NEW"),
    ),
    "scores that are none": words(
        ("score", "NOWHERE", "FOLDER"), ("score", "FOLDER", "FOLDER"), ("score", "FILE", "FILE"), ("score", "FOLDER"),
        ("score", "FOLDER", "FOLDER", "--out", "FOLDER"), ("score", "FOLDER", "FOLDER", "--embeddings+", "Nope"),
        ("score", "FOLDER", "FOLDER", "--captions", "NOWHERE"), ("score", "FOLDER", "FOLDER", "--cache", "FILE"),
    ),
    "lists that are none": words(
        *(
            ("prepare", "--clips", kind, f"--clips.{name}", place, "--clips.audio_dir", "FOLDER", "--out", "NEW")
            for kind, name in (("TangoManifest", "jsonl"), ("AudioCapsManifest", "csv"))
            for place in ("NOWHERE", "FOLDER", "FILE", "", "/dev/zero")
        )
    ),
    "soundscapes that are none": words(
        *(
            ("prepare", "--clips", "Soundscapes", "--clips.num_clips", number, "--clips.seed", seed, "--out", out)
            for number, seed, out in (("0", "0", "NEW"), ("-1", "0", "NEW"), ("1", "-1", "NEW"), ("2", "0", "FILE"),
                                      ("2", "0", "FOLDER"), ("x", "0", "NEW"), ("1.5", "0", "NEW"))
        )
    ),
    "names that are no text": words(
        ("fit", "--run", "\udcff"), ("fit", "--config", "\udcff"), ("test", "--run", "a\udcff"),
    ),
    "predictions that are none": words(
        *(
            ("predict", "--run", "NEW", "--data", "Captions", "--data.file", file, "--model", "Generation",
             "--model.model", model, "--wandb", "disabled")
            for file, model in (("NOWHERE", "tiny"), ("FOLDER", "tiny"), ("FILE", "NOWHERE"), ("/dev/zero", "tiny"))
        )
    ),
}  # fmt: skip

GOOD_WORDS: dict[str, Build] = {
    "captions that look like settings": words(
        *(
            ("generate", caption, "--steps", "1", "--out", "NEW")
            for caption in ("Rain costs ${amount} a day", "{a: b}", "${oc.env:HOME}", "null", "[x]", "-5 degrees", "'")
        ),
        ("generate", "--steps=1", "--out", "NEW", "--", "--a caption"),
    ),
    "help": words(("--help",), ("--version",), ()),
}  # fmt: skip
