import { balancerTests } from "./suite.js";

balancerTests("haproxy", { asksNodes: true, http2: "websocket" });
