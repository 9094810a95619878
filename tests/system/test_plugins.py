"""Packages that bring agents and sources: found by their metadata, unsound ones left out."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.container import plugins
from app.signals.domain.agents import AGENTS
from app.signals.services.sources import BUILT_IN

CODE = """
from app.plugins import Agent, AgentVote, CustomAnalytics


def concentration(given):
    weights = [one.weight for one in given.members]
    return {
        "largest": max(weights) if weights else None,
        "members": len(weights),
        "days": len(given.days),
        "undeclared": 1.0,
        "undefined": float("nan"),
    }


def failing(given):
    raise RuntimeError("a fault of theirs")


DESK = CustomAnalytics("desk", ("largest", "members", "days", "undefined", "absent"), concentration)
AGAIN = CustomAnalytics("desk", ("other",), concentration)
FAILING = CustomAnalytics("failing", ("one",), failing)
UNNAMED = CustomAnalytics("unnamed", ("Not a name",), concentration)
EMPTY = CustomAnalytics("empty", (), concentration)
TWICE = CustomAnalytics("twice", ("one", "one"), concentration)

ONE = 1
AGENT = Agent("news", (), lambda seen, rules: AgentVote(0.7, 0.9, {}), may_veto=True)
SAME = Agent("risk", (), lambda seen, rules: AgentVote(0.7, 0.9, {}))


class Chain:
    name = "chain"

    async def generate(self, source_input):
        return []


class Impostor(Chain):
    name = "technical"


SOURCE, IMPOSTOR, NAMELESS = Chain(), Impostor(), object()
"""
POINTS = """
[my_symbols.signal_agents]
news = extra_signals:AGENT
twice = extra_signals:AGENT
same = extra_signals:SAME
number = extra_signals:ONE
absent = extra_signals:NOBODY

[my_symbols.analytics]
desk = extra_signals:DESK
desk_again = extra_signals:AGAIN
empty = extra_signals:EMPTY
failing = extra_signals:FAILING
number = extra_signals:ONE
twice = extra_signals:TWICE
unnamed = extra_signals:UNNAMED

[my_symbols.signal_sources]
chain = extra_signals:SOURCE
impostor = extra_signals:IMPOSTOR
nameless = extra_signals:NAMELESS
broken = no_such_module:SOURCE
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution as an installer leaves it."""
    (tmp_path / "extra_signals.py").write_text(CODE)
    about = tmp_path / "extra_signals-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: extra-signals\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("extra_signals", None)


def test_without_other_packages_there_are_our_own() -> None:
    assert plugins.agents() == AGENTS
    assert plugins.sources() == BUILT_IN
    assert plugins.analytics() == ()


@pytest.mark.usefixtures("installed")
def test_analytics_need_unique_names_and_declared_figures() -> None:
    assert [one.name for one in plugins.analytics()] == ["desk", "failing"]


@pytest.mark.usefixtures("installed")
def test_an_installed_agent_is_asked_as_one_from_outside() -> None:
    *ours, news = plugins.agents()
    assert tuple(ours) == AGENTS
    assert (news.name, news.is_external, news.may_veto) == ("news", True, True)


@pytest.mark.usefixtures("installed")
def test_an_installed_source_stands_beside_our_own() -> None:
    assert [one.name for one in plugins.sources()] == ["technical", "fundamental", "chain"]
