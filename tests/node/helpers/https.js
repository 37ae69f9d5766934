// Requests over TLS, with a certificate of the tests: `fetch` of Node takes no authorities of its own.

import https from "node:https";
import { within } from "./deadline.js";

/**
 * One request on a connection of its own, from `localAddress` if there is one. The answer is `{status, headers, text}`.
 */
export function secureRequest(url, { method = "GET", headers = {}, body, ca, localAddress } = {}) {
  const answer = new Promise((resolve, reject) => {
    const request = https.request(url, { method, headers, ca, localAddress, agent: false }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        resolve({ status: response.statusCode, headers: response.headers, text: Buffer.concat(chunks).toString() });
      });
    });
    request.on("error", reject);
    request.end(body);
  });
  return within(answer, `answer to ${method} ${url}`);
}

/** The value of a cookie that an answer sets. */
export function cookieIn({ headers }, name) {
  const pair = (headers["set-cookie"] ?? []).map((line) => line.split(";")[0]).find((line) => line.startsWith(`${name}=`));
  return pair?.slice(name.length + 1);
}

/** A long-polling session at packet level that keeps the balancer's cookie, if it sets one. */
export class SecurePoll {
  /** `cookie` is one that the client has already. */
  static async open(balancer, { ca, cookie, headers = {}, localAddress } = {}) {
    const poll = Object.assign(new SecurePoll(), { options: { ca, headers, localAddress }, cookie });
    poll.url = `${balancer.url}/socket.io/?EIO=4&transport=polling`;
    poll.answer = await poll.get();
    if (poll.answer.status !== 200 || !poll.answer.text.startsWith("0{")) {
      throw new Error(`handshake refused: ${poll.answer.status} ${poll.answer.text}`);
    }
    poll.sid = JSON.parse(poll.answer.text.slice(1)).sid;
    poll.url += `&sid=${poll.sid}`;
    poll.cookie = cookieIn(poll.answer, "roomcast") ?? cookie;
    return poll;
  }

  #ask(more) {
    const cookie = this.cookie ? { cookie: `roomcast=${this.cookie}` } : {};
    return secureRequest(this.url, { ...this.options, ...more, headers: { ...this.options.headers, ...cookie } });
  }

  get = () => this.#ask({});
  post = (body) => this.#ask({ method: "POST", body });

  /** The id of the node, with which its sessions' ids begin. */
  get node() {
    return this.sid.slice(0, 4);
  }

  /** One round trip: what is posted, and what the next poll brings. */
  async exchange(packet) {
    const posted = await this.post(packet);
    if (posted.status !== 200) throw new Error(`POST refused: ${posted.status} ${posted.text}`);
    const polled = await this.get();
    if (polled.status !== 200) throw new Error(`poll refused: ${polled.status} ${polled.text}`);
    return polled.text;
  }

  connect = () => this.exchange("40");
  close = () => this.post("1");
}
