#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""vtpmctl with a real vtpmd that an ordinary user runs: the life of a TPM from create to destroy."""

import errno
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.environ["VTPM_SOURCE_DIR"], "tests", "support"))
import vtpm_host  # noqa: E402

NONCE = "0123456789abcdef" * 2


class Daemon(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.host = vtpm_host.Host()
        cls.addClassCleanup(cls.host.close)
        cls.host.start()

    def ok(self, *arguments):
        done = self.host.ctl(*arguments)
        self.assertEqual(done.returncode, 0, (arguments, done.stderr, self.host.log_text()))
        return done.stdout

    def create(self, *arguments):
        instance = self.ok("create", *arguments).strip()
        self.addCleanup(self.host.ctl, "destroy", instance)
        return instance

    def path(self, name):
        return os.path.join(self.host.directory, name)

    def test_create_prints_the_id_alone_and_list_shows_it(self):
        instance = self.create("--name", "web")
        self.assertRegex(instance, r"^[0-9a-f]{16}$")
        lines = self.ok("list").splitlines()
        self.assertEqual(lines[0].split()[:3], ["ID", "NAME", "STATE"])
        self.assertTrue(any(line.split()[:3] == [instance, "web", "running"] for line in lines), lines)
        self.assertEqual(json.loads(self.ok("inspect", "web", "--json"))["id"], instance)
        self.assertRegex(self.ok("inspect", instance), r"(?m)^state: +running$")

    def test_what_is_not_built_yet_is_refused_clearly(self):
        done = self.host.ctl("create", "--ek", "rsa-2048")
        self.assertEqual(done.returncode, 4, done.stderr)
        done = self.host.ctl("attach", self.create(), "--path", self.path("n"), "--backend", "cuse")
        self.assertEqual(done.returncode, 4)
        self.assertIn("--backend fuse", done.stderr)

    def test_a_durable_tpm_is_listed_and_its_files_are_named_when_they_are_removed(self):
        instance = self.create("--durable", "--name", "kept")
        lines = self.ok("list").splitlines()
        self.assertEqual(lines[0].split()[:4], ["ID", "NAME", "STATE", "DURABLE"])
        self.assertTrue(any(line.split()[:4] == [instance, "kept", "running", "yes"] for line in lines), lines)
        slots = json.loads(self.ok("inspect", "kept", "--json"))["storage"]["slots"]
        self.assertEqual([os.path.basename(slot) for slot in slots], ["slot-a", "slot-b"])
        self.assertTrue(all(os.path.isfile(slot) for slot in slots), slots)
        shown = self.ok("inspect", "kept")
        self.assertRegex(shown, r"(?m)^durable: +true$")
        self.assertRegex(shown, r"(?m)^slot_a: +" + re.escape(slots[0]) + "$")
        self.assertRegex(shown, r"(?m)^sequence: +[1-9][0-9]*$")
        self.assertEqual(self.host.ctl("create", "--durable", "--name", "kept").returncode, 4)
        removed = self.ok("destroy", "kept")
        self.assertIn(instance, removed)
        for slot in slots:
            self.assertIn(slot, removed)
            self.assertFalse(os.path.exists(slot))

    def test_limits_are_set_at_creation_and_shown_with_what_is_used(self):
        instance = self.create("--limit", "spaces=12", "--limit", "nv_bytes=0", "--name", "limited")
        shown = self.ok("inspect", "limited")
        self.assertRegex(shown, r"(?m)^limit_spaces: +12$")
        self.assertRegex(shown, r"(?m)^limit_nv_bytes: +0$")
        self.assertRegex(shown, r"(?m)^limit_objects_per_space: +32$")
        self.assertRegex(shown, r"(?m)^used_throttled: +0$")
        self.assertRegex(shown, r"(?m)^used_nv_bytes: +[1-9][0-9]*$")
        document = json.loads(self.ok("inspect", instance, "--json"))
        self.assertEqual(document["limits"]["spaces"], 12)
        self.assertEqual(document["use"]["commands"], 0)
        for limit, says in (("spaces", "NAME=VALUE is expected"), ("=3", "NAME=VALUE is expected"),
                            ("spaces=", "--limit spaces: '' is not a number"),
                            ("spaces=x", "--limit spaces: 'x' is not a number"), ("spaces=0", "must be 1 to 1024"),
                            ("other=1", "no limit is named 'other'; there are spaces, objects_per_space")):
            done = self.host.ctl("create", "--limit", limit)
            self.assertEqual(done.returncode, 2, (limit, done.stderr))
            self.assertIn(says, done.stderr)

    def test_errors_of_the_daemon_have_their_exit_status(self):
        for arguments, status in ((["inspect", "nothing"], 4), (["create", "--name", "a b"], 2),
                                  (["destroy", "nothing"], 4), (["inspect", "a/../b"], 4),
                                  (["log", "proof", "--index", "1000000"], 2)):
            done = self.host.ctl(*arguments)
            self.assertEqual(done.returncode, status, (arguments, done.stderr))
            self.assertTrue(done.stderr.startswith("vtpmctl: " + arguments[0]), done.stderr)

    def test_attest_and_verify(self):
        instance, evidence, policy = self.create(), self.path("evidence.json"), self.path("policy.json")
        self.ok("attest", instance, "--nonce", NONCE, "--fresh", "-o", evidence)
        with open(policy, "w", encoding="utf-8") as file:
            file.write(self.ok("policy", "from-evidence", evidence))
        verified = self.host.ctl("verify", evidence, "--policy", policy, "--nonce", NONCE)
        self.assertEqual(verified.returncode, 0, verified.stdout + verified.stderr)
        self.assertEqual(verified.stdout.splitlines()[-2:], ["anchor: software, not hardware", "verdict: VERIFIED"])
        refused = self.host.ctl("verify", evidence, "--policy", policy, "--nonce", NONCE[::-1])
        self.assertEqual(refused.returncode, 1)

    def test_a_statement_is_measured_and_in_the_evidence(self):
        instance = self.create()
        self.ok("measure", instance, "--digest", "AB" * 32, "--description", "scanned: clean")
        document = json.loads(self.ok("attest", instance, "--nonce", NONCE))
        self.assertIn("scanned: clean", json.dumps(document))
        done = self.host.ctl("measure", instance, "--pcr", "16", "--digest", "ab" * 32, "--description", "x")
        self.assertEqual(done.returncode, 2, done.stderr)

    def test_log_and_anchor(self):
        self.create()
        size = json.loads(self.ok("log", "head", "--json"))["size"]
        self.assertGreaterEqual(size, 2)
        self.assertIn("host.start", self.ok("log", "entries", "--start", "0", "--count", "1"))
        self.assertIn("path", json.loads(self.ok("--json", "log", "proof", "--index", "0", "--size", str(size))))
        self.assertIn("path", json.loads(self.ok("--json", "log", "proof", "--from", "1", "--to", str(size))))
        self.assertIn("software, not hardware", self.ok("anchor"))

    def test_attach_use_detach(self):
        instance, node = self.create(), self.path("node")
        self.ok("attach", instance, "--path", node)
        self.addCleanup(subprocess.run, ["umount", "-q", node], check=False, stderr=subprocess.DEVNULL)
        self.assertTrue(stat.S_ISREG(os.stat(node).st_mode))
        random = subprocess.run(["tpm2_getrandom", "-T", "device:" + node, "--hex", "8"], check=True,
                                stdout=subprocess.PIPE, text=True, timeout=60).stdout
        self.assertTrue(re.fullmatch(r"[0-9a-f]{16}\n?", random), random)
        self.assertIn(node, self.ok("inspect", instance))
        taken = self.host.ctl("attach", instance, "--path", node)
        self.assertEqual(taken.returncode, 4)
        self.assertIn("is there already", taken.stderr)
        self.ok("detach", instance)
        self.assertFalse(os.path.exists(node))
        self.assertNotIn(node, self.ok("inspect", instance))

    def test_a_tpm_whose_engine_died_says_what_to_do(self):
        instance, node = self.create(), self.path("node")
        os.kill(json.loads(self.ok("--json", "inspect", instance))["pid"], signal.SIGKILL)
        vtpm_host.wait_for(lambda: "signal 9" in self.ok("inspect", instance), "how the engine ended")
        refused = self.host.ctl("attach", instance, "--path", node)
        self.assertEqual(refused.returncode, 4)
        self.assertIn("signal 9", refused.stderr)
        self.assertIn("its TPM is lost: destroy it and create another", refused.stderr)
        self.assertNotIn("another name", refused.stderr)

    def test_the_node_of_a_dead_tpm_is_detached_all_the_same(self):
        for gone in (False, True):
            instance, node = self.create(), self.path("node")
            self.ok("attach", instance, "--path", node)
            os.kill(json.loads(self.ok("--json", "inspect", instance))["pid"], signal.SIGKILL)
            vtpm_host.wait_for(
                lambda i=instance: json.loads(self.ok("--json", "inspect", i))["state"] == "failed", "the end")
            with self.assertRaises(OSError) as dead:
                os.stat(node)
            self.assertEqual(dead.exception.errno, errno.ENOTCONN)
            another = self.create()
            refused = self.host.ctl("attach", another, "--path", node)
            self.assertEqual(refused.returncode, 4)
            self.assertIn("a vTPM's node; `vtpmctl detach` removes it", refused.stderr)
            if gone:
                self.ok("destroy", instance)
            done = self.host.ctl("detach", instance, "--path", node)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stderr, re.escape(node) + " is removed, although .*" + instance)
            self.assertFalse(os.path.lexists(node))
            self.ok("attach", another, "--path", node)
            self.ok("detach", another)
            self.assertEqual(self.host.ctl("detach", instance, "--path", node).returncode, 4)

    def test_attach_to_nothing_leaves_nothing(self):
        node = self.path("orphan")
        self.assertEqual(self.host.ctl("attach", "nothing", "--path", node).returncode, 4)
        self.assertFalse(os.path.exists(node))

    def test_detach_removes_only_its_own(self):
        instance, other = self.create(), self.path("other")
        with open(other, "w", encoding="utf-8") as file:
            file.write("precious")
        self.assertEqual(self.host.ctl("detach", instance, "--path", other).returncode, 4)
        self.assertTrue(os.path.exists(other))
        self.assertEqual(self.host.ctl("detach", instance).returncode, 4)

    def test_destroy_takes_the_nodes_along(self):
        first, second, node = self.create(), self.create(), self.path("doomed")
        self.ok("attach", first, "--path", node, "--raw")
        done = self.host.ctl("destroy", first, "nothing", second)
        self.assertEqual(done.returncode, 4)
        self.assertIn("nothing", done.stderr)
        self.assertFalse(os.path.exists(node))
        listed = self.ok("list")
        self.assertNotIn(first, listed)
        self.assertNotIn(second, listed)

    def test_events_are_streamed(self):
        command = [self.host.program("vtpmctl"), "--runtime-dir", self.host.run_dir, "events"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as events:
            try:
                # Instances are made until the stream, which begins a moment after the process, tells of one.
                os.set_blocking(events.stdout.fileno(), False)
                seen = []
                vtpm_host.wait_for(lambda: self.create() and seen.extend(events.stdout.readlines()) or seen,
                                   "an event")
                self.assertEqual(json.loads(seen[0])["event"], "instance.create")
            finally:
                events.kill()

    def test_doctor_says_software(self):
        done = self.host.ctl("doctor")
        self.assertIn("software, not hardware", done.stdout)
        self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("SKIPPED: needs root, to run vtpmd as another user and to make device nodes")
        sys.exit(77)
    if not os.path.exists("/dev/fuse") or shutil.which("tpm2_getrandom") is None:
        print("SKIPPED: needs /dev/fuse and tpm2-tools")
        sys.exit(77)
    unittest.main(verbosity=2)
