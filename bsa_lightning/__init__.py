"""Progressive distillation of text-to-audio diffusion models. ``TangoPipeline`` makes sound from model folders."""

from typing import Any


def __getattr__(name: str) -> Any:  # noqa: ANN401 - as Python has it
    # Importing the pipeline imports diffusers, which takes seconds.
    if name == "TangoPipeline":
        from bsa_lightning.models.tango.pipeline import TangoPipeline

        return TangoPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
