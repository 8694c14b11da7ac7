// SPDX-License-Identifier: Apache-2.0
// What happens, for whoever listens on /v1/events. One thread.
#pragma once

#include "daemon/supervisor/async.h"
#include "daemon/supervisor/authorization.h"

#include <deque>
#include <memory>
#include <optional>
#include <vector>

namespace vtpm::supervisor {

// One listener's queue.
class Subscription {
 public:
  Subscription(const asio::any_io_executor& executor, PeerCredentials peer)
      : timer_(executor), peer_(std::move(peer)) {}

  // The next event in the text/event-stream form, or a comment when nothing happened for a while (so that a
  // listener who left is noticed). Nothing: the stream ends.
  asio::awaitable<std::optional<std::string>> next();

 private:
  friend class EventBus;
  void push(const std::string& text);
  void end() noexcept;

  asio::steady_timer timer_;
  PeerCredentials peer_;
  std::deque<std::string> queue_;
  bool ended_ = false;
};

class EventBus {
 public:
  EventBus(asio::any_io_executor executor, Rules rules) : executor_(std::move(executor)), rules_(rules) {}

  std::shared_ptr<Subscription> subscribe(PeerCredentials peer);
  // An event about an instance of `owner`: shown to those who may see the instance. `json`: one line.
  void publish(std::string_view kind, uid_t owner, const std::string& json);
  // Ends every stream.
  void close();

 private:
  asio::any_io_executor executor_;
  Rules rules_;
  std::vector<std::weak_ptr<Subscription>> subscriptions_;
  std::uint64_t count_ = 0;
};

}  // namespace vtpm::supervisor
