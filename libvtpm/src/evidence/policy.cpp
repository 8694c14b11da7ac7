// SPDX-License-Identifier: Apache-2.0
#include "evidence/authority.h"
#include "log/json_values.h"

#include <vtpm/evidence/policy.h>
#include <vtpm/os/encoding.h>
#include <vtpm/tpm/ek_certificate.h>

namespace vtpm::evidence {
namespace {

constexpr std::size_t kMaxPolicySize = 1024 * 1024;
constexpr std::uint64_t kMaxAgeSeconds = 10ULL * 366 * 24 * 3600;
constexpr unsigned kFirmwarePcrs = 8;  // PCR 0-7: firmware and its configuration (TCG PC Client)

using PcrRule = std::map<unsigned, std::set<Sha256>>;

json::Value value_of(const Sha256& digest) {
  return to_hex(digest);
}
json::Value value_of(const Bytes& bytes) {
  return to_hex(bytes);
}
json::Value value_of(const std::string& text) {
  return text;
}
json::Value value_of(std::uint32_t uid) {
  return uid;
}

template <class T>
json::Value value_of(const std::set<T>& accepted) {
  json::Value list = json::Value::array();
  for (const T& one : accepted)
    list.push_back(value_of(one));
  return list;
}

json::Value value_of(const PcrRule& rule) {
  json::Value object = json::Value::object();
  for (const auto& [pcr, values] : rule)
    object[std::to_string(pcr)] = value_of(values);
  return object;
}

// A list of at least one accepted value. One that is empty would accept nothing, or everything: neither is
// what its author can have meant.
template <class T>
Result<std::set<T>> accepted(const json::Item& item, Result<T> (*read)(const json::Item&)) {
  VTPM_TRY(const auto elements, item.array());
  if (elements.empty()) return item.malformed("must name at least one");
  std::set<T> values;
  for (const json::Item& element : elements) {
    VTPM_TRY(T value, read(element));
    if (!values.insert(std::move(value)).second) return element.malformed("is there twice");
  }
  return values;
}

template <class T>
Result<std::set<T>> optional_accepted(json::Reader& reader, std::string_view name,
                                      Result<T> (*read)(const json::Item&)) {
  const auto item = reader.optional_member(name);
  return item ? accepted(*item, read) : Result<std::set<T>>(std::set<T>());
}

Result<PcrRule> optional_pcr_rule(json::Reader& reader, std::string_view name) {
  PcrRule rule;
  const auto item = reader.optional_member(name);
  if (!item) return rule;
  VTPM_TRY(json::Reader object, item->object());
  for (const auto& text : object.names()) {
    auto pcr = log::pcr_index(text);
    if (!pcr) return item->malformed(pcr.error().context);
    VTPM_TRY(const json::Item list, object.member(text));
    VTPM_TRY(auto values, accepted<Sha256>(list, log::sha256));
    rule.emplace(*pcr, std::move(values));
  }
  return rule;
}

Result<> check_format(json::Reader& document) {
  VTPM_TRY(const json::Item format, document.member("format"));
  VTPM_TRY(const std::string name, format.string());
  if (name != kPolicyFormat) return format.malformed("must be \"" + std::string(kPolicyFormat) + "\"");
  return {};
}

Result<std::string> public_key(const json::Item& item) {
  VTPM_TRY(std::string pem, item.string());
  if (!is_authority(pem)) return item.malformed("must be a P-256 public key in PEM");
  return pem;
}

Result<std::string> certificate(const json::Item& item) {
  VTPM_TRY(std::string pem, item.string());
  const auto parsed = tpm::certificates_of_pem(pem);
  if (!parsed || parsed->size() != 1) return item.malformed("must be one certificate in PEM");
  return pem;
}

// What trust hangs on.
Result<> read_anchors(json::Reader& document, Policy& policy) {
  if (!document.has("anchor_aks") && !document.has("enrolment_authorities"))
    return Error(ErrorCode::Malformed,
                 "anchor_aks or enrolment_authorities must be there: which hosts are accepted");
  VTPM_TRY(policy.anchor_aks, optional_accepted<Bytes>(document, "anchor_aks", log::object_name));
  VTPM_TRY(policy.enrolment_authorities,
           optional_accepted<std::string>(document, "enrolment_authorities", public_key));
  VTPM_TRY(policy.ek_cas, optional_accepted<std::string>(document, "ek_cas", certificate));
  if (!policy.ek_cas.empty() && policy.enrolment_authorities.empty())
    return Error(ErrorCode::Malformed, "ek_cas: demands nothing without enrolment_authorities");
  return {};
}

}  // namespace

std::string to_json(const Policy& policy) {
  json::Value document = {{"format", kPolicyFormat},
                          {"allow_embedded_anchor", policy.allow_embedded_anchor},
                          {"max_age_seconds", policy.max_age_seconds},
                          {"require_fresh", policy.require_fresh}};
  if (!policy.anchor_aks.empty()) document["anchor_aks"] = value_of(policy.anchor_aks);
  if (!policy.enrolment_authorities.empty())
    document["enrolment_authorities"] = value_of(policy.enrolment_authorities);
  if (!policy.ek_cas.empty()) document["ek_cas"] = value_of(policy.ek_cas);
  if (!policy.anchor_pcrs.empty()) document["anchor_pcrs"] = value_of(policy.anchor_pcrs);
  if (!policy.vtpmd.empty()) document["vtpmd"] = value_of(policy.vtpmd);
  if (!policy.engine.empty()) document["engine"] = value_of(policy.engine);
  if (!policy.images.empty()) document["images"] = value_of(policy.images);
  if (!policy.configs.empty()) document["configs"] = value_of(policy.configs);
  if (!policy.owners.empty()) document["owners"] = value_of(policy.owners);
  if (!policy.pcrs.empty()) document["pcrs"] = value_of(policy.pcrs);
  return json::dump(document);
}

Result<Policy> parse_policy(std::string_view text) {
  VTPM_TRY(const json::Value value, json::parse(text, kMaxPolicySize));
  VTPM_TRY(json::Reader document, json::Reader::of(value));
  VTPM_TRY_VOID(check_format(document));
  Policy policy;
  VTPM_TRY_VOID(read_anchors(document, policy));
  VTPM_TRY(policy.allow_embedded_anchor, document.optional_boolean("allow_embedded_anchor", false));
  VTPM_TRY(policy.anchor_pcrs, optional_pcr_rule(document, "anchor_pcrs"));
  VTPM_TRY(policy.vtpmd, optional_accepted<Sha256>(document, "vtpmd", log::sha256));
  VTPM_TRY(policy.engine, optional_accepted<Sha256>(document, "engine", log::sha256));
  VTPM_TRY(policy.images, optional_accepted<std::string>(document, "images", log::content_digest));
  VTPM_TRY(policy.configs, optional_accepted<std::string>(document, "configs", log::content_digest));
  VTPM_TRY(policy.owners, optional_accepted<std::uint32_t>(document, "owners", log::uid));
  VTPM_TRY(policy.pcrs, optional_pcr_rule(document, "pcrs"));
  VTPM_TRY(policy.max_age_seconds,
           document.optional_integer("max_age_seconds", policy.max_age_seconds, kMaxAgeSeconds));
  VTPM_TRY(policy.require_fresh, document.optional_boolean("require_fresh", false));
  VTPM_TRY_VOID(document.done());
  return policy;
}

Result<Policy> policy_from_evidence(const Evidence& evidence) {
  VTPM_TRY(const log::Entry entry, log::parse_entry(evidence.host_start.entry));
  const auto* start = std::get_if<log::HostStart>(&entry);
  if (!start) return Error(ErrorCode::Malformed, "host_start: not a host.start entry");
  Policy policy;
  VTPM_TRY(Bytes ak, tpm::name_of_public(evidence.anchor.ak_public));
  policy.anchor_aks.insert(std::move(ak));
  policy.allow_embedded_anchor =
      evidence.anchor_kind == AnchorKind::Embedded || start->anchor == AnchorKind::Embedded;
  for (const auto& [pcr, value] : evidence.anchor.pcrs)
    if (pcr < kFirmwarePcrs) policy.anchor_pcrs[pcr].insert(value);
  policy.vtpmd.insert(start->vtpmd);
  policy.engine.insert(start->engine);
  return policy;
}

}  // namespace vtpm::evidence
