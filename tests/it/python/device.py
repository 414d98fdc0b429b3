"""A device on Python's `websockets`: connects, says its welcome, does one thing, says how it ended.

Arguments: URL, token, what to do. Answers on standard output, one JSON object a line.
"""

import asyncio
import contextlib
import json
import sys

import websockets
from websockets.asyncio.client import connect


def say(**what):
    print(json.dumps(what), flush=True)


async def act(socket, do):
    if do == "close":
        await socket.close(code=4321, reason="done")
    elif do == "bye":
        await socket.send(json.dumps({"type": "bye", "reason": "done"}))
    elif do == "big":
        await socket.send("x" * 100_000)
    elif do == "flood":
        # Again and again: a burst on the heels of a stall of the server's own is not held against a device.
        while True:
            for n in range(2_000):
                await socket.send(json.dumps({"type": "heartbeat", "id": n}))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    while True:
                        await socket.recv()
    elif do == "heartbeat":
        await socket.send(json.dumps({"type": "heartbeat", "id": "from python"}))
        say(answer=json.loads(await socket.recv()))
        await socket.send(json.dumps({"lwp": "/!", "headers": {"mid": "from python"}}))
        say(answer=json.loads(await socket.recv()))
        await socket.close()
    elif do != "hold":
        raise SystemExit(f"cannot {do}")


async def main(url, token, do):
    headers = {"Authorization": f"Bearer {token}"}
    # Its own keepalive is off: answering the server's pings is all that a device has to do.
    async with connect(url, additional_headers=headers, ping_interval=None, proxy=None) as socket:
        say(welcome=json.loads(await socket.recv()))
        try:
            await act(socket, do)
            while True:
                await socket.recv()
        except websockets.ConnectionClosed as closed:
            say(closed=closed.rcvd.code if closed.rcvd else None)


asyncio.run(main(*sys.argv[1:]))
