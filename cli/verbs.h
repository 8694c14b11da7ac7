// SPDX-License-Identifier: Apache-2.0
// The verbs, a file each: every function adds its verb (and that verb's own verbs) to the command line.
#pragma once

#include "cli/context.h"

namespace vtpm::cli {

void add_create(CLI::App& app, Context& context);
void add_list(CLI::App& app, Context& context);
void add_inspect(CLI::App& app, Context& context);
void add_attach(CLI::App& app, Context& context);
void add_detach(CLI::App& app, Context& context);
void add_destroy(CLI::App& app, Context& context);
void add_attest(CLI::App& app, Context& context);
void add_enroll(CLI::App& app, Context& context);
void add_verify(CLI::App& app, Context& context);
void add_policy(CLI::App& app, Context& context);
void add_measure(CLI::App& app, Context& context);
void add_log(CLI::App& app, Context& context);
void add_anchor(CLI::App& app, Context& context);
void add_events(CLI::App& app, Context& context);
void add_doctor(CLI::App& app, Context& context);
void add_oci(CLI::App& app, Context& context);

}  // namespace vtpm::cli
