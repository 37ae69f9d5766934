"""The bill of materials: what is in the image beside the binary, made as the image's build makes it."""

import gzip
import json
import tomllib
import unittest
from pathlib import Path

from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation import make_schemabased_validator

from support import DEPLOY, ROOT, build_argument, folder, run

# Crates whose package carries no text. Their licence is Apache-2.0, and that text is among the others.
WITHOUT_TEXT = {"async-nats"} | {f"opentelemetry{part}" for part in ("", "_sdk", "-http", "-otlp", "-proto")}


class Bill(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        features = build_argument("FEATURES")
        with folder("bill") as place:
            run(DEPLOY / "bill-of-materials", features, place)
            cls.text = (Path(place) / "roomcast.cdx.json").read_text()
            cls.licences = gzip.decompress((Path(place) / "third-party-licences.txt.gz").read_bytes()).decode()
        cls.bill = json.loads(cls.text)
        cls.components = {(item["name"], item["version"]): item for item in cls.bill["components"]}
        lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
        cls.checksums = {(package["name"], package["version"]): package.get("checksum") for package in lock}
        host = [line for line in run("rustc", "-vV").splitlines() if line.startswith("host: ")][0].removeprefix("host: ")
        tree = ["tree", "--locked", "--package", "roomcast", "--edges", "normal", "--prefix", "none", "--features", features]
        lines = run("cargo", *tree, "--target", host, "--format", "{p}", cwd=ROOT).splitlines()
        # "serde v1.0.0 (proc-macro) (*)"
        cls.closure = {(name, version.removeprefix("v")) for name, version, *_ in map(str.split, filter(None, lines))}
        cls.macros = {tuple(line.replace(" v", " ").split()[:2]) for line in lines if "(proc-macro)" in line}

    def test_it_is_cyclonedx(self):
        version = SchemaVersion.from_version(self.bill["specVersion"])
        problem = make_schemabased_validator(OutputFormat.JSON, version).validate_str(self.text)
        self.assertIsNone(problem)

    def test_every_crate_of_the_binary_is_in_it(self):
        listed = set(self.components) | {("roomcast", self.bill["metadata"]["component"]["version"])}
        self.assertEqual(self.closure - listed, set())

    def test_each_has_a_licence_and_the_hash_of_the_lock_file(self):
        for crate, component in self.components.items():
            self.assertTrue(component["licenses"], crate)
            wanted = self.checksums[crate]
            found = [item["content"] for item in component.get("hashes", []) if item["alg"] == "SHA-256"]
            # Those without are the workspace's own.
            self.assertEqual(found, [wanted] if wanted else [], crate)

    def test_texts_of_licences_are_passed_on(self):
        texts = dict(section.split(" ====\n", 1) for section in self.licences.split("==== ")[1:] if " ====\n" in section)
        texts = {tuple(head.split()[:2]): body.strip() for head, body in texts.items()}
        own = {crate for crate in self.closure if not self.checksums[crate]}
        self.assertEqual(set(texts), self.closure - own - self.macros)
        self.assertEqual({name for (name, _), body in texts.items() if not body}, WITHOUT_TEXT)
