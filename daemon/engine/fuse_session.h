// SPDX-License-Identifier: Apache-2.0
// The FUSE protocol (linux/fuse.h) of a mount whose root is one regular file. No libfuse: this must continue
// a session that another process opened, and it sits in the jail, so it is small. Requests come from the
// kernel, but their contents from a tenant: nothing in them is trusted.
#pragma once

#include "daemon/engine/kept_requests.h"

#include <vtpm/os/bytes.h>

#include <linux/fuse.h>

#include <array>
#include <optional>

namespace vtpm::engine {

static_assert(kFuseBuffer >= FUSE_MIN_READ_BUFFER);
// What stat(2) says of the file, bytes: the largest command. Linux runs writes of one file side by side only
// within the file's size (fs/fuse/file.c); one after the other, a client whose command waits would block all.
inline constexpr std::uint32_t kFuseFileSize = 4096;

// A WRITE or a READ. `unique` names it when it is answered later.
struct FuseWrite {
  std::uint64_t unique;
  std::uint64_t file;
  std::uint64_t offset;
  bool wait;           // is answered when the command has run; else at once
  bool resent;         // another engine had it and died: nobody knows whether the command has run
  std::uint32_t size;  // of the data
  BytesView data;
};
struct FuseRead {
  std::uint64_t unique;
  std::uint64_t file;
  bool wait;           // for the response, when there is a command
  std::uint32_t size;  // at most so many bytes
};

struct FusePoll {
  std::uint64_t file;
  std::uint32_t events;                 // that are waited for
  std::optional<std::uint64_t> waiter;  // whom to wake when there are none of them now
};

// What a file tells of its own accord.
class FuseReplies {
 public:
  virtual ~FuseReplies() = default;
  // Answers a request that was kLater: errno or 0, and the bytes that were written or read.
  virtual void write_done(std::uint64_t unique, int error, std::uint32_t size) = 0;
  virtual void read_done(std::uint64_t unique, int error, BytesView data) = 0;
  // What poll() returned may have changed. Once too often is harmless, once too little is a hang.
  virtual void wake(std::uint64_t waiter) = 0;
};

// Instead of an errno: the request is answered later, through FuseReplies.
inline constexpr int kLater = -1;

// The file behind the mount. Methods return 0 or an errno, write and read also kLater.
class FuseFile {
 public:
  virtual ~FuseFile() = default;
  // Called once, before all others.
  virtual void connect(FuseReplies& replies) = 0;
  virtual int open(std::uint64_t& file) = 0;
  virtual void release(std::uint64_t file) = 0;
  virtual int write(const FuseWrite& request) = 0;
  // Async-signal-safe while the file is busy(), as is write().
  virtual int read(const FuseRead& request, Bytes& out) = 0;
  // POLLIN, POLLOUT, ... as they are now. Async-signal-safe, as are the two below.
  virtual std::uint32_t poll(const FusePoll& request) = 0;
  // Who waits for this request has got a signal. The request may have been answered already.
  virtual void interrupt(std::uint64_t unique) = 0;
  // Whether the file's command runs, or waits to.
  virtual bool busy(std::uint64_t file) const = 0;
  // Whether the end of this open file, or an interrupt of this request, is one of the command that runs.
  virtual bool cancels(std::uint64_t file, std::uint64_t unique) const = 0;
};

// Where replies and notifications go: each to the kernel in one write(2).
class FuseChannel {
 public:
  virtual ~FuseChannel() = default;
  // False: the kernel does not know this notification.
  virtual bool send(BytesView frame) = 0;
};

class FuseSession final : private FuseReplies {
 public:
  // Both are borrowed.
  FuseSession(FuseFile& file, FuseChannel& channel) : file_(file), channel_(channel) { file_.connect(*this); }
  FuseSession(const FuseSession&) = delete;
  FuseSession& operator=(const FuseSession&) = delete;

  // Goes on with a session whose engine has died: has the kernel send again what that one left unanswered,
  // and wakes who waits in poll(2). Unsupported by kernels before 6.9.
  bool resume();

  // Handles one request as read from /dev/fuse. What is not a request is ignored.
  void handle(BytesView request);

  // A client asks poll(2) as soon as it has written, while its command only waits to be run. It is answered
  // when somebody calls this: after that command at best, and then it need not be woken and ask again.
  // Whoever lets a command run or sleeps calls this soon after. Async-signal-safe.
  void answer_polls();

  // In a signal handler, while a command runs: what to do with a request. Async-signal-safe.
  enum class Glance {
    Answered,
    Keep,    // for handle(), when the command has run
    Cancel,  // likewise, and cancel the command
  };
  Glance glance(BytesView request);
  // Answers one that is not kept for want of room: EBUSY, a read EAGAIN. Async-signal-safe.
  void refuse(BytesView request);
  // What a request is to who keeps it. Async-signal-safe.
  static KeptRequests::Kind kind_of(BytesView request) noexcept;

 private:
  struct Request;
  struct Row;
  static const Row kRows[];
  static const Row* row_of(std::uint32_t opcode) noexcept;

  void init(const Request& request);
  void attributes(const Request& request);
  void open(const Request& request);
  void read(const Request& request);
  void write(const Request& request);
  void release(const Request& request);
  void poll(const Request& request);
  void answer_poll(std::uint64_t unique, const fuse_poll_in& asked);
  void interrupt(const Request& request);
  void statfs(const Request& request);
  void accept(const Request& request);
  void ignore(const Request& request);

  void write_done(std::uint64_t unique, int error, std::uint32_t size) override;
  void read_done(std::uint64_t unique, int error, BytesView data) override;
  void wake(std::uint64_t waiter) override;

  void reply(std::uint64_t unique, int error, BytesView body = {});
  void notify(fuse_notify_code code, BytesView body);
  bool send(std::int32_t error, std::uint64_t unique, BytesView body);
  void tell_size();

  struct Poll {
    std::uint64_t unique;
    fuse_poll_in asked;
  };

  FuseFile& file_;
  FuseChannel& channel_;
  std::array<Poll, 8> polls_{};  // not answered yet; more are answered at once
  std::size_t poll_count_ = 0;
  // Whether the kernel runs writes side by side. A session that another process opened: no, to be safe.
  bool parallel_ = false;
};

}  // namespace vtpm::engine
