// Tokens and a backend together: the token goes first, and the backend is told what it proves.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { TRANSPORTS, ask, client, connect } from "../helpers/clients.js";
import { next } from "../helpers/deadline.js";
import { backendOf, configuration, startReceiver, tellsAll } from "../helpers/receiver.js";
import { startGateway } from "../helpers/servers.js";
import { SECRET, signer } from "../helpers/tokens.js";

const websocket = TRANSPORTS.websocket;
describe("tokens and webhooks", () => {
  let receiver, gateway, token;
  before(async () => {
    receiver = await startReceiver();
    token = (await signer("HS256")).token;
    const settings = {
      auth: { jwt: { secret: SECRET, required: false } },
      limits: { sockets_per_user: 2 },
      backend: { orders: backendOf(receiver) },
      namespace: [{ name: "/", ...tellsAll("orders"), route: [{ event: "*", mode: "call" }] }],
    };
    gateway = await startGateway({ file: configuration(settings).file });
  });
  after(async () => {
    await gateway?.stop();
    await receiver?.stop();
    assert.deepEqual(receiver?.problems, []);
  });
  const open = (auth) => connect(gateway.url, { ...websocket, auth });
  const refused = async (auth) => {
    const socket = client(gateway.url, { ...websocket, auth });
    const [error] = await next(socket, "connect_error");
    socket.disconnect();
    return error.data;
  };

  test("the backend is told the verified claims, and cannot make somebody else of the client", async () => {
    receiver.answer = () => ({ user: "u2", state: { n: 1 } });
    const socket = await open({ token: await token("u1", { plan: "pro" }) });
    const [{ data }] = receiver.of("connect", socket.id);
    assert.deepEqual([data.user, data.claims.sub, data.claims.plan], ["u1", "u1", "pro"]);
    receiver.answer = () => undefined;
    await ask(socket, "who");
    const [event] = receiver.of("event", socket.id);
    assert.deepEqual([event.data.user, event.data.state, event.data.rooms], ["u1", { n: 1 }, ["user:u1"]]);
    socket.disconnect();
  });

  test("a backend is not asked about a token that is none", async () => {
    const before = receiver.of("connect").length;
    const other = await token("u1", { exp: 1 });
    assert.equal((await refused({ token: other })).status, 401);
    assert.equal(receiver.of("connect").length, before);
  });

  test("a backend says who a client is, and the limits of users hold", async () => {
    receiver.answer = (event) => (event.type === "roomcast.connect" ? { user: event.data.auth.name } : undefined);
    const sockets = [await open({ name: "guest" }), await open({ name: "guest" })];
    assert.deepEqual(await refused({ name: "guest" }), { code: "too_many_sockets", status: 429 });
    sockets.push(await open({ name: "other" }));
    const { id } = sockets[0];
    sockets[0].disconnect();
    await receiver.atLeast(1, "disconnected", id);
    sockets.push(await open({ name: "guest" }));
    sockets.forEach((socket) => socket.disconnect());
  });

  test("a session ends when the backend says", async () => {
    receiver.answer = (event) =>
      event.type === "roomcast.connect" ? { expires_at: new Date(Date.now() + 1500).toISOString() } : undefined;
    const socket = await open({ name: "u4" });
    const told = next(socket, "auth:expired");
    await next(socket, "disconnect");
    assert.equal((await told)[0].code, "token_expired");
  });
});
