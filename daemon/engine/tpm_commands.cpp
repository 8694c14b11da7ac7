// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/tpm_commands.h"

namespace vtpm::engine {
namespace {

using tpm::CommandCode;
using tpm::kHeaderSize;

constexpr std::uint32_t kCapHandles = 1;
constexpr std::uint32_t kAllHandles = 254;
constexpr std::uint32_t kContextSave = 0x162;
constexpr std::uint32_t kContextLoad = 0x161;

Bytes command(std::uint32_t code, BytesView parameters) {
  Bytes out;
  put_be<std::uint16_t>(out, static_cast<std::uint16_t>(tpm::Tag::NoSessions));
  put_be<std::uint32_t>(out, static_cast<std::uint32_t>(kHeaderSize + parameters.size()));
  put_be<std::uint32_t>(out, code);
  put(out, parameters);
  return out;
}

template <class... U32>
Bytes u32s(U32... values) {
  Bytes out;
  (put_be<std::uint32_t>(out, values), ...);
  return out;
}

// The parameters of a successful response; nothing otherwise. Valid until the TPM's next command.
std::optional<BytesView> run(Tpm& tpm, std::uint32_t code, BytesView parameters) {
  const auto response = tpm.process(tpm::Locality::tenant(), command(code, parameters));
  if (!response || response_code(*response) != 0) return std::nullopt;
  return response->subspan(kHeaderSize);
}

}  // namespace

std::uint32_t response_code(BytesView response) {
  const auto header = tpm::parse_response(response);
  return header ? header->code : static_cast<std::uint32_t>(tpm::ResponseCode::Failure);
}

std::vector<std::uint32_t> handles_from(Tpm& tpm, std::uint32_t first) {
  const auto out =
      run(tpm, static_cast<std::uint32_t>(CommandCode::GetCapability), u32s(kCapHandles, first, kAllHandles));
  // moreData u8, capability u32, count u32, handles
  if (!out || out->size() < 9) return {};
  const auto count = get_be<std::uint32_t>(*out, 5);
  if (count > kAllHandles || out->size() != 9 + 4 * std::size_t{count}) return {};
  std::vector<std::uint32_t> handles;
  for (std::size_t i = 0; i < count; ++i)
    handles.push_back(get_be<std::uint32_t>(*out, 9 + 4 * i));
  return handles;
}

bool flush_context(Tpm& tpm, std::uint32_t handle) {
  return run(tpm, static_cast<std::uint32_t>(CommandCode::FlushContext), u32s(handle)).has_value();
}

std::optional<Bytes> save_context(Tpm& tpm, std::uint32_t handle) {
  const auto context = run(tpm, kContextSave, u32s(handle));
  if (!context) return std::nullopt;
  return Bytes(context->begin(), context->end());
}

LoadedContext load_context(Tpm& tpm, BytesView context) {
  const auto response = tpm.process(tpm::Locality::tenant(), command(kContextLoad, context));
  const auto code =
      response ? response_code(*response) : static_cast<std::uint32_t>(tpm::ResponseCode::Failure);
  if (code != 0 || response->size() < kHeaderSize + 4) return {code, 0};
  return {0, get_be<std::uint32_t>(*response, kHeaderSize)};
}

void shutdown_clear(Tpm& tpm) {
  Bytes clear;
  put_be<std::uint16_t>(clear, 0);  // TPM_SU_CLEAR
  // A TPM that was never started refuses, and needs none.
  (void)run(tpm, static_cast<std::uint32_t>(CommandCode::Shutdown), clear);
}

}  // namespace vtpm::engine
