# SPDX-License-Identifier: Apache-2.0
"""What the integration scripts share: a vtpmd of their own, run by an ordinary user, and vtpmctl."""

import os
import shutil
import signal
import subprocess
import tempfile
import time

BIN = os.environ.get("VTPM_BIN_DIR", "")
SOURCE = os.environ.get("VTPM_SOURCE_DIR", "")
UID = 64901  # nobody's: an ordinary user without an account
DEADLINE = 60


def wait_for(condition, what):
    """Until condition() is true; what it waits for decides, not the clock."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited too long for " + what)
        time.sleep(0.02)


class Host:
    """A directory with a vtpmd, copies of the programs (the build tree may be unreadable to its user) and sockets."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="vtpm-it-")
        os.chmod(self.directory, 0o755)
        self.bin = os.path.join(self.directory, "bin")
        self.state = os.path.join(self.directory, "state")
        self.run_dir = os.path.join(self.directory, "run")
        for path in (self.bin, self.state, self.run_dir):
            os.mkdir(path)
            os.chmod(path, 0o755)
        os.chmod(self.state, 0o700)
        for path in (self.state, self.run_dir):
            os.chown(path, UID, UID)
        for name in ("vtpmd", "vtpm-engine", "vtpm-hook", "vtpmctl"):
            shutil.copy(os.path.join(BIN, name), self.bin)
        self.log = os.path.join(self.directory, "vtpmd.log")
        self.daemon = None

    def program(self, name):
        return os.path.join(self.bin, name)

    def start(self, anchor="embedded"):
        # It ends with this script, however that ends.
        command = ["setpriv", "--pdeathsig", "KILL", f"--reuid={UID}", f"--regid={UID}", "--clear-groups",
                   "--inh-caps=-all", "--bounding-set=-all", self.program("vtpmd"), "--state-dir", self.state,
                   "--runtime-dir", self.run_dir, "--anchor", anchor]
        with open(self.log, "ab") as log:
            self.daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(lambda: self.daemon.poll() is not None or self.ctl("anchor").returncode == 0, "vtpmd to serve")
        if self.daemon.poll() is not None:
            raise AssertionError("vtpmd ended at once:\n" + self.log_text())

    def stop(self):
        if self.daemon is None:
            return
        if self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
        self.daemon.wait(timeout=DEADLINE)
        self.daemon = None

    def close(self):
        try:
            self.stop()
        finally:
            self.end_left_overs()
            shutil.rmtree(self.directory, ignore_errors=True)

    def end_left_overs(self):
        """What outlives a vtpmd that did not end in order: the keeper and engines, which are copies of our own."""
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/exe").startswith(self.bin + "/"):
                    os.kill(int(pid), signal.SIGKILL)
            except OSError:
                pass

    def log_text(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def http(self, method, target):
        """The body of an answer of vtpmd's HTTP API."""
        return subprocess.run(["curl", "-sS", "--fail", "-X", method, "--unix-socket",
                               os.path.join(self.run_dir, "vtpmd.sock"), "http://vtpmd" + target], check=True,
                              stdout=subprocess.PIPE, text=True, timeout=DEADLINE).stdout

    def ctl(self, *arguments, **options):
        return subprocess.run([self.program("vtpmctl"), "--runtime-dir", self.run_dir, *arguments], check=False,
                              stdin=options.get("stdin", subprocess.DEVNULL), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=DEADLINE, **{
                                  k: v for k, v in options.items() if k != "stdin"})
