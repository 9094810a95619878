"""Shell completion, asked of a real shell."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
ASK = """
eval "$(my-symbols --show-completion)"
COMP_WORDS=({words}); COMP_CWORD={last}
_my_symbols_completion my-symbols
echo "${{COMPREPLY[@]}}"
"""


def in_bash(script: str, home: Path) -> str:
    variables = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(home)}
    ended = subprocess.run(
        ["bash", "--norc", "-c", script], env=variables, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("my-symbols lo", {"locks"}),
        ('my-symbols locks ""', {"list", "show", "set", "delete"}),
        ('my-symbols locks set BTCUSDT ""', {"pin", "ban", "watch"}),
        ("my-symbols alerts list --sev", {"--severity"}),
        ('my-symbols alerts list --severity ""', {"info", "warning", "critical"}),
    ],
)
def test_commands_options_and_choices_are_completed(
    words: str, completed: set[str], tmp_path: Path
) -> None:
    script = ASK.format(words=words, last=len(words.split()) - 1)
    assert set(in_bash(script, tmp_path).split()) == completed


def test_completion_is_installed_for_the_shell_that_asks(tmp_path: Path) -> None:
    said = in_bash("my-symbols --install-completion; true", tmp_path)
    assert "bash completion installed" in said
    (installed,) = tmp_path.glob(".bash_completions/*")
    assert str(installed) in (tmp_path / ".bashrc").read_text(encoding="utf-8")
    assert "_MY_SYMBOLS_COMPLETE=complete_bash" in installed.read_text(encoding="utf-8")
