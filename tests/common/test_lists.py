"""What a message about a list says: the line, counted in the file, and the reason."""

import os
import subprocess
import sys

import pytest

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.lists import read_csv, read_json_lines, read_lines, read_object

COLUMNS = ("id", "caption")


def write(tmp_path, content):
    path = tmp_path / "list"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,caption\n1,A dog\n\n2,A dog, a cat\n", "line 4 has 3 cells where the header has 2"),
        ("id,caption\n1,A dog\n\n2\n", "line 4 has 1 cells where the header has 2"),
        ('id,caption\n1,"A\ndog"\n2,"A cat\n3,x\n', r"line 4 is not a row of CSV \(unexpected end of data\)"),
        ('id,caption\r\n1,"A" dog\r\n', r"line 2 is not a row of CSV \(',' expected after '\"'\)"),
        (
            'id,caption\n1,"A\n2,cat"\n',
            r'line 2 has a cell in double quotes that goes on over the next row \("2,cat"\)',
        ),
        ("id,caption\n1," + 200_000 * "x", r"line 2 is not a row of CSV \(field larger than field limit"),
        ("id,caption,id\n1,A,2\n", "has two columns id"),
        ("id,text\n1,A\n", "has no column caption; its first line must name id, caption"),
        ("id,caption\n1,A\n2,\0\n", "line 3 holds a NUL character"),
        (b"id,caption\r\n1,A\r\n2,\xff\r\n", r"is not text in UTF-8 \(line 3: invalid start byte\)"),
        ("id,caption\n1,A\n".encode("utf-16"), "is text in UTF-16; save it as UTF-8"),
        ("", "has no column id, caption"),
    ],
)
def test_a_wrong_table(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_csv(write(tmp_path, content), COLUMNS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("no json", "Expecting value at character 1"),
        ('{"a": 1', "Expecting ',' delimiter at character 8"),
        ("[1]", "it holds no object"),
        ('{"a": 1, "a": 2}', 'it has "a" twice'),
        ('{"b": {"a": 1, "a": 2}}', 'it has "a" twice'),
        ('{"a": Infinity}', "Infinity is not a number in JSON"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"a": ' + 5000 * "9" + "}", "Exceeds the limit"),
    ],
)
def test_a_wrong_line_of_json_is_named_with_its_place_in_the_file(tmp_path, content, reason):
    with pytest.raises(UserError) as error:
        read_json_lines(write(tmp_path, f'{{"a": 1}}\n\n \n\n{{"a": 1}}\n{content}\n'))
    assert str(error.value).startswith(f"{tmp_path / 'list'} line 6 is not a JSON object ({reason}")
    with pytest.raises(UserError, match="cannot be read as a JSON object"):
        read_object(write(tmp_path, content))


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system_and_nowhere_else(tmp_path, newline):
    text = newline.join(["one\u2028two", "", "three\x85four"])
    assert read_lines(write(tmp_path, text)) == [(1, "one\u2028two"), (3, "three\x85four")]


def test_a_cell_keeps_its_line_breaks_commas_and_quotes(tmp_path):
    path = write(tmp_path, '\ufeff id , caption \r\n7, "A, ""b""\r\nc"\r\n')
    assert read_csv(path, COLUMNS) == [(2, {"id": "7", "caption": 'A, "b"\nc'})]


def test_text_is_utf_8_whatever_the_locale(tmp_path):
    path = write(tmp_path, "Café\n")
    code = (
        "import locale, sys; from pathlib import Path; from bsa_lightning.common.lists import read_lines;"
        "print(ascii(read_lines(Path(sys.argv[1]))), locale.getpreferredencoding())"
    )
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [sys.executable, "-c", code, str(path)]
    result = subprocess.run(words, capture_output=True, text=True, env=plain, check=True)
    assert result.stdout.startswith("[(1, 'Caf\\xe9')] ")
    assert "UTF-8" not in result.stdout
