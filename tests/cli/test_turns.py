"""While a server runs, threads that compute give way to the event loop at once."""

import sys

import pytest

from app.cli.turns import LONGEST_S, brief_turns


def test_turns_are_brief_while_it_serves_and_as_they_were_afterwards() -> None:
    before = sys.getswitchinterval()
    with brief_turns():
        assert sys.getswitchinterval() == pytest.approx(LONGEST_S)
    assert sys.getswitchinterval() == before
