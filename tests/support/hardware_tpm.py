# SPDX-License-Identifier: Apache-2.0
"""A swtpm as a host's hardware TPM, with EKs that its manufacturer (swtpm's local CA) has certified."""

import os
import shutil
import subprocess

import vtpm_host

PROGRAMS = ("swtpm", "swtpm_setup", "swtpm_localca")


def missing():
    """The first program that is not installed, or None."""
    return next((name for name in PROGRAMS if shutil.which(name) is None), None)


class Manufacturer:
    """A CA of its own in `directory`, which the user vtpm_host.UID may use."""

    def __init__(self, directory):
        self.directory = directory
        os.mkdir(directory)
        os.chown(directory, vtpm_host.UID, vtpm_host.UID)
        self.config = os.path.join(directory, "setup.conf")
        self.write("ca.conf", statedir=directory, signingkey=os.path.join(directory, "signkey.pem"),
                   issuercert=self.path("issuercert.pem"), certserial=os.path.join(directory, "serial"))
        with open(self.path("ca.options"), "w", encoding="ascii") as file:
            file.write("--platform-manufacturer Test\n--platform-version 1\n--platform-model T\n")
        self.write("setup.conf", create_certs_tool=shutil.which("swtpm_localca"),
                   create_certs_tool_config=self.path("ca.conf"),
                   create_certs_tool_options=self.path("ca.options"), active_pcr_banks="sha256")

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, **values):
        with open(self.path(name), "w", encoding="ascii") as file:
            file.writelines(f"{key} = {value}\n" for key, value in values.items())

    @property
    def root(self):
        return self.path("swtpm-localca-rootca-cert.pem")

    @property
    def intermediate(self):
        return self.path("issuercert.pem")

    def make_tpm(self, directory):
        """A new, started TPM with its state and sockets in `directory`."""
        os.mkdir(directory)
        os.chown(directory, vtpm_host.UID, vtpm_host.UID)
        as_user = ["setpriv", f"--reuid={vtpm_host.UID}", f"--regid={vtpm_host.UID}", "--clear-groups"]
        done = subprocess.run([*as_user, "swtpm_setup", "--tpm2", "--tpmstate", directory, "--create-ek-cert",
                               "--config", self.config], check=False, cwd=directory, stdin=subprocess.DEVNULL,
                              env={**os.environ, "HOME": directory}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise AssertionError("swtpm_setup failed:\n" + done.stdout)
        return Tpm(directory, as_user)


class Tpm:
    def __init__(self, directory, as_user):
        self.socket = os.path.join(directory, "swtpm")
        self.process = subprocess.Popen(
            [*as_user, "--pdeathsig", "KILL", "swtpm", "socket", "--tpm2", "--tpmstate", "dir=" + directory, "--flags",
             "startup-clear", "--server", "type=unixio,path=" + self.socket, "--ctrl",
             "type=unixio,path=" + self.socket + ".ctrl"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        vtpm_host.wait_for(lambda: self.process.poll() is not None or os.path.exists(self.socket + ".ctrl"), "swtpm")

    @property
    def tcti(self):
        return "swtpm:path=" + self.socket

    def close(self):
        self.process.kill()
        self.process.wait()
