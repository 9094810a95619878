"""The documented example of an embedding program runs as it is written."""

import asyncio
import os
import re
import sys
import time
from pathlib import Path

from app.embedding import MySymbolsServiceV2
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "embedding.md"
OUTPUT = re.compile(
    r"best of 5 (?P<best>\w+) (?P<code>\w+)\n"
    r"members \['(?P=best)'\]\n"
    r"(?P<changes>(?:\w+ [\d.]+ [\d.]+ -?[\d.]+\n)*)"
    r"lots (?P<lots>\d+) (?P<reason>\w+)\n"
    r"booked 12\.5 True\n"
    r"signal (?P<state>\w+)\n"
    r"report of version \d+\n"
    r"removed \['(?P=best)'\]\n"
)


def example() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    return str(code)


async def test_the_documented_example_runs(tmp_path: Path) -> None:
    program = tmp_path / "example.py"
    program.write_text(example(), encoding="utf-8")
    async with serve_exchange(SandboxOptions(contracts=16, quota=100_000), time.time) as url:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            program,
            env={
                **os.environ,
                "PYTHONPATH": str(DOCUMENT.parents[1]),
                "MYSYMBOLS_KUCOIN__BASE_URL": url,
                "MYSYMBOLS_DATABASE__URL": f"sqlite+aiosqlite:///{tmp_path}/embedded.sqlite3",
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(120):
            output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    printed = "".join(
        line for line in output.decode().splitlines(keepends=True) if not _is_log(line)
    )
    assert (match := OUTPUT.fullmatch(printed)) is not None, printed
    assert (int(match["lots"]) > 0) is (match["reason"] == "None")


def _is_log(line: str) -> bool:
    return re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d|\{", line) is not None


def test_documented_methods_exist() -> None:
    table = DOCUMENT.read_text(encoding="utf-8").split("## Methods")[1].split("\n\n")[1]
    names = {
        name
        for line in table.splitlines()
        for name in re.findall(r"`([a-z_]+)(?:\([^`]*\))?`", line.split("|")[1])
    }
    assert len(names) > 25
    assert {
        name for name in names if not callable(getattr(MySymbolsServiceV2, name, None))
    } == set()
