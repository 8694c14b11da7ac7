// SPDX-License-Identifier: Apache-2.0
// The handlers of the routes. Each: awaits the daemon's parts and gives the reply, or an error that becomes a
// problem document.
#pragma once

#include "daemon/supervisor/routes.h"

namespace vtpm::supervisor::handlers {

// handlers_instances.cpp
Task<HttpReply> create_instance(Context& context, HttpRequest request);
Task<HttpReply> list_instances(Context& context, HttpRequest request);
Task<HttpReply> get_instance(Context& context, HttpRequest request);
Task<HttpReply> delete_instance(Context& context, HttpRequest request);
Task<HttpReply> make_evidence(Context& context, HttpRequest request);
Task<HttpReply> get_event_log(Context& context, HttpRequest request);
Task<HttpReply> add_measurement(Context& context, HttpRequest request);

// handlers_enrolment.cpp
Task<HttpReply> get_enrolment_request(Context& context, HttpRequest request);
Task<HttpReply> answer_enrolment(Context& context, HttpRequest request);
Task<HttpReply> list_enrolments(Context& context, HttpRequest request);
Task<HttpReply> add_enrolment(Context& context, HttpRequest request);

// handlers_host.cpp
Task<HttpReply> get_anchor(Context& context, HttpRequest request);
Task<HttpReply> get_log_head(Context& context, HttpRequest request);
Task<HttpReply> get_log_entries(Context& context, HttpRequest request);
Task<HttpReply> get_log_proof(Context& context, HttpRequest request);
Task<HttpReply> get_events(Context& context, HttpRequest request);
Task<HttpReply> get_metrics(Context& context, HttpRequest request);
Task<HttpReply> get_health(Context& context, HttpRequest request);

}  // namespace vtpm::supervisor::handlers
