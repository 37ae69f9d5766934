// Two stock clients of this page, connected to the node like any other. What they send and get is told in their logs.

/* global io */
import { $, clock, el, json, options, readJson } from "./dom.js";
import { onNamespaces } from "./overview.js";

const KEPT = 200;
const ACK_TIMEOUT = 10_000;
const PATH = new URL("console/socket.io/", document.baseURI).pathname;

const TRANSPORTS = { upgrade: ["polling", "websocket"], websocket: ["websocket"], polling: ["polling"] };

const list = (values) => values.map(json).join(", ");
const isArray = [Array.isArray, "an array in JSON"];
/** What the gateway refuses, it refuses in the ack. */
const refusal = (ack) => ack?.[0]?.error && (ack[0].error.message ?? ack[0].error.code ?? json(ack[0].error));

/** `{"$bin":"<base64>"}` becomes binary, as in the calls of the API. */
function revive(value) {
  if (Array.isArray(value)) return value.map(revive);
  if (value === null || typeof value !== "object") return value;
  if (typeof value.$bin === "string") return Uint8Array.from(atob(value.$bin), (char) => char.charCodeAt(0));
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, revive(item)]));
}

class Peer {
  constructor(name) {
    Object.assign(this, { name, rooms: new Set(), socket: null });
    this.at("connect").onclick = () => (this.socket ? this.close() : this.open());
    this.at("join").onclick = () => this.join();
    this.at("leave").onclick = () => this.leave();
    this.at("emit").onclick = () => this.emit();
    this.render();
  }

  at(what) {
    return $(`${what}-${this.name}`);
  }

  log(kind, sign, title, rest = "") {
    const box = this.at("log");
    box.append(el("li", { class: kind },
      el("time", {}, clock()), el("i", { "aria-hidden": "true" }, sign), el("span", {}, el("b", {}, title), rest && ` ${rest}`)));
    while (box.children.length > KEPT) box.firstChild.remove();
    box.scrollTop = box.scrollHeight;
  }

  render() {
    const up = Boolean(this.socket?.connected);
    const transport = up && this.socket.io.engine.transport.name;
    const state = up ? `connected as ${this.socket.id} by ${transport}` : this.socket ? "connecting…" : "not connected";
    this.at("state").textContent = state;
    this.at("connect").textContent = this.socket ? "Disconnect" : "Connect";
    for (const what of ["join", "leave", "emit"]) this.at(what).disabled = !up;
    const chips = [...this.rooms].map((room) => el("span", { class: "chip" }, room));
    this.at("rooms").replaceChildren(chips.length ? "in" : "in no room", ...chips);
  }

  /** Resolves with whether it connected. */
  open() {
    const auth = readJson(this.at("auth"), (value) => value !== null && typeof value === "object" && !Array.isArray(value), "an object in JSON");
    if (!auth) {
      this.at("options").open = true;
      this.at("auth").reportValidity();
      return Promise.resolve(false);
    }
    const namespace = $("namespace").value || "/";
    const transports = TRANSPORTS[this.at("transport").value];
    const socket = io(location.origin + namespace, { path: PATH, transports, auth, forceNew: true });
    this.socket = socket;
    this.listen(socket);
    this.render();
    return new Promise((done) => {
      socket.once("connect", () => done(true));
      socket.once("connect_error", () => done(false));
      socket.once("disconnect", () => done(false));
    });
  }

  listen(socket) {
    const mine = (handler) => (...args) => socket === this.socket && handler(...args);
    socket.on("connect", mine(() => {
      this.log("sys", "●", "", `connected by ${socket.io.engine.transport.name}`);
      socket.io.engine.once("upgrade", mine(({ name }) => {
        this.log("sys", "●", "", `upgraded to ${name}`);
        this.render();
      }));
      this.render();
    }));
    socket.on("connect_error", mine((error) => {
      const data = error.data === undefined ? "" : ` ${json(error.data)}`;
      this.log("err", "×", "", `refused: ${error.message}${data}`);
      // An active socket tries again by itself.
      if (!socket.active) this.socket = null;
      this.render();
    }));
    socket.on("disconnect", mine((reason) => {
      this.rooms.clear();
      this.log("sys", "○", "", `disconnected: ${reason}`);
      if (!socket.active) this.socket = null;
      this.render();
    }));
    socket.onAny(mine((event, ...args) => this.receive(event, args)));
  }

  receive(event, args) {
    const ack = typeof args.at(-1) === "function" ? args.pop() : null;
    this.log("in", "←", event, list(args));
    if (ack) {
      const answer = readJson(this.at("answer"), ...isArray) ?? [];
      ack(...revive(answer));
      this.log("out", "→", "ack", list(answer));
    }
    this.at("peer").classList.add("hit");
    setTimeout(() => this.at("peer").classList.remove("hit"), 700);
  }

  close() {
    const { socket } = this;
    // One that is not connected yet says nothing when it is closed.
    const silent = !socket.connected;
    socket.disconnect();
    if (silent) {
      this.socket = null;
      this.log("sys", "○", "", "given up");
      this.render();
    }
  }

  /** Resolves with whether the ack is no refusal. */
  async ask(title, event, args) {
    this.log("out", "→", title, list(args));
    try {
      const ack = await new Promise((resolve, reject) => {
        this.socket.timeout(ACK_TIMEOUT).emit(event, ...args, (error, ...answer) => (error ? reject(error) : resolve(answer)));
      });
      const refused = refusal(ack);
      this.log(refused ? "err" : "sys", refused ? "×" : "✓", "", refused ? `refused: ${refused}` : `ack ${list(ack)}`);
      return !refused;
    } catch (error) {
      this.log("err", "×", "", error.message);
      return false;
    }
  }

  async join() {
    const room = this.at("room").value;
    if (!(await this.ask("join", "room:join", [room]))) return;
    this.rooms.add(room);
    this.render();
  }

  async leave() {
    const room = this.at("room").value;
    if (!(await this.ask("leave", "room:leave", [room]))) return;
    this.rooms.delete(room);
    this.render();
  }

  emit() {
    const args = readJson($("emit-args"), ...isArray);
    if (!args) return void $("emit-args").reportValidity();
    const event = $("emit-event").value;
    const toRoom = $("emit-to").value === "room";
    const packet = toRoom ? ["room:emit", [$("emit-room").value, event, ...args]] : [event, args];
    const [name, values] = [packet[0], packet[1].map(revive)];
    const title = toRoom ? "emit" : event;
    if ($("emit-ack").checked) return void this.ask(title, name, values);
    this.log("out", "→", title, list(values));
    this.socket.emit(name, ...values);
  }

  /** Connected and in its room, from whatever it is in now. */
  async begin() {
    if (this.socket?.connected || (await this.open())) await this.join();
  }
}

export function start() {
  const peers = ["a", "b"].map((name) => new Peer(name));
  $("start").onclick = async () => {
    $("start").disabled = true;
    await Promise.all(peers.map((peer) => peer.begin()));
    $("start").disabled = false;
  };
  $("emit-to").onchange = () => ($("emit-room").disabled = $("emit-to").value !== "room");
  onNamespaces((names) => options($("namespace"), names));
  for (const id of ["auth-a", "auth-b", "emit-args", "answer-a", "answer-b"]) {
    $(id).oninput = () => {
      $(id).setCustomValidity("");
      $(id).removeAttribute("aria-invalid");
    };
  }
}
