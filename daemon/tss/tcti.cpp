// SPDX-License-Identifier: Apache-2.0
#include "daemon/tss/tcti.h"

#include <tss2/tss2_rc.h>
#include <tss2/tss2_tctildr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace vtpm::tss {
namespace {

class LoadedTcti final : public Tcti {
 public:
  explicit LoadedTcti(TSS2_TCTI_CONTEXT* context) noexcept : context_(context) {}
  LoadedTcti(const LoadedTcti&) = delete;
  LoadedTcti& operator=(const LoadedTcti&) = delete;
  ~LoadedTcti() override { Tss2_TctiLdr_Finalize(&context_); }
  TSS2_TCTI_CONTEXT* context() noexcept override { return context_; }

 private:
  TSS2_TCTI_CONTEXT* context_;
};

// A TCTI that has its response as soon as the command is transmitted: receive only hands it out.
class FunctionTcti final : public Tcti {
 public:
  explicit FunctionTcti(Transmit transmit) : transmit_(std::move(transmit)) {
    auto& v1 = state_.common.v1;
    v1.magic = kMagic;
    v1.version = 2;
    v1.transmit = &FunctionTcti::transmit;
    v1.receive = &FunctionTcti::receive;
    state_.owner = this;
  }
  FunctionTcti(const FunctionTcti&) = delete;
  FunctionTcti& operator=(const FunctionTcti&) = delete;

  TSS2_TCTI_CONTEXT* context() noexcept override {
    return reinterpret_cast<TSS2_TCTI_CONTEXT*>(&state_);  // the shape that the TCTI specification asks for
  }
  std::optional<Error> take_error() override { return std::exchange(error_, std::nullopt); }

 private:
  static constexpr std::uint64_t kMagic = 0x5654504d54435449;  // "VTPMTCTI"
  struct State {
    TSS2_TCTI_CONTEXT_COMMON_V2 common{};
    FunctionTcti* owner = nullptr;
  };

  static FunctionTcti& self(TSS2_TCTI_CONTEXT* context) noexcept {
    return *reinterpret_cast<State*>(context)->owner;
  }

  static TSS2_RC transmit(TSS2_TCTI_CONTEXT* context, std::size_t size, const std::uint8_t* command) {
    FunctionTcti& tcti = self(context);
    if (tcti.response_) return TSS2_TCTI_RC_BAD_SEQUENCE;
    auto response = tcti.transmit_({command, size});
    if (!response) {
      tcti.error_ = std::move(response).error();
      return TSS2_TCTI_RC_IO_ERROR;
    }
    tcti.response_ = std::move(*response);
    return TSS2_RC_SUCCESS;
  }

  static TSS2_RC receive(TSS2_TCTI_CONTEXT* context, std::size_t* size, std::uint8_t* response,
                         std::int32_t /*timeout*/) {
    FunctionTcti& tcti = self(context);
    if (!tcti.response_) return TSS2_TCTI_RC_BAD_SEQUENCE;
    const std::size_t available = tcti.response_->size();
    const std::size_t room = std::exchange(*size, available);
    if (response == nullptr) return TSS2_RC_SUCCESS;  // asked for the size only
    if (room < available) return TSS2_TCTI_RC_INSUFFICIENT_BUFFER;
    std::copy(tcti.response_->begin(), tcti.response_->end(), response);
    tcti.response_.reset();
    return TSS2_RC_SUCCESS;
  }

  State state_;
  Transmit transmit_;
  std::optional<Bytes> response_;
  std::optional<Error> error_;
};

// tpm2-tss reports every failure to open a device with one code: look first, to say which.
Result<> check_device(const std::string& configuration) {
  constexpr std::string_view kPrefix = "device:";
  if (!configuration.starts_with(kPrefix)) return {};
  const std::string path = configuration.substr(kPrefix.size());
  if (path.empty() || ::access(path.c_str(), R_OK | W_OK) == 0) return {};
  const int error = errno;
  if (error == EACCES || error == EPERM)
    return Error(ErrorCode::PermissionDenied,
                 "cannot open " + path +
                     ": permission denied; add the daemon's user to the device's group (often \"tss\")");
  if (error == ENOENT) return Error(ErrorCode::Unreachable, path + " does not exist");
  return errno_error("cannot open " + path, error);
}

ErrorCode kind_of_loader_failure(TSS2_RC rc) noexcept {
  switch (rc & 0xffff) {
    case TSS2_BASE_RC_NOT_SUPPORTED:
    case TSS2_BASE_RC_BAD_VALUE:
    case TSS2_BASE_RC_NOT_IMPLEMENTED:
      return ErrorCode::Configuration;
    default:
      return ErrorCode::Unreachable;
  }
}

}  // namespace

Result<std::unique_ptr<Tcti>> open_tcti(const std::string& configuration) {
  VTPM_TRY_VOID(check_device(configuration));
  TSS2_TCTI_CONTEXT* context = nullptr;
  const TSS2_RC rc = Tss2_TctiLdr_Initialize(configuration.c_str(), &context);
  if (rc != TSS2_RC_SUCCESS)
    return Error(kind_of_loader_failure(rc),
                 "cannot open the TPM at TCTI \"" + configuration + "\": " + Tss2_RC_Decode(rc));
  return std::unique_ptr<Tcti>(std::make_unique<LoadedTcti>(context));
}

std::unique_ptr<Tcti> make_tcti(Transmit transmit) {
  return std::make_unique<FunctionTcti>(std::move(transmit));
}

Transmit over_engine(ipc::EngineLink& engine, tpm::Locality locality) {
  return [&engine, locality](BytesView command) { return engine.transmit(locality, command); };
}

}  // namespace vtpm::tss
