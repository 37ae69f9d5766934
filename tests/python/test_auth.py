"""Tokens of Python clients: the auth payload, a warning, a refresh and the end, as `docs/getting-started/auth.md` shows them."""

import base64
import hashlib
import hmac
import json
import queue
import time
import unittest

import socketio
from support import DEADLINE, REFERENCE, start_gateway

SECRET = "0123456789abcdef0123456789abcdef"


def part(value):
    return base64.urlsafe_b64encode(value).rstrip(b"=")


def token(sub, seconds):
    """A token by nothing but the standard library (RFC 7519)."""
    now = int(time.time())
    claims = {"sub": sub, "iat": now, "exp": now + seconds}
    message = b".".join(part(json.dumps(value).encode()) for value in ({"alg": "HS256"}, claims))
    return (message + b"." + part(hmac.digest(SECRET.encode(), message, hashlib.sha256))).decode()


@unittest.skipIf(REFERENCE, "the reference knows no tokens")
class Auth(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        settings = {
            "ROOMCAST__AUTH__JWT__SECRET": SECRET,
            "ROOMCAST__AUTH__JWT__LEEWAY": "0s",
            "ROOMCAST__AUTH__EXPIRING_BEFORE": "2s",
        }
        cls.gateway = start_gateway(**settings)
        cls.addClassCleanup(cls.gateway.stop)

    def test_a_session_from_its_begin_to_its_end(self):
        client, events = socketio.Client(reconnection=False), queue.Queue()
        client.on("auth:expired", lambda reason: events.put(("expired", reason)))
        client.on("disconnect", lambda *_: events.put(("disconnect",)))
        client.on("auth:expiring", lambda session: events.put(("expiring", session)))
        client.connect(self.gateway.url, auth=lambda: {"token": token("u7", 3)}, transports=["websocket"])
        self.addCleanup(client.disconnect)
        self.assertEqual(events.get(timeout=DEADLINE)[0], "expiring")
        answer = client.call("auth:refresh", token("u7", 4), timeout=DEADLINE)
        self.assertEqual(answer, {"ok": True, "expires_at": answer["expires_at"]})
        self.assertEqual(events.get(timeout=DEADLINE), ("expiring", {"expires_at": answer["expires_at"]}))
        self.assertEqual(events.get(timeout=DEADLINE), ("expired", {"code": "token_expired"}))
        self.assertEqual(events.get(timeout=DEADLINE), ("disconnect",))
        self.assertGreaterEqual(time.time(), answer["expires_at"])

    def test_who_has_no_token_is_told(self):
        for auth in (None, {"token": token("u7", -10)}):
            client, errors = socketio.Client(reconnection=False), queue.Queue()
            client.on("connect_error", errors.put)
            with self.assertRaises(socketio.exceptions.ConnectionError):
                client.connect(self.gateway.url, auth=auth, transports=["websocket"])
            error = errors.get(timeout=DEADLINE)
            expected = "token_expired" if auth else "token_missing"
            self.assertEqual(error["data"], {"code": expected, "status": 401})


if __name__ == "__main__":
    unittest.main()
