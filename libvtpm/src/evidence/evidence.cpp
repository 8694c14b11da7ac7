// SPDX-License-Identifier: Apache-2.0
#include "log/json_values.h"

#include <vtpm/evidence/evidence.h>
#include <vtpm/os/encoding.h>

namespace vtpm::evidence {
namespace {

// A path in a tree of 2^64 leaves has no more hashes.
constexpr std::size_t kMaxPath = 64;
constexpr std::string_view kEpochTag("vtpm epoch v1\0", 14);

json::Value value_of(const SignedQuote& quote) {
  return {{"ak_public", to_base64(quote.ak_public)},
          {"quote", to_base64(quote.quote)},
          {"signature", to_base64(quote.signature)},
          {"pcrs", log::to_value(quote.pcrs)}};
}

json::Value value_of(const Epoch& epoch) {
  return {{"tree_size", epoch.tree_size},
          {"root", to_hex(epoch.root)},
          {"nonce_root", to_hex(epoch.nonce_root)},
          {"time", epoch.time}};
}

json::Value value_of(const Path& path) {
  json::Value hashes = json::Value::array();
  for (const Sha256& hash : path)
    hashes.push_back(to_hex(hash));
  return hashes;
}

json::Value value_of(const LoggedEntry& entry) {
  return {{"entry", to_base64(entry.entry)}, {"index", entry.index}, {"path", value_of(entry.path)}};
}

json::Value value_of(const NonceProof& proof) {
  return {{"index", proof.index}, {"count", proof.count}, {"path", value_of(proof.path)}};
}

json::Value value_of(const std::vector<SignedEnrolment>& enrolments) {
  json::Value list = json::Value::array();
  for (const SignedEnrolment& one : enrolments)
    list.push_back({{"statement", to_base64(one.statement)}, {"signature", to_base64(one.signature)}});
  return list;
}

json::Value value_of_anchor(const Evidence& evidence) {
  json::Value anchor = value_of(evidence.anchor);
  anchor["kind"] = log::to_string(evidence.anchor_kind);
  if (evidence.ek_certificate) anchor["ek_certificate"] = to_base64(*evidence.ek_certificate);
  if (!evidence.enrolments.empty()) anchor["enrolments"] = value_of(evidence.enrolments);
  return anchor;
}

// The members of a signed quote; the caller ends the reader.
Result<SignedQuote> signed_quote(json::Reader& reader) {
  SignedQuote quote;
  VTPM_TRY(quote.ak_public, reader.base64("ak_public"));
  VTPM_TRY(quote.quote, reader.base64("quote"));
  VTPM_TRY(quote.signature, reader.base64("signature"));
  VTPM_TRY(const json::Item pcrs, reader.member("pcrs"));
  VTPM_TRY(quote.pcrs, log::pcr_values(pcrs));
  return quote;
}

Result<SignedEnrolment> enrolment(const json::Item& item) {
  VTPM_TRY(json::Reader reader, item.object());
  SignedEnrolment one;
  VTPM_TRY(one.statement, reader.base64("statement"));
  VTPM_TRY(one.signature, reader.base64("signature"));
  VTPM_TRY_VOID(reader.done());
  return one;
}

Result<> read_enrolments(json::Reader& reader, Evidence& evidence) {
  if (!reader.has("enrolments")) return {};
  VTPM_TRY(const auto items, reader.array("enrolments", kMaxEnrolments));
  for (const json::Item& item : items) {
    VTPM_TRY(SignedEnrolment one, enrolment(item));
    evidence.enrolments.push_back(std::move(one));
  }
  return {};
}

Result<> read_anchor(json::Reader& document, Evidence& evidence) {
  VTPM_TRY(json::Reader reader, document.object("anchor"));
  VTPM_TRY(const json::Item kind, reader.member("kind"));
  VTPM_TRY(evidence.anchor_kind, log::anchor_kind(kind));
  VTPM_TRY(evidence.anchor, signed_quote(reader));
  if (const auto certificate = reader.optional_member("ek_certificate")) {
    VTPM_TRY(evidence.ek_certificate, certificate->base64());
  }
  VTPM_TRY_VOID(read_enrolments(reader, evidence));
  return reader.done();
}

Result<> read_vtpm(json::Reader& document, Evidence& evidence) {
  VTPM_TRY(json::Reader reader, document.object("vtpm"));
  VTPM_TRY(evidence.vtpm, signed_quote(reader));
  return reader.done();
}

Result<Epoch> read_epoch(json::Reader& document) {
  VTPM_TRY(json::Reader reader, document.object("epoch"));
  Epoch epoch{};
  VTPM_TRY(epoch.tree_size, reader.integer("tree_size"));
  VTPM_TRY(epoch.root, log::sha256(reader, "root"));
  VTPM_TRY(epoch.nonce_root, log::sha256(reader, "nonce_root"));
  VTPM_TRY(epoch.time, reader.integer("time"));
  VTPM_TRY_VOID(reader.done());
  return epoch;
}

Result<Path> read_path(json::Reader& reader) {
  VTPM_TRY(const auto hashes, reader.array("path", kMaxPath));
  Path path;
  for (const json::Item& item : hashes) {
    VTPM_TRY(const Sha256 hash, log::sha256(item));
    path.push_back(hash);
  }
  return path;
}

Result<LoggedEntry> read_entry(json::Reader& document, std::string_view name) {
  VTPM_TRY(json::Reader reader, document.object(name));
  LoggedEntry entry{};
  VTPM_TRY(entry.entry, reader.base64("entry"));
  VTPM_TRY(entry.index, reader.integer("index"));
  VTPM_TRY(entry.path, read_path(reader));
  VTPM_TRY_VOID(reader.done());
  return entry;
}

Result<Bytes> read_nonce(json::Reader& document) {
  VTPM_TRY(const json::Item item, document.member("nonce"));
  VTPM_TRY(Bytes nonce, item.hex());
  if (nonce.size() < kMinNonce || nonce.size() > kMaxNonce) return item.malformed("must be 8 to 64 bytes");
  return nonce;
}

Result<std::optional<NonceProof>> read_nonce_proof(json::Reader& document) {
  const auto item = document.optional_member("nonce_proof");
  if (!item) return std::optional<NonceProof>();
  VTPM_TRY(json::Reader reader, item->object());
  NonceProof proof{};
  VTPM_TRY(proof.index, reader.integer("index"));
  VTPM_TRY(proof.count, reader.integer("count"));
  VTPM_TRY(proof.path, read_path(reader));
  VTPM_TRY_VOID(reader.done());
  return std::optional<NonceProof>(std::move(proof));
}

Result<log::EventLog> read_event_log(json::Reader& document) {
  VTPM_TRY(const json::Item item, document.member("event_log"));
  auto events = log::EventLog::from_json(json::dump(item.value()));
  if (!events) return item.malformed(events.error().context);
  return events;
}

Result<> check_format(json::Reader& document) {
  VTPM_TRY(const json::Item format, document.member("format"));
  VTPM_TRY(const std::string name, format.string());
  if (name != kFormat) return format.malformed("must be \"" + std::string(kFormat) + "\"");
  return {};
}

}  // namespace

Sha256 qualifying_data(const Epoch& epoch) noexcept {
  Bytes size, time;
  put_be(size, epoch.tree_size);
  put_be(time, epoch.time);
  return tpm::sha256({as_bytes(kEpochTag), size, epoch.root, epoch.nonce_root, time});
}

Sha256 qualifying_data(BytesView nonce, BytesView hardware_quote) noexcept {
  return tpm::sha256({nonce, tpm::sha256(hardware_quote)});
}

std::string to_json(const Evidence& evidence) {
  json::Value document = {{"format", kFormat},
                          {"anchor", value_of_anchor(evidence)},
                          {"epoch", value_of(evidence.epoch)},
                          {"host_start", value_of(evidence.host_start)},
                          {"instance_create", value_of(evidence.instance_create)},
                          {"nonce", to_hex(evidence.nonce)},
                          {"vtpm", value_of(evidence.vtpm)},
                          {"event_log", log::to_value(evidence.event_log)}};
  if (evidence.nonce_proof) document["nonce_proof"] = value_of(*evidence.nonce_proof);
  return json::dump(document);
}

Result<Evidence> parse_evidence(std::string_view text) {
  VTPM_TRY(const json::Value value, json::parse(text, kMaxEvidenceSize));
  VTPM_TRY(json::Reader document, json::Reader::of(value));
  VTPM_TRY_VOID(check_format(document));
  Evidence evidence{};
  VTPM_TRY_VOID(read_anchor(document, evidence));
  VTPM_TRY(evidence.epoch, read_epoch(document));
  VTPM_TRY(evidence.host_start, read_entry(document, "host_start"));
  VTPM_TRY(evidence.instance_create, read_entry(document, "instance_create"));
  VTPM_TRY(evidence.nonce, read_nonce(document));
  VTPM_TRY(evidence.nonce_proof, read_nonce_proof(document));
  VTPM_TRY_VOID(read_vtpm(document, evidence));
  VTPM_TRY(evidence.event_log, read_event_log(document));
  VTPM_TRY_VOID(document.done());
  return evidence;
}

}  // namespace vtpm::evidence
