"""A Python client for tests in other languages.

    listener.py URL TRANSPORTS ROOM...

joins the rooms and then prints a JSON line for everything that happens: {"ready": sid}, {"event": name, "args": [...]},
{"disconnect": true}. Binary arguments are printed as {"$bin": base64}. Ends when its standard input does.
"""

import base64
import json
import sys
import threading

import socketio

lock = threading.Lock()


def printable(value):
    if isinstance(value, bytes):
        return {"$bin": base64.b64encode(value).decode()}
    if isinstance(value, (list, tuple)):
        return [printable(item) for item in value]
    if isinstance(value, dict):
        return {key: printable(item) for key, item in value.items()}
    return value


def say(**line):
    with lock:
        print(json.dumps(line), flush=True)


def main():
    url, transports, *rooms = sys.argv[1:]
    client = socketio.Client(reconnection=False)
    client.on("*", lambda event, *args: say(event=event, args=printable(args)))
    client.on("disconnect", lambda *_: say(disconnect=True))
    client.connect(url, transports=transports.split(","))
    for room in rooms:
        answer = client.call("room:join", room, timeout=20)
        if isinstance(answer, dict) and "error" in answer:
            sys.exit(f"join refused: {answer}")
    say(ready=client.get_sid())
    # Whoever started this process ends it by closing the pipe, also by dying.
    sys.stdin.read()
    client.disconnect()


main()
