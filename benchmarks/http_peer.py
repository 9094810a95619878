"""Peer of the HTTP benchmark: FastAPI with a handler that returns bytes. Argument: port."""

import sys
from functools import cache

import uvicorn
from fastapi import FastAPI, Response

api = FastAPI()


@cache
def _body(size: int) -> bytes:
    return b"x" * size


@api.get("/{size}")
async def give(size: int) -> Response:
    return Response(_body(size), media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        api,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        http="httptools",
        loop="asyncio",
        access_log=False,
    )
