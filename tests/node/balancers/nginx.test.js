import { balancerTests } from "./suite.js";

balancerTests("nginx", { asksNodes: false, http2: false });
