// Tokens as a login service makes them, by the npm package `jose`, which shares no code with the gateway; and an issuer that
// publishes its keys, and may be away.

import { createServer } from "node:http";
import * as jose from "jose";
import { client } from "./clients.js";
import { within } from "./deadline.js";

export const SECRET = "0123456789abcdef0123456789abcdef";

export const seconds = (fromNow = 0) => Math.floor(Date.now() / 1000) + fromNow;

/** A signer for an algorithm: a new pair of keys, or the shared secret. */
export async function signer(algorithm, kid) {
  const shared = algorithm === "HS256";
  const pair = shared
    ? { privateKey: new TextEncoder().encode(SECRET) }
    : await jose.generateKeyPair(algorithm, { extractable: true, ...(algorithm === "EdDSA" ? { crv: "Ed25519" } : {}) });
  return {
    algorithm,
    kid,
    pem: shared ? undefined : await jose.exportSPKI(pair.publicKey),
    jwk: shared ? undefined : { ...(await jose.exportJWK(pair.publicKey)), kid, use: "sig", alg: algorithm },
    /** A token of a user; `claims` go over what every token has. */
    token: (sub, claims = {}, header = {}) =>
      new jose.SignJWT({ sub, iat: seconds(), exp: seconds(3600), ...claims })
        .setProtectedHeader({ alg: algorithm, ...(kid ? { kid } : {}), ...header })
        .sign(pair.privateKey),
  };
}

/** The settings that have the gateway take tokens of the shared secret. */
export const withSecret = { ROOMCAST__AUTH__JWT__SECRET: SECRET };

/** An issuer whose keys can change. `stop` and `start` keep its port. */
export class Issuer {
  static async start(port, signers) {
    const issuer = new Issuer();
    Object.assign(issuer, { port, asked: 0, signers });
    await issuer.start();
    return issuer;
  }

  get url() {
    return `http://127.0.0.1:${this.port}/.well-known/jwks.json`;
  }

  async start() {
    this.server = createServer((_, response) => {
      this.asked++;
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ keys: this.signers.map((signer) => signer.jwk) }));
    });
    await new Promise((resolve) => this.server.listen(this.port, "127.0.0.1", resolve));
  }

  stop() {
    if (!this.server.listening) return undefined;
    return new Promise((resolve) => this.server.close(resolve) && this.server.closeAllConnections());
  }
}

/** The refusal of a client that is not let in: `{message, data}`. */
export async function refused(url, options = {}) {
  const socket = client(url, { transports: ["websocket"], ...options });
  try {
    return await within(
      new Promise((resolve, reject) => {
        socket.once("connect", () => reject(new Error("the client was let in")));
        socket.once("connect_error", ({ message, data }) => resolve({ message, data }));
      }),
      "refusal",
    );
  } finally {
    socket.disconnect();
  }
}
