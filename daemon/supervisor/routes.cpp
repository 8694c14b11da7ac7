// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/routes.h"

#include "daemon/supervisor/handlers.h"

#include <array>

namespace vtpm::supervisor {
namespace {

using enum Permission;

constexpr std::array kRoutes = {
    Route{"POST", "/v1/instances", Anyone, handlers::create_instance},
    Route{"GET", "/v1/instances", Anyone, handlers::list_instances},
    Route{"GET", "/v1/instances/{id}", Owner, handlers::get_instance},
    Route{"DELETE", "/v1/instances/{id}", Owner, handlers::delete_instance},
    Route{"POST", "/v1/instances/{id}/evidence", Owner, handlers::make_evidence},
    Route{"GET", "/v1/instances/{id}/eventlog", Owner, handlers::get_event_log},
    // PCR 18 is the operator's word, which a tenant must not be able to put there.
    Route{"POST", "/v1/instances/{id}/measurements", Operator, handlers::add_measurement},
    Route{"GET", "/v1/anchor", Anyone, handlers::get_anchor},
    // These make the hardware TPM work for seconds, and say in the host's name whose it is.
    Route{"GET", "/v1/anchor/enrolment-request", Operator, handlers::get_enrolment_request},
    Route{"POST", "/v1/anchor/enrolment-answer", Operator, handlers::answer_enrolment},
    Route{"GET", "/v1/anchor/enrolments", Anyone, handlers::list_enrolments},
    Route{"POST", "/v1/anchor/enrolments", Operator, handlers::add_enrolment},
    Route{"GET", "/v1/log/head", Anyone, handlers::get_log_head},
    // The entries name every tenant's containers and images.
    Route{"GET", "/v1/log/entries", Operator, handlers::get_log_entries},
    Route{"GET", "/v1/log/proof", Anyone, handlers::get_log_proof},
    Route{"GET", "/v1/events", Anyone, handlers::get_events},
    Route{"GET", "/metrics", Anyone, handlers::get_metrics},
    Route{"GET", "/healthz", Anyone, handlers::get_health},
};

// The first segment of a path, which it loses with its slash.
std::string_view take_segment(std::string_view& path) noexcept {
  if (path.starts_with('/')) path.remove_prefix(1);
  const std::string_view segment = path.substr(0, path.find('/'));
  path.remove_prefix(segment.size());
  return segment;
}

bool matches(std::string_view pattern, std::string_view path, std::string& id) {
  while (!pattern.empty() && !path.empty()) {
    const std::string_view expected = take_segment(pattern);
    const std::string_view segment = take_segment(path);
    if (expected == "{id}" && !segment.empty())
      id = segment;
    else if (expected != segment)
      return false;
  }
  return pattern.empty() && path.empty();
}

}  // namespace

std::span<const Route> routes() noexcept {
  return kRoutes;
}

Match match(std::string_view method, std::string_view path) {
  Match found;
  for (const Route& route : kRoutes) {
    std::string id;
    if (!path.starts_with('/') || !matches(route.pattern, path, id)) continue;
    found.allow += (found.allow.empty() ? "" : ", ") + std::string(route.method);
    if (route.method != method) continue;
    found.route = &route;
    found.id = std::move(id);
  }
  return found;
}

asio::awaitable<HttpReply> answer(Context& context, HttpRequest request) {
  Match found = match(request.method, path_of(request.target));
  if (found.allow.empty()) co_return problem(404, "not-found", "there is nothing at this path");
  if (found.route == nullptr) {
    HttpReply refused = problem(405, "method-not-allowed", "this path knows " + found.allow);
    refused.allow = std::move(found.allow);
    co_return refused;
  }
  const auto allowed = check_permission(request.peer, context.rules, found.route->permission);
  if (!allowed) co_return problem(allowed.error());
  if (!found.id.empty()) {
    auto id = context.registry.resolve(request.peer, context.rules, found.id);
    if (!id) co_return problem(id.error());
    request.id = std::move(*id);
  }
  auto reply = co_await found.route->handler(context, std::move(request));
  if (!reply) co_return problem(reply.error());
  co_return std::move(*reply);
}

}  // namespace vtpm::supervisor
