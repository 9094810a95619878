"""Scoring needs numpy alone: neither numba nor the kernels of research."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SCORES = """
import sys
sys.modules["numba"] = None
import app.container.application
from app.configuration.domain.model import Configuration
from app.scoring.domain.algorithm import build_algorithm
from app.scoring.domain.engine import score
from tests.support.scoring_inputs import make_inputs
board = score(make_inputs(14), build_algorithm(Configuration()))
print(sum(card.rank is not None for card in board.cards))
kernels = ("app.research.domain.kernels", "app.research.domain.every_bar", "llvmlite")
print(sorted(name for name in sys.modules if name.startswith(kernels)))
"""


def test_the_service_scores_without_numba_and_without_kernels() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCORES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    scored, imported = done.stdout.splitlines()
    assert scored == "14"
    assert imported == "[]"


def test_the_lock_of_the_service_holds_no_compiler() -> None:
    lock = (ROOT / "requirements-runtime.lock").read_text(encoding="utf-8")
    assert "numpy==" in lock
    assert "numba==" not in lock
    assert "llvmlite==" not in lock
