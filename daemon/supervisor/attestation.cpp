// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/attestation.h"

#include "daemon/supervisor/clock.h"

namespace vtpm::supervisor {
namespace {

struct LoggedPair {
  evidence::LoggedEntry host_start;
  evidence::LoggedEntry instance_create;
};

// The host.start entry is that which the instance.create entry names: the instance may be older than this
// vtpmd.
Result<LoggedPair> read_entries(const LogStore& log, std::uint64_t create, std::uint64_t size) {
  VTPM_TRY(evidence::LoggedEntry instance, log.logged(create, size));
  VTPM_TRY(const log::Entry entry, log::parse_entry(instance.entry));
  const auto* created = std::get_if<log::InstanceCreate>(&entry);
  if (created == nullptr)
    return Error(ErrorCode::Internal, "entry " + std::to_string(create) + " is no instance.create");
  VTPM_TRY(evidence::LoggedEntry start, log.logged(created->host_start, size));
  return LoggedPair{std::move(start), std::move(instance)};
}

}  // namespace

Task<> Attestation::enrol(evidence::SignedEnrolment enrolment) {
  VTPM_CO_TRY(const evidence::Enrolment said, evidence::read_enrolment(enrolment));
  if (said.ak_name != anchor_.ak_name)
    co_return Error(ErrorCode::Conflict, "the enrolment is of another attestation key than this host's");
  const auto keep = [this, said, enrolment]() -> Result<std::vector<evidence::SignedEnrolment>> {
    VTPM_TRY_VOID(store_.keep_enrolment(said.authority, enrolment));
    return store_.enrolments();
  };
  VTPM_CO_TRY(enrolments_, co_await run_on(workers_.store, keep));
  co_return Result<>();
}

Task<Attestation::Link> Attestation::choose_epoch(std::uint64_t log_index, Bytes nonce, bool fresh) {
  const auto latest = epochs_.latest();
  const std::uint64_t now = now_ms();
  // After the clock was set back an epoch of the future is not young: a new one is signed.
  const bool young =
      latest && latest->epoch.time <= now && std::chrono::milliseconds(now - latest->epoch.time) <= max_age_;
  if (!fresh && young && latest->epoch.tree_size > log_index) co_return Link{latest, std::nullopt};

  std::optional<Bytes> included;
  if (fresh) included = std::move(nonce);
  VTPM_CO_TRY(NextEpoch next, co_await epochs_.next(std::move(included)));
  if (!fresh) co_return Link{next.epoch, std::nullopt};
  VTPM_CO_TRY(evidence::NonceProof proof, next.epoch->nonces.proof(next.nonce_index));
  co_return Link{next.epoch, std::move(proof)};
}

Task<std::string> Attestation::evidence(std::string id, std::uint64_t log_index, Bytes nonce, bool fresh) {
  if (nonce.size() < evidence::kMinNonce || nonce.size() > evidence::kMaxNonce)
    co_return Error(ErrorCode::Malformed, "nonce: must be 8 to 64 bytes");
  VTPM_CO_TRY(Link link, co_await choose_epoch(log_index, nonce, fresh));
  const SignedEpoch& epoch = *link.epoch;
  const auto data = evidence::qualifying_data(nonce, epoch.quote.quote);
  VTPM_CO_TRY(QuotedInstance quoted, co_await instances_.quote(id, data));

  const auto read = [this, log_index, size = epoch.epoch.tree_size] {
    return read_entries(store_.log(), log_index, size);
  };
  VTPM_CO_TRY(LoggedPair entries, co_await run_on(workers_.store, read));
  const evidence::Evidence made{
      anchor_.kind,
      {anchor_.ak_public, epoch.quote.quote, epoch.quote.signature, epoch.quote.pcrs},
      anchor_.ek_certificate,
      enrolments_,
      epoch.epoch,
      std::move(entries.host_start),
      std::move(entries.instance_create),
      std::move(nonce),
      std::move(link.proof),
      {std::move(quoted.ak_public), std::move(quoted.quote.quote), std::move(quoted.quote.signature),
       std::move(quoted.quote.pcrs)},
      std::move(quoted.event_log)};
  co_return evidence::to_json(made);
}

}  // namespace vtpm::supervisor
