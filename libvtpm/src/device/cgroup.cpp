// SPDX-License-Identifier: Apache-2.0
#include <vtpm/device/cgroup.h>
#include <vtpm/os/bytes.h>
#include <vtpm/os/file.h>
#include <vtpm/os/path.h>
#include <vtpm/os/process.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <optional>

namespace vtpm::device {
namespace {

constexpr std::size_t kMaxPath = 4096;
constexpr std::string_view kDeleted = " (deleted)";

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

bool contains(const std::vector<std::string_view>& parts, std::string_view part) {
  return std::find(parts.begin(), parts.end(), part) != parts.end();
}

std::optional<std::uint32_t> number(std::string_view text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Space, tab, newline and backslash are written as \040, \011, \012 and \134 (proc(5)).
std::optional<std::string> unescaped(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    if (text.front() != '\\') {
      out += text.front();
      text.remove_prefix(1);
      continue;
    }
    unsigned value = 0;
    if (text.size() < 4) return std::nullopt;
    const auto [end, error] = std::from_chars(text.data() + 1, text.data() + 4, value, 8);
    if (error != std::errc() || end != text.data() + 4 || value > 0x7f) return std::nullopt;
    out += static_cast<char>(value);
    text.remove_prefix(4);
  }
  return out;
}

// One line: id, parent, major:minor, root, mount point, options, any optional fields, "-", type, source,
// options of the file system. Empty: not a cgroup's, or not with the hierarchy's root.
Result<std::optional<CgroupMount>> cgroup_mount(std::string_view line) {
  const auto fields = split(line, ' ');
  constexpr std::size_t kFixed = 6;
  if (fields.size() <= kFixed) return std::optional<CgroupMount>();
  const auto dash = std::find(fields.begin() + kFixed, fields.end(), "-");
  if (fields.end() - dash < 2 || (dash[1] != "cgroup" && dash[1] != "cgroup2"))
    return std::optional<CgroupMount>();
  const Error malformed(ErrorCode::Malformed, "mountinfo: a cgroup's line cannot be read");
  if (fields.end() - dash != 4) return malformed;
  const auto device = split(fields[2], ':');
  if (device.size() != 2) return malformed;
  const auto major = number(device[0]);
  const auto minor = number(device[1]);
  auto point = unescaped(fields[4]);
  if (!major || !minor || !point || !point->starts_with('/')) return malformed;
  if (fields[3] != "/") return std::optional<CgroupMount>();
  const bool unified = dash[1] == "cgroup2";
  return std::optional(CgroupMount{*major, *minor, std::move(*point), unified,
                                   !unified && contains(split(dash[3], ','), "cpu")});
}

Result<std::string> text_of(const std::string& path, std::size_t limit) {
  VTPM_TRY(const Bytes bytes, read_file(path, limit));
  return std::string(as_text(bytes));
}

// Its root, if it is not hidden by another mount.
UniqueFd root_of(const CgroupMount& mount) {
  UniqueFd root(::open(mount.point.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  struct stat s {};
  if (!root || ::fstat(root.get(), &s) != 0 || s.st_dev != makedev(mount.major, mount.minor)) return {};
  return root;
}

struct Hierarchy {
  bool unified;
  UniqueFd root;
};

Result<Hierarchy> hierarchy_of_cpu() {
  VTPM_TRY(const std::string text, text_of("/proc/self/mountinfo", kMaxMountInfo));
  VTPM_TRY(const std::vector<CgroupMount> mounts, cgroup_mounts(text));
  for (const bool unified : {false, true})
    for (const CgroupMount& mount : mounts) {
      if (mount.unified != unified || (!unified && !mount.cpu)) continue;
      if (UniqueFd root = root_of(mount)) return Hierarchy{unified, std::move(root)};
    }
  return Error(ErrorCode::NotFound, "no cgroup hierarchy for CPU time is mounted");
}

Result<std::string> path_of(const std::string& process, bool unified) {
  VTPM_TRY(const std::string text, text_of("/proc/" + process + "/cgroup", kMaxProcCgroup));
  return cgroup_path(text, unified);
}

}  // namespace

Result<std::vector<CgroupMount>> cgroup_mounts(std::string_view mountinfo) {
  std::vector<CgroupMount> mounts;
  for (const std::string_view line : split(mountinfo, '\n')) {
    VTPM_TRY(auto mount, cgroup_mount(line));
    if (mount) mounts.push_back(std::move(*mount));
  }
  return mounts;
}

// Each line: the hierarchy's number, its version 1 controllers (of the unified one none), the path.
Result<std::string> cgroup_path(std::string_view text, bool unified) {
  for (const std::string_view line : split(text, '\n')) {
    if (line.empty()) continue;
    const auto fields = split(line, ':');
    if (fields.size() < 3 || !number(fields[0]))
      return Error(ErrorCode::Malformed, "the process's cgroups cannot be read");
    const bool wanted =
        unified ? number(fields[0]) == 0U && fields[1].empty() : contains(split(fields[1], ','), "cpu");
    if (!wanted) continue;
    const std::string_view path = line.substr(fields[0].size() + fields[1].size() + 2);
    if (!path.starts_with('/') || path.size() > kMaxPath || path.find('\0') != std::string_view::npos)
      return Error(ErrorCode::Malformed, "the path of the process's cgroup cannot be read");
    if (contains(split(path, '/'), ".."))
      return Error(ErrorCode::Unsupported, "the process's cgroup is outside the cgroup namespace");
    if (path.ends_with(kDeleted))
      return Error(ErrorCode::Unsupported, "the process's cgroup has been removed");
    return std::string(path);
  }
  return Error(ErrorCode::NotFound, "the process is in no cgroup of that hierarchy");
}

Result<UniqueFd> open_cgroup_procs(int pidfd) {
  VTPM_TRY(const pid_t pid, pid_of_pidfd(pidfd));
  VTPM_TRY(const Hierarchy hierarchy, hierarchy_of_cpu());
  VTPM_TRY(const std::string path, path_of(std::to_string(pid), hierarchy.unified));
  VTPM_TRY(const std::string own, path_of("self", hierarchy.unified));
  if (has_ended(pidfd)) return Error(ErrorCode::NotFound, "the process has ended");
  if (path == "/" || path == own)
    return Error(ErrorCode::Unsupported, "the container has no cgroup of its own for CPU time");
  return open_beneath(hierarchy.root.get(), path.substr(1) + "/cgroup.procs", O_WRONLY | O_NOCTTY);
}

}  // namespace vtpm::device
