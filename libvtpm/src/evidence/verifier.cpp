// SPDX-License-Identifier: Apache-2.0
#include "log/json_values.h"

#include <vtpm/evidence/verifier.h>
#include <vtpm/os/encoding.h>
#include <vtpm/tpm/constants.h>
#include <vtpm/tpm/ek_certificate.h>

#include <algorithm>

namespace vtpm::evidence {
namespace {

constexpr std::uint64_t kClockSkew = 60'000;  // ms that the host's clock may be ahead of the verifier's
constexpr std::uint32_t kRoot = 0;
constexpr std::string_view kSoftware = "software, not hardware";

// What a check found (its detail), or the reason why it failed.
using Finding = Result<std::string>;

Error refused(std::string reason) {
  return {ErrorCode::NotVerified, std::move(reason)};
}

// For a check whose input could not be read: the check named `failed` has the reason.
Error not_checked(std::string_view failed) {
  return refused("not checked: " + std::string(failed) + " failed");
}

// Details quote evidence, and evidence is shown on terminals.
std::string printable(std::string text) {
  std::ranges::replace_if(
      text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return text;
}

// The entry of type T in a logged entry.
template <class T>
Result<T> entry_of(const LoggedEntry& logged, std::string_view kind) {
  VTPM_TRY(log::Entry entry, log::parse_entry(logged.entry));
  if (auto* found = std::get_if<T>(&entry)) return std::move(*found);
  return refused("the entry is not of the kind " + std::string(kind));
}

// The PCR values are those that the quote covers.
Result<> check_quoted_values(const tpm::Quote& quote, const PcrValues& values) {
  const bool same_pcrs =
      std::ranges::equal(quote.pcrs, values, {}, {}, [](const auto& value) { return value.first; });
  if (!same_pcrs) return refused("the values are of other PCRs than those quoted");
  if (!std::ranges::equal(quote.pcr_digest, tpm::pcr_digest(values)))
    return refused("the values do not have the quoted digest");
  return {};
}

Finding check_pcr_rule(const std::map<unsigned, std::set<Sha256>>& rule, const PcrValues& values) {
  if (rule.empty()) return std::string("the policy accepts any");
  for (const auto& [pcr, accepted] : rule) {
    const std::string name = "PCR " + std::to_string(pcr);
    const auto value = values.find(pcr);
    if (value == values.end()) return refused(name + " is not in the quote");
    if (!accepted.contains(value->second))
      return refused(name + " is " + to_hex(value->second) + ", which the policy does not accept");
  }
  return std::to_string(rule.size()) + " PCRs have accepted values";
}

Finding check_accepted(const std::set<Sha256>& accepted, const Sha256& digest) {
  const std::string text = to_hex(digest);
  if (accepted.empty()) return text + " (the policy accepts any)";
  if (!accepted.contains(digest)) return refused(text + " is not accepted by the policy");
  return text;
}

Finding check_accepted(const std::set<std::string>& accepted, const std::optional<std::string>& digest) {
  const std::string text = digest.value_or("none");
  if (accepted.empty()) return text + " (the policy accepts any)";
  if (!digest || !accepted.contains(*digest)) return refused(text + " is not accepted by the policy");
  return text;
}

// The chain of one piece of evidence. Each member function is one check.
class Chain {
 public:
  Chain(const Evidence& evidence, const Policy& policy, const Expectation& expected)
      : evidence_(evidence),
        policy_(policy),
        expected_(expected),
        start_(entry_of<log::HostStart>(evidence.host_start, "host.start")),
        create_(entry_of<log::InstanceCreate>(evidence.instance_create, "instance.create")),
        hardware_(tpm::parse_quote(evidence.anchor.quote)),
        own_(tpm::parse_quote(evidence.vtpm.quote)),
        launch_(find_launch()) {}

  std::optional<AnchorKind> anchor() const {
    // The weaker of the two statements, should they differ.
    if (!start_) return std::nullopt;
    return start_->anchor == AnchorKind::Embedded ? start_->anchor : evidence_.anchor_kind;
  }
  std::optional<log::Launch> launch() const {
    return launch_ ? std::optional<log::Launch>(*launch_) : std::nullopt;
  }

  Finding nonce() const {
    if (evidence_.nonce != expected_.nonce) return refused("made for another nonce");
    return "made for the nonce " + to_hex(expected_.nonce);
  }

  Finding anchor_kind() const {
    if (!start_) return not_checked("log.host-start");
    if (start_->anchor != evidence_.anchor_kind)
      return refused("the evidence and its host.start entry name different kinds of anchor");
    if (start_->anchor == AnchorKind::Tpm) return std::string("a TPM outside the host's software");
    if (!policy_.allow_embedded_anchor)
      return refused(std::string(kSoftware) + ": the policy does not allow an embedded anchor");
    return std::string(kSoftware) + ": allowed by the policy";
  }

  Finding anchor_key() const {
    VTPM_TRY_VOID(tpm::check_attestation_key(evidence_.anchor.ak_public));
    VTPM_TRY(const Bytes name, tpm::name_of_public(evidence_.anchor.ak_public));
    // Whether an authority has enrolled it is the next check.
    if (!policy_.anchor_aks.contains(name) && policy_.enrolment_authorities.empty())
      return refused("the AK " + to_hex(name) + " is not accepted by the policy");
    return "AK " + to_hex(name);
  }

  Finding anchor_enrolment() const {
    if (policy_.enrolment_authorities.empty())
      return std::string("not asked for: the policy accepts AKs alone");
    auto name = tpm::name_of_public(evidence_.anchor.ak_public);
    if (!name) return not_checked("anchor.key");
    if (policy_.anchor_aks.contains(*name)) return std::string("not asked for: the policy accepts this AK");
    return enrolled(*name);
  }

  Finding anchor_signature() const { return signature(evidence_.anchor); }

  Finding anchor_epoch() const {
    if (!hardware_) return hardware_.error();
    if (!std::ranges::equal(hardware_->extra_data, qualifying_data(evidence_.epoch)))
      return refused("the quote is of another epoch");
    return "a log of " + std::to_string(evidence_.epoch.tree_size) + " entries, root " +
           to_hex(evidence_.epoch.root) + (hardware_->safe ? "" : " (the TPM's clock is not safe)");
  }

  Finding anchor_pcrs() const {
    if (!hardware_) return not_checked("anchor.epoch");
    VTPM_TRY_VOID(check_quoted_values(*hardware_, evidence_.anchor.pcrs));
    return std::to_string(evidence_.anchor.pcrs.size()) + " PCRs quoted";
  }

  Finding policy_anchor_pcrs() const { return check_pcr_rule(policy_.anchor_pcrs, evidence_.anchor.pcrs); }

  Finding log_host_start() const {
    if (!start_) return start_.error();
    VTPM_TRY_VOID(included(evidence_.host_start));
    VTPM_TRY(const Bytes name, tpm::name_of_public(evidence_.anchor.ak_public));
    if (start_->ak_name != name) return refused("the host started with another AK");
    return "entry " + std::to_string(evidence_.host_start.index) + ", vtpmd " + start_->version;
  }

  Finding policy_vtpmd() const {
    return start_ ? check_accepted(policy_.vtpmd, start_->vtpmd) : Finding(not_checked("log.host-start"));
  }
  Finding policy_engine() const {
    return start_ ? check_accepted(policy_.engine, start_->engine) : Finding(not_checked("log.host-start"));
  }

  Finding log_instance_create() const {
    if (!create_) return create_.error();
    VTPM_TRY_VOID(included(evidence_.instance_create));
    if (create_->host_start != evidence_.host_start.index)
      return refused("the instance was made under another start of the host: that of entry " +
                     std::to_string(create_->host_start) + ", and entry " +
                     std::to_string(evidence_.host_start.index) + " is shown");
    if (evidence_.instance_create.index <= evidence_.host_start.index)
      return refused("the instance was made before the host started");
    return "entry " + std::to_string(evidence_.instance_create.index) + ", instance " + create_->instance;
  }

  Finding vtpm_key() const {
    if (!create_) return not_checked("log.instance-create");
    VTPM_TRY_VOID(tpm::check_attestation_key(evidence_.vtpm.ak_public));
    VTPM_TRY(const Bytes name, tpm::name_of_public(evidence_.vtpm.ak_public));
    if (name != create_->ak_name) return refused("the AK is not the one that the instance was made with");
    return "AK " + to_hex(name);
  }

  Finding vtpm_signature() const { return signature(evidence_.vtpm); }

  Finding vtpm_binding() const {
    if (!own_) return own_.error();
    if (!std::ranges::equal(own_->extra_data, qualifying_data(evidence_.nonce, evidence_.anchor.quote)))
      return refused("the quote is not over this nonce and this quote of the anchor");
    return std::string("over the nonce and the anchor's quote");
  }

  Finding vtpm_pcrs() const {
    if (!own_) return not_checked("vtpm.binding");
    if (own_->pcrs.size() != tpm::kPcrCount) return refused("not all 24 PCRs are quoted");
    VTPM_TRY_VOID(check_quoted_values(*own_, evidence_.vtpm.pcrs));
    return std::string("24 PCRs quoted");
  }

  Finding vtpm_event_log() const {
    PcrValues replayed = evidence_.event_log.replay();
    replayed.try_emplace(tpm::kLaunchPcr, Sha256{});
    replayed.try_emplace(tpm::kOperatorPcr, Sha256{});  // zeros since the DRTM sequence
    for (const auto& [pcr, value] : replayed) {
      const std::string name = "PCR " + std::to_string(pcr);
      if (pcr != tpm::kLaunchPcr && pcr != tpm::kOperatorPcr)
        return refused(name + " is not one that the supervisor measures into");
      const auto quoted = evidence_.vtpm.pcrs.find(pcr);
      if (quoted == evidence_.vtpm.pcrs.end() || quoted->second != value)
        return refused(name + " does not have the value that the event log gives");
    }
    for (const auto& event : evidence_.event_log.events())
      if (event.pcr == tpm::kOperatorPcr && event.content_type != log::kStatementContent)
        return refused("record " + std::to_string(event.recnum) + " is not a statement");
    return std::to_string(evidence_.event_log.events().size()) + " records give PCR 17 and 18";
  }

  Finding vtpm_launch() const {
    if (!launch_) return launch_.error();
    if (!create_) return not_checked("log.instance-create");
    const auto& events = evidence_.event_log.events();
    if (std::ranges::count(events, tpm::kLaunchPcr, &log::Event::pcr) != 1)
      return refused("more than the launch was measured into PCR 17");
    if (events.front().digest != create_->launch)
      return refused("another launch than that of the instance.create entry");
    if (launch_->instance != create_->instance || launch_->owner != create_->owner ||
        launch_->container != create_->container || launch_->image != create_->image ||
        launch_->config != create_->config)
      return refused("the launch document and the instance.create entry differ");
    return "instance " + launch_->instance + ", container " + launch_->container.value_or("none") +
           ", owner uid " + std::to_string(launch_->owner);
  }

  Finding policy_images() const {
    return create_ ? check_accepted(policy_.images, create_->image)
                   : Finding(not_checked("log.instance-create"));
  }
  Finding policy_configs() const {
    return create_ ? check_accepted(policy_.configs, create_->config)
                   : Finding(not_checked("log.instance-create"));
  }
  // Image and configuration are the owner's word, and any user of the host may have an instance made.
  Finding policy_owners() const {
    if (!create_) return not_checked("log.instance-create");
    const std::string text = "uid " + std::to_string(create_->owner);
    if (!policy_.owners.empty())
      return policy_.owners.contains(create_->owner) ? Finding(text)
                                                     : refused(text + " is not accepted by the policy");
    if (policy_.images.empty() && policy_.configs.empty()) return text + " (the policy accepts any)";
    if (create_->owner != kRoot)
      return refused("image and configuration are the word of " + text +
                     ", and a policy without \"owners\" takes root's alone");
    return text + ": root, whose word image and configuration are";
  }
  Finding policy_pcrs() const { return check_pcr_rule(policy_.pcrs, evidence_.vtpm.pcrs); }

  Finding freshness_age() const {
    const std::uint64_t now = expected_.time, then = evidence_.epoch.time;
    if (then > now && then - now > kClockSkew) return refused("the epoch's time is in the future");
    const std::uint64_t age = then < now ? now - then : 0;
    const std::string text = "the epoch is " + std::to_string(age / 1000) + " s old";
    // Milliseconds, so that a part of a second counts; max_age_seconds is bounded when parsed.
    if (age / 1000 > policy_.max_age_seconds || (age / 1000 == policy_.max_age_seconds && age % 1000 != 0))
      return refused(text + ", and the policy accepts " + std::to_string(policy_.max_age_seconds) + " s");
    return text;
  }

  Finding freshness_nonce() const {
    if (!evidence_.nonce_proof) {
      if (policy_.require_fresh)
        return refused("the policy demands that the anchor's quote covers the nonce");
      return std::string("not asked for: the anchor's quote may be older than the nonce");
    }
    const auto& proof = *evidence_.nonce_proof;
    if (!log::verify_inclusion(log::leaf_hash(evidence_.nonce), proof.index, proof.count, proof.path,
                               evidence_.epoch.nonce_root))
      return refused("the nonce is not in the epoch's nonce tree");
    return std::string("the anchor's quote is younger than the nonce");
  }

 private:
  static Finding signature(const SignedQuote& quote) {
    VTPM_TRY_VOID(tpm::verify_signature(quote.ak_public, quote.quote, quote.signature));
    return std::string("ECDSA P-256 with SHA-256");
  }

  // By an accepted authority; those of others are nobody's here.
  Finding enrolled(const Bytes& ak_name) const {
    std::string reason = evidence_.enrolments.empty()
                             ? "the host shows no enrolment"
                             : "no enrolment is signed by an authority that the policy accepts";
    for (const SignedEnrolment& signed_one : evidence_.enrolments)
      for (const std::string& authority : policy_.enrolment_authorities) {
        const auto enrolment = check_enrolment(signed_one, authority);
        if (!enrolment && enrolment.error().kind() == ErrorCode::NotVerified)
          continue;  // of another authority
        auto finding = enrolment ? fits(*enrolment, ak_name) : Finding(enrolment.error());
        if (finding) return finding;
        reason = finding.error().context;
      }
    return refused(std::move(reason));
  }

  Finding fits(const Enrolment& enrolment, const Bytes& ak_name) const {
    if (enrolment.ak_name != ak_name) return refused("the enrolment is of another AK");
    if (!policy_.ek_cas.empty()) {
      std::string roots;
      for (const std::string& ca : policy_.ek_cas)
        roots += ca + "\n";
      const auto chain = tpm::check_certificate_chain(enrolment.ek_certificate, enrolment.ek_intermediates,
                                                      roots, enrolment.time);
      if (!chain)
        return refused("the enrolled TPM's certificate leads to no CA of the policy: " +
                       chain.error().context);
    }
    VTPM_TRY(const std::string tpm, tpm::describe_certificate(enrolment.ek_certificate));
    return "enrolled, the TPM of " + tpm;
  }

  Result<> included(const LoggedEntry& entry) const {
    if (log::verify_inclusion(log::leaf_hash(entry.entry), entry.index, evidence_.epoch.tree_size, entry.path,
                              evidence_.epoch.root))
      return {};
    return refused("the entry is not in the log that the anchor signed");
  }

  Result<log::Launch> find_launch() const {
    const auto& events = evidence_.event_log.events();
    if (events.empty() || events.front().pcr != tpm::kLaunchPcr ||
        events.front().content_type != log::kLaunchContent)
      return refused("the event log does not begin with the launch");
    if (tpm::sha256(as_bytes(events.front().content)) != events.front().digest)
      return refused("the launch document does not have the digest of its record");
    return log::parse_launch(events.front().content);
  }

  const Evidence& evidence_;
  const Policy& policy_;
  const Expectation& expected_;
  Result<log::HostStart> start_;
  Result<log::InstanceCreate> create_;
  Result<tpm::Quote> hardware_;
  Result<tpm::Quote> own_;
  Result<log::Launch> launch_;
};

struct Link {
  std::string_view name;
  Finding (Chain::*check)() const;
};

// The order is the chain's: hardware first.
constexpr Link kLinks[] = {
    {"evidence.nonce", &Chain::nonce},
    {"anchor.kind", &Chain::anchor_kind},
    {"anchor.key", &Chain::anchor_key},
    {"anchor.enrolment", &Chain::anchor_enrolment},
    {"anchor.signature", &Chain::anchor_signature},
    {"anchor.epoch", &Chain::anchor_epoch},
    {"anchor.pcrs", &Chain::anchor_pcrs},
    {"policy.anchor-pcrs", &Chain::policy_anchor_pcrs},
    {"log.host-start", &Chain::log_host_start},
    {"policy.vtpmd", &Chain::policy_vtpmd},
    {"policy.engine", &Chain::policy_engine},
    {"log.instance-create", &Chain::log_instance_create},
    {"vtpm.key", &Chain::vtpm_key},
    {"vtpm.signature", &Chain::vtpm_signature},
    {"vtpm.binding", &Chain::vtpm_binding},
    {"vtpm.pcrs", &Chain::vtpm_pcrs},
    {"vtpm.event-log", &Chain::vtpm_event_log},
    {"vtpm.launch", &Chain::vtpm_launch},
    {"policy.images", &Chain::policy_images},
    {"policy.configs", &Chain::policy_configs},
    {"policy.owners", &Chain::policy_owners},
    {"policy.pcrs", &Chain::policy_pcrs},
    {"freshness.age", &Chain::freshness_age},
    {"freshness.nonce", &Chain::freshness_nonce},
};

Check make_check(std::string_view name, const Finding& finding) {
  return {std::string(name), finding.has_value(), printable(finding ? *finding : finding.error().context)};
}

}  // namespace

bool Verdict::verified() const noexcept {
  return !checks.empty() && std::ranges::all_of(checks, &Check::passed);
}

std::vector<std::string> Verdict::reasons() const {
  std::vector<std::string> reasons;
  for (const Check& check : checks)
    if (!check.passed) reasons.push_back(check.name + ": " + check.detail);
  return reasons;
}

Verdict verify(std::string_view evidence_json, const Policy& policy, const Expectation& expected) {
  Verdict verdict;
  const auto evidence = parse_evidence(evidence_json);
  if (!evidence) {
    verdict.checks.push_back(make_check("evidence.format", evidence.error()));
    return verdict;
  }
  verdict.checks.push_back(make_check("evidence.format", std::string(kFormat)));
  const Chain chain(*evidence, policy, expected);
  for (const Link& link : kLinks)
    verdict.checks.push_back(make_check(link.name, (chain.*link.check)()));
  verdict.anchor = chain.anchor();
  verdict.launch = chain.launch();
  return verdict;
}

std::string to_json(const Verdict& verdict) {
  json::Value checks = json::Value::array();
  for (const Check& check : verdict.checks)
    checks.push_back({{"name", check.name}, {"passed", check.passed}, {"detail", check.detail}});
  json::Value document = {{"verdict", verdict.verified() ? "verified" : "refused"}, {"checks", checks}};
  if (verdict.anchor) document["anchor"] = *verdict.anchor == AnchorKind::Tpm ? "tpm" : kSoftware;
  if (verdict.launch) {
    json::Value launch = {{"instance", verdict.launch->instance}, {"owner", verdict.launch->owner}};
    if (verdict.launch->container) launch["container"] = *verdict.launch->container;
    if (verdict.launch->image) launch["image"] = *verdict.launch->image;
    if (verdict.launch->config) launch["config"] = *verdict.launch->config;
    document["launch"] = launch;
  }
  return json::dump(document);
}

}  // namespace vtpm::evidence
