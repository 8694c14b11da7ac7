// SPDX-License-Identifier: Apache-2.0
// Connection: a client of a socket node. It sends bare commands and gets bare responses, each framed by its
// header's size, in the same order and one at a time. What it sends is a tenant's: nothing in it is trusted.
#pragma once

#include "daemon/engine/command_stream.h"
#include "daemon/engine/device.h"

#include <vtpm/os/unique_fd.h>

#include <optional>

namespace vtpm::engine {

class Connection final : public Client {
 public:
  // The socket is non-blocking. The space is the connection's, which closes it.
  Connection(UniqueFd socket, Device& device, SpaceId space)
      : socket_(std::move(socket)), device_(device), space_(space) {}
  ~Connection() override { end(); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  int fd() const noexcept { return socket_.get(); }
  // What to wait for with poll(2). The peer's end is always told.
  short events() const noexcept;
  // Does what poll(2) has said.
  void handle(short revents);
  // Takes what has come.
  void receive();
  // It has no command and no space any more, and may be destroyed.
  bool over() const noexcept { return over_; }
  // Whether its peer is gone while its command runs. Async-signal-safe.
  bool cancels() const noexcept;

  // Since when nothing has come from its client or gone to it. Nothing: its command waits or runs.
  std::optional<Device::Time> silent_since() const noexcept;
  // Whether something has come that was not taken yet, or can go that has not gone: then it is not silent, as
  // of `now`.
  bool stirs(Device::Time now) noexcept;
  void end();

  void answered(Bytes response) override;
  void failed() override { end(); }

 private:
  bool sends() const noexcept { return sent_ < response_.size(); }
  void go_on();
  void respond(Bytes response);
  void send_rest();

  UniqueFd socket_;
  Device& device_;
  const SpaceId space_;
  bool over_ = false;
  bool busy_ = false;    // its command waits or runs
  bool broken_ = false;  // what comes can no longer be told apart: the response is the last
  CommandStream commands_;
  Bytes response_;
  std::size_t sent_ = 0;                         // bytes of the response
  Device::Time last_ = FairQueue::Clock::now();  // that something came or went
};

}  // namespace vtpm::engine
