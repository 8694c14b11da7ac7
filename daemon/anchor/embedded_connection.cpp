// SPDX-License-Identifier: Apache-2.0
#include "daemon/anchor/connection.h"
#include "daemon/anchor/record.h"
#include "daemon/tss/capability.h"

#include <vtpm/os/file.h>
#include <vtpm/os/secret.h>

#include <algorithm>

namespace vtpm::anchor {
namespace {

// The file: kMagic || SHA-256(blob) || blob. The digest finds damage, which libtpms would not.
constexpr std::string_view kMagic = "VTPMEMB1";
constexpr std::size_t kHeaderSize = kMagic.size() + sizeof(tpm::Sha256);
constexpr std::size_t kMaxStateSize = 1024 * 1024;
constexpr mode_t kOwnerOnly = 0600;

Error corrupt(const std::string& path, std::string_view finding) {
  return Error(ErrorCode::Corrupt,
               path + ": " + std::string(finding) +
                   "; the file was kept. Restore it from a backup; or, to begin a new host identity, "
                   "move the whole state directory away");
}

Result<Bytes> unwrap(const std::string& path, const Bytes& file) {
  if (file.size() <= kHeaderSize || as_text(BytesView(file).first(kMagic.size())) != kMagic)
    return corrupt(path, "not the state of an embedded TPM");
  const BytesView digest = BytesView(file).subspan(kMagic.size(), sizeof(tpm::Sha256));
  const BytesView blob = BytesView(file).subspan(kHeaderSize);
  if (!std::ranges::equal(digest, tpm::sha256(blob))) return corrupt(path, "damaged");
  return Bytes(blob.begin(), blob.end());
}

class EmbeddedConnection final : public Connection {
 public:
  EmbeddedConnection(std::string state_dir, SpawnEngine spawn)
      : state_dir_(std::move(state_dir)), path_(embedded_state_path(state_dir_)), spawn_(std::move(spawn)) {}

  log::AnchorKind kind() const noexcept override { return log::AnchorKind::Embedded; }
  Result<std::unique_ptr<tss::Esys>> connect() override;
  Result<> save() override;
  Result<> close() override;

 private:
  Result<Bytes> load() const;
  Result<std::unique_ptr<tss::Esys>> start_tpm(BytesView permanent);

  std::string state_dir_;
  std::string path_;
  SpawnEngine spawn_;
  std::optional<ipc::SpawnedEngine> engine_;
};

// The stored state; empty for a TPM that is still to be manufactured.
Result<Bytes> EmbeddedConnection::load() const {
  auto file = read_file(path_, kMaxStateSize);
  if (file) {
    const Secret content(std::move(*file));
    return unwrap(path_, Bytes(content.view().begin(), content.view().end()));
  }
  if (file.error().kind() != ErrorCode::NotFound) return corrupt(path_, file.error().context);
  VTPM_TRY(const auto record, read_record(state_dir_));
  if (record) return corrupt(path_, "missing, although " + record_path(state_dir_) + " names a key in it");
  return Bytes();
}

Result<std::unique_ptr<tss::Esys>> EmbeddedConnection::start_tpm(BytesView permanent) {
  VTPM_TRY_VOID(engine_->link->power_on(permanent));
  auto tcti = tss::make_tcti(tss::over_engine(*engine_->link, tpm::Locality::tenant()));
  VTPM_TRY(auto esys, tss::Esys::make(std::move(tcti), tss::Esys::Patience{0}));
  VTPM_TRY_VOID(tss::startup(*esys, false));
  return esys;
}

// Whether an engine that was given the state refused it: one that crashed, hangs or has no time says
// nothing about the state.
bool refuses_state(const Error& error) {
  return error.kind() != ErrorCode::Unreachable && error.kind() != ErrorCode::Timeout &&
         error.kind() != ErrorCode::Busy;
}

Result<std::unique_ptr<tss::Esys>> EmbeddedConnection::connect() {
  engine_.reset();  // an engine without a link ends
  VTPM_TRY(const Bytes permanent, load());
  VTPM_TRY(engine_, spawn_());
  auto esys = start_tpm(permanent);
  if (!esys) {
    const bool state_refused = !permanent.empty() && refuses_state(esys.error());
    engine_.reset();
    if (state_refused) return corrupt(path_, "refused by the TPM (" + esys.error().context + ")");
    return esys;
  }
  VTPM_TRY_VOID(save());  // the reset count must not go back
  return esys;
}

Result<> EmbeddedConnection::save() {
  VTPM_TRY(const Bytes blob, engine_->link->permanent_state());
  Bytes file;
  put(file, as_bytes(kMagic));
  put(file, tpm::sha256(blob));
  put(file, blob);
  return replace_file(path_, file, kOwnerOnly);
}

Result<> EmbeddedConnection::close() {
  if (!engine_) return {};
  VTPM_TRY_VOID(engine_->link->shutdown());
  auto saved = save();
  engine_.reset();
  return saved;
}

}  // namespace

std::string embedded_state_path(const std::string& state_dir) {
  return state_dir + "/embedded-tpm.state";
}

std::unique_ptr<Connection> embedded_connection(std::string state_dir, SpawnEngine spawn) {
  return std::make_unique<EmbeddedConnection>(std::move(state_dir), std::move(spawn));
}

}  // namespace vtpm::anchor
