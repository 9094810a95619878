"""The public module of plug-ins suffices: no example and no interface needs another one."""

import ast
import enum
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

from app import plugins
from tests.system.test_plugins import CODE

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = (
    plugins.Factor,
    plugins.ScoringAlgorithm,
    plugins.Agent,
    plugins.SignalSource,
    plugins.CustomAnalytics,
)


def _imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def test_plug_ins_import_nothing_else_of_the_service() -> None:
    sources = [CODE, *(path.read_text() for path in (ROOT / "tests/examples").rglob("*.py"))]
    assert len(sources) > 1
    taken = {name for source in sources for name in _imports(source) if name.startswith("app")}
    assert taken == {"app.plugins"}


def _mentioned(hint: Any) -> Iterator[type]:
    """Classes of the service in an annotation."""
    if inspect.isclass(hint) and hint.__module__.startswith("app."):
        yield hint
    for part in get_args(hint):
        for one in part if isinstance(part, list) else [part]:
            yield from _mentioned(one)


def _hints(cls: type) -> Iterable[Any]:
    yield from get_type_hints(cls).values()
    for name, member in vars(cls).items():
        function = member.fget if isinstance(member, property) else member
        function = getattr(function, "__func__", function)
        if inspect.isfunction(function) and not name.startswith("_"):
            yield from get_type_hints(function).values()


def test_every_type_that_an_interface_mentions_is_public() -> None:
    found: set[type] = set()
    waiting: list[type] = [*ENTRIES, plugins.AlgorithmScores]
    while waiting:
        cls = waiting.pop()
        if cls not in found:
            found.add(cls)
            if not issubclass(cls, enum.Enum):
                waiting += [one for hint in _hints(cls) for one in _mentioned(hint)]
    public = {getattr(plugins, name) for name in plugins.__all__}
    assert {cls.__name__ for cls in found - public} == set()
    assert len(found) > 20
