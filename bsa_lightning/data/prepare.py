"""Audio and captions through codec and text encoder, once, into a store of latents; resumable shard by shard."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from bsa_lightning.data.clips import Clips
from bsa_lightning.data.index import INDEX, NULL, parse_index
from bsa_lightning.data.latents import EncodedClip, Shard, finished_shard, write_index, write_shard
from bsa_lightning.data.store import is_url
from bsa_lightning.errors import UserError
from bsa_lightning.files import disk_trouble, make_folder, read_json, remove_partial, write_json
from bsa_lightning.teachers.base import Codec, Conditioner
from bsa_lightning.teachers.folder import load_codec, load_conditioner

_log = logging.getLogger(__name__)

REQUEST = "request.json"


def prepare_folder(
    clips: Clips,
    out: Path,
    teacher: str = "tiny",
    batch_size: int = 16,
    shard_size: int = 512,
    devices: int = 1,
    accelerator: str = "auto",
) -> int:
    """Encodes captioned clips into a store of latents that ``fit`` streams; run again, it continues where it was.

    Args:
        clips: the captioned sound.
        out: folder of the store.
        teacher: model folder whose codec and text encoder are used, or "tiny" for the built-in one.
        batch_size: clips encoded at once.
        shard_size: clips a file.
        devices: how many processes, one a device.
        accelerator: "cpu", "cuda" or "auto".

    Returns:
        The number of clips in the store.

    Raises:
        UserError: if ``out`` is no folder of this machine or holds something else, or if a clip gives no finite latent.
    """
    if is_url(out):
        raise UserError(f"out is {out}, but must be a folder on this machine; prepare to one and upload it from there")
    out = Path(out)
    if devices < 1 or batch_size < 1 or shard_size < 1:
        raise UserError(f"devices={devices}, batch_size={batch_size}, shard_size={shard_size}: each must be at least 1")
    if accelerator not in ("auto", "cpu", "cuda"):
        raise UserError(f'accelerator is "{accelerator}", but must be auto, cpu or cuda')
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and (num_gpus := torch.cuda.device_count()) < devices:
        raise UserError(f"devices is {devices}, but there are {num_gpus} GPUs; lower it, or set accelerator to cpu")
    codec, conditioner = load_codec(teacher), load_conditioner(teacher)
    request = _request(clips, codec, conditioner, shard_size)
    with _alone(out):
        _claim(out, request)
        remove_partial(out)
        arguments = (clips, out, teacher, batch_size, shard_size, devices, accelerator)
        if devices == 1:
            _prepare_share(0, *arguments)
        else:
            mistakes = torch.multiprocessing.get_context("spawn").SimpleQueue()
            torch.multiprocessing.spawn(_prepare_and_tell, (mistakes, *arguments), nprocs=devices)
            if not mistakes.empty():
                raise UserError(mistakes.get())
        return _finish(clips, out, request, conditioner)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Waits for another process that prepares the same store: it may leave nothing to do, or files to clear away."""
    out = out.resolve()
    lock = FileLock(out.with_name(f".{out.name}.lock"))
    try:
        make_folder(out.parent)
        lock.acquire(blocking=False)
    except Timeout:
        _log.warning("another process prepares %s; waiting for it", out)
        lock.acquire()
    except OSError as error:
        raise UserError(disk_trouble(error, out.parent) or f"{out} cannot be written ({error})") from error
    try:
        yield
    finally:
        lock.release()


def _prepare_and_tell(rank: int, mistakes: SimpleQueue[str], *arguments: Any) -> None:  # noqa: ANN401 - passed on
    """A mistake reaches the first process as a sentence, not as the traceback of another process."""
    try:
        _prepare_share(rank, *arguments)
    except UserError as error:
        mistakes.put(str(error))


def _prepare_share(
    rank: int,
    clips: Clips,
    out: Path,
    teacher: str,
    batch_size: int,
    shard_size: int,
    devices: int,
    accelerator: str,
) -> None:
    device = torch.device(accelerator, rank) if accelerator == "cuda" else torch.device("cpu")
    codec, conditioner = load_codec(teacher).to(device), load_conditioner(teacher).to(device)
    shards = _shards(len(clips), out, shard_size)[rank::devices]
    with tqdm(
        total=sum(len(items) for _, items in shards), desc=f"prepare {out}", unit="clip", disable=rank > 0
    ) as bar:
        for path, items in shards:
            if _finished(clips, path, items) is None:
                encoded = list(_encode(clips, items, codec, conditioner, batch_size, bar))
                write_shard(path, encoded, sequences=conditioner.sequences)
            else:
                bar.update(len(items))


def _encode(
    clips: Clips, items: range, codec: Codec, conditioner: Conditioner, batch_size: int, bar: tqdm[Any]
) -> Iterator[EncodedClip]:
    device = next(codec.parameters()).device
    for first in range(0, len(items), batch_size):
        batch = items[first : first + batch_size]
        waves = [
            clips.waveform(
                i, sample_rate=codec.sample_rate, num_samples=codec.num_samples, num_channels=codec.num_channels
            )
            for i in batch
        ]
        mean, std = codec.encode(torch.stack(waves).to(device))
        captions = [clips.captions(i) for i in batch]
        states = iter(conditioner([caption for several in captions for caption in several]).rows())
        for i, several, clip_mean, clip_std in zip(batch, captions, mean, std, strict=True):
            encoded = EncodedClip(clips.id(i), several, clip_mean, clip_std, [next(states) for _ in several])
            _refuse_broken(encoded)
            yield encoded
        bar.update(len(batch))


def _refuse_broken(clip: EncodedClip) -> None:
    """What is not finite as it is stored would spoil every batch that it is in."""
    parts = {"latent of the codec": [clip.mean, clip.std], "state of the text encoder": [*_tensors(clip)]}
    for name, tensors in parts.items():
        if not all(tensor.to(torch.float16).isfinite().all() for tensor in tensors):
            raise UserError(
                f'clip "{clip.id}" has a {name} that is no finite number in float16; take the clip off the list, or use'
                " another teacher if all clips have such"
            )


def _tensors(clip: EncodedClip) -> Iterator[torch.Tensor]:
    return (tensor for row in clip.conditioning for tensor in row.values())


def _finished(clips: Clips, path: Path, items: range) -> Shard | None:
    return finished_shard(path, ids=[clips.id(i) for i in items], captions=[clips.captions(i) for i in items])


def _finish(clips: Clips, out: Path, request: dict[str, Any], conditioner: Conditioner) -> int:
    """Writes the index from the shards that all processes have finished."""
    num_clips: int = request["num_clips"]
    shards = [_finished(clips, path, items) for path, items in _shards(num_clips, out, request["shard_size"])]
    if any(shard is None for shard in shards):
        raise UserError(f"{out} is not whole, because a process was stopped; run the same command again")
    null = conditioner.null()
    content = {**request, "sequences": list(conditioner.sequences), "conditioning": list(null.tensors)}
    write_index(out, request=content, shards=[shard for shard in shards if shard is not None], null=null)
    return num_clips


def _request(clips: Clips, codec: Codec, conditioner: Conditioner, shard_size: int) -> dict[str, Any]:
    """What decides the bytes of a store."""
    return {
        "clips": clips.fingerprint(),
        "num_clips": len(clips),
        "codec": codec.fingerprint,
        "conditioner": conditioner.fingerprint,
        "latent_shape": list(codec.latent_shape),
        "sample_rate": codec.sample_rate,
        "num_samples": codec.num_samples,
        "shard_size": shard_size,
    }


def _claim(out: Path, request: dict[str, Any]) -> None:
    """Takes an empty folder for this request, or finds that the folder was begun with the same one."""
    path = out / REQUEST
    if path.is_file():
        begun = read_json(path)
        differing = [name for name in request if begun.get(name) != request[name]]
        if differing:
            raise UserError(
                f"{out} was prepared before with other {', '.join(differing)}; name another folder, or delete this one"
            )
    elif out.is_dir() and any(not path.name.startswith(f".{REQUEST}") for path in out.iterdir()):
        raise UserError(f"{out} is not empty and holds no prepared latents; name another folder")
    else:
        write_json(path, request)


def _shards(num_clips: int, out: Path, shard_size: int) -> list[tuple[Path, range]]:
    if num_clips == 0:
        raise UserError(f"there are no clips to prepare for {out}; name a list that has some")
    return [
        (out / f"shard-{number:05d}.safetensors", range(first, min(first + shard_size, num_clips)))
        for number, first in enumerate(range(0, num_clips, shard_size))
    ]


def is_prepared(out: Path) -> bool:
    """Whether the store at ``out`` has an index, and each file that it names."""
    path = out / INDEX
    if not path.is_file():
        return False
    shards = [out / file["file"] for file in parse_index(path.read_bytes(), where=str(path))["files"]]
    return all(file.is_file() for shard in shards for file in (out / NULL, shard, shard.with_suffix(".json")))
