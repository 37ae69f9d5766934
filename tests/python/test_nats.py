"""A backend in Python that speaks NATS with nats-py, without any SDK of the gateway: it calls, listens and answers."""

import asyncio
import json
import os
import tempfile
import unittest
import urllib.request

import nats
import socketio
from support import DEADLINE, REFERENCE, start_gateway, start_nats, until

CONFIG = {
    "backend": {"orders": {"nats": True, "timeout": "2s"}},
    "namespace": [
        {
            "name": "/",
            "connect": "orders",
            "connected": "orders",
            "disconnected": "orders",
            "room": [{"match": "asked:*", "join": "webhook"}, {"match": "*"}],
            "route": [
                {"event": "told.*", "mode": "notify", "to": "orders"},
                {"event": "*", "mode": "call", "to": "orders"},
            ],
        }
    ],
}


def metrics(gateway):
    with urllib.request.urlopen(f"{gateway.api}/metrics", timeout=5) as response:
        return response.read().decode()


@unittest.skipIf(REFERENCE, "the reference has no NATS")
class Backend(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.broker = start_nats()
        cls.addClassCleanup(cls.broker.stop)
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        file = os.path.join(directory.name, "roomcast.json")
        with open(file, "w") as out:
            json.dump(CONFIG, out)
        adapter = {"ROOMCAST__ADAPTER__KIND": "nats", "ROOMCAST__ADAPTER__URL": cls.broker.url}
        cls.gateways = []
        for _ in range(2):
            gateway = start_gateway(file, **adapter)
            cls.addClassCleanup(gateway.stop)
            cls.gateways.append(gateway)
        for gateway in cls.gateways:
            until(lambda: 'roomcast_ingest_up{source="nats"} 1' in metrics(gateway), "the link to NATS")

    async def asyncSetUp(self):
        self.nc = await nats.connect(self.broker.url)
        self.addAsyncCleanup(self.nc.close)
        self.heard = []
        await self.listen("roomcast.in.connect", self.admit)

    @staticmethod
    def admit(body):
        auth = body["data"]["auth"] or {}
        if auth.get("user") is None:
            return {"error": {"status": 401, "code": "unauthorized", "detail": "who are you?"}}
        return {"user": auth["user"], "join": [f"desk:{auth['user']}"]}

    async def listen(self, subject, answer=None):
        heard = []

        async def handle(message):
            body = json.loads(message.data)
            heard.append((message.subject, message.headers or {}, body))
            if answer and message.reply:
                await message.respond(json.dumps(answer(body)).encode())

        subscription = await self.nc.subscribe(subject, queue="python", cb=handle)
        self.addAsyncCleanup(subscription.unsubscribe)
        await self.nc.flush()
        return heard

    async def call(self, name, body, **headers):
        message = await self.nc.request(
            f"roomcast.{name}", json.dumps(body).encode(), timeout=DEADLINE, headers=headers or None
        )
        return json.loads(message.data), (message.headers or {}).get("Nats-Service-Error-Code")

    async def client(self, index, **auth):
        client, events = socketio.AsyncClient(reconnection=False), []

        def handle(event, *args):
            events.append((event, *args))
            return {"answer": args}

        client.on("*", handle)
        await client.connect(self.gateways[index].url, auth=auth, transports=["websocket"])
        self.addAsyncCleanup(client.disconnect)
        return client, events

    async def arrived(self, events, count):
        for _ in range(int(DEADLINE / 0.02)):
            if len(events) >= count:
                return
            await asyncio.sleep(0.02)
        self.fail(f"{len(events)} of {count} events: {events}")

    async def test_calls(self):
        _, at_one = await self.client(0, user="u1")
        _, at_two = await self.client(1, user="u2")
        to = {"rooms": ["desk:u1"], "users": ["u2"]}
        answer, error = await self.call("emit", {"event": "news", "args": [1, {"$bin": "AQI="}], "to": to})
        self.assertIsNone(error)
        self.assertIsInstance(answer["id"], str)
        for events in (at_one, at_two):
            await self.arrived(events, 1)
            self.assertEqual(events, [("news", 1, b"\x01\x02")])
        answer, _ = await self.call("request", {"event": "ask", "args": ["a"], "to": to, "timeout": 5000})
        self.assertEqual([ack["args"] for ack in answer["acks"]], [[{"answer": ["a"]}]] * 2)
        answer, error = await self.call("emit", {"event": "news", "args": []})
        self.assertEqual((answer["code"], answer["status"], error), ("invalid_request", 422, "422"))
        answer, _ = await self.call("join", {"to": {"users": ["u1"]}, "rooms": ["late"]})
        await self.nc.publish("roomcast.emit", b'{"event":"plain","args":[],"to":{"rooms":["late"]}}')
        await self.arrived(at_one, 3)
        self.assertEqual(at_one[-1], ("plain",))
        await self.call("leave", {"to": {"users": ["u1"]}, "rooms": ["late"]})
        await self.call("disconnect", {"to": {"users": ["u1", "u2"]}})

    async def test_events(self):
        heard = await self.listen(
            "roomcast.in.event.>",
            lambda body: {"ack": [body["data"]["args"], body["data"]["user"]]},
        )
        client, _ = await self.client(0, user="u 3")
        self.assertEqual(await client.call("cart.add", {"sku": 9}, timeout=DEADLINE), ([{"sku": 9}], "u 3"))
        for number in range(50):
            await client.emit("told.often", number)
        await self.arrived(heard, 51)
        subject, headers, _ = heard[0]
        self.assertEqual(subject, "roomcast.in.event./.cart%2Eadd")
        self.assertEqual(headers["Roomcast-User"], "u%203")
        self.assertEqual(headers["Roomcast-Namespace"], "/")
        self.assertEqual([body["data"]["args"] for _, _, body in heard[1:]], [[number] for number in range(50)])

    async def test_nobody_listens(self):
        client, _ = await self.client(1, user="u4")
        answer = await client.call("nobody", timeout=DEADLINE)
        self.assertEqual(answer, {"error": {"code": "no_backend", "status": 503}})

    async def test_connections(self):
        told = await self.listen("roomcast.in.sys.>")
        await self.listen("roomcast.in.join", lambda body: {"error": {"status": 403, "code": "closed"}})
        with self.assertRaises(socketio.exceptions.ConnectionError):
            await self.client(0)
        client, _ = await self.client(0, user="u5")
        answer = await client.call("room:join", "asked:1", timeout=DEADLINE)
        self.assertEqual(answer, {"error": {"code": "closed", "status": 403}})
        socket = client.get_sid()
        await client.disconnect()
        ours = lambda: [subject for subject, _, body in told if body["subject"] == f"socket/{socket}"]
        for _ in range(int(DEADLINE / 0.02)):
            if len(ours()) == 2:
                break
            await asyncio.sleep(0.02)
        self.assertEqual(ours(), ["roomcast.in.sys.connected", "roomcast.in.sys.disconnected"])

    async def test_discovery(self):
        inbox = await self.nc.subscribe(self.nc.new_inbox())
        await self.nc.publish("$SRV.INFO.roomcast", reply=inbox.subject)
        infos = [json.loads((await inbox.next_msg(timeout=DEADLINE)).data) for _ in self.gateways]
        self.assertEqual({info["name"] for info in infos}, {"roomcast"})
        self.assertEqual(len({info["id"] for info in infos}), 2)
        self.assertIn("roomcast.emit", {endpoint["subject"] for endpoint in infos[0]["endpoints"]})


if __name__ == "__main__":
    unittest.main()
