#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""clients_test.py CLIENT [PROGRAMS]: an unmodified TPM client in containers that have a TPM.

Each script of the folder CLIENT runs in a container of its own, and must end with status 0. PROGRAMS is a directory of
programs built for these tests, seen as /programs in the container. Run by CTest as root, with VTPM_BIN_DIR and
VTPM_SOURCE_DIR; VTPM_OCI_RUNTIME names another runtime than runc."""

import os
import shutil
import sys
import unittest

SOURCE = os.environ["VTPM_SOURCE_DIR"]
sys.path.insert(0, os.path.join(SOURCE, "tests", "support"))
import client_container  # noqa: E402

# Client -> the Debian packages that it is made of. Their versions are printed; one that is missing skips the test.
PACKAGES = {
    "tpm2_tools": ["tpm2-tools", "libtss2-esys-3.0.2-0", "libtss2-tcti-device0"],
    "esys": ["libtss2-esys-3.0.2-0", "libtss2-tcti-device0"],
    "fapi": ["tpm2-tools", "libtss2-fapi1", "libtss2-tcti-device0"],
    "openssl": ["tpm2-openssl", "openssl", "tpm2-tools"],
    "pkcs11": ["libtpm2-pkcs11-1", "libtpm2-pkcs11-tools", "opensc", "tpm2-tools"],
    "ibm_tss": ["tss2"],
    "pytss": ["python3-tpm2-pytss", "libtss2-esys-3.0.2-0"],
    "clevis": ["clevis", "clevis-tpm2", "tpm2-tools"],
    "systemd_creds": ["systemd", "libtss2-esys-3.0.2-0", "tpm2-tools"],
}
NEEDED = ["runc", client_container.RUNTIME, "setpriv", "openssl"]
PACKAGES["several_clients"] = sorted({name for names in PACKAGES.values() for name in names})
CLIENT = sys.argv[1]
INTERPRETERS = {".sh": "bash", ".py": "/usr/bin/python3"}


def scripts():
    """Name and path, as the container sees it, of each of the client's scripts."""
    folder = os.path.join(client_container.HERE, CLIENT)
    return [(os.path.splitext(name)[0], f"/clients/{CLIENT}/{name}") for name in sorted(os.listdir(folder))]


def reason_to_skip():
    if os.geteuid() != 0:
        return "containers need root"
    for program in NEEDED:
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            return program + " is not installed"
    if not os.path.exists("/dev/fuse"):
        return "/dev/fuse is missing"
    installed = {line.split()[0] for line in client_container.versions(PACKAGES[CLIENT])}
    missing = [package for package in PACKAGES[CLIENT] if package not in installed]
    if missing:
        return "not installed: " + " ".join(missing)
    return None


class Client(unittest.TestCase):
    """Its tests are added below, one for each script."""

    @classmethod
    def setUpClass(cls):
        cls.host = client_container.new_host()
        cls.addClassCleanup(cls.host.close)
        cls.containers = client_container.ClientContainers(cls.host, *sys.argv[2:3])

    def run_script(self, path):
        done = self.containers.run(INTERPRETERS[os.path.splitext(path)[1]], path)
        self.assertEqual(done.returncode, 0, f"{path}:\n{done.stdout}\nvtpmd:\n{self.host.log_text()}")
        print(done.stdout, end="")


def add_tests():
    found = scripts()
    if not found:
        sys.exit(CLIENT + " has no scripts")
    for name, path in found:
        setattr(Client, "test_" + name, lambda self, path=path: self.run_script(path))


if __name__ == "__main__":
    WHY_NOT = reason_to_skip()
    if WHY_NOT:
        print("SKIPPED:", WHY_NOT)
        sys.exit(77)
    print("\n".join(client_container.versions(PACKAGES[CLIENT])))
    add_tests()
    unittest.main(verbosity=2, argv=sys.argv[:1])
