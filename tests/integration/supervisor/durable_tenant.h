// SPDX-License-Identifier: Apache-2.0
// A tenant of a durable instance, and what the API and the log say of that.
#pragma once

#include "tests/integration/supervisor/json_call.h"
#include "tests/integration/supervisor/launch.h"
#include "tests/support/durable.h"

#include <vtpm/log/entry.h>

#include <unistd.h>

namespace vtpm::test {

inline constexpr const char* kKeep = R"({"durable":true,"name":"keep"})";

// A tenant at a node that it had made; the node goes with it.
class Tenant {
 public:
  Tenant(const Place& place, const std::string& instance, const std::string& name = "node",
         NodeKind kind = NodeKind::Raw)
      : path_(place.directory / name) {
    auto node = device::make_fuse_node();
    REQUIRE(node);
    const auto attached = send(place, control::AttachRequest{instance, kind, path_}, {node->server.get()});
    INFO((attached ? "" : attached.error().context));
    REQUIRE(attached);
    REQUIRE(device::place(node->mount, path_));
    open();
  }
  Tenant(const Tenant&) = delete;
  Tenant& operator=(const Tenant&) = delete;
  ~Tenant() {
    file_.reset();
    (void)device::remove_node(path_);
  }
  const std::string& path() const { return path_; }
  int file() const { return file_.get(); }
  void close() { file_.reset(); }
  void open() {
    close();
    file_ = open_device(path_.c_str());
  }

  // Empty: the device has gone.
  Bytes command(BytesView bytes) {
    Bytes response(4096);
    if (!file_ || !write_all(file_.get(), bytes)) return {};
    const ssize_t n = ::read(file_.get(), response.data(), response.size());
    response.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
    return response;
  }
  void store(u8 value) { REQUIRE(code_of(command(nv_write(kIndex, Bytes(8, value)))) == 0); }
  void define() { REQUIRE(code_of(command(nv_define(kIndex, 8))) == 0); }
  Bytes stored() { return nv_content(command(nv_read(kIndex, 8))); }

 private:
  std::string path_;
  UniqueFd file_;
};

inline json::Value show(const Daemon& daemon, const std::string& id) {
  return call(daemon, "GET", "/v1/instances/" + id);
}
inline std::string state(const Daemon& daemon, const std::string& id) {
  return show(daemon, id)["state"];
}
inline bool becomes(const Daemon& daemon, const std::string& id, const std::string& wanted) {
  return eventually([&] { return state(daemon, id) == wanted; });
}

inline std::vector<log::Entry> entries(const Daemon& daemon) {
  std::vector<log::Entry> found;
  const auto answer = call(daemon, "GET", "/v1/log/entries");
  for (const auto& item : answer["entries"])
    found.push_back(log::parse_entry(as_bytes(item["entry"].get<std::string>())).value());
  return found;
}
template <class Kind>
std::vector<Kind> entries_of(const Daemon& daemon, const std::string& id) {
  std::vector<Kind> found;
  for (const auto& entry : entries(daemon))
    if (const auto* kind = std::get_if<Kind>(&entry); kind != nullptr && kind->instance == id)
      found.push_back(*kind);
  return found;
}

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

inline std::vector<std::string> slots_of(const Place& place, const std::string& id) {
  return {place.state() + "/instances/" + id + "/slot-a", place.state() + "/instances/" + id + "/slot-b"};
}
inline std::vector<Bytes> contents(const std::vector<std::string>& files) {
  std::vector<Bytes> found;
  for (const auto& file : files)
    found.push_back(read_file(file, 1 << 21).value());
  return found;
}
// In place, so that owner and mode stay.
inline void overwrite(const std::string& file, BytesView content) {
  const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
  REQUIRE(write_all(fd.get(), content));
}

}  // namespace vtpm::test
