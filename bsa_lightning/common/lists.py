"""Strict readers of lists that users write (text, CSV, JSON lines), whose errors name the line.

Text is UTF-8 whatever the locale is. Lines end in LF, CRLF or CR; a Unicode line separator within a caption is part of
the caption.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from bsa_lightning.common.errors import UserError

LARGEST_LIST = 1 << 29
"""The largest list that is read, in bytes."""
LONGEST_TEXT = 1 << 17
"""The longest caption or name, in characters."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a file that are not blank, stripped of white space, each with its line number (from 1).

    Raises:
        UserError: if the file does not exist, is not UTF-8 text, or all of its lines are blank.
    """
    lines = [(number, line.strip()) for number, line in enumerate(_read_text(path).split("\n"), start=1)]
    if not (lines := [(number, line) for number, line in lines if line]):
        raise UserError(f"{path} is empty; write one entry per line")
    return lines


def read_json_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file with one object per line, each with its line number (from 1).

    Raises:
        UserError: if the file does not exist, or a line is not a JSON object.
    """
    rows = []
    for number, line in read_lines(path):
        try:
            rows.append((number, parse_object(line)))
        except ValueError as error:
            raise UserError(f"{path} line {number} is not a JSON object ({error}); correct the line") from error
    return rows


def read_csv(
    path: Path, columns: Sequence[str], *, may_be_empty: bool = False, may_be_cut: bool = False, must_end: bool = False
) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file, each with the number of its first line and its cells by the names of their columns.

    The first line names the columns. A cell that contains a comma, a double quote or a line break must be in double
    quotes, with the double quotes in it doubled.

    Args:
        path: the file.
        columns: the names of the columns that the file must have; it may have others.
        may_be_empty: whether a file without rows below the header is valid.
        may_be_cut: whether to ignore a last line without a line ending, which a process may still be writing.
        must_end: whether the last line must have a line ending, as in each file that this project writes.

    Raises:
        UserError: if the file does not exist, a column is missing or occurs twice, a row has more or fewer cells than
            the header, or a double quote is not closed.
    """
    text = _read_text(path)
    if must_end and text and not text.endswith("\n"):
        raise UserError(f"{path} is cut short in its last line; restore the complete file")
    rows = _csv_rows(path, text[: text.rfind("\n") + 1] if may_be_cut else text)
    header = [name.strip() for name in rows[0][1]] if rows else []
    if missing := [column for column in columns if column not in header]:
        raise UserError(f"{path} has no column {', '.join(missing)}; its first line must name {', '.join(columns)}")
    if twice := [name for name, times in Counter(header).items() if name and times > 1]:
        raise UserError(f"{path} has two columns {twice[0]}; name each column once in its first line")
    found = []
    for number, cells in rows[1:]:
        if len(cells) != len(header):
            raise UserError(
                f"{path} line {number} has {len(cells)} cells where the header has {len(header)}; put a text with"
                " commas between double quotes"
            )
        _refuse_swallowed(path, number, cells)
        found.append((number, dict(zip(header, map(str.strip, cells), strict=True))))
    if not found and not may_be_empty:
        raise UserError(f"{path} has no rows; add at least one line below the header")
    return found


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file that a user wrote.

    Raises:
        UserError: if the file does not exist, or is not one JSON object as :func:`parse_object` reads it.
    """
    try:
        return parse_object(_read_text(path))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path} cannot be read as a JSON object ({error}); correct it") from error


def parse_object(text: str | bytes) -> dict[str, Any]:
    """The JSON object in ``text``.

    Raises:
        ValueError: if it is not JSON or not an object, an object in it has a name twice, a number is not finite, or it
            is nested too deeply.
    """
    try:
        content = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("it holds no object")
    return content


def plain_text(text: object, *, where: str, what: str) -> str:
    """A caption or a name from a list, stripped of white space.

    Args:
        text: the value in the list, of any type.
        where: the file and the line, for the message.
        what: the name of the value for the message, such as "caption" or the name of a field.

    Raises:
        UserError: if it is not text, is blank, is longer than 131,072 characters, or contains a control character or
            an unpaired surrogate.
    """
    if not isinstance(text, str) or not any(letter.isprintable() and not letter.isspace() for letter in text):
        raise UserError(f"{where} has a clip without a {what}; every clip needs one")
    if len(text) > LONGEST_TEXT:
        raise UserError(f"{where} has a {what} of {len(text)} characters, but one has at most {LONGEST_TEXT}; cut it")
    if found := _CONTROL.search(text):
        raise UserError(f"{where} has a {what} with the control character {found[0]!r}; remove it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where} has a {what} with an unpaired surrogate ({text[error.start]!r}); correct it"
        ) from error
    return text.strip()


def _read_text(path: Path) -> str:
    content = _read_bytes(path)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path} is text in UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + len(re.findall(rb"\r\n?|\n", content[: error.start]))
        raise UserError(f"{path} is not text in UTF-8 (line {line}: {error.reason}); save it as UTF-8") from error
    text = re.sub(r"\r\n?", "\n", text)
    if (place := text.find("\0")) >= 0:
        line = 1 + text.count("\n", 0, place)
        raise UserError(f"{path} line {line} holds a NUL character, as no text does; save the list as text in UTF-8")
    return text


def _read_bytes(path: Path) -> bytes:
    """The content of a regular file; reading a pipe or a device might never end."""
    try:
        if not path.exists():
            raise UserError(f"{path} does not exist; name an existing list")
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise UserError(f"{path} is {kind}; name a list")
        if (size := path.stat().st_size) > LARGEST_LIST:
            raise UserError(f"{path} has {size} bytes, but a list has at most {LARGEST_LIST}; split it")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a list that can") from error


def _csv_rows(path: Path, text: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text), strict=True, skipinitialspace=True)
    rows: list[tuple[int, list[str]]] = []
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"{path} line {number} is not a row of CSV ({error}); close each double quote, and double those inside"
            ) from error
        if cells is None:
            return rows
        if cells and cells != [""]:
            rows.append((number, cells))


def _refuse_swallowed(path: Path, number: int, cells: Sequence[str]) -> None:
    """Refuses a cell of several lines one of which reads as a row, since a stray double quote has swallowed that row.

    A line reads as a row if it has as many cells and has numbers in the columns in which this row has numbers.
    """
    numbers = [place for place, cell in enumerate(cells) if _is_number(cell)]
    for cell in cells:
        for line in cell.split("\n")[1:]:
            inner = line.split(",")
            if numbers and len(inner) >= len(cells) and all(_is_number(inner[place]) for place in numbers):
                raise UserError(
                    f"{path} line {number} has a cell in double quotes that goes on over the next row"
                    f' ("{line.strip()[:40]}"); close the quote'
                )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        name = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f'it has "{name}" twice')
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")
