// SPDX-License-Identifier: Apache-2.0
#include "space/internal_commands.h"

namespace vtpm::space {
namespace {

constexpr std::uint32_t kPage = 254;            // MAX_CAP_HANDLES and MAX_CAP_CC of libtpms
constexpr std::size_t kListOffset = 1 + 4 + 4;  // moreData u8, capability u32, count u32

}  // namespace

Result<Reply> transmit(Transmit& tpm, tpm::Locality locality, BytesView command) {
  VTPM_TRY(const BytesView response, tpm.transmit(locality, command));
  VTPM_TRY(const tpm::Header header, tpm::parse_response(response));
  return Reply{tpm::ResponseCode{header.code}, response, response.subspan(tpm::kHeaderSize)};
}

Result<Reply> InternalCommands::send(tpm::CommandCode code, BytesView parameters) {
  command_.clear();
  put_be(command_, static_cast<std::uint16_t>(tpm::Tag::NoSessions));
  put_be(command_, static_cast<std::uint32_t>(tpm::kHeaderSize + parameters.size()));
  put_be(command_, static_cast<std::uint32_t>(code));
  put(command_, parameters);
  return transmit(tpm_, tpm::Locality::tenant(), command_);
}

Result<Reply> InternalCommands::send(tpm::CommandCode code, std::uint32_t handle) {
  Bytes parameters;
  put_be(parameters, handle);
  return send(code, parameters);
}

Result<Reply> InternalCommands::context_save(std::uint32_t handle) {
  return send(tpm::CommandCode::ContextSave, handle);
}

Result<Reply> InternalCommands::context_load(BytesView context) {
  VTPM_TRY(Reply reply, send(tpm::CommandCode::ContextLoad, context));
  if (reply.code == tpm::ResponseCode::Success && reply.body.size() < 4)
    return Error(ErrorCode::Malformed, "TPM2_ContextLoad's response has no handle");
  return reply;
}

Result<Reply> InternalCommands::flush_context(std::uint32_t handle) {
  return send(tpm::CommandCode::FlushContext, handle);
}

Result<Reply> InternalCommands::get_capability(std::uint32_t capability, std::uint32_t first,
                                               std::uint32_t count) {
  Bytes parameters;
  put_be(parameters, capability);
  put_be(parameters, first);
  put_be(parameters, count);
  VTPM_TRY(Reply reply, send(tpm::CommandCode::GetCapability, parameters));
  if (reply.code == tpm::ResponseCode::Success && reply.body.size() < kListOffset)
    return Error(ErrorCode::Malformed, "TPM2_GetCapability's response has no list");
  return reply;
}

Result<InternalCommands::List> InternalCommands::list(std::uint32_t capability, std::uint32_t first) {
  List all{tpm::ResponseCode::Success, {}};
  for (bool more = true; more;) {
    VTPM_TRY(const Reply reply, get_capability(capability, first, kPage));
    if (reply.code != tpm::ResponseCode::Success) return List{reply.code, {}};
    const auto count = get_be<std::uint32_t>(reply.body, 5);
    if (count > kPage || reply.body.size() != kListOffset + 4 * std::size_t{count})
      return Error(ErrorCode::Malformed, "a TPM's capability list is not as long as it says");
    for (std::size_t i = 0; i < count; ++i)
      all.values.push_back(get_be<std::uint32_t>(reply.body, kListOffset + 4 * i));
    more = reply.body[0] != 0 && count > 0;
    // The next page begins behind the last value: for commands that is the command code in its TPMA_CC.
    if (more) first = (all.values.back() & (capability == kCapCommands ? 0x2000ffff : ~0U)) + 1;
  }
  return all;
}

Result<std::uint32_t> InternalCommands::property(std::uint32_t tpm_pt) {
  VTPM_TRY(const Reply reply, get_capability(kCapTpmProperties, tpm_pt, 1));
  if (reply.code != tpm::ResponseCode::Success || reply.body.size() < kListOffset + 8) return 0;
  if (get_be<std::uint32_t>(reply.body, kListOffset) != tpm_pt) return 0;
  return get_be<std::uint32_t>(reply.body, kListOffset + 4);
}

}  // namespace vtpm::space
