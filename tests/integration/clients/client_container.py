# SPDX-License-Identifier: Apache-2.0
"""Containers that have this machine's own programs in them, and a TPM.

Their /usr is the machine's, read-only, so that a client is the very file that Debian ships, with its libraries, plugins
and modules. What a client writes is its own: the root file system is a new directory for each container. No TCTI is
configured anywhere: a client finds the TPM where it looks by default."""

import os
import shutil
import subprocess

import oci_runtime
import vtpm_host

SOURCE = os.environ["VTPM_SOURCE_DIR"]
HERE = os.path.dirname(os.path.abspath(__file__))
# What of /etc the clients and the dynamic loader read. Copies, since some are links into what a container has not.
CONFIGURATION = ("ld.so.cache", "alternatives", "ssl/openssl.cnf", "tpm2-tss")
SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
RUNTIME = os.environ.get("VTPM_OCI_RUNTIME", "runc")
DEADLINE = 100  # seconds for what one container does


def make_root(root):
    """A root file system but for /usr, which is mounted."""
    for path in ("dev", "etc/ssl", "proc", "sys", "run", "root", "usr", "tmp", "var/lib", "clients"):
        os.makedirs(os.path.join(root, path))
    os.chmod(root, 0o755)
    for name in SYSTEM_LINKS:
        if os.path.islink("/" + name):
            os.symlink(os.readlink("/" + name), os.path.join(root, name))
    for name in CONFIGURATION:
        source, target = os.path.join("/etc", name), os.path.join(root, "etc", name)
        if os.path.isdir(source):
            shutil.copytree(source, target, symlinks=True)
        elif os.path.exists(source):
            shutil.copy(source, target)
    for name, line in (("passwd", "root:x:0:0:root:/root:/bin/sh"), ("group", "root:x:0:"),
                       ("hosts", "127.0.0.1 localhost")):
        with open(os.path.join(root, "etc", name), "w", encoding="ascii") as file:
            file.write(line + "\n")


class ClientContainers:
    """Runs programs in new containers, each with a TPM of its own."""

    def __init__(self, host, programs=""):
        """programs: a directory of the build's own programs, seen as /programs."""
        self.host = host
        self.programs = programs
        self.count = 0

    def runtime(self, *arguments):
        root = os.path.join(self.host.directory, "runtime")
        return subprocess.run(oci_runtime.command(RUNTIME, "--root", root, *arguments), check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", timeout=DEADLINE)

    def run(self, *command, binds=()):
        """Runs the command in a new container; subprocess.CompletedProcess with its output. binds: more to mount
        read-only, "SOURCE:DESTINATION"."""
        self.count += 1
        name = f"vtpm-client-{os.getpid()}-{self.count}"
        bundle = os.path.join(self.host.directory, name)
        root = os.path.join(bundle, "rootfs")
        make_root(root)
        binds = ["/usr:/usr", HERE + ":/clients", *binds]
        binds += [self.programs + ":/programs"] if self.programs else []
        options = [word for bind in binds for word in ("--bind-readonly", bind)]
        subprocess.run([os.path.join(SOURCE, "tests/support/make_bundle.py"), bundle, "--rootfs", root, "--hook",
                        self.host.program("vtpm-hook"), "--runtime-dir", self.host.run_dir, *options, "--", *command],
                       check=True)
        try:
            return self.runtime("run", "--bundle", bundle, name)
        finally:
            self.runtime("delete", "--force", name)
            shutil.rmtree(bundle, ignore_errors=True)


def versions(packages):
    """The clients' versions, as the machine's package database has them."""
    listed = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\n", *packages],
                            check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return [line.partition(" ")[2] for line in listed.stdout.splitlines() if line.startswith("installed ")]


def new_host():
    host = vtpm_host.Host()
    try:
        host.start()
    except BaseException:
        host.close()
        raise
    return host
