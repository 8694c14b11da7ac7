// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/engines.h"

#include "daemon/supervisor/logging.h"

#include <vtpm/os/encoding.h>
#include <vtpm/os/process.h>

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

namespace vtpm::supervisor {
namespace {

using namespace std::chrono_literals;

constexpr auto kAnswer = 500ms;       // one that may be without
constexpr auto kEndDeadline = 2s;     // from the loss of its socket to an engine's exit
constexpr auto kStatusDeadline = 1s;  // for the zygote to tell an exit status

// What SQLite's integers hold; a commit for each microsecond reaches it after 292,000 years.
constexpr std::uint64_t kMaxSequence = std::numeric_limits<std::int64_t>::max();

Result<ipc::InstanceIdBytes> id_bytes(const std::string& id) {
  VTPM_TRY(const Bytes bytes, from_hex(id));
  ipc::InstanceIdBytes out{};
  if (bytes.size() != out.size()) return Error(ErrorCode::Internal, "an id that is not of 8 bytes: " + id);
  std::copy(bytes.begin(), bytes.end(), out.begin());
  return out;
}

bool wait_for_end(int pidfd, std::chrono::milliseconds limit) {
  pollfd p{pidfd, POLLIN, 0};
  return ::poll(&p, 1, static_cast<int>(limit.count())) > 0;
}

Result<std::uint64_t> possible(std::uint64_t sequence) {
  if (sequence > kMaxSequence)
    return Error(ErrorCode::Malformed, "the engine tells a sequence that cannot be");
  return sequence;
}

// The engine's process becomes the cgroup's. Last of its making: before, a cgroup that may use little CPU
// time, or is frozen, would hold up who makes engines for everybody. By its pidfd, and one of our own user's:
// with root's descriptor the kernel would move any process. Before and after, so that it was its pid.
Result<> place(Engine& engine, const EngineTerms& terms) {
  if (!terms.cgroup) return {};
  const auto not_placed = [](std::string_view why) {
    return Error(ErrorCode::Unavailable,
                 "its engine cannot be moved into the container's cgroup: " + std::string(why));
  };
  VTPM_TRY(const pid_t pid, pid_of_pidfd(engine.pidfd.get()));
  VTPM_TRY(const uid_t uid, uid_of_pidfd(engine.pidfd.get()));
  if (uid != ::getuid()) return not_placed("it is another user's");
  const std::string text = std::to_string(pid);
  if (::write(terms.cgroup->get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return not_placed(errno == ENODEV ? "the cgroup is gone" : std::strerror(errno));
  if (has_ended(engine.pidfd.get())) return not_placed("it has ended");
  engine.placed = true;
  return {};
}

// An instance takes several descriptors, and the usual soft limit is 1024.
void raise_descriptor_limit() {
  rlimit limit{};
  bool raised = ::getrlimit(RLIMIT_NOFILE, &limit) == 0;
  limit.rlim_cur = limit.rlim_max;
  raised = raised && ::setrlimit(RLIMIT_NOFILE, &limit) == 0;
  if (!raised)
    log_line(LogLevel::Warning,
             std::string("the limit of descriptors cannot be raised: ") + std::strerror(errno));
}

}  // namespace

void Engine::kill() noexcept {
  // An engine of our own that cannot be signalled has ended.
  [[maybe_unused]] const auto sent = signal_process(pidfd.get(), SIGKILL);
}

void Engine::begin_conversation(std::chrono::seconds limit) {
  link->set_deadline(after(limit));
}

Result<ipc::EngineStatus> status_if_free(Engine& engine) {
  if (!engine.link) return Error(ErrorCode::Unreachable, "the engine has ended");
  auto status = engine.link->status_if_free(after(kAnswer));
  if (!status && status.error().kind() != ErrorCode::Timeout && is_fatal_to_engine(status.error().kind()))
    engine.kill();
  return status;
}

Result<std::uint64_t> committed_sequence(ipc::EngineLink& link) {
  VTPM_TRY(const ipc::EngineStatus status, link.status());
  return possible(status.sequence);
}

Result<std::uint64_t> committed_sequence_if_free(Engine& engine) {
  VTPM_TRY(const ipc::EngineStatus status, status_if_free(engine));
  auto sequence = possible(status.sequence);
  if (!sequence) engine.kill();
  return sequence;
}

bool is_fatal_to_engine(ErrorCode code) noexcept {
  return code == ErrorCode::Timeout || code == ErrorCode::Malformed || code == ErrorCode::Unreachable;
}

Result<std::unique_ptr<Engines>> Engines::start(const std::string& engine_path) {
  raise_descriptor_limit();
  const auto report = [](std::string_view what) { log_line(LogLevel::Warning, what); };
  VTPM_TRY(auto zygotes, ipc::Zygotes::start(engine_path, STDERR_FILENO, report));
  return std::unique_ptr<Engines>(new Engines(std::move(zygotes)));
}

Result<std::shared_ptr<Engine>> Engines::power_on(std::optional<Storage> storage, const EngineTerms& terms) {
  VTPM_TRY(ipc::SpawnedEngine spawned, zygotes_->spawn());
  auto engine =
      std::make_shared<Engine>(Engine{std::move(spawned.link), std::move(spawned.pidfd), spawned.pid});
  Result<> powered = engine->link->set_limits(terms.limits);
  if (powered && storage) {
    const auto id = id_bytes(storage->id);
    auto sequence =
        id ? engine->link->power_on_durable(*id, storage->state_key, storage->least_sequence,
                                            std::move(storage->slots.a), std::move(storage->slots.b))
           : Result<std::uint64_t>(id.error());
    if (!sequence) powered = sequence.error();
  } else if (powered) {
    powered = engine->link->power_on();
  }
  if (powered) return engine;
  end(*engine, true);
  return powered.error();
}

Result<Manufactured> Engines::manufacture(const std::string& launch_document, const EngineTerms& terms) {
  auto engine = power_on(std::nullopt, terms);
  if (!engine) return engine.error().within("power-on of a new TPM");
  auto identity = identity::provision(*(*engine)->link, launch_document);
  const Result<> placed = identity ? place(**engine, terms) : Result<>(identity.error());
  if (placed) return Manufactured{std::move(*engine), std::move(*identity)};
  (*engine)->kill();
  return placed.error().within("provisioning of a new TPM");
}

Result<Manufactured> Engines::manufacture_durable(const std::string& launch_document, Storage storage,
                                                  const EngineTerms& terms) {
  auto engine = power_on(std::move(storage), terms);
  if (!engine) return engine.error().within("power-on of a new TPM");
  auto identity = identity::provision(*(*engine)->link, launch_document);
  auto sequence = identity ? committed_sequence(*(*engine)->link) : Result<std::uint64_t>(identity.error());
  const Result<> placed = sequence ? place(**engine, terms) : Result<>(sequence.error());
  if (placed) return Manufactured{std::move(*engine), std::move(*identity), *sequence};
  end(**engine, true);
  return placed.error().within("provisioning of a new TPM");
}

Result<Manufactured> Engines::resume(const std::string& launch_document, Storage storage,
                                     const identity::Identity& identity, const EngineTerms& terms) {
  VTPM_TRY(std::shared_ptr<Engine> engine, power_on(std::move(storage), terms));
  const Result<> resumed = identity::resume(*engine->link, identity, launch_document);
  const auto sequence = resumed ? committed_sequence(*engine->link) : Result<std::uint64_t>(resumed.error());
  const Result<> placed = sequence ? place(*engine, terms) : Result<>(sequence.error());
  if (placed) return Manufactured{std::move(engine), identity, *sequence};
  // It may be stopped in order: what it stored is whole.
  static_cast<void>(retire(*engine));
  return placed.error();
}

Result<> Engines::retire(Engine& engine) {
  engine.begin_conversation();
  Result<> orderly = engine.link->shutdown();
  // One that did not answer in time will not end by itself either.
  const bool ended = end(engine, !orderly && orderly.error().kind() == ErrorCode::Timeout);
  if (orderly && !ended) orderly = Error(ErrorCode::Timeout, "the engine did not end and was killed");
  return orderly;
}

Result<std::uint64_t> Engines::stop(Engine& engine) {
  engine.begin_conversation();
  const Result<> orderly = engine.link->shutdown();
  const auto sequence = orderly ? committed_sequence(*engine.link) : Result<std::uint64_t>(orderly.error());
  end(engine, !sequence && sequence.error().kind() == ErrorCode::Timeout);
  return sequence;
}

// Without its link an engine ends by itself. False: it did not, and was killed.
bool Engines::end(Engine& engine, bool stuck) {
  engine.link.reset();
  const bool ended = !stuck && wait_for_end(engine.pidfd.get(), kEndDeadline);
  if (!ended) engine.kill();
  how_it_ended(engine.pid);  // lets the zygote forget it
  return ended;
}

void Engines::took_over(pid_t pid) {
  const std::lock_guard lock(mutex_);
  taken_over_.insert(pid);
}

std::string Engines::how_it_ended(pid_t pid) {
  {
    const std::lock_guard lock(mutex_);
    if (taken_over_.erase(pid) > 0) return "its exit status is unknown";
  }
  const auto end = zygotes_->exit_of(pid, kStatusDeadline);
  return end ? end->describe() : "its exit status is unknown";
}

}  // namespace vtpm::supervisor
