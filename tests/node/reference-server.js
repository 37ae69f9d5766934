// The reference implementation behind the contract of tests/README.md: it judges the tests, the tests judge Roomcast.
//
//   node reference-server.js              the test server (PORT, PING_INTERVAL, ...)
//   node reference-server.js gateway      the gateway (ROOMCAST__PUBLIC__LISTEN, ...), as far as the tests look at it

if (process.argv[2] === "gateway") {
  await import("./reference/gateway.js");
} else {
  await import("./reference/testserver.js");
}
