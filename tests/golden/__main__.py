"""`make golden`: records the golden hours anew and rewrites the fixture with its hashes.

`--keep` keeps the recording and decides anew, for changed decisions without new requests.
`--hours N` records less, and `--print` prints the hashes and leaves the fixture as it is.
"""

import argparse
import asyncio
import sys
import time

import structlog
from rich.console import Console

from tests.golden.recording import Fixture, digest_of, recorded, replayed
from tests.golden.rows import Names, hashes_of
from tests.golden.scenario import FOR_S


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=FOR_S / 3_600)
    parser.add_argument("--print", action="store_true", dest="prints")
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    console, fixture = Console(width=120, highlight=False), Fixture()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    begun = time.monotonic()
    if asked.keep:
        recording = fixture.recording.read_bytes()
    else:
        recording = await recorded(asked.hours * 3_600)
    taken = time.monotonic()
    names = Names(is_open=True) if asked.prints else Names.read(fixture.names, is_open=True)
    decisions = await replayed(recording, names)
    if asked.prints:
        known = {"recording": digest_of(recording), **hashes_of(decisions.rows)}
        for name, digest in known.items():
            console.print(f"{digest}  {name}")
        return
    fixture.write(recording, decisions)
    console.print(
        f"{len(recording)} bytes recorded in {taken - begun:.0f} s, {len(decisions.rows)} rows"
        f" decided in {time.monotonic() - taken:.0f} s; commit {fixture.folder}"
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
