import { balancerTests } from "./suite.js";

balancerTests("envoy", { asksNodes: true, http2: "polling" });
