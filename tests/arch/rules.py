# SPDX-License-Identifier: Apache-2.0
"""The rules of the tree, as data: who may include whom, which headers and system calls belong where, what links what."""

LIBRARY = {"os", "json", "tpm", "space", "log", "evidence", "control", "device"}

# Component -> the other components it may include. A component of the library is both its public headers
# (libvtpm/include/vtpm/NAME/) and its sources (libvtpm/src/NAME/); json is internal. tests/ may include anything.
EDGES = {
    "os": set(),
    "json": {"os"},
    "tpm": {"os"},
    "space": {"os", "tpm"},
    "log": {"os", "tpm", "json"},
    "evidence": {"os", "tpm", "log", "json"},
    "control": {"os", "json"},
    "device": {"os", "json"},
    "daemon/ipc": LIBRARY,
    "daemon/engine": LIBRARY | {"daemon/ipc"},
    "daemon/tss": LIBRARY | {"daemon/ipc"},
    "daemon/identity": LIBRARY | {"daemon/ipc", "daemon/tss"},
    "daemon/anchor": LIBRARY | {"daemon/ipc", "daemon/tss", "daemon/identity"},
    "daemon/supervisor": LIBRARY | {"daemon/ipc", "daemon/tss", "daemon/identity", "daemon/anchor"},
    "cli": LIBRARY,
    "container-hooks": {"os", "json", "control", "device"},
    "examples": LIBRARY - {"json"},
}

# Beginning of a header's name -> (folders or files that may include it, why the others may not). tests/ may include all
# but what ONLY_HERE says of it.
HEADERS = [
    ("libtpms/", ["daemon/engine/"], "libtpms is process-global: it lives in engines only"),
    ("boost/asio", ["daemon/supervisor/", "libvtpm/src/control/http_client.cpp"], "Asio compiles slowly"),
    ("boost/beast", ["daemon/supervisor/", "libvtpm/src/control/http_client.cpp"], "Beast compiles slowly"),
    ("nlohmann/", ["libvtpm/src/", "daemon/", "cli/", "container-hooks/"], "JSON is in no public header"),
    ("tss2/", ["libvtpm/src/tpm/", "daemon/tss/", "daemon/identity/", "daemon/anchor/"],
     "tpm2-tss types stay behind the library's own"),
    ("openssl/", ["libvtpm/src/", "daemon/", "cli/"], "OpenSSL types are in no public header"),
    ("sqlite3.h", ["daemon/supervisor/"], "the registry is the supervisor's"),
    ("seccomp.h", ["daemon/engine/"], "the jail is the engine's"),
    ("CLI/", ["cli/", "daemon/supervisor/"], "options are parsed in programs"),
    ("sys/mount.h", ["libvtpm/src/os/"], "mounts are made in os/"),
    ("catch2/", [], "a test framework is for tests"),
]
# Headers that even tests leave to their owner.
ONLY_HERE = {"libtpms/"}

# System calls that only os/ makes, called by name or through syscall(2).
RAW_CALLS = {
    "setns", "unshare", "mount", "umount", "umount2", "fsopen", "fsconfig", "fsmount", "fspick", "move_mount",
    "open_tree", "mount_setattr", "pidfd_open", "pidfd_getfd", "pidfd_send_signal", "pivot_root",
}
RAW_CALLS_ALLOWED = ["libvtpm/src/os/"]

# Program -> shared libraries (a part of their name) that it must not load, directly or through another.
FORBIDDEN_LIBRARIES = {
    "vtpm-hook": ["libcrypto", "libssl", "libtss2", "libtpms", "libsqlite3"],
    "vtpmctl": ["libtpms", "libsqlite3", "libseccomp"],
    "vtpmd": ["libtpms"],
    "vtpm-engine": ["libsqlite3", "libtss2-esys", "libtss2-tcti", "libsystemd"],
}
# And the library that a program must load: or else the check above looks at the wrong thing.
REQUIRED_LIBRARIES = {"vtpm-engine": ["libtpms"]}

# Lines. Above the first a size is reported, above the second it fails.
FILE_LINES = (400, 500)
FUNCTION_LINES = (60, 80)
