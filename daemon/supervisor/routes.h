// SPDX-License-Identifier: Apache-2.0
// The HTTP API as a table: method, path, who may call, handler. openapi.json describes the same rows.
#pragma once

#include "daemon/supervisor/attestation.h"
#include "daemon/supervisor/http_message.h"

#include <span>

namespace vtpm::supervisor {

// What the handlers work with; outlives them.
struct Context {
  Rules rules;
  std::size_t quota;  // instances of one user who is not an operator
  Registry& registry;
  Instances& instances;
  Attestation& attestation;
  Epochs& epochs;
  EventBus& events;
  Store& store;
  anchor::Anchor& anchor;  // on its worker alone
  Workers& workers;
  std::uint32_t jail;  // what the engines' jail has here: ipc::kJail* bits
};

using Handler = Task<HttpReply> (*)(Context&, HttpRequest);

struct Route {
  std::string_view method;
  std::string_view pattern;  // segments; {id} stands for one that is not empty
  Permission permission;
  Handler handler;
};

std::span<const Route> routes() noexcept;

// The rows for a path. Both absent: 404.
struct Match {
  const Route* route = nullptr;  // the method's row
  std::string id;                // what stands for {id}
  std::string allow;             // the path's methods, "GET, POST"; empty: no such path
};
Match match(std::string_view method, std::string_view path);

// Finds the route, checks the permission, calls the handler; every error is a problem document.
asio::awaitable<HttpReply> answer(Context& context, HttpRequest request);

}  // namespace vtpm::supervisor
