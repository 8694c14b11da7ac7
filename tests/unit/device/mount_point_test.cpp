// SPDX-License-Identifier: Apache-2.0
#include "device/mount_point.h"

#include "tests/support/catch_result.h"

#include <vtpm/os/path.h>

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

using namespace vtpm;
using namespace vtpm::device;
namespace fs = std::filesystem;

namespace {

class Directory {
 public:
  Directory() {
    char name[] = "/tmp/vtpm-device-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path = name;
    fd = UniqueFd(::open(name, O_PATH | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(fd);
  }
  ~Directory() { fs::remove_all(path); }
  fs::path path;
  UniqueFd fd;
};

Result<MountPoint> point(const Directory& directory, const std::string& name) {
  return mount_point(directory.fd.get(), name, ::geteuid(), ::getegid(), "/dev/" + name);
}

}  // namespace

TEST_CASE("mount point: a missing file is made, and is there the next time") {
  const Directory directory;
  const auto made = point(directory, "vtpm");
  REQUIRE(made);
  CHECK(made->made);
  CHECK(fs::is_regular_file(directory.path / "vtpm"));
  const auto again = point(directory, "vtpm");
  REQUIRE(again);
  CHECK_FALSE(again->made);
}

TEST_CASE("mount point: what is not an empty file is left alone and named") {
  const Directory directory;
  std::ofstream(directory.path / "full") << "x";
  fs::create_directory(directory.path / "directory");
  fs::create_symlink("/dev/null", directory.path / "link");
  REQUIRE(::mkfifo((directory.path / "fifo").c_str(), 0600) == 0);
  for (const auto& [name, what] : {std::pair{"full", "a file with contents"},
                                   {"directory", "a directory"},
                                   {"link", "a symbolic link"},
                                   {"fifo", "a special file"}}) {
    const auto refused = point(directory, name);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().kind() == ErrorCode::Conflict);
    CHECK_THAT(refused.error().context, Catch::Contains(what));
    CHECK_THAT(refused.error().context, Catch::Contains("/dev/" + std::string(name)));
  }
}

TEST_CASE("mount point: a plain file is not a vTPM's mount") {
  const Directory directory;
  const auto made = point(directory, "vtpm");
  REQUIRE(made);
  CHECK(*is_vtpm_mount(made->file.get()) == false);
}

TEST_CASE("id map: the host's id of the container's root is found") {
  CHECK(*id_of_container_root("         0          0 4294967295\n") == 0);
  CHECK(*id_of_container_root("         0     100000      65536\n") == 100000);
  CHECK(*id_of_container_root("1 200000 10\n0 1000 1\n") == 1000);
}

TEST_CASE("id map: a namespace without a root, or no map, is refused") {
  const auto text = GENERATE(
      values<std::string>({"", "\n", "1 0 10\n", "0 5\n", "0 x 1\n", "0 1000 0\n", "0 4294967295 1\n"}));
  INFO(text);
  CHECK_FALSE(id_of_container_root(text));
}

TEST_CASE("open in root: links and dots do not lead out of it") {
  const Directory directory;
  fs::create_directories(directory.path / "root/dev");
  std::ofstream(directory.path / "outside") << "x";
  fs::create_symlink("../../outside", directory.path / "root/relative");
  fs::create_symlink(directory.path / "outside", directory.path / "root/absolute");
  fs::create_symlink("/proc/self/root", directory.path / "root/magic");
  const UniqueFd root(::open((directory.path / "root").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  CHECK(open_in_root(root.get(), "/dev", O_PATH | O_DIRECTORY));
  CHECK(open_in_root(root.get(), "../../../dev", O_PATH | O_DIRECTORY));
  for (const char* path : {"relative", "absolute", "../outside", "magic/etc"}) {
    const auto opened = open_in_root(root.get(), path, O_PATH);
    INFO(path);
    REQUIRE_FALSE(opened);
    CHECK(opened.error().kind() == ErrorCode::NotFound);
  }
}
