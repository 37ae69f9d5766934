// What an operator and a developer do with the console, panel by panel, against real nodes.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { accepted, emit, get, post, roomSize } from "../node/helpers/api.js";
import { startOwnBroker } from "../node/helpers/brokers.js";
import { launchBrowser } from "../node/helpers/browser.js";
import { TRANSPORTS, connect, join } from "../node/helpers/clients.js";
import { stopAll } from "../node/helpers/cluster.js";
import { pause, until } from "../node/helpers/deadline.js";
import { temporaryDirectory } from "../node/helpers/processes.js";
import { REFERENCE, startGateway, startNodes } from "../node/helpers/servers.js";
import { signer, withSecret } from "../node/helpers/tokens.js";
import { Console } from "./console.js";

const JSON_TYPE = "application/json";

describe("the console", { skip: REFERENCE }, () => {
  let browser;
  before(async () => (browser = await launchBrowser()));
  after(() => browser?.close());

  describe("of a cluster", () => {
    test("shows figures as plots, the nodes, one that goes, and a broker that is away", async () => {
      const stoppers = [];
      try {
        const broker = await startOwnBroker("nats");
        stoppers.push(broker.stop);
        const [node, other] = await startNodes(2, { adapter: broker });
        stoppers.push(node.stop, other.stop);
        const sockets = [await connect(node.url, TRANSPORTS.websocket), await connect(node.url, TRANSPORTS.polling)];
        stoppers.push(...sockets.map((socket) => () => socket.disconnect()));
        for (const socket of sockets) await join(socket, "plots");

        const opened = await Console.open(browser, node);
        stoppers.push(() => opened.context.close());
        const { page, shows, metric } = opened;
        await shows("#ready-pill", /^ready$/);
        assert.deepEqual([await metric("connections"), await metric("sockets"), await metric("adapter")], ["2", "2", "nats"]);
        await shows('[data-metric="connections-note"]', /1 WebSocket, 1 polling/);

        let sent = 0;
        const figure = (name) => page.locator(".figure", { has: page.locator(`[data-metric="${name}"]`) });
        const label = (name) => figure(name).locator("svg").getAttribute("aria-label");
        await until(async () => {
          sockets[0].emit("room:emit", "plots", "tick", ++sent);
          await emit(other, { rooms: ["plots"] }, "tick", ++sent);
          return Number(await metric("deliveries")) > 0 && Number(await metric("events")) > 0 && /^[µm]s$/.test(await metric("latency-unit"));
        }, "rates of events");
        for (const name of ["deliveries", "events"]) {
          assert.match(await label(name), /^Events (in|out), last 1 min: .* now, lowest .*, highest .*[1-9]/);
          const line = figure(name).locator("path.line");
          await until(async () => /^M[\d.]+ [\d.]+L/.test(await line.getAttribute("d")), "a line of the plot");
        }
        assert.match(await label("latency"), /median [\d.]+ [µm]s now/);
        assert.match(await label("connections"), /WebSocket 1 now, .*; polling 1 now/);

        const rows = page.locator("#node-rows tr");
        const stats = (await get(node, "/console/stats")).body;
        const second = stats.nodes.find(({ id }) => id !== stats.node).id;
        const row = (id) => rows.filter({ hasText: id });
        await until(async () => (await rows.count()) === 2, "two nodes");
        assert.match(await row(stats.node).textContent(), /answers here.*ready.*now/);
        assert.match(await row(second).textContent(), /live[\d.]+ s ago/);
        // What a node has, it says with its signs of life.
        await until(async () => /now21$/.test(await row(stats.node).textContent()), "two sockets and a room");

        await other.stop();
        await until(async () => /gone since/.test(await row(second).textContent()), "a node that is gone");
        await broker.kill();
        await shows("#ready-pill", /not ready: broker away/);
        await opened.close();
      } finally {
        await stopAll(stoppers);
      }
    });
  });

  describe("of one node", () => {
    let node, opened;
    before(async () => {
      const file = path.join(temporaryDirectory(), "roomcast.toml");
      writeFileSync(file, '[[namespace]]\nname = "/"\n[[namespace]]\nname = "/chat"\n');
      node = await startGateway({ file });
    });
    after(() => node?.stop());
    beforeEach(async () => (opened = await Console.open(browser, node)));
    afterEach(() => opened.close());
    const member = async (room, url = node.url) => {
      const socket = await connect(url, TRANSPORTS.websocket);
      await join(socket, room);
      return socket;
    };

    test("rooms: a list by pages that can be searched, and the sockets of a room", async () => {
      const { page, shows } = opened;
      const [one, two] = [await member("order:1"), await member("order:1")];
      await join(one, "order:2");
      const many = Array.from({ length: 120 }, (_, index) => `page:${index}`);
      await accepted(node, "/v1/join", { to: { sockets: [one.id] }, rooms: many });
      await opened.go("rooms");
      await until(async () => {
        await page.click("#rooms-reload");
        return /order:12order:21/.test(await opened.text("#room-rows"));
      }, "both rooms with their counts");
      await shows("#rooms-note", /^100 rooms so far\.$/);
      await page.click("#rooms-more");
      await shows("#rooms-note", /^122 rooms\.$/);
      assert.equal(await page.locator("#rooms-more").isVisible(), false);
      await page.fill("#rooms-search", "ORDER:2");
      await shows("#room-rows", /^order:21$/);
      await page.fill("#rooms-search", "nobody");
      await shows("#rooms-note", /^None of 122 rooms/);
      await page.fill("#rooms-search", "order:1");
      await page.click("#room-rows button");
      await shows("#room-count", /^2 sockets in the cluster\.$/);
      await shows("#room-rows-sockets", new RegExp(two.id));

      // A list that names who is missing, and a node that has no list.
      await page.fill("#rooms-search", "");
      const partial = { rooms: [{ room: "r", sockets: 1 }], missing_nodes: ["AAAA"] };
      await page.route("**/v1/rooms?*", (route) => route.fulfill({ contentType: JSON_TYPE, body: JSON.stringify(partial) }));
      await page.click("#rooms-reload");
      await shows("#rooms-note", /^1 room\. Without AAAA/);
      await page.unroute("**/v1/rooms?*");
      await page.route("**/v1/rooms?*", (route) => route.fulfill({ status: 404, body: "{}" }));
      await page.click("#rooms-reload");
      await shows("#rooms-note", /does not list rooms/);

      // A name that is on no list can be looked up.
      await page.fill("#rooms-search", "order:1");
      await page.press("#rooms-search", "Enter");
      await shows("#room-count", /^2 sockets in the cluster\.$/);
      await shows("#room-rows-sockets", new RegExp(`(?=.*${two.id})(?=.*${one.id}.*order:2)`));
      await page.fill("#rooms-search", "nobody/is?here");
      await page.press("#rooms-search", "Enter");
      await shows("#room-count", /^0 sockets in the cluster\.$/);
      one.disconnect();
      two.disconnect();
    });

    test("live: what goes through the node, filtered, and arguments only when asked for", async () => {
      const { page, shows } = opened;
      const socket = await member("tail:1");
      await opened.go("live");
      await page.fill("#tail-room", "tail:*");
      await page.click("#tail-start");
      await shows("#tail-state", /Showing/);
      await emit(node, { rooms: ["other"] }, "unwanted", "secret");
      await emit(node, { rooms: ["tail:1"] }, "wanted", "secret");
      await shows("#tail-log", /emitwantedto tail:1/);
      assert.doesNotMatch(await opened.text("#tail-log"), /unwanted|secret/);

      await page.click("#tail-clear");
      await page.check("#tail-payload");
      // The stream with arguments is another one: it shows nothing of what was before it.
      await until(async () => {
        await emit(node, { rooms: ["tail:1"] }, "again", "secret");
        return /again.*\["secret"\]/.test(await opened.text("#tail-log"));
      }, "arguments");
      await page.click("#tail-start");
      await shows("#tail-state", /Stopped/);
      assert.equal(await opened.text("#tail-start"), "Start");
      socket.disconnect();
    });

    test("try out: transports, auth, namespaces, refusals, acks and binary", async () => {
      const { page, shows } = opened;
      const frames = [];
      page.on("websocket", (socket) => socket.on("framesent", ({ payload }) => frames.push(String(payload))));
      await opened.go("try-out");
      await page.selectOption("#namespace", "/chat");
      await page.click("#options-a > summary");
      await page.selectOption("#transport-a", "websocket");
      await page.fill("#auth-a", '{"token": ');
      await page.click("#connect-a");
      assert.equal(await page.getAttribute("#auth-a", "aria-invalid"), "true");
      await page.fill("#auth-a", '{"token": "t-1"}');
      await page.click("#options-b > summary");
      await page.selectOption("#transport-b", "polling");
      await page.click("#start");
      await shows("#state-a", /connected as .* by websocket/);
      await shows("#state-b", /connected as .* by polling/);
      await shows("#rooms-b", /^inlobby$/);
      await shows("#rooms-a", /^inlobby$/);
      assert.ok(frames.includes('40/chat,{"token":"t-1"}'), frames.join("\n"));

      await page.fill("#emit-args", '[{"$bin": "AAEC"}, "€"]');
      await page.click("#emit-b");
      await shows("#log-b", /✓ ack \{"ok":true\}$/);
      await shows("#log-a", /←message "<3 bytes>", "€"$/);

      // A backend that asks gets the answers of both.
      const asked = await post(node, "/v1/request", { namespace: "/chat", to: { rooms: ["lobby"] }, event: "who", args: [1] });
      assert.deepEqual(asked.body.acks.map(({ args }) => args).sort(), [["A has it"], ["B has it"]]);
      await shows("#log-a", /←who 1.*→ack "A has it"$/);

      // What no backend takes is refused, and told.
      await page.selectOption("#emit-to", "server");
      await page.fill("#emit-event", "cart.add");
      await page.click("#emit-a");
      await shows("#log-a", /× refused: not_found$/);

      await page.click("#leave-a");
      await shows("#rooms-a", /^in no room$/);
      await page.click("#connect-a");
      await shows("#state-a", /^not connected$/);
      await shows("#log-a", /disconnected: io client disconnect$/);
    });

    test("requests: each known call, its answer, and what is wrong with a field", async () => {
      const { page, shows } = opened;
      await page.route("**/openapi.json", (route) => route.fulfill({ status: 404, body: "" }));
      const socket = await member("lobby");
      await opened.go("requests");
      const calls = await page.locator("#call option").allTextContents();
      assert.deepEqual(calls.slice(0, 3), ["POST /v1/emit", "POST /v1/request", "POST /v1/join"]);
      for (const call of calls) {
        await page.selectOption("#call", call);
        const command = await opened.text("#curl");
        assert.match(command, /^curl \S*http/, call);
        assert.equal(command.includes("--data-raw"), call.startsWith("POST"), call);
      }
      const answered = async (status, pattern) => {
        await page.click("#call-send");
        await shows("#answer-head", new RegExp(`^${status} `));
        await shows("#answer", pattern);
      };
      await page.selectOption("#call", "POST /v1/emit");
      await answered(202, /"id"/);
      await page.selectOption("#call", "GET /v1/rooms/{room}");
      await answered(200, /"sockets": 1/);
      await page.selectOption("#call", "GET /v1/nodes");
      await answered(200, /"nodes"/);
      await page.selectOption("#call", "POST /v1/join");
      await page.locator("#call-fields textarea").last().fill("order:1\norder 2");
      await answered(202, /"id"/);
      await until(async () => (await roomSize(node, "order 2")) === 1, "the room that was joined");
      opened.expected = /status of 404.*\/v1\/disconnect$/;
      await page.selectOption("#call", "POST /v1/disconnect");
      await page.click("#call-more > summary");
      await page.locator("#call-more-fields input").first().fill("/nowhere");
      await answered(404, /"not_found"/);

      await page.selectOption("#call", "POST /v1/emit");
      const args = page.locator("#call-fields textarea").first();
      await args.fill("[1");
      assert.equal(await args.getAttribute("aria-invalid"), "true");
      await args.fill("[1]");
      assert.equal(await args.getAttribute("aria-invalid"), null);
      socket.disconnect();
    });

    test("requests: the calls that the node describes", async () => {
      const { page } = opened;
      const { paths } = (await get(node, "/openapi.json")).body;
      const known = Object.entries(paths).flatMap(([path, calls]) => Object.keys(calls).map((method) => `${method.toUpperCase()} ${path}`));
      await opened.go("requests");
      await until(async () => (await page.locator("#call option").count()) > 0, "the calls");
      const calls = await page.locator("#call option").allTextContents();
      const here = known.filter((call) => / \/v1\//.test(call) && call !== "GET /v1/tail");
      assert.deepEqual(calls.slice().sort(), here.slice().sort());
      for (const call of calls) {
        await page.selectOption("#call", call);
        assert.match(await opened.text("#curl"), /^curl \S*http|^curl -X/, call);
      }
    });

    test("requests: a description of any kind", async () => {
      const { page } = opened;
      const text = { type: ["string", "null"] };
      const document = {
        paths: {
          "/v1/things/{id}": {
            delete: {
              summary: "Ends a thing.",
              parameters: [
                { name: "id", in: "path", required: true, schema: { type: "string" } },
                { name: "way", in: "query", schema: { anyOf: [{ $ref: "#/components/schemas/Way" }, { type: "null" }] } },
                { $ref: "#/components/parameters/key" },
              ],
            },
          },
          "/v1/things": {
            post: { requestBody: { content: { [JSON_TYPE]: { schema: { $ref: "#/components/schemas/Thing" } } } } },
          },
        },
        components: {
          parameters: { key: { name: "Idempotency-Key", in: "header", schema: { type: "string" } } },
          schemas: {
            Way: { enum: ["hard", "soft"] },
            Thing: {
              required: ["name", "rooms"],
              properties: { name: { type: "string" }, rooms: { type: "array", items: { type: "string" } }, deep: {}, note: text, count: { type: "integer" } },
            },
          },
        },
      };
      await page.route("**/openapi.json", (route) => route.fulfill({ contentType: JSON_TYPE, body: JSON.stringify(document) }));
      await opened.go("requests");
      await until(async () => (await page.locator("#call option").count()) === 2, "two calls");
      assert.equal(await opened.text("#call-summary"), "Ends a thing.");
      await page.locator("#call-fields input").fill("a/b?");
      await page.click("#call-more > summary");
      await page.locator("#call-more-fields select").selectOption("soft");
      await page.locator("#call-more-fields input").fill("k 1");
      assert.equal(
        await opened.text("#curl"),
        `curl -X DELETE '${node.api}/v1/things/a%2Fb%3F?way=soft' \\\n  -H 'Idempotency-Key: k 1'`,
      );
      await page.selectOption("#call", "POST /v1/things");
      await page.locator("#call-fields input").fill("n");
      const more = page.locator("#call-more-fields");
      await more.locator("textarea").fill('{"x":null}');
      await more.locator("input[type=number]").fill("3");
      assert.match(await opened.text("#curl"), /'\{"name":"n","rooms":\["lobby"\],"deep":\{"x":null\},"count":3\}'$/);
    });

    test("the command is for a shell what the form says, whatever is typed", async () => {
      const { page } = opened;
      await opened.go("requests");
      const nasty = `it's "$HOME" \`id\` \\ ; | & > * ! # ~ {a,b} € 'end'`;
      await page.selectOption("#call", "GET /v1/rooms/{room}");
      await page.locator("#call-fields input").fill(nasty);
      const [url] = shell(await opened.text("#curl"));
      assert.equal(url, `${node.api}/v1/rooms/${encodeURIComponent(nasty)}`);

      await page.selectOption("#call", "POST /v1/emit");
      const field = (name) => page.locator(`[id^="request-"][id$="-${name}"]`);
      await field("event").fill(nasty);
      await field("args").fill(JSON.stringify([nasty, { "@": nasty }]));
      await field("to").fill(nasty);
      const words = shell(await opened.text("#curl"));
      const body = JSON.parse(words.at(-1));
      assert.deepEqual([body.event, body.args, body.to], [nasty, [nasty, { "@": nasty }], { rooms: [nasty] }]);
      assert.deepEqual(words.slice(0, -1), [`${node.api}/v1/emit`, "-H", "Content-Type: application/json", "--data-raw"]);
    });

    test("by the keyboard alone", async () => {
      const { page, shows } = opened;
      await page.focus("#theme");
      const press = async (key, times = 1) => {
        for (let i = 0; i < times; i++) await page.keyboard.press(key);
      };
      await press("Tab", 4);
      await press("Enter");
      // The view that opens is where the next key goes.
      await until(() => page.evaluate(() => document.activeElement.id === "try-title"), "the focus in the view");
      assert.equal(await page.getAttribute('nav a[href="#try-out"]', "aria-current"), "page");
      await press("Tab", 2);
      await press("Enter");
      await shows("#rooms-a", /^inlobby$/);
      await shows("#rooms-b", /^inlobby$/);
    });
  });

  describe("of a node whose clients need tokens", () => {
    test("try out: without a token nobody comes in, and why is told", async () => {
      const node = await startGateway({ env: withSecret });
      try {
        const opened = await Console.open(browser, node, { view: "try-out" });
        const { page, shows } = opened;
        await shows("#ready-pill", /^ready$/);
        await page.click("#connect-a");
        await shows("#log-a", /× refused: .*"token_missing"/);
        await shows("#state-a", /^not connected$/);
        await page.click("#options-a > summary");
        await page.fill("#auth-a", JSON.stringify({ token: await (await signer("HS256")).token("u7") }));
        await page.click("#connect-a");
        await shows("#state-a", /^connected as /);
        // The user is a room.
        await opened.go("rooms");
        await page.fill("#rooms-search", "user:u7");
        await page.press("#rooms-search", "Enter");
        await shows("#room-count", /^1 socket in the cluster\.$/);
        await opened.close();
      } finally {
        await node.stop();
      }
    });
  });

  describe("of a node with keys", () => {
    const KEY = "k-0123456789abcdef-'x";

    test("says what a key may not do, and does the rest", async () => {
      const file = path.join(temporaryDirectory(), "roomcast.toml");
      writeFileSync(file, `[[api.key]]\nname = "reader"\nsecret = "${KEY}"\nscopes = ["read"]\n`);
      const node = await startGateway({ file });
      try {
        const opened = await Console.open(browser, node, { view: "live" });
        const { page, shows } = opened;
        opened.expected = /status of 403/;
        await page.fill("#api-key", KEY);
        await page.press("#api-key", "Enter");
        await shows("#ready-pill", /^ready$/);
        await page.click("#tail-start");
        await shows("#tail-state", /^403: .*admin/);
        await opened.go("rooms");
        await shows("#rooms-note", /^0 rooms\.$/);
        await opened.go("requests");
        await page.selectOption("#call", "POST /v1/emit");
        await page.click("#call-send");
        await shows("#answer-head", /^403 Forbidden/);
        await opened.close();
      } finally {
        await node.stop();
      }
    });

    test("asks for the key once, keeps it out of addresses, and forgets it", async () => {
      const node = await startGateway({ env: { ROOMCAST__API__KEYS: JSON.stringify([KEY]) } });
      try {
        const opened = await Console.open(browser, node);
        const { page, shows } = opened;
        await shows("#key-why", /wants an API key/);
        await shows("#ready-pill", /key needed/);
        const give = async (key) => {
          await page.fill("#api-key", key);
          await page.press("#api-key", "Enter");
        };
        await give("k-wrong-0123456789abcdef");
        await shows("#key-why", /does not know this key/);
        // With a key that is refused nothing is asked; figures would be, each second.
        const asked = opened.urls.length;
        await opened.go("rooms");
        await opened.go("live");
        await page.click("#tail-start");
        await pause(1500);
        assert.deepEqual(opened.urls.slice(asked), []);

        await give(KEY);
        await shows("#ready-pill", /^ready$/);
        assert.equal(await page.locator("#key-form").isVisible(), false);
        await opened.go("requests");
        await page.selectOption("#call", "GET /v1/nodes");
        assert.match(await opened.text("#curl"), /-H "Authorization: Bearer \$ROOMCAST_KEY"/);
        assert.deepEqual(shell(await opened.text("#curl"), KEY).slice(1, 3), ["-H", `Authorization: Bearer ${KEY}`]);
        await page.click("#call-send");
        await shows("#answer-head", /^200 /);

        await page.reload();
        await shows("#ready-pill", /^ready$/);
        await page.click("#key-forget");
        await shows("#key-why", /wants an API key/);
        assert.deepEqual(opened.urls.filter((url) => url.includes("0123456789abcdef")), []);
        await opened.close();
      } finally {
        await node.stop();
      }
    });
  });
});

/** The words that a shell gives to curl. */
function shell(command, key = "") {
  const script = `curl() { printf '%s\\0' "$@"; }\n${command}`;
  const env = { PATH: process.env.PATH, ROOMCAST_KEY: key };
  return execFileSync("sh", ["-c", script], { env, encoding: "utf8" }).split("\0").slice(0, -1);
}
