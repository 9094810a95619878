"""The peer of the HTTP benchmark: FastAPI with nothing behind it. Arguments: port, bytes."""

import sys

import uvicorn
from fastapi import FastAPI, Response

api = FastAPI()
_BODY = b"x" * int(sys.argv[2])


@api.get("/")
async def give() -> Response:
    return Response(_BODY, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(api, host="127.0.0.1", port=int(sys.argv[1]), http="h11", access_log=False)
