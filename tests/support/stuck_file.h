// SPDX-License-Identifier: Apache-2.0
// A file of a FUSE server of the test's own that leaves one process waiting in close(2), for ever. Needs root
// and /dev/fuse.
#pragma once

#include <vtpm/device/fuse_node.h>
#include <vtpm/os/bytes.h>

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <string>
#include <thread>

namespace vtpm::test {

class StuckFile {
 public:
  // Whoever closes the file in the process `victim` waits until this is destroyed; others do not.
  explicit StuckFile(pid_t victim) : victim_(std::to_string(victim)) {
    auto node = device::make_fuse_node();
    if (!node) return;
    node_ = std::move(*node);
    server_ = std::thread([this] { serve(); });
    // fsmount(2) opens with O_PATH.
    const std::string path = "/proc/self/fd/" + std::to_string(node_.mount.get());
    file_.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  }
  StuckFile(const StuckFile&) = delete;
  StuckFile& operator=(const StuckFile&) = delete;
  ~StuckFile() {
    file_.reset();
    ended_ = true;
    if (server_.joinable()) server_.join();
  }

  explicit operator bool() const noexcept { return bool(file_); }
  int get() const noexcept { return file_.get(); }
  // How often that process has closed it, or begun to.
  unsigned closes() const noexcept { return closes_; }

 private:
  void serve() {
    std::array<std::uint8_t, 65536> request{};
    while (!ended_) {
      pollfd p{node_.server.get(), POLLIN, 0};
      if (::poll(&p, 1, 10) <= 0) continue;
      if (::read(node_.server.get(), request.data(), request.size()) <= 0) break;
      fuse_in_header head{};
      std::memcpy(&head, request.data(), sizeof head);
      answer(head);
    }
    node_.server.reset();  // ends what waits for it
  }

  bool is_victims(const fuse_in_header& head) const {
    return ::access(("/proc/" + victim_ + "/task/" + std::to_string(head.pid)).c_str(), F_OK) == 0;
  }

  void answer(const fuse_in_header& head) {
    fuse_attr_out attributes{};
    attributes.attr.ino = 1;
    attributes.attr.mode = S_IFREG | 0666;
    fuse_init_out begin{};
    begin.major = FUSE_KERNEL_VERSION;
    begin.minor = FUSE_KERNEL_MINOR_VERSION;
    begin.max_write = 4096;
    switch (head.opcode) {
      case FUSE_INIT:
        return reply(head, &begin, sizeof begin);
      case FUSE_GETATTR:
        return reply(head, &attributes, sizeof attributes);
      case FUSE_OPEN: {
        const fuse_open_out opened{};
        return reply(head, &opened, sizeof opened);
      }
      case FUSE_FLUSH:
        if (is_victims(head)) {
          ++closes_;
          return;
        }
        return reply(head, nullptr, 0);
      case FUSE_FORGET:
      case FUSE_INTERRUPT:
        return;
      default:
        return reply(head, nullptr, 0);
    }
  }

  void reply(const fuse_in_header& head, const void* data, std::size_t size) {
    const fuse_out_header out{static_cast<std::uint32_t>(sizeof(fuse_out_header) + size), 0, head.unique};
    Bytes message(out.len);
    std::memcpy(message.data(), &out, sizeof out);
    if (size > 0) std::memcpy(message.data() + sizeof out, data, size);
    [[maybe_unused]] const auto sent = ::write(node_.server.get(), message.data(), message.size());
  }

  std::string victim_;
  device::FuseNode node_;
  UniqueFd file_;
  std::thread server_;
  std::atomic<bool> ended_{false};
  std::atomic<unsigned> closes_{0};
};

}  // namespace vtpm::test
