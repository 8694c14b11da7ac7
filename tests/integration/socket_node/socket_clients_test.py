#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`vtpmctl attach --backend socket` with a real vtpmd, unmodified clients, and a container."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import unittest

SOURCE = os.environ["VTPM_SOURCE_DIR"]
sys.path.insert(0, os.path.join(SOURCE, "tests/support"))
sys.path.insert(0, os.path.join(SOURCE, "tests/integration/clients"))
import client_container  # noqa: E402
import vtpm_host  # noqa: E402

GET_RANDOM = bytes.fromhex("80010000000c0000017b0008")
# TPM2_CreatePrimary of an ECC storage key in the owner hierarchy, with the empty password.
CREATE_PRIMARY = bytes.fromhex(
    "8002 00000043 00000131 40000001 00000009 40000009 0000 00 0000 0004 0000 0000"
    "001a 0023 000b 00030072 0000 0006 0080 0043 0010 0003 0010 0000 0000 0000 00000000")
assert len(CREATE_PRIMARY) == 0x43
TOOLS = """set -e
export TPM2TOOLS_TCTI="cmd:socat - UNIX-CONNECT:$1"
cd "$(mktemp -d)"
tpm2_getrandom --hex 16
tpm2_createprimary -Q -C o -g sha256 -G ecc -c primary.ctx
tpm2_create -Q -C primary.ctx -G ecc -u key.pub -r key.priv
tpm2_load -Q -C primary.ctx -u key.pub -r key.priv -c key.ctx
echo message > message
tpm2_sign -Q -c key.ctx -g sha256 -o signature message
tpm2_verifysignature -Q -c key.ctx -g sha256 -m message -s signature
tpm2_pcrextend 16:sha256=$(printf %064d 1)
tpm2_pcrread sha256:16
tpm2_getcap handles-transient
echo all of it works
"""


def read_response(connection):
    data = b""
    while len(data) < 10 or len(data) < int.from_bytes(data[2:6], "big"):
        part = connection.recv(4096)
        if not part:
            return data
        data += part
    return data


def code(response):
    return int.from_bytes(response[6:10], "big")


class SocketNodes(unittest.TestCase):
    def setUp(self):
        self.host = client_container.new_host()
        self.addCleanup(self.host.close)
        os.chmod(self.host.directory, 0o777)  # the operator below makes sockets in it

    def path(self, name):
        return os.path.join(self.host.directory, name)

    def operator(self, *arguments):
        """vtpmctl as vtpmd's own user: an operator without any privilege."""
        user = vtpm_host.UID
        return subprocess.run(["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all",
                               "--bounding-set=-all", self.host.program("vtpmctl"), "--runtime-dir", self.host.run_dir,
                               *arguments], check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=60)

    def ok(self, *arguments):
        done = self.operator(*arguments)
        self.assertEqual(done.returncode, 0, f"{arguments}: {done.stderr}")
        return done.stdout

    def attached(self, name, *arguments, durable=False):
        """A TPM with a socket at that name; its id and the socket's path."""
        instance = self.ok("create", *(["--durable", "--name", name] if durable else [])).strip()
        path = self.path(name)
        self.ok("attach", instance, "--path", path, "--backend", "socket", *arguments)
        return instance, path

    def connect(self, path):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(connection.close)
        connection.settimeout(60)
        connection.connect(path)
        return connection

    def ask(self, connection, command):
        connection.sendall(command)
        return read_response(connection)

    def assert_refuses(self, path):
        with self.assertRaises((ConnectionRefusedError, FileNotFoundError)):
            self.connect(path)

    def nodes(self, instance):
        return json.loads(self.ok("inspect", instance, "--json"))["nodes"]

    def test_attach_and_detach_need_no_root_and_leave_nothing(self):
        instance, path = self.attached("tpm.sock")
        self.assertEqual([(n["kind"], n["backend"], n["path"], n["state"]) for n in self.nodes(instance)],
                         [("managed", "socket", path, "served")])
        raw = self.path("raw.sock")
        self.ok("attach", instance, "--path", raw, "--raw", "--backend", "socket")
        connection, other = self.connect(path), self.connect(raw)
        self.assertEqual(code(self.ask(connection, GET_RANDOM)), 0)
        self.assertEqual(code(self.ask(other, GET_RANDOM)), 0)
        self.ok("detach", instance, "--path", path)
        self.assertFalse(os.path.lexists(path))
        self.assertEqual(connection.recv(1), b"")
        self.assertEqual(code(self.ask(other, GET_RANDOM)), 0)
        self.assertEqual([n["path"] for n in self.nodes(instance)], [raw])
        self.ok("detach", instance)
        self.assertFalse(os.path.lexists(raw))
        self.assertEqual(other.recv(1), b"")
        self.assertEqual(self.nodes(instance), [])

    def test_destroy_removes_the_socket(self):
        instance, path = self.attached("tpm.sock")
        connection = self.connect(path)
        self.assertEqual(code(self.ask(connection, GET_RANDOM)), 0)
        self.ok("destroy", instance)
        self.assertFalse(os.path.lexists(path))
        self.assertEqual(connection.recv(1), b"")

    def test_what_is_in_the_way_or_cannot_be_is_refused_and_nothing_is_left(self):
        instance, path = self.attached("tpm.sock")
        done = self.operator("attach", instance, "--path", path, "--backend", "socket")
        self.assertEqual((done.returncode, os.path.lexists(path)), (4, True), done.stderr)
        self.assertIn("still listens on it", done.stderr)
        self.assertEqual(code(self.ask(self.connect(path), GET_RANDOM)), 0)
        done = self.operator("attach", instance, "--path", self.path("x" * 108), "--backend", "socket")
        self.assertEqual(done.returncode, 2)
        self.assertIn("at most 107 bytes", done.stderr)
        done = self.operator("attach", "no-such-tpm", "--path", self.path("other"), "--backend", "socket")
        self.assertEqual(done.returncode, 4)
        self.assertFalse(os.path.lexists(self.path("other")))

    def test_detach_takes_no_socket_that_is_somebody_elses(self):
        instance, path = self.attached("tpm.sock")
        mine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(mine.close)
        mine.bind(self.path("mine"))
        mine.listen()
        self.assertEqual(self.operator("detach", instance, "--path", self.path("mine")).returncode, 4)
        self.assertTrue(os.path.lexists(self.path("mine")))
        # Somebody has put another socket into its place.
        os.unlink(path)
        os.rename(self.path("mine"), path)
        done = self.operator("detach", instance, "--path", path)
        self.assertEqual(done.returncode, 4)
        self.assertIn("still listens", done.stderr)
        self.assertTrue(os.path.lexists(path))

    def left_over(self):
        """A socket on which nobody listens, since its TPM's engine has died; and that TPM."""
        instance, path = self.attached("tpm.sock")
        self.kill_engine(instance)
        vtpm_host.wait_for(lambda: json.loads(self.ok("inspect", instance, "--json"))["state"] == "failed", "the end")
        self.assert_refuses(path)
        return instance, path

    def test_a_socket_that_is_left_over_does_not_block_its_path(self):
        failed, path = self.left_over()
        another = self.ok("create").strip()
        self.ok("attach", another, "--path", path, "--backend", "socket")
        self.assertEqual(code(self.ask(self.connect(path), GET_RANDOM)), 0)
        # It is the other one's now.
        self.assertEqual(self.operator("detach", failed, "--path", path).returncode, 4)
        self.assertEqual(code(self.ask(self.connect(path), GET_RANDOM)), 0)

    def test_a_socket_that_is_left_over_can_be_detached(self):
        for gone in (False, True):
            instance, path = self.left_over()
            if gone:
                self.ok("destroy", instance)
            self.assertTrue(os.path.lexists(path))
            refused = self.operator("detach", instance)
            self.assertEqual(refused.returncode, 4)
            self.ok("detach", instance, "--path", path)
            self.assertFalse(os.path.lexists(path))
            self.assertEqual(self.operator("detach", instance, "--path", path).returncode, 4)

    def test_a_socket_is_its_makers_alone_if_nothing_else_is_said(self):
        _, path = self.attached("tpm.sock")
        info = os.lstat(path)
        self.assertEqual((info.st_mode, info.st_uid), (stat.S_IFSOCK | 0o600, vtpm_host.UID))
        instance, path = self.attached("group.sock", "--mode", "0660")
        self.assertEqual(os.lstat(path).st_mode, stat.S_IFSOCK | 0o660)
        for mode, backend in (("8", "socket"), ("0999", "socket"), ("1777", "socket"), ("u+w", "socket"),
                              ("660", "fuse")):
            done = self.operator("attach", instance, "--path", self.path("x"), "--mode", mode, "--backend", backend)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("--mode", done.stderr)
            self.assertFalse(os.path.lexists(self.path("x")))

    def test_tpm2_tools_work_over_socat_for_any_user(self):
        _, path = self.attached("tpm.sock", "--mode", "666")
        user = str(vtpm_host.UID + 1)
        done = subprocess.run(["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--inh-caps=-all",
                               "--bounding-set=-all", "sh", "-c", TOOLS, "sh", path], check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("all of it works", done.stdout)

    def test_a_client_that_connects_for_each_command_keeps_its_objects_on_a_raw_socket(self):
        """As go-tpm's linuxudstpm: connect, one write, one read, close."""
        _, path = self.attached("tpm.sock", "--raw")

        def once(command):
            with self.connect(path) as connection:
                connection.send(command)
                return connection.recv(4096)

        made = once(CREATE_PRIMARY)
        self.assertEqual(code(made), 0)
        for _ in range(20):
            self.assertEqual(code(once(bytes.fromhex("80010000000e00000173") + made[10:14])), 0)
        flushed = once(bytes.fromhex("80010000000e00000165") + made[10:14])
        self.assertEqual(code(flushed), 0)

    def test_in_a_container_with_the_socket_bind_mounted(self):
        _, path = self.attached("tpm.sock", "--mode", "666")
        script = self.path("tools.sh")
        with open(script, "w", encoding="ascii") as file:
            file.write(TOOLS)
        containers = client_container.ClientContainers(self.host)
        done = containers.run("sh", "/tools.sh", "/dev/vtpm.sock",
                              binds=[path + ":/dev/vtpm.sock", script + ":/tools.sh"])
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("all of it works", done.stdout)

    def test_made_in_another_mount_namespace(self):
        instance = self.ok("create").strip()
        control = [self.host.program("vtpmctl"), "--runtime-dir", self.host.run_dir]
        script = """set -e
mount -t tmpfs none /mnt
"$@" attach "$INSTANCE" --path /mnt/tpm.sock --backend socket
TPM2TOOLS_TCTI="cmd:socat - UNIX-CONNECT:/mnt/tpm.sock" tpm2_getrandom --hex 8
"$@" detach "$INSTANCE" --path /mnt/tpm.sock
test ! -e /mnt/tpm.sock"""
        done = subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *control],
                              check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
                              env={**os.environ, "INSTANCE": instance})
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertFalse(os.path.lexists("/mnt/tpm.sock"))

    def test_a_connection_lives_on_while_vtpmd_dies_and_the_next_one_can_end_it(self):
        instance, path = self.attached("tpm.sock")
        connection = self.connect(path)
        made = self.ask(connection, CREATE_PRIMARY)
        self.assertEqual(code(made), 0)
        self.host.daemon.kill()
        self.host.daemon.wait()
        self.assertEqual(code(self.ask(connection, GET_RANDOM)), 0)
        self.assertEqual(code(self.ask(self.connect(path), GET_RANDOM)), 0)
        self.host.start()
        self.assertEqual(code(self.ask(connection, bytes.fromhex("80010000000e00000173") + made[10:14])), 0)
        self.assertEqual([n["backend"] for n in self.nodes(instance)], ["socket"])
        self.ok("detach", instance, "--path", path)
        self.assertEqual(connection.recv(1), b"")
        self.assertFalse(os.path.lexists(path))

    def kill_engine(self, instance):
        pid = json.loads(self.ok("inspect", instance, "--json"))["pid"]
        os.kill(pid, signal.SIGKILL)
        return pid

    def test_the_next_engine_of_a_durable_tpm_serves_the_same_socket(self):
        instance, path = self.attached("tpm.sock", durable=True)
        connection = self.connect(path)
        self.assertEqual(code(self.ask(connection, GET_RANDOM)), 0)
        old = self.kill_engine(instance)
        self.assertEqual(connection.recv(1), b"")
        # Who comes in between waits.
        self.assertEqual(code(self.ask(self.connect(path), GET_RANDOM)), 0)
        vtpm_host.wait_for(lambda: json.loads(self.ok("inspect", instance, "--json"))["state"] == "running", "a reset")
        self.assertNotEqual(json.loads(self.ok("inspect", instance, "--json"))["pid"], old)
        # And again, with no vtpmd when the engine dies: the keeper has the socket.
        os.kill(self.host.daemon.pid, signal.SIGKILL)
        self.host.daemon.wait()
        connection = self.connect(path)
        self.assertEqual(code(self.ask(connection, GET_RANDOM)), 0)  # it is the engine's, not in the queue
        pids = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if self.is_engine(pid)]
        for pid in pids:
            os.kill(int(pid), signal.SIGKILL)
        self.assertEqual(connection.recv(1), b"")
        self.host.start()
        self.assertEqual(code(self.ask(self.connect(path), GET_RANDOM)), 0)
        self.ok("detach", instance, "--path", path)
        self.assertFalse(os.path.lexists(path))

    def is_engine(self, pid):
        """One of this host's instances, not the keeper: that one has an argument."""
        try:
            if os.readlink(f"/proc/{pid}/exe") != self.host.program("vtpm-engine"):
                return False
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return b"keeper" not in file.read()
        except OSError:
            return False

    def test_a_dead_engine_of_an_ephemeral_tpm_leaves_no_client_waiting(self):
        instance, path = self.attached("tpm.sock", "--raw")
        connection, waiting = self.connect(path), None
        self.assertEqual(code(self.ask(connection, GET_RANDOM)), 0)
        waiting = self.connect(path)
        waiting.sendall(GET_RANDOM)
        self.kill_engine(instance)
        self.assertEqual(connection.recv(1), b"")
        try:
            self.assertEqual(waiting.recv(1), b"")
        except ConnectionResetError:
            pass
        vtpm_host.wait_for(lambda: json.loads(self.ok("inspect", instance, "--json"))["state"] == "failed", "the end")
        self.assert_refuses(path)


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("skipped: containers and other users need root")
        sys.exit(77)
    for program in ("socat", "tpm2_getrandom", "runc", "setpriv"):
        if subprocess.run(["sh", "-c", f"command -v {program}"], stdout=subprocess.DEVNULL, check=False).returncode:
            print(f"skipped: {program} is not installed")
            sys.exit(77)
    unittest.main(verbosity=2)
