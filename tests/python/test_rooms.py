"""Rooms of the gateway, as a Python client uses them: no SDK, only `room:join`, `room:leave` and `room:emit`."""

import queue
import unittest

import socketio
from support import DEADLINE, start_gateway


class Rooms(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = start_gateway()
        cls.addClassCleanup(cls.gateway.stop)

    def connect(self, transports):
        client = socketio.Client(reconnection=False)
        events = queue.Queue()
        client.on("*", lambda event, *args: events.put((event, *args)))
        client.connect(self.gateway.url, transports=transports)
        self.addCleanup(client.disconnect)
        return client, events

    def call(self, client, event, *args):
        answer = client.call(event, args, timeout=DEADLINE)
        self.assertFalse(isinstance(answer, dict) and "error" in answer, answer)

    def test_emit_to_a_room(self):
        for transports in (["polling"], ["websocket"], ["polling", "websocket"]):
            with self.subTest(transports):
                room = f"python-{'-'.join(transports)}"
                sender, at_sender = self.connect(transports)
                member, at_member = self.connect(transports)
                self.call(sender, "room:join", room)
                self.call(member, "room:join", room)
                self.call(sender, "room:emit", room, "news", {"n": 1}, b"\x01\x02")
                self.assertEqual(at_member.get(timeout=DEADLINE), ("news", {"n": 1}, b"\x01\x02"))
                # Back: it arrives at the first sender as its first event, so the sender had no copy of its own.
                self.call(member, "room:emit", room, "back")
                self.assertEqual(at_sender.get(timeout=DEADLINE), ("back",))

    def test_leave(self):
        sender, _ = self.connect(["websocket"])
        member, at_member = self.connect(["websocket"])
        for room in ("python-left", "python-kept"):
            self.call(member, "room:join", room)
        self.call(member, "room:leave", "python-left")
        self.call(sender, "room:emit", "python-left", "lost")
        self.call(sender, "room:emit", "python-kept", "fence")
        self.assertEqual(at_member.get(timeout=DEADLINE), ("fence",))


if __name__ == "__main__":
    unittest.main()
