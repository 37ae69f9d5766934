// Authorities and certificates for tests, made by openssl, in files that are gone with the test.

import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { temporaryDirectory } from "./processes.js";

function openssl(...args) {
  return execFileSync("openssl", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

const EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

export class Authority {
  #directory = temporaryDirectory();
  #issued = 0;

  constructor(name = "Authority of the tests") {
    const extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"];
    openssl("req", "-x509", ...EC, "-keyout", this.#path("ca.key"), "-out", this.#path("ca.pem"), "-days", "30", "-subj", `/CN=${name}`, ...extensions);
    this.file = this.#path("ca.pem");
    this.pem = readFileSync(this.file, "utf8");
  }

  #path(name) {
    return path.join(this.#directory, name);
  }

  /** A certificate for the loopback addresses, for either side of a connection: `{cert, key}` in PEM and their files. */
  issue({ name = "localhost", days = 30, names = "DNS:localhost,IP:127.0.0.1" } = {}) {
    const number = this.#issued++;
    const [request, extensions] = [this.#path(`${number}.csr`), this.#path(`${number}.ext`)];
    const [certFile, keyFile] = [this.#path(`${number}.pem`), this.#path(`${number}.key`)];
    openssl("req", ...EC, "-keyout", keyFile, "-out", request, "-subj", `/CN=${name}`);
    const usage = "extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE";
    writeFileSync(extensions, names ? `${usage}\nsubjectAltName=${names}\n` : `${usage}\n`);
    const serial = `0x1${randomBytes(8).toString("hex")}`;
    const signer = ["-CA", this.#path("ca.pem"), "-CAkey", this.#path("ca.key"), "-set_serial", serial];
    openssl("x509", "-req", "-in", request, ...signer, "-days", String(days), "-extfile", extensions, "-out", certFile);
    const [cert, key] = [certFile, keyFile].map((file) => readFileSync(file, "utf8"));
    return { cert, key, certFile, keyFile };
  }
}

/** The files of a listener, which can be replaced as an editor or a mounted Secret does it. */
export class Files {
  #directory = temporaryDirectory();

  constructor(pair) {
    [this.cert, this.key] = ["tls.crt", "tls.key"].map((name) => path.join(this.#directory, name));
    this.put(pair);
  }

  put({ cert, key }) {
    for (const [file, text] of [[this.cert, cert], [this.key, key]]) {
      writeFileSync(`${file}.new`, text);
      renameSync(`${file}.new`, file);
    }
  }

  /** The settings of a listener, `PUBLIC` or `API`. */
  env(listener) {
    return { [`ROOMCAST__${listener}__TLS__CERT_FILE`]: this.cert, [`ROOMCAST__${listener}__TLS__KEY_FILE`]: this.key };
  }
}
