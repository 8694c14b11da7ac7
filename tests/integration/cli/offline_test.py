#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""offline_test.py MAKE_EVIDENCE: what vtpmctl does without a vtpmd: usage, exit statuses, verify, policy, oci."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

VTPMCTL = os.path.join(os.environ["VTPM_BIN_DIR"], "vtpmctl")
MAKE_EVIDENCE = ""


def ctl(*arguments, text="", env=None):
    return subprocess.run([VTPMCTL, *arguments], input=text, check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=60, env={**os.environ, **(env or {})})


class Usage(unittest.TestCase):
    def test_help_is_success(self):
        for arguments in (["--help"], ["list", "--help"], ["log", "proof", "--help"], ["--version"]):
            self.assertEqual(ctl(*arguments).returncode, 0, arguments)

    def test_wrong_usage_is_2_and_says_what_to_do(self):
        digest = "00" * 32
        for arguments in ([], ["explode"], ["list", "--nonsense"], ["inspect"], ["log"], ["attest", "x"],
                          ["attest", "x", "--nonce", "zz"], ["attest", "x", "--nonce", "abc"],
                          ["attest", "x", "--nonce", "00" * 7], ["attest", "x", "--nonce", "00" * 65],
                          ["measure", "x", "--digest", "00", "--description", "d"],
                          ["measure", "x", "--digest", "g" + digest[1:], "--description", "d"],
                          ["measure", "x", "--pcr", "many", "--digest", digest, "--description", "d"],
                          ["verify", "e", "--policy", "p"], ["verify", "e", "--policy", "p", "--nonce", "0"],
                          ["attach", "x", "--path", "/tmp/x", "--backend", "magic"],
                          ["log", "proof"], ["log", "proof", "--index", "0", "--from", "1"],
                          ["oci", "cdi", "--hook", "relative"]):
            done = ctl(*arguments)
            self.assertEqual(done.returncode, 2, (arguments, done.stderr))
            self.assertEqual(done.stdout, "")
            self.assertTrue(done.stderr.startswith("vtpmctl: "), done.stderr)
            self.assertIn("--help", done.stderr)

    def test_no_daemon_is_3_and_says_what_to_do(self):
        nonce, digest = "00" * 16, "00" * 32
        for arguments in (["list"], ["create"], ["inspect", "x"], ["destroy", "x"], ["detach", "x"], ["anchor"],
                          ["attest", "x", "--nonce", nonce], ["log", "head"], ["log", "entries"],
                          ["log", "proof", "--index", "0"], ["events"],
                          ["measure", "x", "--digest", digest, "--description", "d"]):
            done = ctl("--runtime-dir", "/nonexistent", *arguments)
            self.assertEqual(done.returncode, 3, (arguments, done.stderr))
            self.assertIn("/nonexistent/vtpmd.sock", done.stderr)
            self.assertIn("start vtpmd", done.stderr)

    def test_runtime_dir_comes_after_the_verb_or_from_the_environment_too(self):
        self.assertIn("/after/", ctl("log", "head", "--runtime-dir", "/after").stderr)
        self.assertIn("/environment/", ctl("list", env={"VTPM_RUNTIME_DIR": "/environment"}).stderr)

    def test_oci_documents_name_the_hook(self):
        hooks = json.loads(ctl("oci", "hooks-json", "--hook", '/opt/a "hook"').stdout)
        self.assertEqual(hooks["hook"]["path"], '/opt/a "hook"')
        self.assertEqual(hooks["stages"], ["createRuntime"])
        cdi = json.loads(ctl("oci", "cdi", "--hook", "/opt/hook").stdout)
        edits = cdi["devices"][0]["containerEdits"]
        self.assertEqual([hook["path"] for hook in edits["hooks"]], ["/opt/hook"] * 2)
        self.assertEqual((cdi["cdiVersion"], cdi["kind"]), ("0.3.0", "vtpm.dev/tpm"))

    def test_doctor_fails_without_vtpmd_and_still_reports_all(self):
        done = ctl("doctor", "--json", "--runtime-dir", "/nonexistent")
        self.assertEqual(done.returncode, 4)
        findings = json.loads(done.stdout)["findings"]
        self.assertTrue(any(f["status"] == "fail" and "vtpmd" in f["what"] and f["advice"] for f in findings))


class Verify(unittest.TestCase):
    anchor = "tpm"

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = directory.name
        subprocess.run([MAKE_EVIDENCE, self.path, self.anchor], check=True)
        self.evidence = os.path.join(self.path, "evidence.json")
        self.policy = os.path.join(self.path, "policy.json")
        with open(os.path.join(self.path, "nonce"), encoding="utf-8") as file:
            self.nonce = file.read()
        self.made = ctl("policy", "from-evidence", self.evidence)
        self.assertEqual(self.made.returncode, 0, self.made.stderr)
        self.write("policy.json", self.made.stdout)

    def write(self, name, text):
        path = os.path.join(self.path, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def read_evidence(self):
        with open(self.evidence, encoding="utf-8") as file:
            return file.read()

    def verify(self, *arguments, evidence=None, policy=None, nonce=None, text=""):
        return ctl("verify", evidence or self.evidence, "--policy", policy or self.policy, "--nonce",
                   nonce or self.nonce, *arguments, text=text)

    def test_good_evidence_is_verified_link_by_link(self):
        done = self.verify()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        lines = done.stdout.splitlines()
        self.assertEqual(lines[-1], "verdict: VERIFIED")
        self.assertEqual(lines[-2], "anchor: TPM")
        self.assertTrue(all(line.startswith("ok ") for line in lines[:-2]))
        self.assertTrue(any("anchor.signature" in line for line in lines))

    def test_evidence_may_come_from_standard_input(self):
        self.assertEqual(self.verify(evidence="-", text=self.read_evidence()).returncode, 0)

    def test_an_upper_case_nonce_is_the_same_nonce(self):
        self.assertEqual(self.verify(nonce=self.nonce.upper()).returncode, 0)

    def test_json_for_programs(self):
        done = self.verify("--json")
        self.assertEqual(done.returncode, 0)
        self.assertEqual(json.loads(done.stdout)["verdict"], "verified")

    def test_another_nonce_is_refused_with_the_reason(self):
        done = self.verify(nonce="ab" * 16)
        self.assertEqual(done.returncode, 1)
        self.assertIn("FAIL  evidence.nonce", done.stdout)
        self.assertIn("verdict: REFUSED", done.stdout.splitlines())
        self.assertEqual(json.loads(self.verify("--json", nonce="ab" * 16).stdout)["verdict"], "refused")

    def test_what_is_not_evidence_is_refused_by_name(self):
        for text in ("", "{}", "[]", "rubbish", self.read_evidence()[:-1], "x" * (5 << 20)):
            done = self.verify(evidence="-", text=text)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("FAIL  evidence.format", done.stdout)
            self.assertIn("anchor: unknown", done.stdout)

    def test_a_bad_policy_is_4_and_named(self):
        policy = json.loads(self.made.stdout)
        policy["surprise"] = 1
        for text, word in (("", "bad.json"), ("{}", "bad.json"), (json.dumps(policy), "surprise")):
            for done in (self.verify(policy=self.write("bad.json", text)), ctl("policy", "check", "-", text=text)):
                self.assertEqual(done.returncode, 4, done.stdout)
            self.assertIn(word, self.verify(policy=os.path.join(self.path, "bad.json")).stderr)

    def test_missing_files_are_4_and_named(self):
        for done in (self.verify(evidence="/nonexistent/e"), self.verify(policy="/nonexistent/p"),
                     ctl("policy", "from-evidence", "/nonexistent/e"), ctl("policy", "check", "/nonexistent/p")):
            self.assertEqual(done.returncode, 4)
            self.assertIn("/nonexistent/", done.stderr)

    def test_a_policy_that_was_made_is_well_formed(self):
        done = ctl("policy", "check", self.policy)
        self.assertEqual((done.returncode, done.stdout), (0, "ok\n"))


class VerifySoftware(Verify):
    anchor = "embedded"

    def test_good_evidence_is_verified_link_by_link(self):
        self.assertIn("software, not hardware", self.made.stderr)
        done = self.verify()
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(done.stdout.splitlines()[-2:], ["anchor: software, not hardware", "verdict: VERIFIED"])

    def test_software_is_refused_unless_the_policy_allows_it(self):
        policy = json.loads(self.made.stdout)
        policy["allow_embedded_anchor"] = False
        done = self.verify(policy=self.write("hardware.json", json.dumps(policy)))
        self.assertEqual(done.returncode, 1)
        self.assertIn("FAIL  anchor.kind", done.stdout)


if __name__ == "__main__":
    MAKE_EVIDENCE = sys.argv.pop(1)
    unittest.main(verbosity=2)
