"""Preparation of a store of latents from captioned clips, with a model's codec and text encoder."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import is_partial, read_json, refuse_file, remove_partial, write_json
from bsa_lightning.common.locks import LOCK, locked
from bsa_lightning.common.progress import progress
from bsa_lightning.common.ranges import check_number
from bsa_lightning.data.clips import Clips, Encoder, Subset
from bsa_lightning.data.index import INDEX, NULL, parse_index
from bsa_lightning.data.inspection import Inspection, inspect
from bsa_lightning.data.latents import SHARD_NAME, EncodedClip, FinishedShard, finished_shards, write_index, write_shard
from bsa_lightning.data.recordings import refuse_repeated, write_missing
from bsa_lightning.data.shard_plan import PlannedShard, plan_shards
from bsa_lightning.data.store import is_url
from bsa_lightning.models.base import Codec, Conditioner
from bsa_lightning.models.loading import load_codec, load_conditioner

_log = logging.getLogger(__name__)

REQUEST = "request.json"
_LISTED = ("clips", "num_clips", "listed", "unreadable")
"""The entries of a request that may change when ``prepare`` is run again."""


def prepare_folder(
    clips: Clips,
    out: Path,
    teacher: str = "tiny",
    batch_size: int = 16,
    shard_size: int = 512,
    devices: int = 1,
    accelerator: str = "auto",
    list_missing: Path | None = None,
) -> int:
    """Encodes captioned clips into a store of latents for ``fit``; an interrupted run continues when it is run again.

    All recordings are read before the first one is encoded. Those that cannot be read are logged and count as missing,
    and the numbers of silent, clipped and cut recordings are logged, with the seconds that are left out.

    If the folder contains a store of another list for the same teacher, a shard is kept if its clips are consecutive in
    the new list, too, with the same captions; the others are encoded again. The old store remains valid until
    the new one is complete. Clips are identified by their ids, so a file with new sound under an old name is not
    noticed; delete the folder then.

    Args:
        clips: the captioned clips.
        out: the folder of the store.
        teacher: the model whose codec and text encoder are used: a folder, a hub id, or "tiny" or "tiny-flow".
        batch_size: the number of clips that are encoded at once, at least 1.
        shard_size: the number of clips per file, at least 1.
        devices: the number of processes, each on a device of its own, from 1 to 1024.
        accelerator: the kind of device: "cpu", "cuda" or "auto".
        list_missing: the file to which the names of missing clips are written, one per line, whether or not there are
            too many of them; ``None`` writes none. Whether the rest is prepared depends on the clips' ``max_missing``.

    Returns:
        The number of clips in the store.

    Raises:
        UserError: if a setting is out of its range, ``out`` is not a local folder or contains anything else, more clips
            are unreadable than may be missing, two clips have the same id, or the latent of a clip is not finite.
    """
    if is_url(out):
        raise UserError(f"out is {out}, but must be a folder on this machine; prepare to one and upload it from there")
    out = Path(out)
    check_number("batch_size", batch_size, whole=True, at_least=1, at_most=2**31 - 1)
    check_number("shard_size", shard_size, whole=True, at_least=1, at_most=2**31 - 1)
    check_number("devices", devices, whole=True, at_least=1, at_most=1024)
    accelerator = _accelerator(accelerator, devices)
    refuse_file(out, setting="out")
    _refuse_foreign(out)
    if len(clips) == 0:
        raise UserError(f"there are no clips to prepare for {out}; name a list that has some")
    refuse_repeated(
        [clips.id(i) for i in range(len(clips))], lambda i: f"clip {i}", remedy="give each an id of its own"
    )
    if list_missing is not None:
        write_missing(Path(list_missing), clips.missing)
    codec, conditioner = load_codec(teacher), load_conditioner(teacher)
    fixed = _fixed(clips, codec, conditioner, shard_size)
    with _alone(out):
        _refuse_other(out, fixed)
        finished = finished_shards(out)
        found = inspect(clips, _unfinished(clips, finished), codec, title=out)
        chosen = _without(clips, found)
        request = _claim(out, clips, chosen, found, fixed)
        found.log(codec.num_samples / codec.sample_rate)
        remove_partial(out)
        planned = plan_shards(chosen, finished, shard_size=shard_size)
        new = [shard for shard in planned if shard.kept is None]
        arguments = (chosen, out, teacher, batch_size, new, devices, accelerator)
        if devices == 1:
            _prepare_share(0, *arguments)
        else:
            errors = torch.multiprocessing.get_context("spawn").SimpleQueue()
            try:
                torch.multiprocessing.spawn(_prepare_and_report, (errors, *arguments), nprocs=devices)
            except torch.multiprocessing.ProcessExitedException:
                if errors.empty():
                    raise
                raise UserError(errors.get()) from None
        _finish(out, planned, request, conditioner)
    return len(chosen)


def _accelerator(accelerator: str, devices: int) -> str:
    if accelerator not in ("auto", "cpu", "cuda"):
        raise UserError(f'accelerator is "{accelerator}", but must be auto, cpu or cuda')
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and (num_gpus := torch.cuda.device_count()) < devices:
        raise UserError(f"devices is {devices}, but there are {num_gpus} GPUs; lower it, or set accelerator to cpu")
    return accelerator


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """A context that holds the lock of the store; waits if another process is preparing the same store."""
    busy = f"another process prepares {out}; waiting for it"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(out, wait=0, busy=busy))
        except UserError as error:
            if str(error) != busy:
                raise
            _log.warning("%s", busy)
            stack.enter_context(locked(out, busy=busy))
        yield


def _prepare_and_report(rank: int, errors: SimpleQueue[str], *arguments: Any) -> None:  # noqa: ANN401 - the arguments of _prepare_share
    """Passes a ``UserError`` to the first process, which would otherwise see the traceback of another process.

    The exit code ends the other processes, too, whose work would be for nothing.
    """
    try:
        _prepare_share(rank, *arguments)
    except UserError as error:
        errors.put(str(error))
        sys.exit(1)


def _prepare_share(
    rank: int,
    clips: Clips,
    out: Path,
    teacher: str,
    batch_size: int,
    planned: Sequence[PlannedShard],
    devices: int,
    accelerator: str,
) -> None:
    device = torch.device(accelerator, rank) if accelerator == "cuda" else torch.device(accelerator)
    codec, conditioner = load_codec(teacher).to(device), load_conditioner(teacher).to(device)
    share = planned[rank::devices]
    if not share:
        return
    encoder = clips.encoder(codec, conditioner)
    with progress(
        total=sum(len(shard.items) for shard in share), desc=f"prepare {out}", unit="clip", disable=rank > 0
    ) as bar:
        for shard in share:
            encoded = list(_encode(clips, shard.items, encoder, conditioner, batch_size, bar))
            write_shard(out / shard.file, encoded, ids=[clips.id(i) for i in shard.items])


def _encode(
    clips: Clips, items: range, encoder: Encoder, conditioner: Conditioner, batch_size: int, bar: tqdm[Any]
) -> Iterator[EncodedClip]:
    for first in range(0, len(items), batch_size):
        batch = items[first : first + batch_size]
        mean, std = encoder(batch)
        captions = [clips.captions(i) for i in batch]
        conditioning = iter(conditioner([caption for several in captions for caption in several]).split())
        for i, several, clip_mean, clip_std in zip(batch, captions, mean, std, strict=True):
            encoded = EncodedClip(clip_mean, clip_std, several, [next(conditioning) for _ in several])
            _refuse_not_finite(clips.id(i), encoded)
            yield encoded
        bar.update(len(batch))


def _refuse_not_finite(name: str, clip: EncodedClip) -> None:
    """Refuses a clip that is not finite as it is stored, since it would spoil each batch that contains it."""
    states = [tensor for part in clip.conditioning for tensor in part.tensors.values()]
    for what, tensors in (("latent of the codec", [clip.mean, clip.std]), ("state of the text encoder", states)):
        if not all(tensor.to(torch.float16).isfinite().all() for tensor in tensors):
            raise UserError(
                f'clip "{name}" has a {what} that is not a finite number in float16; take the clip off the list, or'
                " use another teacher if that is so for all clips"
            )


def _finish(out: Path, planned: Sequence[PlannedShard], request: dict[str, Any], conditioner: Conditioner) -> None:
    """Writes the index of the shards that all processes have finished, and removes other shards."""
    made = {found.shard.file: found.shard for found in finished_shards(out)}
    if any(shard.file not in made for shard in planned):
        raise UserError(f"{out} is incomplete, because a process was stopped; run the same command again")
    null = conditioner.null()
    content = {**request, "sequences": list(null.masks), "conditioning": list(null.tensors)}
    write_index(out, request=content, shards=[made[shard.file] for shard in planned], null=null)
    used = {shard.file for shard in planned}
    for path in out.glob("shard-*.safetensors"):
        texts = path.with_suffix(".json")  # only a shard that this program wrote has such a file
        if SHARD_NAME.fullmatch(path.name) and path.name not in used and texts.is_file():
            path.unlink()
            texts.unlink()


def _fixed(clips: Clips, codec: Codec, conditioner: Conditioner, shard_size: int) -> dict[str, Any]:
    """The entries of a request that must not change: all that the shards depend on besides the clips."""
    return {
        "codec": codec.fingerprint,
        "conditioner": conditioner.fingerprint,
        "latent_shape": list(codec.latent_shape),
        "sample_rate": codec.sample_rate,
        "num_samples": codec.num_samples,
        "shard_size": shard_size,
        **({"channels": clips.variant} if clips.variant else {}),
        **({"sampling": dict(clips.sampling)} if clips.sampling else {}),
    }


def _unfinished(clips: Clips, finished: Sequence[FinishedShard]) -> list[int]:
    """The places of the clips that are not in a finished shard."""
    there = {name for found in finished for name in found.ids}
    return [i for i in range(len(clips)) if clips.id(i) not in there]


def _without(clips: Clips, found: Inspection) -> Clips:
    """The clips except the unreadable ones."""
    if not found.unreadable:
        return clips
    chosen = Subset(clips, [i for i in range(len(clips)) if clips.id(i) not in found.unreadable])
    if len(chosen) == 0:
        raise UserError(f"none of the {len(clips)} clips can be read ({next(iter(found.unreadable.values()))})")
    return chosen


def _claim(out: Path, clips: Clips, chosen: Clips, found: Inspection, fixed: dict[str, Any]) -> dict[str, Any]:
    """Writes the request of this run to the folder, and returns it."""
    request = {"clips": chosen.fingerprint(), "num_clips": len(chosen), **fixed}
    if found.unreadable:
        request |= {"listed": clips.fingerprint(), "unreadable": list(found.unreadable)}
    path = out / REQUEST
    if not path.is_file() or read_json(path) != request:
        write_json(path, request)
    return request


def _refuse_foreign(out: Path) -> None:
    """Refuses a folder that is not empty and does not contain a store."""
    if not out.is_dir() or (out / REQUEST).is_file():
        return
    if any(path.name != LOCK and not is_partial(path) for path in out.iterdir()):
        raise UserError(f"{out} is not empty and holds no prepared latents; name another folder")


def _refuse_other(out: Path, fixed: dict[str, Any]) -> None:
    """Refuses a folder with a store for another teacher or with other settings."""
    _refuse_foreign(out)
    if not (out / REQUEST).is_file() or not any(out.glob("shard-*.safetensors")):
        return
    begun = read_json(out / REQUEST)
    differing = [name for name in sorted({*begun, *fixed} - {*_LISTED}) if begun.get(name) != fixed.get(name)]
    if differing:
        raise UserError(
            f"{out} was prepared before with other {', '.join(differing)}; name another folder, or delete this one"
        )


def is_prepared(out: Path) -> bool:
    """Whether the folder ``out`` contains an index and all files that it names."""
    path = out / INDEX
    if not path.is_file():
        return False
    shards = [out / file["file"] for file in parse_index(path.read_bytes(), where=str(path))["files"]]
    return all(file.is_file() for shard in shards for file in (out / NULL, shard, shard.with_suffix(".json")))
