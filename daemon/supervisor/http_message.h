// SPDX-License-Identifier: Apache-2.0
// A request and a reply of the HTTP API, without the wire.
#pragma once

#include "daemon/supervisor/events.h"

#include <vtpm/os/result.h>
#include <vtpm/os/unix_socket.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace vtpm::supervisor {

struct HttpRequest {
  std::string method;
  std::string target;  // path and query, as sent
  std::string body;
  PeerCredentials peer;
  std::string id;  // what stands for {id} in the route's pattern
};

struct HttpReply {
  unsigned status = 200;
  std::string type = "application/json";
  std::string body = {};
  std::string allow = {};                          // of a 405
  std::shared_ptr<Subscription> stream = nullptr;  // a text/event-stream follows instead of the body
};

// RFC 9457: type "urn:vtpm:error:" + the error's name, title, status, detail.
HttpReply problem(const Error& error);
// The same for what HTTP itself refuses, by its status.
HttpReply problem(unsigned status, std::string_view name, std::string_view detail);

// The path of a target, without its query.
std::string_view path_of(std::string_view target) noexcept;
// The query's decimal numbers by name. A name that is not in `allowed`, is repeated, or a value that is no
// number: Malformed.
Result<std::map<std::string, std::uint64_t>> numbers_of_query(std::string_view target,
                                                              const std::vector<std::string>& allowed);

}  // namespace vtpm::supervisor
