// SPDX-License-Identifier: Apache-2.0
// The FUSE protocol (linux/fuse.h) of a mount whose root is one regular file. No libfuse: this must continue
// a session that another process opened, and it sits in the jail, so it is small. Requests come from the
// kernel, but their contents from a tenant: nothing in them is trusted.
#pragma once

#include <vtpm/os/bytes.h>

#include <linux/fuse.h>

#include <optional>

namespace vtpm::engine {

// Bytes of data in one WRITE request; a longer write(2) comes in several. Part of the session's agreement
// with the kernel: a process that continues a session relies on the same value.
inline constexpr std::uint32_t kFuseMaxWrite = 8192;
// Bytes of buffer that any request fits in.
inline constexpr std::size_t kFuseBuffer = kFuseMaxWrite + 4096;
static_assert(kFuseBuffer >= FUSE_MIN_READ_BUFFER);

// The file behind the mount. Methods return 0 or an errno.
class FuseFile {
 public:
  virtual ~FuseFile() = default;
  virtual int open(std::uint64_t& file) = 0;
  virtual void release(std::uint64_t file) = 0;
  virtual int write(std::uint64_t file, std::uint64_t offset, BytesView data) = 0;
  // Appends at most `size` bytes to `out`.
  virtual int read(std::uint64_t file, std::uint32_t size, Bytes& out) = 0;
  // POLLIN, POLLOUT, ... as they are now.
  virtual std::uint32_t poll(std::uint64_t file) = 0;
};

// Where replies and notifications go: each to the kernel in one write(2).
class FuseChannel {
 public:
  virtual ~FuseChannel() = default;
  virtual void send(BytesView frame) = 0;
};

class FuseSession {
 public:
  // Both are borrowed.
  FuseSession(FuseFile& file, FuseChannel& channel) noexcept : file_(file), channel_(channel) {}

  // Handles one request as read from /dev/fuse. What is not a request is ignored.
  void handle(BytesView request);

 private:
  struct Request;
  struct Row;
  static const Row kRows[];

  void init(const Request& request);
  void attributes(const Request& request);
  void open(const Request& request);
  void read(const Request& request);
  void write(const Request& request);
  void release(const Request& request);
  void poll(const Request& request);
  void statfs(const Request& request);
  void accept(const Request& request);
  void ignore(const Request& request);

  void reply(const Request& request, int error, BytesView body = {});
  void wake_poller();

  FuseFile& file_;
  FuseChannel& channel_;
  // The kernel's handle of the poll that waits for a change. One: there is one open file at a time.
  std::optional<std::uint64_t> poller_;
};

}  // namespace vtpm::engine
