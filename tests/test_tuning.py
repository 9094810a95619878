"""Settings of the interpreter and the allocator for a server."""

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ARENAS = """
import ctypes, sys, threading
from app.main import tune_interpreter
tune_interpreter()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fopen.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
together = threading.Barrier(12)
def allocate():
    together.wait()
    held = [libc.malloc(50_000) for _ in range(20)]
    together.wait()
    for one in held:
        libc.free(one)
threads = [threading.Thread(target=allocate) for _ in range(12)]
for one in threads: one.start()
for one in threads: one.join()
file = libc.fopen(sys.argv[1].encode(), b"w")
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
def test_many_threads_share_two_memory_arenas(tmp_path: Path) -> None:
    assert hasattr(ctypes.CDLL(None), "mallopt")
    found = tmp_path / "arenas.xml"
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", ARENAS, str(found)], cwd=root, check=True)
    assert 1 <= found.read_text(encoding="utf-8").count("<heap nr=") <= 2
