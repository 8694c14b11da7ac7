// SPDX-License-Identifier: Apache-2.0
// What instances use, as their engines tell it. An engine that does not answer is neither waited for nor
// ended: it may make a key, or be stopped together with its container.
#include "daemon/supervisor/instances.h"
#include "daemon/supervisor/supervision.h"

#include <algorithm>

namespace vtpm::supervisor {
namespace {

using namespace std::chrono_literals;

constexpr auto kSurvey = 2s;  // all of them, whoever holds their turns

}  // namespace

struct Instances::Survey {
  Survey(const asio::any_io_executor& executor, std::size_t n) : end(executor, kSurvey), left(n) {}
  asio::steady_timer end;  // cancelled when nobody is left
  std::size_t left;
  bool over = false;
  Statuses found;
};

asio::awaitable<Instances::Statuses> Instances::statuses(std::vector<std::string> ids) {
  std::erase_if(ids, [this](const std::string& id) { return !running(id); });
  if (ids.empty()) co_return Statuses();
  const auto survey = std::make_shared<Survey>(executor_, ids.size());
  for (const std::string& id : ids)
    spawn(executor_, "status of an engine", ask_status(id, survey));
  if (survey->left > 0) co_await survey->end.async_wait(kResume);
  survey->over = true;
  co_return std::move(survey->found);
}

asio::awaitable<void> Instances::ask_status(std::string id, std::shared_ptr<Survey> survey) {
  auto state = running(id);
  if (state) {
    const auto supervision = (*state)->supervision;
    const auto turn = co_await supervision->turn.acquire();
    if (!survey->over && running(id)) {
      const auto ask = [engine = supervision->engine] { return status_if_free(*engine); };
      const Result<ipc::EngineStatus> status = co_await run_on(workers_.meters, ask);
      if (status && !survey->over) survey->found.emplace(id, *status);
    }
  }
  if (--survey->left == 0) survey->end.cancel();
}

}  // namespace vtpm::supervisor
