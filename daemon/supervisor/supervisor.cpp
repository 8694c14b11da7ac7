// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/supervisor.h"

#include "daemon/anchor/connection.h"
#include "daemon/anchor/record.h"
#include "daemon/supervisor/attach_server.h"
#include "daemon/supervisor/clock.h"
#include "daemon/supervisor/http_server.h"
#include "daemon/supervisor/listener.h"
#include "daemon/supervisor/runtime_text.h"
#include "daemon/supervisor/sockets.h"

#include <vtpm/os/file.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <set>

namespace vtpm::supervisor {
namespace {

constexpr std::size_t kMaxBinary = std::size_t{1} << 30;
constexpr unsigned kLastWordsSeconds = 5;
constexpr std::chrono::seconds kProgress{1};                               // between two reports of it
constexpr std::chrono::microseconds kMoreTime = std::chrono::seconds(30);  // for the service manager to wait
constexpr const char* kHardwareTpm = "/dev/tpmrm0";

Result<log::Sha256> digest_of_binary(const std::string& path) {
  VTPM_TRY(const Bytes content, read_file(path, kMaxBinary));
  return tpm::sha256(content);
}

Result<Rules> make_rules(const std::optional<std::string>& group) {
  Rules rules{::getuid(), std::nullopt};
  if (!group) return rules;
  const struct group* entry = ::getgrnam(group->c_str());
  if (entry == nullptr) return Error(ErrorCode::Configuration, "--group: no group is named " + *group);
  rules.group = entry->gr_gid;
  return rules;
}

Result<anchor::AnchorConfig> anchor_config(const Options& options) {
  anchor::AnchorConfig config;
  config.state_dir = options.state_dir;
  config.pcrs = options.anchor_pcrs;
  config.seal_pcrs = options.seal_pcrs;
  config.report = [](std::string_view text) { log_line(LogLevel::Warning, text); };
  config.embedded = options.anchor == "embedded";
  if (config.embedded) return config;
  config.tcti = options.anchor;
  if (!config.tcti.empty()) return config;
  if (::access(kHardwareTpm, F_OK) != 0)
    return Error(ErrorCode::Configuration,
                 std::string("there is no hardware TPM (") + kHardwareTpm +
                     "); --anchor embedded uses a software TPM instead, --anchor TCTI another one");
  config.tcti = std::string("device:") + kHardwareTpm;
  return config;
}

// What is locked, opened and known before anything is served.
struct Ground {
  Rules rules;
  UniqueFd state_lock;
  UniqueFd runtime_lock;
  std::unique_ptr<Disposal> disposal = std::make_unique<Disposal>();
  std::unique_ptr<Store> store;
  std::unique_ptr<Engines> engines;
  std::unique_ptr<Keeper> keeper;
  std::vector<LeftRunning> left;
  std::unique_ptr<anchor::Anchor> anchor;
  std::uint64_t host_start;
  std::vector<StoredInstance> durable;
  std::vector<evidence::SignedEnrolment> enrolments;
};

// A durable instance of which the note cannot be read is started from its slot files instead.
bool can_be_taken_back(const StoredRunning& stored) {
  return !stored.durable || parse_runtime(stored.runtime, stored.log_index);
}

struct Matched {
  std::vector<LeftRunning> left;  // what the database and the keeper both have
  std::vector<std::string> over;  // what the keeper has although the database has ended it
};

// The keeper is given an instance once its row is committed.
Error held_by_others(const std::string& id, const Keeper& keeper, const std::string& state_dir) {
  return Error(
      ErrorCode::Configuration,
      keeper.name() + " has instance " + id + ", which " + state_dir +
          "/vtpm.db has never known: its vtpmd had another state directory, or the database is "
          "another one. Start vtpmd with the state directory of these TPMs; or end them all, in order, "
          "by SIGTERM to that process");
}

// Changes nothing: a start that fails is no reason for an engine to end.
Result<Matched> match(Store& store, Keeper& keeper, const std::string& state_dir) {
  VTPM_TRY(std::vector<StoredRunning> rows, store.left_running());
  VTPM_TRY(std::vector<HeldInstance> held, keeper.recall());
  Matched matched;
  for (HeldInstance& one : held) {
    VTPM_TRY(const bool known, store.is_known(one.id));
    if (!known) return held_by_others(one.id, keeper, state_dir);
    const auto row =
        std::find_if(rows.begin(), rows.end(), [&](const auto& r) { return r.row.id == one.id; });
    // Without its engine's pidfd: the earlier vtpmd died before the keeper had all.
    if (row != rows.end()) keeper.set_owner(one.id, row->row.owner_uid);
    if (row != rows.end() && one.engine && can_be_taken_back(*row))
      matched.left.push_back({std::move(row->row), row->log_index, std::move(row->runtime), std::move(one)});
    else
      matched.over.push_back(std::move(one.id));
  }
  return matched;
}

// Those engines end.
Result<> release_all(Keeper& keeper, const std::vector<std::string>& ids) {
  for (const std::string& id : ids)
    VTPM_TRY_VOID(keeper.release(id));
  return {};
}

Result<std::uint64_t> log_start(Store& store, anchor::Anchor& anchor, const Options& options,
                                const std::vector<LeftRunning>& taken) {
  std::set<std::string> ids;
  for (const LeftRunning& instance : taken)
    ids.insert(instance.row.id);
  VTPM_TRY(const std::size_t left, store.end_left_overs(now_ms(), ids));
  if (left > 0)
    log_line(LogLevel::Warning, std::to_string(left) + " instances of an earlier vtpmd are marked destroyed");
  log::HostStart entry;
  entry.time = now_ms();
  entry.anchor = anchor.identity().kind;
  entry.ak_name = anchor.identity().ak_name;
  VTPM_TRY(entry.pcrs, anchor.read_pcrs());
  VTPM_TRY(entry.vtpmd, digest_of_binary("/proc/self/exe"));
  VTPM_TRY(entry.engine, digest_of_binary(options.engine));
  entry.version = VTPM_VERSION;
  return store.append(entry);
}

// Durable instances whose engines live are taken back as they are; the others are their slot files.
void tell_apart(std::vector<LeftRunning>& left, std::vector<StoredInstance>& durable) {
  for (LeftRunning& running : left) {
    const auto stored = std::find_if(durable.begin(), durable.end(),
                                     [&](const StoredInstance& d) { return d.row.id == running.row.id; });
    if (stored == durable.end()) continue;
    running.row = std::move(stored->row);
    durable.erase(stored);
  }
}

// Slot files without an instance: those of a destroyed one go, as vtpmd was ended before it could remove
// them. Others may be of a database that was put back, or of a creation that was cut short: they stay.
Result<> sort_out_slot_files(Store& store, const std::string& state_dir,
                             const std::vector<StoredInstance>& instances) {
  const SlotFiles files(state_dir);
  std::set<std::string> known;
  for (const StoredInstance& instance : instances)
    known.insert(instance.row.id);
  VTPM_TRY(const std::vector<std::string> present, files.present());
  for (const std::string& id : present) {
    if (known.contains(id)) continue;
    VTPM_TRY(const bool destroyed, store.is_destroyed(id));
    if (!destroyed) {
      log_line(LogLevel::Warning, files.directory(id) + " belongs to no instance and is left as it is");
      continue;
    }
    VTPM_TRY_VOID(files.remove(id));
  }
  return {};
}

// 0: there is none.
Result<std::uint64_t> size_of(const std::string& path) {
  struct stat found {};
  if (::lstat(path.c_str(), &found) == 0) return static_cast<std::uint64_t>(found.st_size);
  if (errno != ENOENT) return errno_error(path, errno);
  return 0;
}

Result<bool> exists(const std::string& path) {
  if (::faccessat(AT_FDCWD, path.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0) return true;
  if (errno != ENOENT) return errno_error(path, errno);
  return false;
}

Error state_lost(const std::string& path, const std::string& finding) {
  return Error(ErrorCode::Corrupt, path + " is " + finding +
                                       "; nothing was changed. Restore it from a backup; or, to begin a new "
                                       "host identity, move the whole state directory away");
}

// A log that was lost is not begun again. An empty database alone is a first start that was cut short: SQLite
// makes the file before its content.
Result<> refuse_lost_log(const std::string& state_dir) {
  const std::string file = state_dir + "/vtpm.db";
  VTPM_TRY(const std::uint64_t size, size_of(file));
  if (size > 0) return {};
  for (const std::string& later :
       {anchor::record_path(state_dir), anchor::embedded_state_path(state_dir), file + "-wal"}) {
    VTPM_TRY(const bool found, exists(later));
    if (found) return state_lost(file, "missing or empty, although " + later + " is there");
  }
  return {};
}

// The key that signed for a log is not made again.
Result<> refuse_lost_key(const std::string& state_dir, const Store& store) {
  if (store.log().size() == 0) return {};
  const std::string record = anchor::record_path(state_dir);
  VTPM_TRY(const bool found, exists(record));
  if (!found) return state_lost(record, "missing, although the log has entries");
  return {};
}

Result<Ground> prepare(const Options& options) {
  Ground ground;
  VTPM_TRY(ground.rules, make_rules(options.group));
  VTPM_TRY(const anchor::AnchorConfig config, anchor_config(options));
  VTPM_TRY(ground.state_lock, claim_directory(options.state_dir, 0700));
  VTPM_TRY(ground.runtime_lock, claim_directory(options.runtime_dir, 0755));
  VTPM_TRY_VOID(refuse_lost_log(options.state_dir));
  VTPM_TRY(ground.store, Store::open(options.state_dir));
  VTPM_TRY_VOID(refuse_lost_key(options.state_dir, *ground.store));
  VTPM_TRY(ground.engines, Engines::start(options.engine));
  VTPM_TRY(ground.keeper, Keeper::start(options.engine, options.runtime_dir, *ground.disposal));
  VTPM_TRY(Matched matched, match(*ground.store, *ground.keeper, options.state_dir));
  ground.left = std::move(matched.left);
  auto anchor = anchor::open_anchor(config, [&engines = *ground.engines] { return engines.spawn(); });
  if (!anchor) return anchor.error().within("the anchor cannot be opened");
  ground.anchor = std::move(*anchor);
  VTPM_TRY(ground.host_start, log_start(*ground.store, *ground.anchor, options, ground.left));
  VTPM_TRY(ground.durable, ground.store->durable_instances());
  VTPM_TRY(ground.enrolments, ground.store->enrolments());
  VTPM_TRY_VOID(sort_out_slot_files(*ground.store, options.state_dir, ground.durable));
  tell_apart(ground.left, ground.durable);
  VTPM_TRY_VOID(release_all(*ground.keeper, matched.over));
  return ground;
}

struct Sockets {
  UniqueFd http;
  UniqueFd attach;
};

Result<Sockets> open_sockets(const Options& options, const Rules& rules) {
  const SocketSpec http{options.runtime_dir + "/vtpmd.sock", SOCK_STREAM, 0660, rules.group};
  const SocketSpec attach{options.runtime_dir + "/attach.sock", SOCK_SEQPACKET, 0666, std::nullopt};
  Sockets sockets;
  VTPM_TRY(sockets.http, listen_at(http));
  VTPM_TRY(sockets.attach, listen_at(attach));
  return sockets;
}

void notify(const std::string& state) {
  if (::sd_notify(0, state.c_str()) < 0)
    log_line(LogLevel::Warning, "the service manager cannot be notified");
}

// The daemon while it serves. All members are used by the thread that runs io_ alone.
class Daemon {
 public:
  Daemon(const Options& options, Ground& ground, Sockets sockets)
      : ground_(ground),
        executor_(io_.get_executor()),
        signals_(executor_, SIGTERM, SIGINT, SIGUSR2),
        begin_(executor_),
        stop_(executor_),
        events_(executor_, ground.rules),
        host_key_(workers_, *ground.anchor, options.state_dir),
        durable_(*ground.engines, options.state_dir),
        instances_(executor_, workers_, *ground.engines, *ground.keeper, *ground.store, registry_, events_,
                   host_key_, durable_, options.limits, ground.host_start),
        epochs_(executor_, workers_, *ground.anchor, *ground.store),
        attestation_(workers_, *ground.store, instances_, epochs_, ground.anchor->identity(),
                     std::move(ground.enrolments), options.epoch_max_age),
        context_{ground.rules,
                 options.max_instances_per_user,
                 registry_,
                 instances_,
                 attestation_,
                 epochs_,
                 events_,
                 *ground.store,
                 *ground.anchor,
                 workers_,
                 ground.engines->jail()},
        http_(context_),
        attach_(ground.rules, options.max_instances_per_user, workers_, registry_, instances_),
        http_listener_(executor_, std::move(sockets.http), "vtpmd.sock", workers_.disposal,
                       [this](UniqueFd socket, PeerCredentials peer) {
                         return http_.serve(std::move(socket), std::move(peer));
                       }),
        state_interval_(options.state_interval),
        attach_listener_(executor_, std::move(sockets.attach), "attach.sock", workers_.disposal,
                         [this](UniqueFd socket, PeerCredentials peer) {
                           return attach_.serve(std::move(socket), std::move(peer));
                         }) {}

  // Returns when the last coroutine has ended.
  void run() {
    spawn(executor_, "daemon", live());
    io_.run();
  }

 private:
  asio::awaitable<void> live();
  asio::awaitable<void> first_epoch();
  asio::awaitable<void> await_signal();
  asio::awaitable<void> take_back();
  void serve();
  asio::awaitable<void> end();

  Ground& ground_;
  asio::io_context io_{1};
  Workers workers_{*ground_.disposal};
  asio::any_io_executor executor_;
  asio::signal_set signals_;
  Signal begin_;  // the first epoch is done, or there is no need for it
  Signal stop_;
  bool stopping_ = false;
  bool handing_over_ = false;
  EventBus events_;
  Registry registry_;
  HostKey host_key_;
  DurableEngines durable_;
  Instances instances_;
  Epochs epochs_;
  Attestation attestation_;
  Context context_;
  HttpServer http_;
  AttachServer attach_;
  Listener http_listener_;
  std::chrono::seconds state_interval_;
  Listener attach_listener_;
};

asio::awaitable<void> Daemon::live() {
  spawn(executor_, "signals", await_signal());
  spawn(executor_, "first epoch", first_epoch());
  co_await begin_.wait();
  if (!handing_over_) co_await take_back();
  if (!stopping_) serve();
  co_await stop_.wait();
  co_await end();
}

asio::awaitable<void> Daemon::first_epoch() {
  const auto first = co_await epochs_.next(std::nullopt);
  if (first) log_line(LogLevel::Info, "the first epoch is signed");
  begin_.set();
}

asio::awaitable<void> Daemon::await_signal() {
  const auto [error, number] = co_await signals_.async_wait(kResume);
  handing_over_ = !error && number == SIGUSR2;
  if (!error)
    log_line(LogLevel::Info, std::string(handing_over_ ? "handing over" : "stopping") + " on signal " +
                                 std::to_string(number));
  stopping_ = true;
  begin_.set();
  stop_.set();
}

asio::awaitable<void> Daemon::take_back() {
  Result<> begun = co_await instances_.begin_watch_of_keeper();
  spawn(executor_, "watch of the keeper", instances_.watch_keeper(std::move(begun)));
  if (ground_.left.empty()) co_return;
  const std::string all = std::to_string(ground_.left.size());
  const auto started = std::chrono::steady_clock::now();
  log_line(LogLevel::Info, "taking back " + all + " instances of an earlier vtpmd");
  const auto progress = [all, next = started](std::size_t left) mutable {
    if (std::chrono::steady_clock::now() < next) return;
    next = std::chrono::steady_clock::now() + kProgress;
    notify("EXTEND_TIMEOUT_USEC=" + std::to_string(kMoreTime.count()) +
           "\nSTATUS=Taking back instances: " + std::to_string(left) + " of " + all + " left");
  };
  const std::size_t late = co_await instances_.take_back(std::move(ground_.left), progress);
  if (late > 0) {
    log_line(LogLevel::Warning, std::to_string(late) + " of " + all +
                                    " engines have not answered yet: what is asked of their instances waits");
    co_return;
  }
  const auto time =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - started);
  log_line(LogLevel::Info, "took " + all + " instances back in " + std::to_string(time.count()) + " ms");
}

void Daemon::serve() {
  instances_.load(std::move(ground_.durable));
  spawn(executor_, "durable instances", instances_.keep_durable(state_interval_));
  http_listener_.start();
  attach_listener_.start();
  notify("READY=1\nSTATUS=Serving");
  log_line(LogLevel::Info, "ready");
}

// A worker that waits for a hostile file system or a TPM that hangs cannot be woken (signal-safe: _exit
// alone).
void leave_at_once(int) {
  ::_exit(0);
}

asio::awaitable<void> Daemon::end() {
  notify(handing_over_ ? "STOPPING=1\nSTATUS=Handing over" : "STOPPING=1\nSTATUS=Ending instances");
  http_listener_.close();
  attach_listener_.close();
  if (handing_over_) {
    co_await instances_.hand_over();
  } else {
    co_await instances_.stop();
    co_await instances_.release_keeper();
  }
  const auto log_end = [this] { return ground_.store->append(log::HostStop{now_ms()}); };
  const auto logged = co_await run_on(workers_.store, log_end);
  if (!logged) log_line(LogLevel::Error, "host.stop is not logged: " + logged.error().context);
  // The log is complete and on disk. What is left, the anchor and the connections' last words, may never end.
  ::signal(SIGALRM, leave_at_once);
  ::alarm(kLastWordsSeconds);
  const auto close_anchor = [this] { return ground_.anchor->close(); };
  const auto closed = co_await run_on(workers_.anchor, close_anchor);
  if (!closed) log_line(LogLevel::Error, "the anchor: " + closed.error().context);
  events_.close();
  http_.close();
  attach_.close();
}

}  // namespace

Result<> run(const Options& options) {
  if (::geteuid() == 0)
    log_line(LogLevel::Warning, "running as root, which vtpmd does not need: use its own user");
  if (options.anchor == "embedded")
    log_line(LogLevel::Warning,
             "the anchor is software, not hardware: evidence proves nothing about this machine");
  ::signal(SIGPIPE, SIG_IGN);
  VTPM_TRY(Ground ground, prepare(options));
  VTPM_TRY(Sockets sockets, open_sockets(options, ground.rules));
  Daemon(options, ground, std::move(sockets)).run();
  log_line(LogLevel::Info, "stopped");
  return {};
}

}  // namespace vtpm::supervisor
