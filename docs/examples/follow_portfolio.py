"""Keeps weights and sizes (in base coins) in step with a service by its events: URL BALANCE."""

import asyncio
import json
import sys
from contextlib import suppress
from decimal import Decimal

import aiohttp

URL, BALANCE = f"{sys.argv[1]}/api/symbol-mgmt/", Decimal(sys.argv[2])


async def follow(seen, marks):
    async with aiohttp.ClientSession(URL) as http, http.ws_connect("stream") as stream:
        command = {"type": "subscribe", "topics": ["portfolio_change", "tickers"]}
        await stream.send_json(command | {"resume_from": seen["sequence"]})
        async for message in (json.loads(part.data) async for part in stream):
            data, topic = message.get("data"), message.get("topic", message["type"])
            number = {"sequence": message.get("sequence")}
            if topic == "gap":  # events are no longer stored: read the state once
                book = await (await http.get("portfolio")).json()
                found = {one["symbol"]: one["weight_percentage"] for one in book["members"]}
                seen |= {"version": book["version"], "weights": found, **number}
            elif topic == "portfolio_change" and data["details"]["version"] > seen["version"]:
                lines = data["details"]["members"]  # null: the symbol has left
                found = {one["symbol"]: one["new_weight_percentage"] or 0 for one in lines}
                seen |= {"version": data["details"]["version"], "weights": found, **number}
            elif topic == "tickers":
                marks |= {one["symbol"]: one["mark_price"] or "NaN" for one in data["tickers"]}
            money = {name: BALANCE / 100 * Decimal(str(w)) for name, w in seen["weights"].items()}
            sizes = {name: str(money[name] / Decimal(marks[name])) for name in money.keys() & marks}
            print(json.dumps(seen | {"sizes": sizes}), flush=True)


STATE = {"version": -1, "sequence": 0, "weights": {}}, {}
while True:  # a lost connection resumes after the last event
    with suppress(aiohttp.ClientError):
        asyncio.run(follow(*STATE))
    asyncio.run(asyncio.sleep(1))
