// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/supervisor_commands.h"

#include "daemon/engine/fatal.h"
#include "daemon/engine/tpm_commands.h"

namespace vtpm::engine {
namespace {

constexpr auto kObjectMemory = static_cast<std::uint32_t>(tpm::ResponseCode::ObjectMemory);

Bytes copy(BytesView view) {
  return {view.begin(), view.end()};
}

}  // namespace

Result<Bytes> SupervisorCommands::run(tpm::Locality locality, BytesView command) {
  const auto check = tpm::check_command(command);
  if (check.code != tpm::ResponseCode::Success) return tpm::error_response(check.code);
  VTPM_TRY(const BytesView first, tpm_.process(locality, command));
  Bytes response = copy(first);
  if (response_code(response) == kObjectMemory && evict()) {
    VTPM_TRY(const BytesView second, tpm_.process(locality, command));
    response = copy(second);
  }
  restore();
  return response;
}

bool SupervisorCommands::evict() {
  if (evicted_) return false;
  for (const auto handle : handles_from(tpm_, kTransientFirst)) {
    auto context = save_context(tpm_, handle);
    if (!context || !flush_context(tpm_, handle)) continue;
    evicted_ = Evicted{handle, std::move(*context)};
    return true;
  }
  return false;
}

void SupervisorCommands::restore() {
  if (!evicted_) return;
  const auto loaded = load_context(tpm_, evicted_->context);
  if (loaded.code == kObjectMemory) return;
  if (loaded.code != 0) {
    // The supervisor's command made the context void, as TPM2_Clear or a change of hierarchy does: the object
    // would have been flushed.
    evicted_.reset();
    return;
  }
  if (loaded.handle == evicted_->handle)
    evicted_.reset();
  else if (!flush_context(tpm_, loaded.handle))  // the tenant has freed a slot before it: a later try
    fatal("a transient object came back at another handle and cannot be flushed");
}

}  // namespace vtpm::engine
