"""The ways in: Services, Ingress with the stickiness of each controller, Gateway API, NetworkPolicy."""

import unittest

from support import EVERYTHING, NAME, REDIS, TLS, every, find, merged, pod, render

COOKIE = {"name": "stick", "secure": True, "sameSite": "None"}


def ingress(flavor, values=None, **more):
    settings = {"enabled": True, "flavor": flavor, "hosts": ["chat.example"], "cookie": COOKIE, **more}
    objects = render(merged(REDIS, {"ingress": settings}, values or {}))
    return find(objects, "Ingress"), find(objects, "Service", NAME)


def told(flavor, values=None, **more):
    """What a controller reads, of the Ingress and of the Service, without what all of its annotations begin with."""
    both = {}
    for item in ingress(flavor, values, **more):
        both |= annotations(item)
    return {key.split("/", 1)[1]: value for key, value in both.items()}


def annotations(item):
    return item["metadata"].get("annotations", {})


class Services(unittest.TestCase):
    def test_two_services_for_two_ports(self):
        objects = render(REDIS)
        selector = find(objects, "Deployment")["spec"]["selector"]["matchLabels"]
        for name, port, target in ((NAME, 80, "public"), (f"{NAME}-api", 3001, "api")):
            spec = find(objects, "Service", name)["spec"]
            self.assertEqual(spec["selector"], selector)
            (only,) = spec["ports"]
            self.assertEqual((only["port"], only["targetPort"]), (port, target))
            self.assertEqual(spec["type"], "ClusterIP")

    def test_a_load_balancer_gets_clients_and_never_the_api(self):
        public = {
            "type": "LoadBalancer",
            "port": 443,
            "nodePort": 30443,
            "externalTrafficPolicy": "Local",
            "loadBalancerClass": "example.com/nlb",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "annotations": {"a": "b"},
        }
        objects = render(merged(REDIS, {"service": {"public": public}}))
        service = find(objects, "Service", NAME)
        for key in ("type", "externalTrafficPolicy", "loadBalancerClass", "loadBalancerSourceRanges"):
            self.assertEqual(service["spec"][key], public[key])
        self.assertEqual((service["spec"]["ports"][0]["port"], service["spec"]["ports"][0]["nodePort"]), (443, 30443))
        self.assertEqual(annotations(service), {"a": "b"})
        self.assertEqual(find(objects, "Service", f"{NAME}-api")["spec"]["type"], "ClusterIP")

    def test_affinity_by_address(self):
        public = {"sessionAffinity": "ClientIP", "sessionAffinitySeconds": 600}
        spec = find(render(merged(REDIS, {"service": {"public": public}})), "Service", NAME)["spec"]
        self.assertEqual(spec["sessionAffinity"], "ClientIP")
        self.assertEqual(spec["sessionAffinityConfig"], {"clientIP": {"timeoutSeconds": 600}})

    def test_a_headless_service_names_each_node(self):
        self.assertEqual(len(every(render(REDIS), "Service")), 2)
        objects = render(merged(REDIS, {"service": {"api": {"headless": True}}}))
        spec = find(objects, "Service", f"{NAME}-api-headless")["spec"]
        self.assertEqual((spec["clusterIP"], spec["publishNotReadyAddresses"]), ("None", True))
        self.assertEqual(spec["ports"][0]["port"], 3001)


class Ingress(unittest.TestCase):
    def test_it_leads_to_the_public_port_alone(self):
        item, service = ingress("none", tls=[{"secretName": "tls", "hosts": ["chat.example"]}], className="mine")
        spec = item["spec"]
        self.assertEqual(spec["ingressClassName"], "mine")
        self.assertEqual(spec["tls"], [{"secretName": "tls", "hosts": ["chat.example"]}])
        (rule,) = spec["rules"]
        self.assertEqual(rule["host"], "chat.example")
        (path,) = rule["http"]["paths"]
        self.assertEqual((path["path"], path["pathType"]), ("/socket.io/", "Prefix"))
        self.assertEqual(path["backend"]["service"], {"name": NAME, "port": {"name": "public"}})
        self.assertEqual(service["spec"]["ports"][0]["name"], "public")
        self.assertEqual(annotations(item), {})

    def test_the_path_is_that_of_the_configuration(self):
        values = merged(REDIS, {"ingress": {"enabled": True}, "config": {"public": {"path": "/rt/"}}})
        (rule,) = find(render(values), "Ingress")["spec"]["rules"]
        self.assertNotIn("host", rule)
        self.assertEqual(rule["http"]["paths"][0]["path"], "/rt/")

    def test_several_hosts(self):
        item, _ = ingress("none", hosts=["a.example", "b.example"])
        self.assertEqual([rule["host"] for rule in item["spec"]["rules"]], ["a.example", "b.example"])

    def test_ingress_nginx(self):
        item, _ = ingress("nginx", idleTimeoutSeconds=600)
        self.assertEqual(item["spec"]["ingressClassName"], "nginx")
        prefix = "nginx.ingress.kubernetes.io/"
        expected = {
            "affinity": "cookie",
            "affinity-mode": "persistent",
            "session-cookie-name": "stick",
            "session-cookie-samesite": "None",
            "session-cookie-secure": "true",
            "proxy-read-timeout": "600",
            "proxy-send-timeout": "600",
            "proxy-buffering": "off",
        }
        self.assertLessEqual({prefix + key: value for key, value in expected.items()}.items(), annotations(item).items())

    def test_traefik_reads_it_from_the_service(self):
        item, service = ingress("traefik")
        self.assertEqual(item["spec"]["ingressClassName"], "traefik")
        prefix = "traefik.ingress.kubernetes.io/service.sticky.cookie"
        expected = {"": "true", ".name": "stick", ".secure": "true", ".samesite": "none", ".httponly": "true"}
        self.assertEqual(annotations(service), {prefix + key: value for key, value in expected.items()})
        # Not on the Service of the API, and not without the Ingress.
        self.assertEqual(annotations(find(render(REDIS), "Service", NAME)), {})

    def test_haproxy(self):
        item, _ = ingress("haproxy", idleTimeoutSeconds=600)
        expected = {"load-balance": "leastconn", "cookie-persistence": "stick"}
        expected |= {"timeout-tunnel": "600s", "timeout-server": "600s"}
        self.assertEqual(annotations(item), {f"haproxy.org/{key}": value for key, value in expected.items()})

    def test_haproxy_ingress(self):
        item, _ = ingress("haproxy-ingress")
        found = annotations(item)
        prefix = "haproxy-ingress.github.io/"
        self.assertEqual((found[prefix + "affinity"], found[prefix + "session-cookie-name"]), ("cookie", "stick"))
        keywords = found[prefix + "session-cookie-keywords"]
        self.assertEqual(keywords, "indirect nocache httponly secure attr SameSite=None")

    def test_aws_alb(self):
        item, _ = ingress("alb")
        found = annotations(item)
        prefix = "alb.ingress.kubernetes.io/"
        self.assertEqual(found[prefix + "target-type"], "ip")
        attributes = dict(pair.split("=") for pair in found[prefix + "target-group-attributes"].split(","))
        self.assertEqual((attributes["stickiness.enabled"], attributes["stickiness.type"]), ("true", "lb_cookie"))
        # By then the pod has closed its connections itself.
        self.assertEqual(attributes["deregistration_delay.timeout_seconds"], "85")
        self.assertEqual(found[prefix + "healthcheck-path"], "/readyz")
        api = next(port for port in pod(REDIS)["containers"][0]["ports"] if port["name"] == "api")
        self.assertEqual(found[prefix + "healthcheck-port"], str(api["containerPort"]))
        # Its largest idle timeout.
        self.assertEqual(found[prefix + "load-balancer-attributes"], "idle_timeout.timeout_seconds=3600")
        item, _ = ingress("alb", idleTimeoutSeconds=9000)
        self.assertEqual(annotations(item)[prefix + "load-balancer-attributes"], "idle_timeout.timeout_seconds=4000")

    def test_stickiness_can_be_left_out(self):
        """Everything else stays: clients are passed on between pods, and rebalancing can move them."""
        none = {"ingress": {"cookie": {"enabled": False}}}
        for flavor in ("nginx", "traefik", "haproxy", "haproxy-ingress", "alb"):
            sticky, free = (told(flavor, values) for values in ({}, none))
            self.assertLess(set(free) - {"target-group-attributes"}, set(sticky), flavor)
            for word in ("cookie", "affinity", "sticky", "stickiness"):
                self.assertNotIn(word, str(free), flavor)
        self.assertEqual(told("haproxy", none)["load-balance"], "leastconn")

    def test_each_controller_speaks_tls_with_pods_that_do(self):
        expected = {
            "nginx": ("backend-protocol", "HTTP", "HTTPS"),
            "traefik": ("service.serversscheme", None, "https"),
            "haproxy": ("server-ssl", None, "true"),
            "haproxy-ingress": ("backend-protocol", "h1", "h1-ssl"),
            "alb": ("backend-protocol", "HTTP", "HTTPS"),
        }
        own = {"config": {"public": {"tls": {"cert_file": "/tls/a", "key_file": "/tls/b"}}}}
        for flavor, (key, plain, encrypted) in expected.items():
            self.assertEqual(told(flavor).get(key), plain, flavor)
            self.assertEqual(told(flavor, {"tls": {"public": TLS["public"]}})[key], encrypted, flavor)
            # Also where the certificate comes some other way; and the API's does not matter.
            self.assertEqual(told(flavor, own)[key], encrypted, flavor)
            self.assertEqual(told(flavor, {"tls": {"api": TLS["api"]}}).get(key), plain, flavor)
        # An ALB asks the other port whether a pod is ready.
        self.assertEqual(told("alb", {"tls": {"public": TLS["public"]}})["healthcheck-protocol"], "HTTP")
        self.assertEqual(told("alb", {"tls": {"api": TLS["api"]}})["healthcheck-protocol"], "HTTPS")

    def test_those_who_can_send_the_proxy_protocol_do_where_it_is_required(self):
        required = {"config": {"public": {"proxy_protocol": "required", "trusted_proxies": ["10.0.0.0/8"]}}}
        for flavor, key, version in (
            ("haproxy", "send-proxy-protocol", "proxy-v2"),
            ("haproxy-ingress", "proxy-protocol", "v2"),
        ):
            self.assertEqual(told(flavor, required)[key], version)
            self.assertNotIn(key, told(flavor))

    def test_own_annotations_go_over_those_of_the_flavor(self):
        key = "alb.ingress.kubernetes.io/scheme"
        item, _ = ingress("alb", annotations={key: "internal", "own": "yes"})
        self.assertEqual((annotations(item)[key], annotations(item)["own"]), ("internal", "yes"))
        self.assertIn("alb.ingress.kubernetes.io/target-type", annotations(item))


class GatewayApi(unittest.TestCase):
    ROUTE = {"enabled": True, "parentRefs": [{"name": "gateway", "namespace": "infra"}], "hostnames": ["chat.example"]}

    def spec(self, **more):
        return find(render(merged(REDIS, {"httpRoute": {**self.ROUTE, **more}})), "HTTPRoute")["spec"]

    def test_it_leads_to_the_public_port(self):
        spec = self.spec()
        self.assertEqual((spec["parentRefs"], spec["hostnames"]), (self.ROUTE["parentRefs"], ["chat.example"]))
        (rule,) = spec["rules"]
        self.assertEqual(rule["matches"], [{"path": {"type": "PathPrefix", "value": "/socket.io/"}}])
        self.assertEqual(rule["backendRefs"], [{"name": NAME, "port": 80}])
        # Long polls are held longer than implementations wait by default.
        self.assertEqual(rule["timeouts"], {"request": "0s"})
        self.assertNotIn("sessionPersistence", rule)

    def test_session_persistence(self):
        (rule,) = self.spec(sessionPersistence={"enabled": True, "cookieName": "stick"})["rules"]
        expected = {"type": "Cookie", "sessionName": "stick", "cookieConfig": {"lifetimeType": "Session"}}
        self.assertEqual(rule["sessionPersistence"], expected)

    def policies(self, **more):
        values = {"httpRoute": {**self.ROUTE, **more}, "tls": {"public": {"secretName": "public"}}}
        return every(render(merged(REDIS, values)), "BackendTLSPolicy")

    def test_the_gateway_speaks_tls_with_pods_that_do(self):
        (policy,) = self.policies()
        target = {"group": "", "kind": "Service", "name": NAME, "sectionName": "public"}
        self.assertEqual(policy["spec"]["targetRefs"], [target])
        validation = {"hostname": "chat.example", "wellKnownCACertificates": "System"}
        self.assertEqual(policy["spec"]["validation"], validation)
        authority = {"group": "", "kind": "ConfigMap", "name": "ca"}
        (policy,) = self.policies(backendTls={"hostname": "pods.example", "caCertificateRefs": [authority]})
        validation = {"hostname": "pods.example", "caCertificateRefs": [authority]}
        self.assertEqual(policy["spec"]["validation"], validation)
        self.assertEqual(self.policies(backendTls={"enabled": False}), [])
        plain = render(merged(REDIS, {"httpRoute": self.ROUTE}))
        self.assertEqual(every(plain, "BackendTLSPolicy"), [])


class NetworkPolicy(unittest.TestCase):
    TEST = {"podSelector": {"matchLabels": {"app.kubernetes.io/instance": "chat", "app.kubernetes.io/component": "test"}}}

    def spec(self, **policy):
        objects = render(merged(REDIS, {"networkPolicy": {"enabled": True, **policy}}))
        spec = find(objects, "NetworkPolicy")["spec"]
        self.assertEqual(
            spec["podSelector"]["matchLabels"], find(objects, "Deployment")["spec"]["selector"]["matchLabels"]
        )
        return spec

    def test_off_by_default(self):
        self.assertEqual(every(render(REDIS), "NetworkPolicy"), [])

    def test_clients_from_anywhere_the_api_from_the_namespace(self):
        spec = self.spec()
        self.assertEqual(spec["policyTypes"], ["Ingress"])
        public, api, _ = spec["ingress"]
        self.assertEqual(public, {"ports": [{"port": "public", "protocol": "TCP"}]})
        self.assertEqual(api["ports"], [{"port": "api", "protocol": "TCP"}])
        self.assertEqual(api["from"], [{"podSelector": {}}, self.TEST])

    def test_peers(self):
        peer = {"namespaceSelector": {"matchLabels": {"name": "edge"}}}
        public, api, _ = self.spec(publicFrom=[peer], apiFrom=[peer])["ingress"]
        self.assertEqual(public["from"], [peer, self.TEST])
        self.assertEqual(api["from"], [peer, self.TEST])
        # Nobody named: only `helm test` comes in, and not everybody.
        _, api, _ = self.spec(apiFrom=[])["ingress"]
        self.assertEqual(api["from"], [self.TEST])
        self.assertLessEqual(
            self.TEST["podSelector"]["matchLabels"].items(), find(render(REDIS), "Pod")["metadata"]["labels"].items()
        )

    def test_pods_of_the_release_reach_each_other_and_nobody_else_does(self):
        spec = self.spec(egress={"enabled": True})
        pods = [{"podSelector": spec["podSelector"]}]
        self.assertEqual(spec["ingress"][2], {"ports": [{"port": "peer", "protocol": "TCP"}], "from": pods})
        self.assertEqual(spec["egress"][2], {"ports": [{"port": 3002, "protocol": "TCP"}], "to": pods})
        # The pod of `helm test`, and whatever else belongs to the release, is not one of them.
        labels = find(render(REDIS), "Pod")["metadata"]["labels"]
        self.assertFalse(spec["podSelector"]["matchLabels"].items() <= labels.items())
        for values in ({}, merged(REDIS, {"config": {"peer": {"enabled": False}}})):
            alone = merged(values, {"networkPolicy": {"enabled": True, "egress": {"enabled": True}}})
            spec = find(render(alone), "NetworkPolicy")["spec"]
            self.assertEqual(len(spec["ingress"]), 2)
            self.assertNotIn("3002", str(spec["egress"]))

    def test_egress(self):
        extra = {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 443, "protocol": "TCP"}]}
        broker = {"podSelector": {"matchLabels": {"app": "redis"}}}
        spec = self.spec(egress={"enabled": True, "brokerTo": [broker], "brokerPorts": [6379, 26379], "extra": [extra]})
        self.assertEqual(spec["policyTypes"], ["Ingress", "Egress"])
        dns, to_broker, _, further = spec["egress"]
        self.assertEqual({port["port"] for port in dns["ports"]}, {53})
        self.assertEqual([port["port"] for port in to_broker["ports"]], [6379, 26379])
        self.assertEqual((to_broker["to"], further), ([broker], extra))

    def test_the_usual_port_of_the_broker(self):
        for kind, port in (("redis", 6379), ("nats", 4222)):
            values = merged(EVERYTHING, {"config": {"adapter": {"kind": kind}}})
            to_broker = find(render(values), "NetworkPolicy")["spec"]["egress"][1]
            self.assertEqual(to_broker, {"ports": [{"port": port, "protocol": "TCP"}]})


if __name__ == "__main__":
    unittest.main()
