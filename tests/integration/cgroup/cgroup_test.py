#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cgroup_test.py RUNTIME VIEW: a container pays for its own TPM when it is asked so.

VIEW is `mounted`, the host's cgroups as they are mounted, or `unified`, the version 2 hierarchy alone. Run by CTest as
root, with VTPM_BIN_DIR and VTPM_SOURCE_DIR."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import unittest

SOURCE = os.environ["VTPM_SOURCE_DIR"]
sys.path.insert(0, os.path.join(SOURCE, "tests", "support"))
import oci_runtime  # noqa: E402
import vtpm_host  # noqa: E402

RUNTIME, VIEW = "runc", "mounted"
VIEWS = {
    "unified": 'umount -R -l /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"',
    "mounted": oci_runtime.PLAIN_CGROUPS,
}
ASKED = ("--annotation", "dev.vtpm.cgroup=container")
DURABLE = ("--annotation", "dev.vtpm.durable=true", "--annotation", "dev.vtpm.name=paid")
PERIOD_US = 5000


def cgroup_mounts():
    """(mount point, type, controllers) of each hierarchy here."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        rows = [line.split() for line in file]
    rows = [row for row in rows if row[3] == "/" and row[row.index("-") + 1] in ("cgroup", "cgroup2")]
    return [(row[4], row[row.index("-") + 1], row[-1].split(",")) for row in rows]


def hierarchy():
    """Where the test finds the hierarchy that pays, as the hook chooses it in its view, and whether it is version 2."""
    mounts = cgroup_mounts()
    cpu = [point for point, kind, controllers in mounts if kind == "cgroup" and "cpu" in controllers]
    if VIEW == "mounted" and cpu:
        return cpu[0], False
    unified = [point for point, kind, _ in mounts if kind == "cgroup2"]
    return (unified[0], True) if unified else (None, False)


def reason_to_skip():
    if os.geteuid() != 0:
        return "containers need root"
    for program in (RUNTIME, "runc", "setpriv", "unshare", "tpm2"):
        if shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
            return program + " is not installed"
    if not os.path.exists("/dev/fuse"):
        return "/dev/fuse is missing"
    point, _ = hierarchy()
    if point is None:
        return "no cgroup hierarchy for this view is mounted"
    probe = os.path.join(point, f"vtpm-probe-{os.getpid()}")
    try:
        os.mkdir(probe)
        os.rmdir(probe)
    except OSError as error:
        return f"no cgroup can be made in {point}: {error}"
    return None


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def is_there(pid):
    """And not only waits for its parent, which may be whoever has the orphans of a vtpmd that was killed."""
    try:
        return read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Cgroups(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.host = vtpm_host.Host()
        cls.addClassCleanup(cls.host.close)
        cls.rootfs = os.path.join(cls.host.directory, "rootfs")
        subprocess.run([os.path.join(SOURCE, "tests/support/make_rootfs.sh"), cls.rootfs], check=True)
        cls.point, cls.unified = hierarchy()

    def setUp(self):
        self.host.start()
        self.addCleanup(self.host.stop)
        self.started = []
        self.addCleanup(self.delete_containers)

    def delete_containers(self):
        while self.started:
            name = self.started.pop()
            self.runtime("resume", name)
            self.runtime("delete", "--force", name)

    def runtime(self, *arguments, **options):
        command = [RUNTIME, "--root", os.path.join(self.host.directory, "runtime"), *arguments]
        if RUNTIME == "crun" or VIEW == "unified":
            command = oci_runtime.in_view(VIEWS[VIEW], command)
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

    def start_container(self, suffix, *options):
        """Its name and the directory of its cgroup. It sleeps, not for ever: nothing ends it if this script is killed."""
        name = f"vtpm-{os.getpid()}-{suffix}"
        self.started.append(name)
        bundle = self.bundle(suffix, "sleep", "300", options=options)
        with open(os.path.join(self.host.directory, suffix + ".out"), "w+b") as output:
            started = self.runtime("run", "--detach", "--bundle", bundle, name, stdout=output, stderr=output)
            output.seek(0)
            self.assertEqual(started.returncode, 0, output.read().decode() + self.host.log_text())
        state = json.loads(self.runtime("state", name).stdout)
        return name, self.cgroup_of(state["pid"])

    def cgroup_of(self, pid):
        for line in read(f"/proc/{pid}/cgroup").splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0" if self.unified else "cpu" in controllers.split(","):
                return self.point + path
        raise AssertionError("no cgroup of process " + str(pid))

    def instance(self):
        listed = self.host.ctl("--json", "list")
        self.assertEqual(listed.returncode, 0, listed.stderr)
        instances = json.loads(listed.stdout)["instances"]
        self.assertLessEqual(len(instances), 1)
        return instances[0] if instances else None

    def assert_placed(self, cgroup):
        # A vtpmd that was killed before the keeper had its last engine is followed by one that starts another.
        vtpm_host.wait_for(lambda: self.instance()["state"] == "running", "the instance to run")
        instance = self.instance()
        self.assertIn(str(instance["pid"]), read(os.path.join(cgroup, "cgroup.procs")).split(), self.host.log_text())
        self.assertEqual(instance["cgroup"], "container")
        return instance["pid"]

    def used(self, cgroup):
        """A number that grows with the CPU time of the cgroup's processes."""
        if self.unified:
            return int(re.search(r"usage_usec (\d+)", read(os.path.join(cgroup, "cpu.stat"))).group(1))
        together = os.path.join(cgroup, "cpuacct.usage")
        if os.path.exists(together):
            return int(read(together))
        # Periods of a quota in which one of its processes ran.
        for name, value in (("period", PERIOD_US), ("quota", PERIOD_US // 2)):
            with open(os.path.join(cgroup, f"cpu.cfs_{name}_us"), "w", encoding="utf-8") as file:
                file.write(str(value))
        return int(re.search(r"nr_periods (\d+)", read(os.path.join(cgroup, "cpu.stat"))).group(1))

    def make_key_from_outside(self):
        """By a client on the host, so that the engine alone uses CPU time of the container's."""
        node = os.path.join(self.host.directory, "node")
        self.assertEqual(self.host.ctl("attach", self.instance()["id"], "--path", node).returncode, 0)
        made = subprocess.run(["tpm2_createprimary", "-Q", "-C", "o", "-G", "rsa2048", "-T", "device:" + node],
                              check=False, stderr=subprocess.PIPE, text=True, timeout=vtpm_host.DEADLINE)
        self.host.ctl("detach", node)
        self.assertEqual(made.returncode, 0, made.stderr)

    def wait_for_another_engine(self, pid):
        def another():
            instance = self.instance()
            return instance["state"] == "running" and instance["pid"] not in (pid, None)
        vtpm_host.wait_for(another, "another engine")

    def kill_engine(self, cgroup):
        pid = self.assert_placed(cgroup)
        os.kill(pid, signal.SIGKILL)
        self.wait_for_another_engine(pid)

    def kill_vtpmd(self):
        self.host.daemon.kill()
        self.host.daemon.wait()

    def assert_all_gone(self, cgroup, pid):
        self.assertFalse(os.path.exists(cgroup), f"{cgroup} is left")
        self.assertFalse(is_there(pid), "the engine is left")

    def test_the_container_pays_and_its_cgroup_is_gone_when_it_is(self):
        name, cgroup = self.start_container("pays", *ASKED)
        pid = self.assert_placed(cgroup)
        self.assertEqual(self.cgroup_of(pid), cgroup)
        self.assertRegex(self.host.ctl("inspect", self.instance()["id"]).stdout, r"(?m)^cgroup:?\s+container$")
        before = self.used(cgroup)
        self.make_key_from_outside()
        self.assertGreater(self.used(cgroup), before)
        self.assertEqual(self.runtime("kill", name, "KILL").returncode, 0)
        vtpm_host.wait_for(lambda: self.instance() is None, "the instance to be gone")
        self.assertEqual(self.runtime("delete", name).returncode, 0)
        self.assert_all_gone(cgroup, pid)

    def test_a_container_in_the_foreground_leaves_no_cgroup(self):
        bundle = self.bundle("front", "sh", "-c", "tpm2_getrandom --hex 8; cat /proc/1/cgroup", options=ASKED)
        name = f"vtpm-{os.getpid()}-front"
        run = self.runtime("run", "--bundle", bundle, name)
        self.assertEqual(run.returncode, 0, run.stdout)
        vtpm_host.wait_for(lambda: self.instance() is None, "the instance to be gone")
        left = [os.path.join(point, name) for point, _, _ in cgroup_mounts()]
        left = [path for path in left if os.path.exists(path)]
        if self.unified and RUNTIME == "runc":
            # runc 1.1 tries once, as soon as the container has ended: it may be a moment too early.
            for path in left:
                print(path, "was left behind empty", file=sys.stderr)
                os.rmdir(path)
        else:
            self.assertEqual(left, [])

    def test_a_container_that_is_deleted_while_its_tpm_works_leaves_no_cgroup(self):
        name, cgroup = self.start_container("busy", *ASKED)
        pid = self.assert_placed(cgroup)
        keys = "while :; do tpm2_createprimary -Q -C o -G rsa2048; done"
        with subprocess.Popen([RUNTIME, "--root", os.path.join(self.host.directory, "runtime"), "exec", name, "sh",
                               "-c", keys] if RUNTIME == "runc" and VIEW == "mounted" else ["true"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as worker:
            if worker.args != ["true"]:
                vtpm_host.wait_for(lambda: self.commands() > 20, "the TPM to be busy")
            self.assertEqual(self.runtime("delete", "--force", name).returncode, 0)
        vtpm_host.wait_for(lambda: self.instance() is None, "the instance to be gone")
        self.assert_all_gone(cgroup, pid)

    def commands(self):
        shown = json.loads(self.host.ctl("--json", "inspect", self.instance()["id"]).stdout)
        return shown["use"]["commands"] if shown["use"] else 0

    def test_the_next_engine_of_a_durable_tpm_is_there_too(self):
        name, cgroup = self.start_container("durable", *ASKED, *DURABLE)
        self.kill_engine(cgroup)
        self.assert_placed(cgroup)
        self.kill_vtpmd()
        self.host.start()
        self.kill_engine(cgroup)
        # Both die: the next vtpmd has the keeper's descriptor alone.
        pid = self.assert_placed(cgroup)
        self.kill_vtpmd()
        os.kill(pid, signal.SIGKILL)
        self.host.start()
        self.wait_for_another_engine(pid)
        pid = self.assert_placed(cgroup)
        self.assertEqual(self.runtime("kill", name, "KILL").returncode, 0)
        vtpm_host.wait_for(lambda: self.instance()["state"] == "stopped", "the instance to be stopped")
        self.assertIsNone(self.instance()["cgroup"])
        self.assertEqual(self.runtime("delete", name).returncode, 0)
        self.assert_all_gone(cgroup, pid)
        self.assertEqual(self.host.ctl("destroy", "paid").returncode, 0)

    def test_a_paused_container_pauses_its_tpm_and_nothing_else(self):
        if not self.unified:
            self.skipTest("the version 1 hierarchy of the CPU time does not freeze")
        name, cgroup = self.start_container("paused", *ASKED)
        pid = self.assert_placed(cgroup)
        instance = self.instance()["id"]
        self.assertEqual(self.runtime("pause", name).returncode, 0)
        for _ in range(2):
            attest = self.host.ctl("attest", instance, "--nonce", "11" * 16)
            self.assertNotEqual(attest.returncode, 0)
            self.assertIn("its container is paused", attest.stderr)
        self.kill_vtpmd()
        self.host.start()
        self.assertEqual(self.instance()["state"], "starting")
        self.assertEqual(self.runtime("resume", name).returncode, 0)
        vtpm_host.wait_for(lambda: self.instance()["state"] == "running", "the TPM to be taken back")
        self.assertEqual(self.assert_placed(cgroup), pid, self.host.log_text())
        attest = self.host.ctl("attest", instance, "--nonce", "11" * 16)
        self.assertEqual(attest.returncode, 0, attest.stderr)
        # A container that is ended while it is paused takes its TPM with it.
        self.assertEqual(self.runtime("pause", name).returncode, 0)
        self.assertEqual(self.runtime("delete", "--force", name).returncode, 0)
        vtpm_host.wait_for(lambda: self.instance() is None, "the instance to be gone")
        self.assert_all_gone(cgroup, pid)

    def test_nobody_asked(self):
        for options in ((), ("--annotation", "dev.vtpm.cgroup=daemon")):
            name, cgroup = self.start_container("plain" + str(len(options)), *options)
            instance = self.instance()
            self.assertEqual(instance["cgroup"], "daemon")
            self.assertNotIn(str(instance["pid"]), read(os.path.join(cgroup, "cgroup.procs")).split())
            self.assertEqual(self.cgroup_of(instance["pid"]), self.cgroup_of(self.host.daemon.pid))
            self.runtime("delete", "--force", name)
            vtpm_host.wait_for(lambda: self.instance() is None, "the instance to be gone")

    def test_another_value_is_refused(self):
        bundle = self.bundle("other", "echo", "started", options=("--annotation", "dev.vtpm.cgroup=/other"))
        run = self.runtime("run", "--bundle", bundle, f"vtpm-{os.getpid()}-other")
        self.assertNotEqual(run.returncode, 0)
        self.assertNotIn("started", run.stdout.splitlines())
        self.assertRegex(run.stdout, r'dev\.vtpm\.cgroup: must be .*container.* or .*daemon')
        self.assertIsNone(self.instance())


if __name__ == "__main__":
    RUNTIME, VIEW = sys.argv[1:3]
    WHY_NOT = reason_to_skip()
    if WHY_NOT:
        print("SKIPPED:", WHY_NOT)
        sys.exit(77)
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
