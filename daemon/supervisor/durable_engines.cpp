// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/durable_engines.h"

#include "daemon/supervisor/state_key.h"

namespace vtpm::supervisor {
namespace {

using namespace std::chrono_literals;

// An engine that lost its vtpmd ends in milliseconds; one in a long command in a few hundred.
constexpr auto kEarlierEngine = 3s;

}  // namespace

Result<NewDurable> DurableEngines::make(const Secret& host_key, const std::string& id,
                                        const std::string& launch_document, const EngineTerms& terms) {
  VTPM_TRY(Secret key, Secret::random(kStateKeyBytes));
  VTPM_TRY(Bytes wrapped, wrap_state_key(host_key, id, key));
  VTPM_TRY(SlotFds slots, files_.create(id));
  auto made = engines_.manufacture_durable(launch_document, {id, std::move(key), 0, std::move(slots)}, terms);
  if (!made) {
    const Result<> removed = files_.remove(id);
    if (removed) return made.error();
    return Error(made.error().kind(), made.error().context + "; and then: " + removed.error().context);
  }
  Durable row{std::move(wrapped), made->sequence};
  return NewDurable{std::move(*made), std::move(row)};
}

Result<Manufactured> DurableEngines::resume(const Secret& host_key, const InstanceRow& row,
                                            const identity::Identity& identity,
                                            const std::string& launch_document, const EngineTerms& terms) {
  VTPM_TRY(Secret key, unwrap_state_key(host_key, row.id, row.durable->wrapped_key));
  VTPM_TRY(SlotFds slots, files_.open(row.id, kEarlierEngine));
  auto resumed = engines_.resume(
      launch_document, {row.id, std::move(key), row.durable->sequence, std::move(slots)}, identity, terms);
  if (resumed || resumed.error().kind() != ErrorCode::Corrupt) return resumed;
  return Error(ErrorCode::Corrupt,
               files_.name_files(resumed.error().context, row.id) + "; the files in " +
                   files_.directory(row.id) +
                   " were kept as they are. Put both back from a backup that is as new as "
                   "the last orderly stop, or destroy the instance");
}

Result<> DurableEngines::discard(const std::string& id, Engine* engine) {
  if (engine != nullptr) static_cast<void>(engines_.retire(*engine));
  return files_.remove(id);
}

}  // namespace vtpm::supervisor
