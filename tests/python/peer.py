"""The load's contract (tests/README.md) on python-socketio with aiohttp."""

import importlib.metadata
import os
import platform
import sys

import socketio
from aiohttp import web

if "--version" in sys.argv:
    versions = {name: importlib.metadata.version(name) for name in ("python-socketio", "aiohttp")}
    print(", ".join(f"{name} {version}" for name, version in versions.items()), "Python", platform.python_version())
    sys.exit(0)

server = socketio.AsyncServer(async_mode="aiohttp")


@server.event
async def echo(_sid, argument):
    return argument


@server.event
async def join(sid, room):
    await server.enter_room(sid, room)
    return ()


@server.event
async def broadcast(sid, room, event, argument):
    await server.emit(event, argument, room=room, skip_sid=sid)


app = web.Application()
server.attach(app)
web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None)
