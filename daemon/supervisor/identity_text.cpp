// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/identity_text.h"

#include "json/strict.h"

#include <vtpm/os/encoding.h>
#include <vtpm/tpm/attest.h>

namespace vtpm::supervisor {
namespace {

constexpr std::size_t kMaxIdentity = 8192;

}  // namespace

std::string identity_text(const identity::Identity& identity) {
  return json::dump({{"ek_public", to_base64(identity.ek_public)},
                     {"ak_public", to_base64(identity.ak_public)},
                     {"srk_name", to_base64(identity.srk_name)}});
}

Result<identity::Identity> parse_identity(std::string_view text) {
  VTPM_TRY(const json::Value document, json::parse(text, kMaxIdentity));
  VTPM_TRY(json::Reader reader, json::Reader::of(document));
  identity::Identity out;
  VTPM_TRY(out.ek_public, reader.base64("ek_public"));
  VTPM_TRY(out.ak_public, reader.base64("ak_public"));
  VTPM_TRY(out.srk_name, reader.base64("srk_name"));
  VTPM_TRY_VOID(reader.done());
  VTPM_TRY(out.ek_name, tpm::name_of_public(out.ek_public));
  VTPM_TRY(out.ak_name, tpm::name_of_public(out.ak_public));
  return out;
}

}  // namespace vtpm::supervisor
