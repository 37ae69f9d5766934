"""The official-in-all-but-name Python client, python-socketio, against the test server: threads and asyncio."""

import asyncio
import queue
import time
import unittest

import socketio
from support import DEADLINE, start_test_server

POLLING, WEBSOCKET, UPGRADE = ["polling"], ["websocket"], ["polling", "websocket"]


class SyncClient:
    """What holds for every use of the transports; the classes below name one each."""

    transports: list

    @classmethod
    def setUpClass(cls):
        cls.server = start_test_server(PING_INTERVAL="1000", PING_TIMEOUT="15000")
        cls.addClassCleanup(cls.server.stop)

    def connect(self, namespace="/", auth=None):
        client = socketio.Client(reconnection=False)
        events = queue.Queue()
        client.on("*", lambda event, *args: events.put((event, *args)), namespace=namespace)
        client.connect(self.server.url, transports=self.transports, namespaces=[namespace], auth=auth)
        self.addCleanup(client.disconnect)
        return client, events

    def test_connects_with_auth(self):
        _, events = self.connect(auth={"token": "t"})
        self.assertEqual(events.get(timeout=DEADLINE), ("auth", {"token": "t"}))

    def test_uses_the_transport(self):
        client, _ = self.connect()
        who = client.call("who", timeout=DEADLINE)
        self.assertEqual(who["id"], client.get_sid())
        self.assertEqual(who["transport"], "polling" if self.transports == POLLING else "websocket")

    def test_text_and_binary_events(self):
        args = (1, "two € 👋🏽", {"three": [True, None]}, b"\x00\x01\xff", {"deep": [b"nested"]})
        client, events = self.connect()
        self.assertEqual(events.get(timeout=DEADLINE)[0], "auth")
        client.emit("message", args)
        self.assertEqual(events.get(timeout=DEADLINE), ("message-back", *args))

    def test_acknowledgements(self):
        client, _ = self.connect()
        self.assertEqual(client.call("message-with-ack", (1, {"a": "b"}), timeout=DEADLINE), (1, {"a": "b"}))
        self.assertEqual(client.call("message-with-ack", b"\x01\x02", timeout=DEADLINE), b"\x01\x02")

    def test_answers_an_acknowledgement(self):
        client, events = self.connect()
        client.on("ask", lambda: ("yes", b"\x03"))
        self.assertEqual(events.get(timeout=DEADLINE)[0], "auth")
        client.emit("ack-me")
        self.assertEqual(events.get(timeout=DEADLINE), ("answered", "yes", b"\x03"))

    def test_custom_namespace(self):
        client, events = self.connect(namespace="/custom")
        self.assertEqual(events.get(timeout=DEADLINE)[0], "auth")
        client.emit("message", "hello", namespace="/custom")
        self.assertEqual(events.get(timeout=DEADLINE), ("message-back", "hello"))

    def test_refusal(self):
        with self.assertRaises(socketio.exceptions.ConnectionError):
            self.connect(namespace="/forbidden")

    def test_lives_through_heartbeats(self):
        # The fence is a server that pings every second: two intervals pass while the same connection answers.
        client, _ = self.connect()
        sid, end = client.get_sid(), time.monotonic() + 2.5
        while time.monotonic() < end:
            self.assertEqual(client.call("who", timeout=DEADLINE)["id"], sid)
            client.sleep(0.2)


class SyncPolling(SyncClient, unittest.TestCase):
    transports = POLLING


class SyncWebSocket(SyncClient, unittest.TestCase):
    transports = WEBSOCKET


class SyncUpgrade(SyncClient, unittest.TestCase):
    transports = UPGRADE


class AsyncClient(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = start_test_server()
        cls.addClassCleanup(cls.server.stop)

    async def test_events_and_acknowledgements(self):
        for transports in (POLLING, WEBSOCKET, UPGRADE):
            with self.subTest(transports):
                client = socketio.AsyncClient(reconnection=False)
                events = asyncio.Queue()

                async def note(event, *args, events=events):
                    await events.put((event, *args))

                client.on("*", note)
                await client.connect(self.server.url, transports=transports, auth={"a": 1})
                try:
                    received = await asyncio.wait_for(events.get(), DEADLINE)
                    self.assertEqual(received, ("auth", {"a": 1}))
                    await client.emit("message", ("text", b"\x01\x02"))
                    received = await asyncio.wait_for(events.get(), DEADLINE)
                    self.assertEqual(received, ("message-back", "text", b"\x01\x02"))
                    answer = await client.call("message-with-ack", {"b": [b"\x09"]}, timeout=DEADLINE)
                    self.assertEqual(answer, {"b": [b"\x09"]})
                finally:
                    await client.disconnect()


if __name__ == "__main__":
    unittest.main()
