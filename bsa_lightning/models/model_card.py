"""The model card of a folder: its licence, its origin, and how to sample it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bsa_lightning.models.lora import PEFT_PREFIX, WEIGHTS
from bsa_lightning.models.provenance import PROGRESSIVE
from bsa_lightning.models.registry import BUILT_IN

_STABILITY = "Stability AI"
"""The licensor whose agreement must be named and passed on with everything that is made from its models."""
FACTS = (
    "num_steps",
    "weighting",
    "weighting_parameters",
    "guidance",
    "guidance_scale",
    "round",
    "updates",
    "teacher_sha256",
    "data",
)
"""The entries of a student's provenance that its card shows."""


def model_card(
    provenance: Mapping[str, Any],
    *,
    pipeline: str,
    options: str = "",
    length_argument: str = "audio_end_in_s",
    notes: str = "",
    scores: Sequence[str] = (),
    usage: Sequence[str] = (),
) -> str:
    """The Markdown of a model card, with the YAML metadata that the Hugging Face hub reads.

    Args:
        provenance: the content of the folder's ``provenance.json``.
        pipeline: the name of the pipeline class that opens the folder.
        options: further arguments of its ``from_pretrained``, as Python source.
        length_argument: the argument of the pipeline that is the length of a clip in seconds.
        notes: further sections in Markdown, before the licence.
        scores: the lines of a table of measured scores.
        usage: the lines of Python that sample it; empty for those of a complete folder.
    """
    licence = str(provenance["licence"])
    head: dict[str, Any] = {
        "license": licence.lower() if " " not in licence and licence != "unknown" else "other",
        "pipeline_tag": "text-to-audio",
        "library_name": "diffusers",
        "tags": ["text-to-audio", "bsa-lightning"],
    }
    student = "weighting" in provenance
    lines = ["---", yaml.safe_dump(head, sort_keys=False).strip(), "---", "", f"# {_title(provenance)}", ""]
    if student:
        lines += [
            f"A few-step student of {provenance['teacher']}, made by {_method(provenance)} distillation with"
            " bsa-lightning.",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in _facts(provenance)),
        ]
    else:
        lines += [f"`{provenance.get('source', 'a local folder')}`, converted by bsa-lightning to diffusers' layout."]
    lines += ["", "```python", *(usage or _usage(provenance, pipeline, options, length_argument)), "```", ""]
    if scores:
        lines += ["## Scores", "", *scores, ""]
    lines += [notes, ""] if notes else []
    lines += ["## Licence", "", _licence(licence, student=student, has_terms="## Terms" in notes), ""]
    return "\n".join(lines)


def adapter_usage(
    provenance: Mapping[str, Any], *, pipeline: str, options: str, network: str, scheduler: str, has_loader: bool
) -> list[str]:
    """The lines of Python that sample a student of which a folder has the adapter alone, with its teacher's pipeline.

    Args:
        provenance: the content of the folder's ``provenance.json``.
        pipeline: the name of the teacher's pipeline class.
        options: further arguments of its ``from_pretrained``, as Python source.
        network: the name of the network in the pipeline.
        scheduler: the class of the student's scheduler.
        has_loader: whether diffusers' class of the network has ``load_lora_adapter``.
    """
    scale = 1.0 if provenance["guidance"] == "baked" else provenance["guidance_scale"]
    carried = "custom_pipeline" in options  # the teacher's folder has the file of the class
    pipeline = "DiffusionPipeline" if carried else pipeline
    of_diffusers = scheduler in ("DDIMScheduler", "FlowMatchEulerDiscreteScheduler")
    arguments = ", ".join(['"path/to/the/teacher"', *([options] if options else [])])
    classes = sorted([pipeline, *([scheduler] if of_diffusers else [])])
    taken = (
        f'pipeline.{network}.load_lora_adapter(folder, prefix="{PEFT_PREFIX}", weight_name="{WEIGHTS}")'
        if has_loader
        else f"pipeline.{network} = PeftModel.from_pretrained(pipeline.{network}, folder).merge_and_unload()"
    )
    return [
        f"from diffusers import {', '.join(classes)}",
        *([] if of_diffusers else [f"from bsa_lightning.models.stable_audio.cosine_scheduler import {scheduler}"]),
        *([] if has_loader else ["from peft import PeftModel"]),
        "",
        *(["# The teacher's folder holds pipeline.py if convert or export wrote it."] if carried else []),
        'folder = "path/to/this/folder"',
        f"pipeline = {pipeline}.from_pretrained({arguments})",
        taken,
        f'pipeline.scheduler = {scheduler}.from_pretrained(folder, subfolder="scheduler")',
        f'audio = pipeline("{_caption(provenance)}", num_inference_steps={provenance["num_steps"]},'
        f" guidance_scale={scale}).audios[0]",
    ]


def student_note(provenance: Mapping[str, Any]) -> str:
    """The README of a student in the ``rounds/`` of a run, which has a network and a scheduler and no more.

    Args:
        provenance: the content of the folder's ``provenance.json``.
    """
    name = f"{provenance['round']}-{provenance['num_steps']}steps"
    return (
        f"# {_title(provenance)}\n\nThe network and the scheduler of round {provenance['round']}. Codec and text"
        " encoder are those of the teacher that `provenance.json` names, so that diffusers opens this folder only after"
        " it is completed, from the folder of the run:\n\n"
        f"```bash\nlightning export . path/to/a/new/folder --student {name}\n```\n\n"
        "`lightning generate` and `bsa_lightning.load_model` take it as it is.\n"
    )


def licence_of(folder: Path) -> str | None:
    """The licence in the metadata of a folder's model card; ``None`` if there is no card or no licence in it."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    head = card.read_text(encoding="utf-8", errors="replace").split("---")
    try:
        content = yaml.safe_load(head[1]) if len(head) > 2 and not head[0].strip() else None
    except yaml.YAMLError:
        return None
    return str(content["license"]) if isinstance(content, dict) and "license" in content else None


def _title(provenance: Mapping[str, Any]) -> str:
    if "weighting" in provenance:
        how = [name for name in (provenance.get("method"), provenance["weighting"]) if name not in (None, PROGRESSIVE)]
        return f"{provenance['num_steps']}-step student ({', '.join(how)})"
    return str(provenance["name"])


def _method(provenance: Mapping[str, Any]) -> str:
    """Returns the method of distillation as words; students of earlier versions do not name theirs."""
    return str(provenance.get("method", PROGRESSIVE)).replace("-", " ")


def _facts(provenance: Mapping[str, Any]) -> list[tuple[str, object]]:
    parameters = ", ".join(f"{name} = {value}" for name, value in provenance["weighting_parameters"].items())
    return [
        ("steps", provenance["num_steps"]),
        ("method", _method(provenance)),
        ("loss weighting", f"{provenance['weighting']} ({parameters})" if parameters else provenance["weighting"]),
        ("guidance", f"{provenance['guidance']}, {provenance['guidance_scale']}"),
        *([("adapter", _adapter(provenance["adapter"]))] if "adapter" in provenance else []),
        ("round", f"{provenance['round']}, {provenance['updates']} updates"),
        ("teacher's digest", f"`{provenance['teacher_sha256'][:16]}`"),
        ("data's digest", f"`{provenance['data'][:16]}`"),
        *([("data", _sampled(provenance))] if "sampled_latents" in provenance else []),
    ]


def _adapter(adapter: Mapping[str, Any]) -> str:
    return f"LoRA of rank {adapter['rank']} on {', '.join(adapter['target_modules'])}"


def _sampled(provenance: Mapping[str, Any]) -> str:
    sampling = provenance["sampled_latents"]
    whose = "this" if sampling.get("teacher_sha256") == provenance["teacher_sha256"] else "another"
    return (
        f"no recorded sound, but {sampling['num_latents']} latents that {whose} teacher sampled from captions in"
        f" {sampling['num_steps']} steps at guidance {sampling['guidance_scale']:g}, seed {sampling['seed']}"
    )


def _usage(provenance: Mapping[str, Any], pipeline: str, options: str, length_argument: str) -> list[str]:
    scale = 1.0 if provenance["guidance"] == "baked" else provenance["guidance_scale"]
    carried = "custom_pipeline" in options  # its index has the default of each setting
    settings = f"num_inference_steps={provenance['num_steps']}" + ("" if carried else f", guidance_scale={scale}")
    pipeline = "DiffusionPipeline" if carried else pipeline
    settings += f", {length_argument}={provenance['seconds']}" if "seconds" in provenance else ""
    folder = ", ".join(['"path/to/this/folder"', *([options] if options else [])])
    return [
        f"from diffusers import {pipeline}",
        "",
        f"pipeline = {pipeline}.from_pretrained({folder})",
        f'audio = pipeline("{_caption(provenance)}", {settings}).audios[0]',
    ]


def _caption(provenance: Mapping[str, Any]) -> str:
    """Returns a caption for an example; the built-in teachers know few words."""
    return "Three short high beeps" if provenance.get("teacher") in BUILT_IN else "A dog barks"


def _licence(licence: str, *, student: bool, has_terms: bool) -> str:
    if licence == "unknown" and has_terms:
        return "The folder of the teacher does not name a licence; the terms above are those of the published weights."
    if licence == "unknown":
        return "The source does not say under what licence its weights are; ask its authors before you use them."
    text = f"{licence}" + (", inherited from the teacher's weights." if student else ", as the source's weights.")
    if _STABILITY.lower() in licence.lower():
        text += (
            f" Powered by {_STABILITY}. The agreement asks whoever passes this model on, or what is made from it, to"
            " add a copy of the agreement and its notice file; those of the source are beside this card, if it had any."
        )
    return text
