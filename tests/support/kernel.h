// SPDX-License-Identifier: Apache-2.0
// What the running kernel can do.
#pragma once

#include <catch2/catch.hpp>
#include <sys/utsname.h>

#include <cstdio>

namespace vtpm::test {

// FUSE_NOTIFY_RESEND came with Linux 6.9: without it no engine goes on with the nodes of a dead one.
inline bool kernel_resends() {
  utsname name{};
  int major = 0, minor = 0;
  REQUIRE(::uname(&name) == 0);
  REQUIRE(std::sscanf(name.release, "%d.%d", &major, &minor) == 2);
  return major > 6 || (major == 6 && minor >= 9);
}

}  // namespace vtpm::test
