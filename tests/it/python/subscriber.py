"""A subscriber on Python's `redis`: says the ids of events as they come, one JSON object a line.

Arguments: URL, how it subscribes (`group` or `channel`), how many events it waits for.
"""

import json
import sys

import redis


def say(**what):
    print(json.dumps(what), flush=True)


def group(client, count):
    client.xgroup_create("lastpong:events", "readers", id="0", mkstream=True)
    say(ready=True)
    seen = 0
    while seen < count:
        answer = client.xreadgroup("readers", "one", {"lastpong:events": ">"}, count=min(100, count - seen), block=1_000)
        for _, entries in answer:
            for entry, fields in entries:
                say(event={"entry": entry, "id": fields["id"], "type": fields["type"]})
                client.xack("lastpong:events", "readers", entry)
                seen += 1
    say(pending=client.xpending("lastpong:events", "readers")["pending"])


def channel(client, count):
    subscription = client.pubsub()
    subscription.psubscribe("lastpong:events:*")
    seen = 0
    for message in subscription.listen():
        if message["type"] == "psubscribe":
            say(ready=True)
        elif message["type"] == "pmessage":
            event = json.loads(message["data"])
            channel_type = message["channel"].removeprefix("lastpong:events:")
            say(event={"entry": f"{event['data']['seq']}-0", "id": event["id"], "type": channel_type})
            seen += 1
            if seen == count:
                return


url, how, count = sys.argv[1:]
client = redis.Redis.from_url(url, decode_responses=True)
{"group": group, "channel": channel}[how](client, int(count))
