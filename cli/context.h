// SPDX-License-Identifier: Apache-2.0
// What the verbs of vtpmctl share: the global options, and which verb was asked for.
#pragma once

#include <vtpm/control/http_client.h>
#include <vtpm/os/result.h>

#include <functional>
#include <string>

namespace CLI {
class App;
}

namespace vtpm::cli {

// Exit statuses beside those of vtpm::exit_status().
inline constexpr int kDone = 0;
inline constexpr int kRefused = 1;
inline constexpr int kUsage = 2;
inline constexpr int kFailed = 4;

struct Context {
  std::string runtime_dir = std::string(control::kDefaultRuntimeDir);
  bool json = false;
  // Set by the parser: the verb's name, for messages, and what it does; its value is the exit status.
  std::string verb;
  std::function<Result<int>()> run;

  control::HttpClient client() const { return control::HttpClient(runtime_dir); }
};

// Adds the verb `name` to `parent`: when it is given on the command line, `run` becomes context.run. The
// global options are accepted after it as well.
CLI::App* add_verb(CLI::App& parent, Context& context, const std::string& name,
                   const std::string& description, std::function<Result<int>()> run);

// A text as one segment of a URL's path or as a query's value: all but RFC 3986's unreserved bytes as %XX.
std::string url_encode(std::string_view text);

// "/v1/instances/ID" + `rest`.
std::string instance_target(std::string_view id, std::string_view rest = {});

}  // namespace vtpm::cli
