"""Wrong lists and good ones: see data_faults."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import soundfile
from fault_case import Build, Case

from bsa_lightning.data.captions import AudioCapsManifest, TangoManifest, read_captions

HEADER = "audiocap_id,youtube_id,start_time,caption\n"


def rows(clips) -> list[tuple[str, list[str]]]:
    return [(clips.id(i), clips.captions(i)) for i in range(len(clips))]


def tone(path: Path, rng: Random, *, seconds: float = 0.05, rate: int = 16_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.3 * np.sin(rng.uniform(0.1, 1) * np.arange(int(seconds * rate)))
    soundfile.write(path, samples, rate)


def tango(text: str | bytes, *files: str, expected: object = None, **settings: object) -> Build:
    """A case of ``TangoManifest``: what the list holds, and audio files beside c0.wav and c1.wav."""
    return _manifest(TangoManifest, "list.jsonl", text, ("c0.wav", "c1.wav", *files), expected, settings)


def caps(text: str | bytes, *files: str, expected: object = None, **settings: object) -> Build:
    """A case of ``AudioCapsManifest``: what the list holds, and audio files beside c0_0.wav to c5_0.wav."""
    content = HEADER.encode() + (text.encode() if isinstance(text, str) else text)
    return whole_csv(content, *files, expected=expected, **settings)


def whole_csv(content: bytes | str, *files: str, expected: object = None, **settings: object) -> Build:
    """As :func:`caps`, with the header."""
    there = (*(f"c{i}_0.wav" for i in range(6)), *files)
    return _manifest(AudioCapsManifest, "list.csv", content, there, expected, settings)


def texts(name: str, content: str | bytes, expected: object = None) -> Build:
    """A case of ``read_captions``."""

    def build(folder: Path, rng: Random) -> Case:
        write(folder / name, content)
        return Case(lambda: read_captions(folder / name), expected)

    return build


def write(path: Path, content: str | bytes) -> None:
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)


def line(location: object = "c0.wav", captions: object = "Rain") -> str:
    return json.dumps({"location": location, "captions": captions}) + "\n"


def _manifest(kind, name, content, files, expected, settings) -> Build:
    def build(folder: Path, rng: Random) -> Case:
        for file in files:
            tone(folder / "audio" / file, rng)
        if content is not None:
            write(folder / name, content)
        return reading(kind, folder / name, folder / "audio", expected, **settings)

    return build


def reading(kind, path: Path, audio_dir: Path, expected: object = None, **settings: object) -> Case:
    option = "jsonl" if kind is TangoManifest else "csv"
    given = {option: path, "audio_dir": audio_dir, **settings}
    words = [word for name, value in given.items() for word in (f"--clips.{name}", str(value))]
    words = ["prepare", "--clips", kind.__name__, *words]
    return Case(lambda: rows(kind(path, audio_dir, **settings)), expected, words)


def special(make: Callable[[Path], object]) -> Build:
    """A list that is no regular file."""

    def build(folder: Path, rng: Random) -> Case:
        tone(folder / "audio" / "c0.wav", rng)
        make(folder / "list.jsonl")
        return reading(TangoManifest, folder / "list.jsonl", folder / "audio")

    return build


def audio_dir_is_a_file(folder: Path, rng: Random) -> Case:
    write(folder / "list.jsonl", line())
    write(folder / "audio", "no folder")
    return reading(TangoManifest, folder / "list.jsonl", folder / "audio")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 34)


def random_bytes(folder: Path, rng: Random) -> Case:
    """No list whatever the bytes: the first two are no UTF-8."""
    return _manifest(
        TangoManifest, "list.jsonl", b"\xc3\x28" + rng.randbytes(rng.randint(1, 2000)), ("c0.wav",), None, {}
    )(folder, rng)


def cut_line(folder: Path, rng: Random) -> Case:
    """A list whose last line is cut anywhere."""
    text = line() + line("c1.wav", ["Wind", "Storm"])
    end = rng.randint(len(line()) + 1, len(text) - 2)
    return tango(text[:end])(folder, rng)


LISTS: dict[str, Build] = {
    "csv: an unquoted comma": caps("0,c0,0,A dog barks, then a man\n"),
    "csv: a quote that never closes": caps('0,c0,0,A dog\n1,c1,0,"A cat\n2,c2,0,Rain\n'),
    "csv: a quote that swallows a row": caps('0,c0,0,"A dog\n1,c1,0,A cat"\n2,c2,0,Rain\n'),
    "csv: text after a quote": caps('0,c0,0,"A dog" barks\n'),
    "csv: a short row": caps("0,c0,0,A dog\n1,c1\n"),
    "csv: a long row": caps("0,c0,0,A dog,more\n"),
    "csv: an empty caption": caps("0,c0,0,A dog\n1,c1,0, \n"),
    "csv: an empty id": caps("0,,0,A dog\n"),
    "csv: an empty time": caps("0,c0,,A dog\n"),
    "csv: a column twice": whole_csv("audiocap_id,youtube_id,start_time,caption,caption\n0,c0,0,A dog,A cat\n"),
    "csv: no such column": whole_csv("youtube_id,start_time,caption\nc0,0,A dog\n"),
    "csv: semicolons": whole_csv(HEADER.replace(",", ";") + "0;c0;0;A dog\n"),
    "csv: no rows": caps("\n\n"),
    "csv: a NUL": caps("0,c0,0,A dog\0\n"),
    "csv: a control character": caps("0,c0,0,A \x07 dog\n"),
    "csv: Latin-1": caps(b"0,c0,0,Caf\xe9\n"),
    "csv: UTF-16": whole_csv((HEADER + "0,c0,0,A dog\n").encode("utf-16")),
    "csv: a field beyond 128 KiB": caps(f"0,c0,0,{'rain ' * 30_000}\n"),
    "csv: one id at two times is one file": caps("0,d,0,A dog\n1,d,30,A cat\n", "Yd.wav"),
    "csv: a clip in two formats": caps("0,c0,0,A dog\n", "c0_0.flac"),
    "csv: a clip in two folders": caps("0,d,0,A dog\n", "train/d_0.wav", "test/d_0.wav"),
    "json: no JSON after blank lines": tango(line() + "\n\n\n" + line("c1.wav") + "no JSON\n"),
    "json: a list": tango("[1]"),
    "json: a whole array": tango(json.dumps([json.loads(line())], indent=1)),
    "json: a name twice": tango('{"location": "c0.wav", "captions": "A", "captions": "B"}\n'),
    "json: a number that is none": tango('{"location": "c0.wav", "captions": "A", "seconds": NaN}\n'),
    "json: deep nesting": tango('{"location": "c0.wav", "captions": ' + "[" * 100_000 + "]" * 100_000 + "}\n"),
    "json: half a character": tango('{"location": "c0.wav", "captions": "A \\ud800 dog"}\n'),
    "json: half a character in a name": tango('{"location": "c0\\udcff.wav", "captions": "A dog"}\n'),
    "json: a raw control character": tango('{"location": "c0.wav", "captions": "A \x01 dog"}\n'),
    "json: an escaped NUL": tango(line(captions="A \0 dog")),
    "json: no captions": tango('{"location": "c0.wav"}\n'),
    "json: captions are null": tango(line(captions=None)),
    "json: captions are an empty list": tango(line(captions=[])),
    "json: one caption is empty": tango(line(captions=["Rain", " "])),
    "json: one caption is a number": tango(line(captions=["Rain", 3])),
    "json: captions are nested": tango(line(captions=[["Rain"]])),
    "json: captions are an object": tango(line(captions={"en": "Rain"})),
    "json: a caption beyond 128 KiB": tango(line(captions="rain " * 30_000)),
    "json: no location": tango('{"captions": "Rain"}\n'),
    "json: an empty location": tango(line("")),
    "json: a location that is a number": tango(line(3)),
    "json: a location with a NUL": tango(line("c0.wav\0")),
    "json: a location that is a folder": tango(line("c0.wav/")),
    "json: a location that is no name": tango(line("..")),
    "json: two locations, one file": tango(line("c0.wav") + line("elsewhere/c0.wav")),
    "json: a location that fits two folders": tango(line("d.wav"), "train/d.wav", "test/d.wav"),
    "json: a location that fits two formats": tango(line("d.m4a"), "d.ogg", "d.flac"),
    "json: a location in another folder": tango(line() + line("test/d.wav"), "test/e.wav", "train/d.wav"),
    "json: two forms of one name on the disk": tango(line("caf\u00e9.wav"), "caf\u00e9.wav", "cafe\u0301.wav"),
    "json: all are missing": tango(line("gone.wav"), max_missing=1),
    "json: empty": tango(" \n\n"),
    "json: cut anywhere": cut_line,
    "a list of random bytes": random_bytes,
    "a list that is a folder": special(lambda path: path.mkdir()),
    "a list that is a pipe": special(lambda path: os.mkfifo(path)),
    "a list that is a device": special(lambda path: path.symlink_to("/dev/zero")),
    "a list that is a link to nothing": special(lambda path: path.symlink_to("nothing")),
    "a list of gigabytes": special(sparse),
    "audio_dir is a file": audio_dir_is_a_file,
    "max_missing is no number": tango(line(), max_missing=float("nan")),
    "max_missing is negative": tango(line(), max_missing=-0.1),
    "max_missing is above one": tango(line(), max_missing=2),
    "channels is neither": tango(line(), channels="second"),
    "captions: NUL": texts("c.txt", "A dog\0\n"),
    "captions: control characters": texts("c.txt", "A dog\n\x1b[31mRain\n"),
    "captions: Latin-1": texts("c.txt", b"Caf\xe9\n"),
    "captions: empty": texts("c.txt", "\n \n"),
    "captions: JSON without": texts("c.jsonl", '{"caption": "A dog"}\n'),
    "captions: CSV without": texts("c.csv", "text\nA dog\n"),
    "captions: CSV with an unquoted comma": texts("c.csv", "id,caption\n1,A dog, then a man\n"),
}

_TWO = [("c0.wav", ["Rain"]), ("c1.wav", ["Wind"])]
_PLAIN = line() + line("c1.wav", "Wind")
_CAPS = [("c0_0", ["A dog"]), ("c1_0", ["Rain, then wind"])]
_CSV = HEADER + '0,c0,0,A dog\n1,c1,0,"Rain, then wind"\n'
_NFD = unicodedata.normalize("NFD", "café.wav")

GOOD_LISTS: dict[str, Build] = {
    "json: a line separator in a caption": tango(
        '{"location": "c0.wav", "captions": "A dog\u2028then a door"}\n',
        expected=[("c0.wav", ["A dog\u2028then a door"])],
    ),
    "json: one name in two folders": tango(
        line("train/d.wav", "A") + line("test/d.wav", "B"),
        "train/d.wav",
        "test/d.wav",
        expected=[("train/d.wav", ["A"]), ("test/d.wav", ["B"])],
    ),
    "json: a composed name, decomposed on the disk": tango(line("café.wav"), _NFD, expected=[("café.wav", ["Rain"])]),
    "json: a decomposed name, composed on the disk": tango(line(_NFD), "café.wav", expected=[("café.wav", ["Rain"])]),
    "json: names that differ in case": tango(
        line("d.wav", "A") + line("D.wav", "B"), "d.wav", "D.wav", expected=[("d.wav", ["A"]), ("D.wav", ["B"])]
    ),
    "json: another machine's path": tango(
        line("/theirs/train/d.wav"), "16k/train/d.wav", "16k/test/d.wav", expected=[("16k/train/d.wav", ["Rain"])]
    ),
    "json: Windows' path": tango(line("D:\\theirs\\d.wav"), "sub/d.wav", expected=[("sub/d.wav", ["Rain"])]),
    "json: a path that leads up": tango(line("../c0.wav"), expected=[("c0.wav", ["Rain"])]),
    "json: another suffix": tango(line("x/d.m4a"), "d.flac", expected=[("d.flac", ["Rain"])]),
    "json: a file in the folder before one below": tango(line(), "sub/c0.wav", expected=[("c0.wav", ["Rain"])]),
    "json: one location twice": tango(line() + line("./c0.wav", "Wind"), expected=[("c0.wav", ["Rain", "Wind"])]),
    "json: hidden files beside": tango(_PLAIN, "._c0.wav", ".hidden/c1.wav", expected=_TWO),
    "json: one of two is missing": tango(line() + line("gone.wav"), max_missing=0.5, expected=[("c0.wav", ["Rain"])]),
    "json: a mark, and Windows' lines": tango(b"\xef\xbb\xbf" + _PLAIN.replace("\n", "\r\n").encode(), expected=_TWO),
    "json: an old Mac's lines, and blank ones": tango(_PLAIN.replace("\n", "\r\r"), expected=_TWO),
    "json: other fields": tango(
        '{"dataset": "x", "location": "c0.wav", "captions": ["Rain"], "n": 1.5}\n', expected=[("c0.wav", ["Rain"])]
    ),
    "csv: a mark, and Windows' lines": whole_csv(b"\xef\xbb\xbf" + _CSV.replace("\n", "\r\n").encode(), expected=_CAPS),
    "csv: an old Mac's lines": whole_csv(_CSV.replace("\n", "\r"), expected=_CAPS),
    "csv: mixed lines": whole_csv(_CSV.replace("\n", "\r\n", 1) + "\r\n\n", expected=_CAPS),
    "csv: spaces after commas": whole_csv(_CSV.replace(",", ", ").replace("Rain,  ", "Rain, "), expected=_CAPS),
    "csv: a line break in a cell": caps(
        '0,c0,0,"A dog,\nthen a cat, a man"\n', expected=[("c0_0", ["A dog,\nthen a cat, a man"])]
    ),
    "csv: quotes inside": caps('0,c0,0,"A ""dog"" barks"\n', expected=[("c0_0", ['A "dog" barks'])]),
    "csv: another column": whole_csv("n," + HEADER + "1,0,c0,0,A dog\n", expected=[("c0_0", ["A dog"])]),
    "csv: several captions": caps("0,c0,0,A\n9,c0,0,B\n", expected=[("c0_0", ["A", "B"])]),
    "csv: one id at two times": caps(
        "0,d,0,A\n1,d,30,B\n", "d_0.wav", "d_30.wav", expected=[("d_0", ["A"]), ("d_30", ["B"])]
    ),
    "captions: dollars": texts("c.txt", "Rain costs ${amount}\n{a: b}\n", ["Rain costs ${amount}", "{a: b}"]),
    "captions: a line separator": texts("c.txt", "Rain\u2028wind\n", ["Rain\u2028wind"]),
    "captions: a mark, Windows' lines": texts("c.txt", b"\xef\xbb\xbfRain\r\n\r\nWind", ["Rain", "Wind"]),
    "captions: a suffix in capitals": texts("c.CSV", 'id,caption\n1,"Rain, wind"\n', ["Rain, wind"]),
}
