// SPDX-License-Identifier: Apache-2.0
// Evidence for one instance, put together from the log, an epoch and the instance's own quote.
#pragma once

#include "daemon/supervisor/epochs.h"
#include "daemon/supervisor/instances.h"

namespace vtpm::supervisor {

class Attestation {
 public:
  // `max_age`: of an epoch that may be used again.
  Attestation(Workers& workers, Store& store, Instances& instances, Epochs& epochs,
              anchor::AnchorIdentity anchor, std::vector<evidence::SignedEnrolment> enrolments,
              std::chrono::seconds max_age)
      : workers_(workers),
        store_(store),
        instances_(instances),
        epochs_(epochs),
        anchor_(std::move(anchor)),
        enrolments_(std::move(enrolments)),
        max_age_(max_age) {}

  // The evidence document. `fresh`: waits for an epoch with the nonce in it; otherwise a young one that
  // covers the instance will do. `log_index`: of the instance's instance.create entry. A nonce that is not 8
  // to 64 bytes: Malformed.
  Task<std::string> evidence(std::string id, std::uint64_t log_index, Bytes nonce, bool fresh);
  const anchor::AnchorIdentity& anchor() const noexcept { return anchor_; }
  // Of the anchor's AK, one by each authority.
  const std::vector<evidence::SignedEnrolment>& enrolments() const noexcept { return enrolments_; }
  // Keeps it, in place of an earlier one by the same authority. Of another AK: Conflict. Whether the
  // authority is one, a verifier's policy says.
  Task<> enrol(evidence::SignedEnrolment enrolment);

 private:
  struct Link {
    std::shared_ptr<const SignedEpoch> epoch;
    std::optional<evidence::NonceProof> proof;
  };
  Task<Link> choose_epoch(std::uint64_t log_index, Bytes nonce, bool fresh);

  Workers& workers_;
  Store& store_;
  Instances& instances_;
  Epochs& epochs_;
  anchor::AnchorIdentity anchor_;
  std::vector<evidence::SignedEnrolment> enrolments_;
  std::chrono::seconds max_age_;
};

}  // namespace vtpm::supervisor
