# SPDX-License-Identifier: Apache-2.0
"""How tests run an OCI runtime."""

# crun refuses a hybrid cgroup hierarchy: it gets a view without the unified one, in a mount namespace of its own.
PLAIN_CGROUPS = 'if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi; exec "$@"'


def in_view(view, command):
    """The command in a mount namespace of its own, which the shell script `view` prepares and leaves by exec "$@"."""
    return ["unshare", "-m", "sh", "-c", view, "sh", *command]


def command(runtime, *arguments):
    """The command that runs runc or crun with these arguments."""
    plain = [runtime, *arguments]
    return in_view(PLAIN_CGROUPS, plain) if runtime == "crun" else plain
