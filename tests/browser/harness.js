// Runs in the page: sockets by number, with binary as {"$bin": base64} at the border, because only JSON crosses it.
// {"$blob": base64} makes a Blob of it.

window.harness = (() => {
  const sockets = [];

  const toBase64 = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)));
  const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

  function revive(value) {
    if (Array.isArray(value)) return value.map(revive);
    if (value === null || typeof value !== "object") return value;
    if (typeof value.$bin === "string") return fromBase64(value.$bin).buffer;
    if (typeof value.$blob === "string") return new Blob([fromBase64(value.$blob)]);
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, revive(item)]));
  }

  function plain(value) {
    if (value instanceof ArrayBuffer) return { $bin: toBase64(value) };
    if (ArrayBuffer.isView(value)) return { $bin: toBase64(value.slice().buffer) };
    if (Array.isArray(value)) return value.map(plain);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
  }

  return {
    connect: (url, options) =>
      new Promise((resolve, reject) => {
        const socket = io(url, { forceNew: true, reconnection: false, ...options });
        const index = sockets.push({ socket, received: [] }) - 1;
        socket.onAny((...event) => sockets[index].received.push(plain(event)));
        socket.once("connect", () => resolve(index));
        socket.once("connect_error", (error) => reject(new Error(`${error.message} ${JSON.stringify(error.data)}`)));
      }),
    transport: (index) => sockets[index].socket.io.engine.transport.name,
    received: (index) => sockets[index].received,
    emit: (index, ...args) => void sockets[index].socket.emit(...args.map(revive)),
    ask: (index, ...args) =>
      new Promise((resolve) => sockets[index].socket.emit(...args.map(revive), (...answer) => resolve(answer.map(plain)))),
    disconnect: (index) => void sockets[index].socket.disconnect(),
  };
})();
