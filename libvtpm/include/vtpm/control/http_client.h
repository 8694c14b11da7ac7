// SPDX-License-Identifier: Apache-2.0
// A client of vtpmd's HTTP API over its Unix socket.
#pragma once

#include <vtpm/os/result.h>

#include <chrono>
#include <functional>
#include <string>

namespace vtpm::control {

inline constexpr std::string_view kDefaultRuntimeDir = "/run/vtpm";

struct HttpResponse {
  unsigned status;
  std::string body;
};

// Blocking; one connection per request.
class HttpClient {
 public:
  explicit HttpClient(std::string runtime_dir, std::chrono::seconds timeout = std::chrono::seconds(60));

  // `target`: path and query; `body`: JSON, or empty for none. Any well-formed HTTP answer is a success here.
  // Nobody listens: Unreachable, with a hint how to start vtpmd. No answer: Timeout.
  Result<HttpResponse> send(std::string_view method, std::string_view target,
                            std::string_view body = {}) const;

  // As send, but a status of 400 and over becomes an Error from its problem+json (type, detail).
  Result<std::string> call(std::string_view method, std::string_view target,
                           std::string_view body = {}) const;

  // Server-sent events: calls `event` with each "data:" payload until it returns false or the stream ends.
  Result<> stream(std::string_view target, const std::function<bool(std::string_view)>& event) const;

 private:
  std::string socket_;
  std::chrono::seconds timeout_;
};

}  // namespace vtpm::control
