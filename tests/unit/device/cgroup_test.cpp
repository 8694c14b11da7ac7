// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"
#include "tests/support/idle_process.h"

#include <vtpm/device/cgroup.h>

#include <catch2/catch.hpp>

using namespace vtpm;
using namespace vtpm::device;

namespace {

const std::string kHybrid =
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct\n"
    "34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
    "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
    "41 31 0:38 / /sys/fs/cgroup/a\\040b\\134 rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

ErrorCode kind_of_path(std::string_view text, bool unified) {
  return cgroup_path(text, unified).error().kind();
}

}  // namespace

TEST_CASE("cgroup mounts: those of a hybrid machine, and which has the CPU time") {
  const auto mounts = cgroup_mounts(kHybrid);
  REQUIRE(mounts);
  REQUIRE(mounts->size() == 4);
  CHECK(mounts->at(0).point == "/sys/fs/cgroup/cpu,cpuacct");
  CHECK((mounts->at(0).major == 0 && mounts->at(0).minor == 29));
  CHECK((mounts->at(0).cpu && !mounts->at(0).unified));
  CHECK_FALSE((mounts->at(1).cpu || mounts->at(1).unified));
  CHECK_FALSE((mounts->at(2).cpu || mounts->at(2).unified));
  CHECK(mounts->at(3).point == "/sys/fs/cgroup/a b\\");
  CHECK((mounts->at(3).unified && !mounts->at(3).cpu));
}

TEST_CASE("cgroup mounts: other file systems, and a part of a hierarchy, are none") {
  for (const std::string line : {
           "",
           "1 2",
           "31 23 0:28 / /a rw - fuse.cgroup2 cgroup2 rw",
           "31 23 0:28 / /a rw - tmpfs cgroup2 cgroup2",
           "31 23 0:28 / /cgroup2\\040-\\040cgroup2 rw - tmpfs x rw",
           "31 23 0:28 / /a cgroup2 - tmpfs x rw",
           "41 31 0:38 /docker/c1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
           "41 31 0:38 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
       })
    CHECK(cgroup_mounts(line)->empty());
}

TEST_CASE("cgroup mounts: a cgroup's line that cannot be read is refused") {
  for (const std::string line : {
           "41 31 0:38 / /c rw - cgroup2",
           "41 31 0:38 / /c rw - cgroup2 cgroup2",
           "41 31 0:38 / /c rw - cgroup2 cgroup2 rw extra",
           "41 31 038 / /c rw - cgroup2 cgroup2 rw",
           "41 31 0:38:1 / /c rw - cgroup2 cgroup2 rw",
           "41 31 0:-1 / /c rw - cgroup2 cgroup2 rw",
           "41 31 0:4294967296 / /c rw - cgroup2 cgroup2 rw",
           "41 31 0:38 / c rw - cgroup2 cgroup2 rw",
           "41 31 0:38 / /c\\04 rw - cgroup2 cgroup2 rw",
           "41 31 0:38 / /c\\999 rw - cgroup2 cgroup2 rw",
           "41 31 0:38 / /c\\777 rw - cgroup2 cgroup2 rw",
       })
    CHECK(cgroup_mounts(line).error().kind() == ErrorCode::Malformed);
}

TEST_CASE("cgroup path: that of the hierarchy which is asked for") {
  const std::string text =
      "9:name=cpu:/named\n3:cpuset:/set\n2:cpuacct,cpu:/v1/a:b\n1:cpuacct2:/other\n0::/v2/c d\n";
  CHECK(*cgroup_path(text, false) == "/v1/a:b");
  CHECK(*cgroup_path(text, true) == "/v2/c d");
  CHECK(*cgroup_path("0::/\n", true) == "/");
  CHECK(kind_of_path("0::/a\n", false) == ErrorCode::NotFound);
  CHECK(kind_of_path("1:cpu:/a\n", true) == ErrorCode::NotFound);
  CHECK(kind_of_path("1::/a\n", true) == ErrorCode::NotFound);
  CHECK(kind_of_path("", true) == ErrorCode::NotFound);
}

TEST_CASE("cgroup path: one that leads elsewhere, or cannot be read, is refused") {
  for (const std::string path : {"/..", "/../x", "/a/../../b", "/a/..", "/a (deleted)"})
    CHECK(kind_of_path("0::" + path + "\n", true) == ErrorCode::Unsupported);
  CHECK(*cgroup_path("0::/a..b/...\n", true) == "/a..b/...");
  for (const std::string& text :
       {std::string("0::\n"), std::string("0::relative\n"), std::string("0:\n"), std::string("x::/a\n"),
        std::string(":cpu:/a\n"), std::string("-1::/a\n"), std::string("99999999999::/a\n"),
        "0::/" + std::string(4096, 'a') + "\n", std::string("0::/a\0b\n", 8)})
    CHECK(kind_of_path(text, true) == ErrorCode::Malformed);
  CHECK(cgroup_path("0::/" + std::string(4095, 'a') + "\n", true));
}

TEST_CASE("cgroup.procs: of a process without a cgroup of its own there is none") {
  const test::IdleProcess process;
  const auto procs = open_cgroup_procs(process.pidfd());
  REQUIRE_FALSE(procs);
  // NotFound: no hierarchy is mounted here.
  CHECK((procs.error().kind() == ErrorCode::Unsupported || procs.error().kind() == ErrorCode::NotFound));
}
