// SPDX-License-Identifier: Apache-2.0
#include "daemon/anchor/attestation_key.h"
#include "daemon/anchor/connection.h"
#include "daemon/anchor/ek_certificate.h"
#include "daemon/anchor/endorsement_key.h"
#include "daemon/anchor/state_key.h"
#include "daemon/tss/capability.h"
#include "daemon/tss/quote.h"

#include <algorithm>

namespace vtpm::anchor {
namespace {

// A connection with the key found in it. Destroyed in reverse: the key's reference first.
struct Session {
  std::unique_ptr<tss::Esys> esys;
  tss::Object key;
};

class TpmAnchor final : public Anchor {
 public:
  TpmAnchor(std::unique_ptr<Connection> connection, AnchorConfig config, Record record,
            AnchorIdentity identity, Session session)
      : connection_(std::move(connection)),
        config_(std::move(config)),
        record_(std::move(record)),
        identity_(std::move(identity)),
        session_(std::move(session)) {}

  const AnchorIdentity& identity() const noexcept override { return identity_; }
  Result<AnchorQuote> quote(const tpm::Sha256& qualifying_data) override;
  Result<tpm::PcrValues> read_pcrs() override;
  Result<Secret> state_key() override;
  Result<std::optional<Secret>> existing_state_key() override;
  Result<Endorsement> endorsement() override;
  Result<Secret> activate(const tpm::Credential& credential) override;
  Result<> close() override;

 private:
  // A TPM that was away for a moment, or was reset behind an open connection, is worth one new connection.
  static constexpr int kAttempts = 2;

  Result<> connect();
  // `use` with a connection; once more with a new one when that is lost.
  template <class T>
  Result<T> with_session(const std::function<Result<T>(Session&)>& use);
  Result<AnchorQuote> checked(tss::Quoted quoted) const;

  std::unique_ptr<Connection> connection_;
  AnchorConfig config_;
  Record record_;
  AnchorIdentity identity_;
  std::optional<Session> session_;
  bool closed_ = false;
};

// The connection is kept after an Error that says nothing about it.
bool connection_is_sound(const Error& error) noexcept {
  return error.kind() == ErrorCode::Busy || error.kind() == ErrorCode::Unsupported;
}

Result<> TpmAnchor::connect() {
  if (closed_) return Error(ErrorCode::Unavailable, "the anchor is closed");
  if (session_) return {};
  VTPM_TRY(auto esys, connection_->connect());
  VTPM_TRY(auto key, open_key(*esys, record_, config_.state_dir));
  session_.emplace(Session{std::move(esys), std::move(key)});
  return {};
}

// A key of the same Name elsewhere, or a TPM that was exchanged under a living connection, signs otherwise.
Result<AnchorQuote> TpmAnchor::checked(tss::Quoted quoted) const {
  if (const auto valid = tpm::verify_signature(identity_.ak_public, quoted.quote, quoted.signature); !valid)
    return Error(ErrorCode::Corrupt, "the TPM's quote is not signed by the key that " +
                                         record_path(config_.state_dir) +
                                         " names: the TPM was exchanged or is damaged");
  return AnchorQuote{std::move(quoted.quote), std::move(quoted.signature), std::move(quoted.pcrs)};
}

Result<AnchorQuote> TpmAnchor::quote(const tpm::Sha256& qualifying_data) {
  Error failure(ErrorCode::Internal, "no attempt was made");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    VTPM_TRY_VOID(connect());  // also says whether the key is still the same
    auto outcome = tss::try_quote(*session_->esys, session_->key, qualifying_data, config_.pcrs);
    if (outcome && std::holds_alternative<tss::Quoted>(*outcome))
      return checked(std::get<tss::Quoted>(std::move(*outcome)));
    failure = outcome ? tss::to_error("TPM2_Quote", std::get<tss::Refused>(*outcome).code) : outcome.error();
    if (connection_is_sound(failure)) return failure;
    session_.reset();
  }
  return failure;
}

Result<tpm::PcrValues> TpmAnchor::read_pcrs() {
  Error failure(ErrorCode::Internal, "no attempt was made");
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    VTPM_TRY_VOID(connect());
    auto values = tss::read_pcrs(*session_->esys, config_.pcrs);
    if (values || connection_is_sound(values.error())) return values;
    failure = std::move(values).error();
    session_.reset();
  }
  return failure;
}

Result<Secret> TpmAnchor::state_key() {
  VTPM_TRY(auto existing, existing_state_key());
  if (existing) return std::move(*existing);
  if (connection_->kind() == log::AnchorKind::Embedded) return make_plain_key(config_.state_dir);
  VTPM_TRY_VOID(connect());
  return make_sealed_key(*session_->esys, config_);
}

template <class T>
Result<T> TpmAnchor::with_session(const std::function<Result<T>(Session&)>& use) {
  for (int attempt = 1;; ++attempt) {
    VTPM_TRY_VOID(connect());
    auto result = use(*session_);
    if (result || result.error().kind() != ErrorCode::Unreachable) return result;
    session_.reset();
    if (attempt == kAttempts) return result;
  }
}

Result<std::optional<Secret>> TpmAnchor::existing_state_key() {
  if (connection_->kind() == log::AnchorKind::Embedded) return load_plain_key(config_.state_dir);
  return with_session<std::optional<Secret>>(
      [this](Session& session) { return load_sealed_key(*session.esys, config_); });
}

Result<Endorsement> TpmAnchor::endorsement() {
  return with_session<Endorsement>([](Session& session) -> Result<Endorsement> {
    VTPM_TRY(EndorsementKey ek, open_endorsement_key(*session.esys));
    return Endorsement{std::move(ek.public_area), std::move(ek.certificate)};
  });
}

Result<Secret> TpmAnchor::activate(const tpm::Credential& credential) {
  return with_session<Secret>([&credential](Session& session) -> Result<Secret> {
    VTPM_TRY(const EndorsementKey ek, open_endorsement_key(*session.esys));
    return activate_credential(*session.esys, session.key, ek, credential);
  });
}

Result<> TpmAnchor::close() {
  session_.reset();
  return std::exchange(closed_, true) ? Result<>() : connection_->close();
}

// The record of a key that is made now. What it names is in the TPM for good before it is written.
Result<Record> first_use(Connection& connection, tss::Esys& esys, const std::string& state_dir) {
  VTPM_TRY(Record record, create_key(esys, connection.kind()));
  auto kept = connection.save();
  if (kept) kept = write_record(state_dir, record);
  if (kept) return record;
  // Without its record the key is of no use to anybody: do not leave it behind. If that fails too, the first
  // failure is the one to report.
  static_cast<void>(tss::evict(esys, record.handle));
  return std::move(kept).error();
}

Result<AnchorIdentity> describe(tss::Esys& esys, const tss::Object& key, const Record& record) {
  VTPM_TRY(Bytes ak_public, tss::read_public(esys, key));
  VTPM_TRY(auto certificate, read_ek_certificate(esys));
  VTPM_TRY(std::string manufacturer, tss::vendor(esys));
  VTPM_TRY(const std::uint64_t version, tss::firmware_version(esys));
  auto der = certificate ? std::optional(std::move(certificate->der)) : std::nullopt;
  return AnchorIdentity{record.kind,    std::move(ak_public),    record.ak_name,
                        std::move(der), std::move(manufacturer), version};
}

Result<> check(const AnchorConfig& config) {
  const auto in_range = [](const std::set<unsigned>& pcrs) {
    return std::ranges::all_of(pcrs, [](unsigned pcr) { return pcr < tpm::kPcrCount; });
  };
  if (config.pcrs.empty() || !in_range(config.pcrs))
    return Error(ErrorCode::Configuration, "the anchor's PCRs must be one or more of 0 to 23");
  if (!in_range(config.seal_pcrs))
    return Error(ErrorCode::Configuration, "the PCRs to seal to must be of 0 to 23");
  return {};
}

Result<Record> load_or_make(Connection& connection, tss::Esys& esys, const std::string& state_dir) {
  VTPM_TRY(auto stored, read_record(state_dir));
  if (!stored) return first_use(connection, esys, state_dir);
  if (stored->kind != connection.kind())
    return Error(ErrorCode::Configuration, record_path(state_dir) + " belongs to an anchor of kind \"" +
                                               std::string(log::to_string(stored->kind)) +
                                               "\"; choose that anchor or another --state-dir");
  return std::move(*stored);
}

}  // namespace

Result<std::unique_ptr<Anchor>> open_over(std::unique_ptr<Connection> connection,
                                          const AnchorConfig& config) {
  VTPM_TRY_VOID(check(config));
  VTPM_TRY(auto esys, connection->connect());
  VTPM_TRY(Record record, load_or_make(*connection, *esys, config.state_dir));
  VTPM_TRY(auto key, open_key(*esys, record, config.state_dir));
  VTPM_TRY(AnchorIdentity identity, describe(*esys, key, record));
  Session session{std::move(esys), std::move(key)};
  return std::unique_ptr<Anchor>(std::make_unique<TpmAnchor>(std::move(connection), config, std::move(record),
                                                             std::move(identity), std::move(session)));
}

}  // namespace vtpm::anchor
