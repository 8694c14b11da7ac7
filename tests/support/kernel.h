// SPDX-License-Identifier: Apache-2.0
// What the running kernel can do.
#pragma once

#include <catch2/catch.hpp>
#include <sys/utsname.h>

#include <cstdio>

namespace vtpm::test {

inline bool kernel_is_at_least(int major, int minor) {
  utsname name{};
  int has_major = 0, has_minor = 0;
  REQUIRE(::uname(&name) == 0);
  REQUIRE(std::sscanf(name.release, "%d.%d", &has_major, &has_minor) == 2);
  return has_major > major || (has_major == major && has_minor >= minor);
}

// FUSE_NOTIFY_RESEND came with Linux 6.9: without it no engine goes on with the nodes of a dead one.
inline bool kernel_resends() {
  return kernel_is_at_least(6, 9);
}

// SO_PASSRIGHTS came with Linux 6.16: with it a socket takes no descriptors.
inline bool kernel_refuses_descriptors() {
  return kernel_is_at_least(6, 16);
}

}  // namespace vtpm::test
