// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/events.h"

namespace vtpm::supervisor {
namespace {

using namespace std::chrono_literals;

constexpr auto kKeepAlive = 15s;
constexpr std::size_t kMaxQueued = 256;  // a listener that is further behind is cut off

}  // namespace

asio::awaitable<std::optional<std::string>> Subscription::next() {
  if (queue_.empty() && !ended_) {
    timer_.expires_after(kKeepAlive);
    co_await timer_.async_wait(kResume);
  }
  if (!queue_.empty()) {
    std::string text = std::move(queue_.front());
    queue_.pop_front();
    co_return text;
  }
  if (ended_) co_return std::nullopt;
  co_return std::string(":\n\n");
}

void Subscription::push(const std::string& text) {
  if (ended_) return;
  if (queue_.size() >= kMaxQueued) return end();
  queue_.push_back(text);
  timer_.cancel();
}

void Subscription::end() noexcept {
  ended_ = true;
  timer_.cancel();
}

std::shared_ptr<Subscription> EventBus::subscribe(PeerCredentials peer) {
  std::erase_if(subscriptions_, [](const auto& weak) { return weak.expired(); });
  auto made = std::make_shared<Subscription>(executor_, std::move(peer));
  subscriptions_.push_back(made);
  return made;
}

void EventBus::publish(std::string_view kind, uid_t owner, const std::string& json) {
  const std::string text =
      "id: " + std::to_string(count_++) + "\nevent: " + std::string(kind) + "\ndata: " + json + "\n\n";
  std::erase_if(subscriptions_, [](const auto& weak) { return weak.expired(); });
  for (const auto& weak : subscriptions_) {
    const auto subscription = weak.lock();
    if (may_use(subscription->peer_, rules_, owner)) subscription->push(text);
  }
}

void EventBus::close() {
  for (const auto& weak : subscriptions_)
    if (const auto subscription = weak.lock()) subscription->end();
}

}  // namespace vtpm::supervisor
