"""Compiled loops are kept where they may be written, and loaded from there at the next start."""

import importlib.util
import os
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import numba
import numpy as np
import pytest
import structlog

from app.container.kernels import KERNELS, begin, keep, prepare
from app.scoring.domain.kernels.compilation import Kernel
from app.workers.supervisor import Supervisor

SOURCE = "def doubled(values, out):\n    out[0] = 2.0 * values[0] / 0.0\n"


def module_in(folder: Path) -> ModuleType:
    """A module whose folder has no room for what is compiled, whoever asks."""
    folder.mkdir()
    (folder / "__pycache__").touch()
    file = folder / "doubling.py"
    file.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("doubling", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "no-home").touch()
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "no-home"))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    return module_in(tmp_path / "code")


def test_a_kernel_that_cannot_be_kept_is_compiled_all_the_same(source: ModuleType) -> None:
    kernel: Kernel[..., None] = Kernel(source.doubled)
    out = np.zeros(1)
    kernel(np.ones(1), out)
    assert out == np.inf
    assert not kernel.is_kept
    assert not kernel.was_loaded()


def test_a_kernel_without_a_place_is_kept_in_a_folder_of_this_user_and_loaded_from_it(
    source: ModuleType, tmp_path: Path
) -> None:
    for was_loaded in (False, True):
        kernel: Kernel[..., None] = Kernel(source.doubled)
        keep(kernel, tmp_path)
        kernel(np.ones(1), np.zeros(1))
        assert kernel.is_kept
        assert kernel.was_loaded() is was_loaded
    folder = tmp_path / f"my-symbols-kernels-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.rglob("*.nbc"))


def test_nothing_is_loaded_from_a_folder_that_others_may_write(
    source: ModuleType, tmp_path: Path
) -> None:
    folder = tmp_path / f"my-symbols-kernels-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    kernel: Kernel[..., None] = Kernel(source.doubled)
    keep(kernel, tmp_path)
    assert not kernel.is_kept
    folder.rmdir()
    folder.symlink_to(tmp_path / "code")
    keep(kernel, tmp_path)
    assert not kernel.is_kept
    keep(kernel, tmp_path / "no-home")
    assert not kernel.is_kept


def test_a_start_says_what_its_kernels_cost() -> None:
    with structlog.testing.capture_logs() as told:
        done = prepare()
    assert told == [
        {
            "event": "kernels_ready",
            "log_level": "info",
            "duration_s": round(done.duration_s, 3),
            "was_loaded": done.was_loaded,
            "is_kept": True,
        }
    ]


async def test_who_makes_the_kernels_ready_is_a_task_that_is_named_and_begins_again() -> None:
    turns: list[str | None] = []
    restarted: list[str] = []

    def fails_once() -> None:
        turns.append(next(one.last_error for one in supervisor.facts() if one.name == KERNELS))
        if len(turns) == 1:
            raise OSError

    at = datetime(2026, 1, 1, tzinfo=UTC)
    supervisor = Supervisor(lambda: at, lambda: iter([0.0]), restarted.append)
    begin(supervisor, fails_once)
    await supervisor.wait(KERNELS)
    assert (turns, restarted) == ([None, "OSError"], [KERNELS])
    assert supervisor.facts() == ()
