#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""vtpm-hook alone, as a runtime that misbehaves would run it: malformed states, wrong stages, nobody at the socket."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

HOOK = os.path.join(os.environ["VTPM_BIN_DIR"], "vtpm-hook")


def run(arguments, text, runtime_dir="/nonexistent"):
    return subprocess.run([HOOK, "--runtime-dir", runtime_dir, *arguments], input=text, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)


def state(**members):
    document = {"ociVersion": "1.0.2", "id": "c1", "status": "creating", "pid": os.getpid(), "bundle": "/nonexistent",
                "annotations": {"dev.vtpm.enable": "true"}}
    document.update(members)
    return json.dumps({key: value for key, value in document.items() if value is not None})


class Hook(unittest.TestCase):
    def refused(self, text, *words, stage="createRuntime"):
        done = run([stage], text)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_malformed_states_are_refused_by_name(self):
        for text, word in (("", "OCI state"), ("{", "OCI state"), ("[]", "OCI state"), ("{}", "id"),
                           (state(id=7), "id"), (state(bundle="relative"), "bundle"), (state(pid="1"), "pid"),
                           (state(annotations={"dev.vtpm.enable": "maybe"}), "dev.vtpm.enable"),
                           (state(annotations={"dev.vtpm.enable": "true", "dev.vtpm.x": ""}), "dev.vtpm.x"),
                           ("{" * 100000, "OCI state"), (" " * (5 << 20), "larger than")):
            with self.subTest(text=text[:80]):
                self.refused(text, word)

    def test_a_process_that_is_no_container_is_refused(self):
        self.refused(state(pid=None), "no pid")
        self.refused(state(pid=0), "no pid")
        self.refused(state(), "no mount namespace of its own")
        ended = subprocess.Popen(["true"])
        ended.wait()
        self.refused(state(pid=ended.pid), "c1")

    def test_prestart_is_createRuntime(self):
        self.refused(state(), "no mount namespace of its own", stage="prestart")

    def test_no_annotation_does_nothing(self):
        for annotations in (None, {}, {"dev.vtpm.enable": "false"}, {"dev.vtpm.name": "x"}):
            for stage in ("createRuntime", "prestart", "poststop"):
                done = run([stage], state(annotations=annotations))
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_the_cdi_option_asks_without_an_annotation(self):
        done = run(["--enable", "createRuntime"], state(annotations=None))
        self.assertEqual(done.returncode, 1)
        self.assertIn("no mount namespace of its own", done.stderr)

    def test_stages(self):
        for stage in ("createContainer", "startContainer", "poststart"):
            self.assertEqual(run([stage], "").returncode, 0)
        for arguments in ([], ["postMortem"], ["createRuntime", "poststop"], ["--what", "poststop"]):
            done = run(arguments, state())
            self.assertEqual(done.returncode, 2)
            self.assertIn("usage: vtpm-hook", done.stderr)
        self.assertEqual(run(["--help"], "").returncode, 0)

    def test_poststop_never_fails_but_says_why(self):
        done = run(["poststop"], state(pid=None))
        self.assertEqual(done.returncode, 0)
        self.assertIn("attach.sock", done.stderr)
        self.assertEqual(run(["poststop"], "rubbish").returncode, 0)

    def test_when_standard_error_is_lost_the_parents_gets_the_message(self):
        # The parent of the hook is a program here, as crun would be, whose standard error is a file.
        parent = "import subprocess, sys; subprocess.run(sys.argv[1:], stderr=subprocess.DEVNULL)"
        with tempfile.TemporaryFile("w+") as error:
            subprocess.run([sys.executable, "-c", parent, HOOK, "createRuntime"], input="{}", text=True,
                           stderr=error, check=True, timeout=60)
            error.seek(0)
            self.assertIn("vtpm-hook: createRuntime: OCI state", error.read())


if __name__ == "__main__":
    unittest.main(verbosity=2)
