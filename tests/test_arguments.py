"""What is wrong with the options of a command is one sentence."""

from __future__ import annotations

import pytest

from ldm.arguments import Parser


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--promt", "a star"], "error: unrecognized arguments: --promt a star; the nearest that it has: --prompt"),
        (["--promt=a star"], "error: unrecognized arguments: --promt=a star; the nearest that it has: --prompt"),
        (
            ["a star", "--promt", "x"],
            "error: unrecognized arguments: a star --promt x; the nearest that it has: --prompt",
        ),
        (["a star"], "error: unrecognized arguments: a star ("),
        (["--steps", "many"], "error: argument --steps: invalid int value: 'many' ("),
        (["--prompt"], "error: argument --prompt: expected one argument ("),
    ],
)
def test_one_sentence_and_exit_code_2(given: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(description="Draw.")
    parser.add_argument("--prompt")
    parser.add_argument("--steps", type=int)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(given)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith(sentence)
    assert said.endswith("(--help tells all options)\n") and said.count("\n") == 1


def test_the_lines_of_a_description_stay() -> None:
    assert "First line.\n\n    an example\n" in Parser(description="First line.\n\n    an example").format_help()
