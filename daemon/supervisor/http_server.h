// SPDX-License-Identifier: Apache-2.0
// HTTP/1.1 on vtpmd.sock. One thread.
#pragma once

#include "daemon/supervisor/routes.h"

#include <vtpm/os/unique_fd.h>

#include <functional>
#include <set>

namespace vtpm::supervisor {

class HttpServer {
 public:
  explicit HttpServer(Context& context) noexcept : context_(context) {}

  // Serves one connection until the peer leaves or stalls (5 s for a request, 5 s for taking a reply).
  asio::awaitable<void> serve(UniqueFd socket, PeerCredentials peer);
  // Ends every connection.
  void close();

 private:
  class Open;
  // One request and its reply; whether there may be another.
  asio::awaitable<bool> serve_one(Open& open, const PeerCredentials& peer);

  Context& context_;
  std::set<Open*> open_;
  bool closed_ = false;
};

}  // namespace vtpm::supervisor
