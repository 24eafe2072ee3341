"""Wrong sets of clips as people have them, and good ones: folders, lists, tar files; see data_faults."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import unicodedata
from collections.abc import Callable
from pathlib import Path
from random import Random

from fault_case import Build, Case
from list_faults import rows, tone, write

from bsa_lightning.data.captioned_folder import CaptionedFolder
from bsa_lightning.data.clip_list import ClipList
from bsa_lightning.data.recordings import Columns
from bsa_lightning.data.tar_shards import WebDataset

CSV = "audio,caption\n"
Member = tuple[str, bytes]


def folder_of(files: dict[str, str | bytes | None], expected: object = None, **settings: object) -> Build:
    """A case of ``CaptionedFolder``: the content of each file, ``None`` for a sound."""

    def build(folder: Path, rng: Random) -> Case:
        place = folder / "clips"
        place.mkdir()
        for name, content in files.items():
            put(place / name, content, rng)
        words = ["prepare", "--clips", "CaptionedFolder", "--clips.folder", str(place)]
        return Case(lambda: rows(CaptionedFolder(place, **settings)), expected, [*words, *options(settings)])

    return build


def list_of(
    text: str | bytes, expected: object = None, *, name: str = "list.csv", sounds=("a/1.wav", "b/1.wav"), **settings
) -> Build:
    """A case of ``ClipList``: its text, and the sounds beside it."""

    def build(folder: Path, rng: Random) -> Case:
        for sound in sounds:
            put(folder / sound, None, rng)
        write(folder / name, text)
        words = ["prepare", "--clips", "ClipList", "--clips.file", str(folder / name)]
        return Case(lambda: rows(ClipList(folder / name, **settings)), expected, [*words, *options(settings)])

    return build


def tar_of(*members: Member, expected: object = None, spoil: Callable[[bytes], bytes] = bytes, **settings) -> Build:
    """A case of ``WebDataset``: the members of one tar file, and what is done to its bytes."""

    def build(folder: Path, rng: Random) -> Case:
        place = folder / "x.tar"
        place.write_bytes(spoil(tar(*members)))
        words = ["prepare", "--clips", "WebDataset", "--clips.shards", str(place)]
        return Case(lambda: rows(WebDataset(str(place), **settings)), expected, [*words, *options(settings)])

    return build


def tar(*members: Member) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return content.getvalue()


def special_member(**attributes: object) -> Build:
    """A clip whose sound is no regular member, with these attributes of ``TarInfo``: there is no sound."""

    def build(folder: Path, rng: Random) -> Case:
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as file:
            info = tarfile.TarInfo("1.wav")
            for name, value in {"size": len(WAV), **attributes}.items():
                setattr(info, name, value)
            file.addfile(info, io.BytesIO(WAV))
            info = tarfile.TarInfo("1.txt")
            info.size = 4
            file.addfile(info, io.BytesIO(b"Rain"))
        (folder / "x.tar").write_bytes(content.getvalue())
        return Case(lambda: rows(WebDataset(str(folder / "x.tar"))))

    return build


def fifo(folder: Path, rng: Random) -> Case:
    os.mkfifo(folder / "x.tar")
    return Case(lambda: rows(WebDataset(str(folder / "x.tar"))))


def put(path: Path, content: str | bytes | None, rng: Random) -> None:
    if content is None:
        tone(path, rng)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, content)


def options(settings: dict[str, object]) -> list[str]:
    flat = {**settings, **{f"columns.{name}": value for name, value in vars(settings.get("columns", Empty())).items()}}
    given = {name: value for name, value in flat.items() if name != "columns" and value is not None}
    return [
        word
        for name, value in given.items()
        for word in (f"--clips.{name}", json.dumps(value) if isinstance(value, list) else str(value))
    ]


class Empty:
    pass


def sound(rng: Random | None = None) -> bytes:
    import soundfile

    content = io.BytesIO()
    soundfile.write(content, [0.0, 0.3, -0.3, 0.1] * 100, 16_000, format="WAV")
    return content.getvalue()


WAV = sound()
CLIP = (("1.wav", WAV), ("1.txt", b"Rain"))

SOURCES: dict[str, Build] = {
    "folder: no sound": folder_of({"a.txt": "Rain"}),
    "folder: nothing": folder_of({}),
    "folder: a sound without a text": folder_of({"a.wav": None, "b.wav": None, "a.txt": "Rain"}),
    "folder: a text without a sound": folder_of({"a.wav": None, "a.txt": "Rain", "b.txt": "Rain"}),
    "folder: an empty text": folder_of({"a.wav": None, "a.txt": "\n \n"}),
    "folder: Latin-1": folder_of({"a.wav": None, "a.txt": b"Caf\xe9"}),
    "folder: UTF-16": folder_of({"a.wav": None, "a.txt": "Rain".encode("utf-16")}),
    "folder: two formats and one text": folder_of({"a.wav": None, "a.flac": None, "a.txt": "Rain"}),
    "folder: a name that is not UTF-8": folder_of({"\udce9.wav": b"RIFF", "\udce9.txt": "Rain"}),
    "folder: channels of another name": folder_of({"a.wav": None, "a.txt": "Rain"}, channels="left"),
    "list: another suffix": list_of("audio\tcaption\n", name="list.tsv"),
    "list: no such column": list_of("location,captions\na/1.wav,Rain\n"),
    "list: a column of captions twice": list_of("audio,caption,caption\na/1.wav,Rain,Wind\n"),
    "list: no rows": list_of(CSV),
    "list: no caption in any column": list_of("audio,x,y\na/1.wav,,\n", columns=Columns(captions=["x", "y"])),
    "list: an empty path": list_of(CSV + ",Rain\n"),
    "list: a folder": list_of(CSV + "a,Rain\n"),
    "list: a missing file": list_of(CSV + "a/1.wav,Rain\na/2.wav,Rain\n"),
    "list: a file of another folder": list_of(CSV + "1.wav,Rain\n"),
    "list: another root": list_of(CSV + "a/1.wav,Rain\n", root=Path("nowhere")),
    "list: one id for two files": list_of(
        "audio,caption,id\na/1.wav,Rain,x\nb/1.wav,Wind,x\n", columns=Columns(id="id")
    ),
    "list: one file with two ids": list_of(
        "audio,caption,id\na/1.wav,Rain,x\na/1.wav,Wind,y\n", columns=Columns(id="id")
    ),
    "list: json without the entry": list_of('{"path": "a/1.wav", "caption": "Rain"}\n', name="l.jsonl"),
    "list: a null among captions": list_of('{"audio": "a/1.wav", "caption": ["Rain", null]}\n', name="l.jsonl"),
    "list: a path that is a number": list_of('{"audio": 1, "caption": "Rain"}\n', name="l.jsonl"),
    "tar: no tar": tar_of(spoil=lambda _: b"no tar file at all" * 100),
    "tar: empty": tar_of(spoil=lambda _: b""),
    "tar: only zeros": tar_of(spoil=lambda _: bytes(10_240)),
    "tar: a FIFO": fifo,
    "tar: compressed": tar_of(*CLIP, spoil=gzip.compress),
    "tar: cut in a member": tar_of(*CLIP, spoil=lambda content: content[:1000]),
    "tar: a damaged header": tar_of(*CLIP, spoil=lambda content: content[:1536] + b"\xff" * 512 + content[2048:]),
    "tar: no caption": tar_of(CLIP[0]),
    "tar: no sound": tar_of(CLIP[1]),
    "tar: the sound is a link": special_member(type=tarfile.SYMTYPE, linkname="1.txt", size=0),
    "tar: the sound is a hard link": special_member(type=tarfile.LNKTYPE, linkname="1.txt", size=0),
    "tar: the sound is a device": special_member(type=tarfile.CHRTYPE, size=0),
    "tar: the sound has holes": special_member(
        pax_headers={"GNU.sparse.map": f"0,{len(WAV)}", "GNU.sparse.size": str(len(WAV) + 512)}
    ),
    "tar: an empty caption": tar_of(CLIP[0], ("1.txt", b" \n")),
    "tar: Latin-1": tar_of(CLIP[0], ("1.txt", b"Caf\xe9")),
    "tar: a member twice": tar_of(*CLIP, ("1.wav", WAV)),
    "tar: two sounds of a clip": tar_of(*CLIP, ("1.flac", WAV)),
    "tar: a dot within a name": tar_of(("1.5.wav", WAV), ("1.5.txt", b"Rain")),
    "tar: no json": tar_of(CLIP[0], ("1.json", b"{"), caption_member="json.caption"),
    "tar: a json without the entry": tar_of(CLIP[0], ("1.json", b'{"text": "Rain"}'), caption_member="json.caption"),
    "tar: json without an entry named": tar_of(CLIP[0], ("1.json", b'{"caption": "Rain"}'), caption_member="json"),
    "tar: a name with a control character": tar_of(("\x01.wav", WAV), ("\x01.txt", b"Rain")),
}
"""Sets of clips that are refused."""

NFD = unicodedata.normalize("NFD", "é")
GOOD_SOURCES: dict[str, Build] = {
    "folder: one name in two folders": folder_of(
        {"b/1.wav": None, "b/1.txt": "Bark\nA dog\n", "a/1.wav": None, "a/1.txt": "\ufeffMeow", ".a/2.wav": None},
        [("a/1.wav", ["Meow"]), ("b/1.wav", ["Bark", "A dog"])],
    ),
    "folder: capitals, dots and other forms of Unicode": folder_of(
        {"x.5.WAV": None, "x.5.TXT": "Rain", f"{NFD}.wav": None, "é.txt": "Wind"},
        [("é.wav", ["Wind"]), ("x.5.WAV", ["Rain"])],
    ),
    "list: one name in two folders": list_of(
        CSV + "b/1.wav,Bark\n./a//1.wav,Meow\nb\\1.wav,A dog\n", [("b/1.wav", ["Bark", "A dog"]), ("a/1.wav", ["Meow"])]
    ),
    "list: beside the sound": list_of(
        CSV + "../a/1.wav,Meow\n", [("../a/1.wav", ["Meow"])], name="a/list.csv", sounds=("a/1.wav",)
    ),
    "list: columns of another name": list_of(
        "file,x,y,n\na/1.wav,Rain,,7\n", [("7", ["Rain"])], columns=Columns("file", ["x", "y"], "n")
    ),
    "list: several captions": list_of(
        '{"audio": "a/1.wav", "caption": ["Rain", "Wind"]}\n', [("a/1.wav", ["Rain", "Wind"])], name="l.jsonl"
    ),
    "list: other forms of Unicode": list_of(
        CSV + "é/é.wav,Rain\n", [("é/é.wav", ["Rain"])], sounds=(f"{NFD}/{NFD}.wav",)
    ),
    "list: as many missing as may be": list_of(
        CSV + "a/1.wav,Rain\nc/1.wav,Wind\n", [("a/1.wav", ["Rain"])], max_missing=0.5
    ),
    "tar: folders within, and members of no clip": tar_of(
        ("./d/1.wav", WAV),
        ("./d/1.txt", b"Rain\r\nWind\r\n"),
        ("README.md", b"x"),
        ("._1.wav", b"x"),
        ("dot", b"x"),
        expected=[("x.tar/d/1", ["Rain", "Wind"])],
    ),
    "tar: json": tar_of(
        ("1.FLAC", WAV),
        ("1.json", b'{"caption": ["Rain"]}'),
        caption_member="json.caption",
        expected=[("x.tar/1", ["Rain"])],
    ),
    "tar: without its end": tar_of(*CLIP, spoil=lambda content: content[:2560], expected=[("x.tar/1", ["Rain"])]),
}
"""Sets of clips that look odd and are read."""
