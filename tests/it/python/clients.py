"""A device on one of Python's WebSocket libraries: says its welcome, holds until it is told to leave, says how it ended.

Arguments: library, URL, token, file of the authority. A line on standard input tells it to leave. Answers on standard
output, one JSON object a line. Pings are answered by each library by itself.
"""

import asyncio
import json
import ssl
import sys
import threading

NORMAL = 1000


def say(**what):
    print(json.dumps(what), flush=True)


def websockets(url, token, trusted):
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    headers = {"Authorization": f"Bearer {token}"}
    socket = connect(url, additional_headers=headers, ssl=trusted, server_hostname="localhost", ping_interval=None, proxy=None)
    say(welcome=json.loads(socket.recv()))
    threading.Thread(target=lambda: (sys.stdin.readline(), socket.close(NORMAL))).start()
    try:
        while True:
            socket.recv()
    except ConnectionClosed as closed:
        say(closed=closed.rcvd.code if closed.rcvd else None)


def websocket(url, token, trusted):
    import websocket as client

    welcomed = []

    def on_message(app, text):
        if not welcomed:
            welcomed.append(text)
            say(welcome=json.loads(text))

    app = client.WebSocketApp(
        url,
        header=[f"Authorization: Bearer {token}"],
        on_message=on_message,
        on_close=lambda app, code, reason: say(closed=code),
    )
    # Not `app.close`, which does not wait for the answer.
    threading.Thread(target=lambda: (sys.stdin.readline(), app.sock.send_close(NORMAL))).start()
    app.run_forever(sslopt={"context": trusted, "server_hostname": "localhost"})


async def aiohttp(url, token, trusted):
    import aiohttp as client

    headers = {"Authorization": f"Bearer {token}"}
    async with client.ClientSession() as session:
        async with session.ws_connect(url, headers=headers, ssl=trusted, server_hostname="localhost") as socket:
            say(welcome=await socket.receive_json())

            async def leave():
                await asyncio.to_thread(sys.stdin.readline)
                await socket.close(code=NORMAL)

            leaving = asyncio.create_task(leave())
            async for _ in socket:
                pass
            await leaving
            say(closed=socket.close_code)


def main(library, url, token, authority):
    trusted = ssl.create_default_context(cafile=authority)
    if library == "aiohttp":
        asyncio.run(aiohttp(url, token, trusted))
    else:
        {"websockets": websockets, "websocket": websocket}[library](url, token, trusted)


main(*sys.argv[1:])
