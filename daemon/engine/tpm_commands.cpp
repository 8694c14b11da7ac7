// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/tpm_commands.h"

namespace vtpm::engine {

std::uint32_t response_code(BytesView response) {
  const auto header = tpm::parse_response(response);
  return header ? header->code : static_cast<std::uint32_t>(tpm::ResponseCode::Failure);
}

bool is_cancelled(BytesView response) {
  return response_code(response) == static_cast<std::uint32_t>(tpm::ResponseCode::Canceled);
}

Result<> shutdown_clear(Tpm& tpm) {
  Bytes command;
  put_be<std::uint16_t>(command, static_cast<std::uint16_t>(tpm::Tag::NoSessions));
  put_be<std::uint32_t>(command, static_cast<std::uint32_t>(tpm::kHeaderSize + 2));
  put_be<std::uint32_t>(command, static_cast<std::uint32_t>(tpm::CommandCode::Shutdown));
  put_be<std::uint16_t>(command, 0);  // TPM_SU_CLEAR
  VTPM_TRY(const BytesView response, tpm.process(tpm::Locality::tenant(), command));
  const auto code = response_code(response);
  // A TPM that was never started needs none.
  if (code == 0 || code == static_cast<std::uint32_t>(tpm::ResponseCode::Initialize)) return {};
  return Error(ErrorCode::Unavailable,
               "TPM2_Shutdown was refused (response code " + std::to_string(code) + "): an unclean stop");
}

}  // namespace vtpm::engine
