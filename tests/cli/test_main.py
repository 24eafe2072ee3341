import sys

import pytest

from bsa_lightning.cli import main as main_module
from bsa_lightning.cli.main import COMMANDS, main
from bsa_lightning.common.errors import UserError

GO_ON = "go on with --ckpt_path last, from the last checkpoint"


@pytest.fixture
def lightning(monkeypatch, capsys):
    """Runs the command line with some words; gives exit code, stdout and stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["lightning", *words])
        code = main()
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_lists_every_command_on_one_line(lightning, words):
    code, out, err = lightning(*words)
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines() if line.split()[:1] and line.split()[0] in COMMANDS] == list(
        COMMANDS
    )


def test_version(lightning):
    code, out, _ = lightning("--version")
    assert code == 0
    assert out.startswith("bsa-lightning ")


@pytest.mark.parametrize(
    ("word", "hint"), [("genrate", "did you mean generate?"), ("sing", "the commands are fit, validate")]
)
def test_unknown_command_is_one_sentence(lightning, word, hint):
    code, out, err = lightning(word)
    assert (code, out) == (2, "")
    assert err.startswith(f'lightning {word}: there is no command "{word}"')
    assert hint in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("width is 0, but\n  must be 1"), 2, "lightning fit: width is 0, but must be 1\n"),
        (
            KeyboardInterrupt(),
            130,
            "\nlightning fit: stopped by Ctrl-C; go on with --ckpt_path last, from the last checkpoint\n",
        ),
    ],
)
def test_mistakes_are_one_sentence(lightning, monkeypatch, error, code, text):
    def fail(_):
        raise error

    monkeypatch.setattr(main_module, "find_command", lambda _: fail)
    assert lightning("fit") == (code, "", text)


def test_errors_of_the_program_keep_their_traceback(lightning, monkeypatch):
    def fail(_):
        raise ValueError("a bug")

    monkeypatch.setattr(main_module, "find_command", lambda _: fail)
    with pytest.raises(ValueError, match="a bug"):
        lightning("fit")
