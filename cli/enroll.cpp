// SPDX-License-Identifier: Apache-2.0
// The verifier's half of an enrolment: needs no vtpmd, TPM or root.
#include "cli/arguments.h"
#include "cli/clock.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <vtpm/evidence/enrolment.h>
#include <vtpm/os/secret.h>
#include <vtpm/tpm/ek_certificate.h>

#include <CLI/CLI.hpp>

#include <iostream>
#include <memory>

namespace vtpm::cli {
namespace {

constexpr std::size_t kMaxCertificates = std::size_t{1} * 1024 * 1024;
constexpr std::size_t kMaxKey = std::size_t{16} * 1024;

struct Options {
  std::string request;
  std::string answer;
  std::string ca;
  std::string intermediates;
  std::string pending;
  std::string key;
  std::string output;
};

template <class T>
Result<T> read_document(const std::string& path, Result<T> (*parse)(std::string_view)) {
  VTPM_TRY(const auto text, read_input(path, evidence::kMaxEnrolmentDocument));
  auto document = parse(text);
  // What a file holds is not wrong usage.
  if (!document) return Error(ErrorCode::Configuration, path + ": " + document.error().context);
  return document;
}

Result<std::string> read_certificates(const std::string& path) {
  VTPM_TRY(auto pem, read_input(path, kMaxCertificates));
  const auto parsed = tpm::certificates_of_pem(pem);
  if (!parsed) return Error(ErrorCode::Configuration, path + ": " + parsed.error().context);
  if (parsed->empty()) return Error(ErrorCode::Configuration, path + ": no certificate in PEM");
  return pem;
}

Result<int> begin(const Options& options) {
  VTPM_TRY(const auto request, read_document(options.request, evidence::parse_enrolment_request));
  evidence::TpmManufacturers trusted;
  VTPM_TRY(trusted.roots, read_certificates(options.ca));
  if (!options.intermediates.empty()) {
    VTPM_TRY(trusted.intermediates, read_certificates(options.intermediates));
  }
  auto begun = evidence::begin_enrolment(request, trusted, now_ms());
  if (!begun) return Error(ErrorCode::NotVerified, options.request + ": " + begun.error().context);
  VTPM_TRY(const auto subject, tpm::describe_certificate(request.ek_certificate));
  VTPM_TRY_VOID(write_output(options.pending, evidence::to_json(begun->pending), 0600));
  VTPM_TRY_VOID(write_document(options.output, evidence::to_json(begun->challenge)));
  std::cerr << "vtpmctl: enroll: a TPM that a trusted CA vouches for: " << shown(json::Value(subject))
            << "\n";
  return kDone;
}

Result<int> finish(const Options& options) {
  VTPM_TRY(const auto pending, read_document(options.pending, evidence::parse_pending_enrolment));
  VTPM_TRY(const auto answer, read_document(options.answer, evidence::parse_enrolment_answer));
  VTPM_TRY(const auto pem, read_input(options.key, kMaxKey));
  const Secret key(Bytes(pem.begin(), pem.end()));
  const auto enrolment = evidence::finish_enrolment(pending, answer, key, now_ms());
  if (!enrolment) return enrolment.error();
  VTPM_TRY_VOID(write_document(options.output, evidence::to_json(*enrolment)));
  return kDone;
}

Result<int> enroll(const Options& options) {
  const bool begins = !options.request.empty();
  if (begins == !options.answer.empty())
    return Error(ErrorCode::Malformed, "give either a host's request, or its answer with --finish");
  if (begins && options.ca.empty()) return Error(ErrorCode::Malformed, "--ca: which CAs vouch for TPMs");
  if (!begins && options.key.empty())
    return Error(ErrorCode::Malformed, "--key: the authority's, which signs");
  return begins ? begin(options) : finish(options);
}

}  // namespace

void add_enroll(CLI::App& app, Context& context) {
  const auto options = std::make_shared<Options>();
  auto* verb = add_verb(app, context, "enroll", "Enrol a host by its TPM: needs no vtpmd, TPM or root",
                        [options] { return enroll(*options); });
  verb->add_option("request", options->request,
                   "The host's request (`vtpmctl anchor enroll`): make a challenge");
  verb->add_option("--ca", options->ca, "Certificates of the CAs that may vouch for a TPM (PEM)");
  verb->add_option("--intermediates", options->intermediates,
                   "Certificates between the TPM's and theirs (PEM)");
  verb->add_option("--finish", options->answer,
                   "The host's answer (`vtpmctl anchor enroll --challenge`): sign");
  verb->add_option("--key", options->key, "The enrolment authority's P-256 private key (PEM)");
  verb->add_option("--pending", options->pending, "File between the two steps; it stays with you")
      ->required();
  verb->add_option("-o,--output", options->output, "File for the document (default: standard output)");
}

}  // namespace vtpm::cli
