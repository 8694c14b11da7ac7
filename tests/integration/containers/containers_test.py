#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""containers_test.py RUNTIME: containers get their own TPM, and lose it when they end.

Run by CTest as root, with VTPM_BIN_DIR and VTPM_SOURCE_DIR."""

import json
import os
import re
import shutil
import subprocess
import sys
import unittest

SOURCE = os.environ["VTPM_SOURCE_DIR"]
sys.path.insert(0, os.path.join(SOURCE, "tests", "support"))
import oci_runtime  # noqa: E402
import vtpm_host  # noqa: E402

RUNTIME = "runc"
TPM_TOOLS = """set -e
test -f /dev/vtpm
test -f /dev/tpmrm0
test -f /dev/tpm0
tpm2_getrandom --hex 16; echo
tpm2_pcrread sha256:16,17
tpm2_createprimary -C e -G ecc -c /tmp/primary.ctx
tpm2_flushcontext -t 2>/dev/null || true
echo complete
"""
# A key at a persistent handle and a value in NV; the same, found again; and the digest of the EK.
KEEP = """set -e
tpm2_createprimary -C o -G ecc -c /tmp/key.ctx >/dev/null
tpm2_evictcontrol -C o -c /tmp/key.ctx 0x81000010 >/dev/null
tpm2_nvdefine 0x01800010 -C o -s 10 -a 'ownerread|ownerwrite' >/dev/null
printf 'kept in NV' | tpm2_nvwrite 0x01800010 -C o -i -
"""
FIND = """set -e
tpm2_readpublic -c 0x81000010 >/dev/null
tpm2_nvread 0x01800010 -C o -s 10; echo
"""
EK = """tpm2_readpublic -c 0x81010001 -o /tmp/ek.pub >/dev/null
echo EK $(sha256sum < /tmp/ek.pub)
"""


def reason_to_skip():
    if os.geteuid() != 0:
        return "containers need root"
    for program in (RUNTIME, "runc", "setpriv", "unshare", "tpm2", "busybox"):
        if shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
            return program + " is not installed"
    if not os.path.exists("/dev/fuse"):
        return "/dev/fuse is missing"
    return None


def mounts(directory):
    """The mount points below the directory in this mount namespace, as (place, type, source)."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        rows = [line.split() for line in file]
    found = [(row[4], row[row.index("-") + 1], row[row.index("-") + 2]) for row in rows]
    return sorted(mount for mount in found if (mount[0] + "/").startswith(directory + "/"))


class Containers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.host = vtpm_host.Host()
        cls.mounts_before = mounts(cls.host.directory)
        cls.rootfs = os.path.join(cls.host.directory, "rootfs")
        cls.addClassCleanup(cls.host.close)
        subprocess.run([os.path.join(SOURCE, "tests/support/make_rootfs.sh"), cls.rootfs], check=True)

    def setUp(self):
        self.host.start()
        self.addCleanup(self.host.stop)
        self.started = []
        self.addCleanup(self.delete_containers)

    def tearDown(self):
        self.delete_containers()
        self.assertEqual(mounts(self.host.directory), self.mounts_before, "mounts leak on the host")

    def delete_containers(self):
        while self.started:
            self.runtime("delete", "--force", self.started.pop())

    def runtime(self, *arguments, **options):
        command = oci_runtime.command(RUNTIME, "--root", os.path.join(self.host.directory, "runtime"), *arguments)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.STDOUT)
        return subprocess.run(command, check=False, stdin=subprocess.DEVNULL, text=True,
                              timeout=vtpm_host.DEADLINE, **options)

    def bundle(self, name, *command, options=()):
        path = os.path.join(self.host.directory, "bundle-" + name)
        subprocess.run([os.path.join(SOURCE, "tests/support/make_bundle.py"), path, "--rootfs", self.rootfs,
                        "--hook", self.host.program("vtpm-hook"), "--runtime-dir", self.host.run_dir, *options,
                        "--", *command], check=True)
        return path

    def name(self, suffix):
        name = f"vtpm-{os.getpid()}-{suffix}"
        self.started.append(name)
        return name

    def run_container(self, suffix, script, *options):
        name = self.name(suffix)
        return self.runtime("run", "--bundle", self.bundle(suffix, "sh", "-c", script, options=options), name)

    def start_container(self, suffix, *options):
        """A container that sleeps, not for ever: nothing ends it if this script is killed. Its output goes to a file, so that nobody waits for a pipe."""
        name = self.name(suffix)
        bundle = self.bundle(suffix, "sleep", "300", options=options)
        with open(os.path.join(self.host.directory, suffix + ".out"), "w+b") as output:
            started = self.runtime("run", "--detach", "--bundle", bundle, name, stdout=output, stderr=output)
            output.seek(0)
            self.assertEqual(started.returncode, 0, output.read())
        return name

    def instances(self):
        listed = self.host.ctl("--json", "list")
        self.assertEqual(listed.returncode, 0, listed.stderr)
        document = json.loads(listed.stdout)
        return document["instances"] if isinstance(document, dict) else document

    def wait_for_no_instance(self):
        vtpm_host.wait_for(lambda: self.instances() == [], "the instance to be gone")

    def test_tools_find_the_tpm_with_no_configuration(self):
        first = self.run_container("first", TPM_TOOLS)
        self.assertEqual(first.returncode, 0, first.stdout + self.host.log_text())
        self.assertIn("complete", first.stdout)
        launch = re.search(r"17\s*: 0x([0-9A-F]{64})", first.stdout).group(1)
        self.assertNotIn(launch, ("0" * 64, "F" * 64), "the launch was not measured")
        second = self.run_container("second", TPM_TOOLS)
        self.assertEqual(second.returncode, 0, second.stdout)
        keys = [re.search(r"^x: (\w+)", run.stdout, re.M).group(1) for run in (first, second)]
        self.assertNotEqual(keys[0], keys[1], "two containers have one TPM")

    def test_two_containers_do_not_see_each_other(self):
        first, second = self.start_container("one"), self.start_container("two")
        extend = "tpm2_pcrextend 16:sha256=" + "11" * 32
        self.assertEqual(self.runtime("exec", first, "sh", "-c", extend).returncode, 0)
        values = [self.runtime("exec", name, "tpm2_pcrread", "sha256:16").stdout for name in (first, second)]
        self.assertNotIn("0x" + "0" * 64, values[0])
        self.assertIn("0x" + "0" * 64, values[1])
        self.assertEqual(sorted(i["container"] for i in self.instances()), sorted([first, second]))

    def test_no_annotation_no_node_even_without_vtpmd(self):
        self.host.stop()
        run = self.run_container("plain", "test ! -e /dev/vtpm && test ! -e /dev/tpmrm0 && echo none",
                                 "--annotation", "dev.vtpm.enable=")
        self.assertEqual((run.returncode, run.stdout.strip()), (0, "none"))

    def test_instance_is_gone_after_the_end_without_poststop(self):
        run = self.run_container("ends", "tpm2_getrandom --hex 4", "--no-poststop")
        self.assertEqual(run.returncode, 0, run.stdout)
        self.wait_for_no_instance()

    def test_instance_is_gone_after_poststop(self):
        run = self.run_container("stops", "tpm2_getrandom --hex 4")
        self.assertEqual(run.returncode, 0, run.stdout)
        self.wait_for_no_instance()

    def test_instance_is_gone_when_the_container_is_killed(self):
        name = self.start_container("killed", "--no-poststop")
        self.assertEqual(len(self.instances()), 1)
        self.assertEqual(self.runtime("kill", name, "KILL").returncode, 0)
        self.wait_for_no_instance()

    def test_no_start_and_a_clear_error_when_vtpmd_is_down(self):
        self.host.stop()
        run = self.run_container("down", "echo started")
        self.assertNotEqual(run.returncode, 0)
        self.assertNotIn("started", run.stdout.splitlines())
        self.assertIn("vtpm-hook: createRuntime: no TPM for container", run.stdout)
        self.assertIn("start vtpmd", run.stdout)

    def test_user_namespace(self):
        run = self.run_container("userns", "cat /proc/self/uid_map; " + TPM_TOOLS, "--userns", "100000")
        self.assertEqual(run.returncode, 0, run.stdout)
        self.assertRegex(run.stdout, r"0\s+100000\s+65536")
        self.assertIn("complete", run.stdout)

    def test_read_only_root(self):
        run = self.run_container("readonly", "! touch /file 2>/dev/null && " + TPM_TOOLS, "--readonly")
        self.assertEqual(run.returncode, 0, run.stdout)
        self.assertIn("complete", run.stdout)

    def test_only_dev_vtpm_when_asked_so(self):
        script = "test -f /dev/vtpm && test ! -e /dev/tpmrm0 && test ! -e /dev/tpm0 && " \
                 "tpm2_getrandom -T device:/dev/vtpm --hex 4 && echo only"
        run = self.run_container("names", script, "--annotation", "dev.vtpm.device-names=vtpm")
        self.assertEqual(run.returncode, 0, run.stdout)
        self.assertIn("only", run.stdout)

    def test_a_device_that_is_there_already_is_not_covered(self):
        run = self.run_container("conflict", "echo started", "--bind", "/dev/null:/dev/tpm0")
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("/dev/tpm0 is there already", run.stdout)
        self.wait_for_no_instance()

    def test_what_is_not_built_yet_does_not_start_with_less(self):
        run = self.run_container("policy", "echo started", "--annotation", "dev.vtpm.require-policy=/p")
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("not supported by this version", run.stdout)

    def test_a_durable_tpm_has_its_keys_and_nv_in_the_next_container(self):
        options = ["--annotation", "dev.vtpm.durable=true", "--annotation", "dev.vtpm.name=kept"]
        first = self.run_container("durable1", KEEP + EK, *options)
        self.assertEqual(first.returncode, 0, first.stdout + self.host.log_text())
        vtpm_host.wait_for(lambda: self.instances()[0]["state"] == "stopped", "the instance to be stopped")
        kept = self.instances()
        self.assertEqual([(i["name"], i["durable"]) for i in kept], [("kept", True)])
        second = self.run_container("durable2", FIND + EK, *options)
        self.assertEqual(second.returncode, 0, second.stdout + self.host.log_text())
        self.assertIn("kept in NV", second.stdout)
        ek = re.compile(r"^EK ([0-9a-f]{64})", re.M)
        self.assertEqual(ek.search(first.stdout).group(1), ek.search(second.stdout).group(1))
        again = self.instances()
        self.assertEqual([i["ek_name"] for i in again], [i["ek_name"] for i in kept])
        self.assertNotEqual(again[0]["log_index"], kept[0]["log_index"])
        self.host.stop()
        self.host.start()
        third = self.run_container("durable3", FIND, *options)
        self.assertIn("kept in NV", third.stdout, self.host.log_text())
        self.assertEqual(self.host.ctl("destroy", "kept").returncode, 0)
        self.wait_for_no_instance()

    def test_the_container_cannot_remove_its_node(self):
        run = self.run_container("stay", "rm -f /dev/vtpm 2>/dev/null; umount /dev/vtpm 2>/dev/null; "
                                         "tpm2_getrandom -T device:/dev/vtpm --hex 4 && echo still")
        self.assertIn("still", run.stdout)


if __name__ == "__main__":
    RUNTIME = sys.argv.pop(1) if len(sys.argv) > 1 else RUNTIME
    WHY_NOT = reason_to_skip()
    if WHY_NOT:
        print("SKIPPED:", WHY_NOT)
        sys.exit(77)
    unittest.main(verbosity=2)
