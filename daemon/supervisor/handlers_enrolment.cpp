// SPDX-License-Identifier: Apache-2.0
// The host's half of an enrolment (vtpm/evidence/enrolment.h).
#include "daemon/supervisor/handlers.h"
#include "json/strict.h"

#include <vtpm/evidence/enrolment.h>
#include <vtpm/os/encoding.h>

namespace vtpm::supervisor::handlers {
namespace {

HttpReply reply_with(std::string document, unsigned status = 200) {
  HttpReply reply;
  reply.status = status;
  reply.body = std::move(document) + "\n";
  return reply;
}

json::Value describe(const evidence::Enrolment& enrolment) {
  return {{"authority", to_hex(enrolment.authority)},
          {"ak_name", to_hex(enrolment.ak_name)},
          {"time", enrolment.time}};
}

}  // namespace

Task<HttpReply> get_enrolment_request(Context& context, HttpRequest) {
  const auto ask = [&context] { return context.anchor.endorsement(); };
  VTPM_CO_TRY(anchor::Endorsement ek, co_await run_on(context.workers.anchor, ask));
  const evidence::EnrolmentRequest made{std::move(ek.ek_public), std::move(ek.certificate),
                                        context.attestation.anchor().ak_public};
  co_return reply_with(evidence::to_json(made));
}

Task<HttpReply> answer_enrolment(Context& context, HttpRequest request) {
  VTPM_CO_TRY(evidence::EnrolmentChallenge challenge, evidence::parse_enrolment_challenge(request.body));
  if (challenge.ak_name != context.attestation.anchor().ak_name)
    co_return Error(ErrorCode::Conflict, "the challenge is for another attestation key than this host's");
  const auto activate = [&context, credential = challenge.credential] {
    return context.anchor.activate(credential);
  };
  VTPM_CO_TRY(const Secret secret, co_await run_on(context.workers.anchor, activate));
  const BytesView given = secret.view();
  const evidence::EnrolmentAnswer answer{std::move(challenge.ak_name), Bytes(given.begin(), given.end())};
  co_return reply_with(evidence::to_json(answer));
}

Task<HttpReply> list_enrolments(Context& context, HttpRequest) {
  json::Value list = json::Value::array();
  for (const auto& signed_one : context.attestation.enrolments()) {
    VTPM_CO_TRY(const evidence::Enrolment said, evidence::read_enrolment(signed_one));
    list.push_back(describe(said));
  }
  const json::Value out{{"enrolments", std::move(list)}};
  co_return reply_with(json::dump(out));
}

Task<HttpReply> add_enrolment(Context& context, HttpRequest request) {
  VTPM_CO_TRY(evidence::SignedEnrolment enrolment, evidence::parse_signed_enrolment(request.body));
  VTPM_CO_TRY(const evidence::Enrolment said, evidence::read_enrolment(enrolment));
  VTPM_CO_TRY_VOID(co_await context.attestation.enrol(std::move(enrolment)));
  co_return reply_with(json::dump(describe(said)), 201);
}

}  // namespace vtpm::supervisor::handlers
