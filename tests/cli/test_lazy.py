"""Lazy loading of commands: every table entry resolves, help loads no heavy library."""

import ast
import json
import subprocess
import sys
from importlib import import_module, util
from pathlib import Path

import typer

from app.cli.lazy import COMMANDS, PROGRAMS, LazyGroup, load_application
from tests.cli.command import here

ROOT = Path(__file__).parents[2]
HEAVY = ("numpy", "scipy", "sqlalchemy", "fastapi", "aiohttp.client")
_RUN_AND_LIST_IMPORTS = f"""
import json, sys
from app.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["my-symbols", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (words, end.code)
print("heavy:", sorted(set(sys.modules) & set({HEAVY!r})))
"""


def subcommands() -> list[tuple[str, ...]]:
    """Every group and command as words of the command line."""
    words: list[tuple[str, ...]] = []
    group = LazyGroup(name="my-symbols")
    context = typer.Context(group)
    for name in COMMANDS:
        command = group.get_command(context, name)
        words.append((name,))
        words += [(name, inner) for inner in getattr(command, "commands", {})]
    return words


def test_every_command_is_a_module_of_the_command_line() -> None:
    for entry in COMMANDS.values():
        assert entry.startswith("app.cli.commands.")
        assert isinstance(load_application(entry), typer.Typer)


def test_every_program_is_a_function_of_the_command_line() -> None:
    for module, function in PROGRAMS.values():
        assert module.startswith("app.cli.programs.")
        assert callable(getattr(import_module(module), function))


def test_every_program_belongs_to_a_command() -> None:
    names = {" ".join(words) for words in subcommands()}
    assert set(PROGRAMS) <= names


def test_only_the_lazy_table_imports_inside_functions() -> None:
    """Imports inside functions hide dependencies from the import contracts."""
    for path in sorted((ROOT / "app/cli").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = [
                    step for step in ast.walk(node) if isinstance(step, ast.Import | ast.ImportFrom)
                ]
                assert not inner, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_version_and_every_help_load_no_heavy_library() -> None:
    calls = [["--version"], ["--help"], *[[*words, "--help"] for words in subcommands()]]
    assert len(calls) > 100
    assert all(util.find_spec(name) for name in HEAVY)
    ended = subprocess.run(
        [sys.executable, "-c", _RUN_AND_LIST_IMPORTS, json.dumps(calls)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "heavy: []"


def test_misspelled_options_and_commands_of_a_group_name_similar_ones() -> None:
    for command, meant in (
        (("locks", "lst"), "Did you mean 'list'"),
        (("alerts", "list", "--sevrity", "info"), "--severity"),
        (("scoring", "rankings", "--limt", "3"), "--limit"),
    ):
        refused = here(*command)
        assert refused.code == 2
        assert meant in " ".join(refused.err.split())


def test_a_misspelled_command_names_a_similar_one() -> None:
    ended = here("portfolo")
    assert ended.code == 2
    assert "Did you mean 'portfolio'?" in " ".join(ended.err.split())
