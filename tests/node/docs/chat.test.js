// The snippets of docs/getting-started/chat.md, as they stand there.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { ask, client, connected, record } from "../helpers/clients.js";
import { Child, freePort, portOpen, temporaryDirectory } from "../helpers/processes.js";
import { REFERENCE, startGateway } from "../helpers/servers.js";

const page = readFileSync(fileURLToPath(new URL("../../../docs/getting-started/chat.md", import.meta.url)), "utf8");
const directory = temporaryDirectory();
const HOOK_SECRET = `whsec_${randomBytes(32).toString("base64")}`;
/** Besides blank lines. */
const MAX_LINES = 40;

/** The code block under a heading. */
function snippet(heading) {
  const section = page.split(`\n## ${heading}\n`)[1].split("\n## ")[0];
  return /```\w+\n([^]*?)```/.exec(section)[1];
}

const backends = {
  Python: { file: "chat.py", start: (file) => ["python3", [file]] },
  Node: { file: "chat.mjs", start: (file) => [process.execPath, [file]] },
  PHP: { file: "chat.php", start: (file, port) => ["php", ["-S", `127.0.0.1:${port}`, file]] },
};

for (const [language, { file, start }] of Object.entries(backends)) {
  describe(`the chat in ${language}`, { skip: REFERENCE }, () => {
    const code = snippet(`The backend in ${language}`);

    test("is short", () => {
      const lines = code.split("\n").filter((line) => line.trim() !== "").length;
      assert.ok(lines < MAX_LINES, `${lines} lines`);
    });

    test("lets clients talk", async () => {
      const [backendPort, port, apiPort] = [await freePort(), await freePort(), await freePort()];
      const script = path.join(directory, file);
      writeFileSync(script, code);
      const env = { HOOK_SECRET, PORT: String(backendPort), ROOMCAST_URL: `http://127.0.0.1:${apiPort}` };
      const [command, args] = start(script, backendPort);
      const backend = new Child(command, args, { env, name: `chat in ${language}` });
      const config = path.join(directory, `${language}.toml`);
      writeFileSync(config, snippet("The gateway").replace("127.0.0.1:8080", `127.0.0.1:${backendPort}`));
      const sockets = [];
      let gateway;
      try {
        await backend.ready(() => portOpen(backendPort));
        gateway = await startGateway({ file: config, port, apiPort, env: { HOOK_SECRET } });
        const [ada, bob] = ["Ada", "Bob"].map((name) => client(gateway.url, { auth: { name } }));
        sockets.push(ada, bob);
        const [heardByAda, heardByBob] = [record(ada, "chat.said", "chat.joined"), record(bob, "chat.said")];
        await connected(ada);
        await connected(bob);
        assert.deepEqual(await ask(ada, "chat.say", "hello"), [{ ok: true }]);
        await heardByBob.atLeast(1);
        assert.deepEqual(heardByBob, [["chat.said", { from: "Ada", text: "hello" }]]);
        await heardByAda.atLeast(3);
        const names = heardByAda.filter(([event]) => event === "chat.joined").map(([, name]) => name);
        assert.deepEqual(names.sort(), ["Ada", "Bob"]);

        const forged = await fetch(`http://127.0.0.1:${backendPort}/`, {
          method: "POST",
          headers: {
            "webhook-id": "x",
            "webhook-timestamp": String(Math.floor(Date.now() / 1000)),
            "webhook-signature": "v1,AAAA",
          },
          body: "{}",
        });
        assert.equal(forged.status, 401, "who has not the secret is refused");
      } catch (error) {
        error.message += `\n${backend.output}\n${gateway?.child.output ?? ""}`;
        throw error;
      } finally {
        sockets.forEach((socket) => socket.disconnect());
        await gateway?.stop();
        await backend.stop();
      }
    });
  });
}
