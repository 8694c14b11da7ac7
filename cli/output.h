// SPDX-License-Identifier: Apache-2.0
// What vtpmctl prints: tables and members for people, JSON for programs, errors with advice.
#pragma once

#include "json/strict.h"

#include <vtpm/os/result.h>

#include <string>
#include <utility>
#include <vector>

namespace vtpm::cli {

// Columns as wide as they need to be, two spaces apart, a header above.
class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}
  // As many cells as the header has.
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// To standard output, whole. A closed pipe or a full disk: Io.
Result<> print(std::string_view text);
// The document, indented, and a line's end.
Result<> print_json(const json::Value& document);
// A line of a description: its label, and the value as a person reads it.
using Labelled = std::pair<std::string, std::string>;
// "label: value" lines, aligned.
Result<> print_labelled(const std::vector<Labelled>& lines);
// The members of a document so, in its order.
Result<> print_members(const json::Value& document);

// A document of vtpmd's. Malformed when it is none.
Result<json::Value> parse_answer(std::string_view body);

// A member as a person reads it: texts and numbers as they are; absent, null and empty ones "-"; anything
// else as JSON. Control characters are replaced: what a tenant chose must not drive a terminal.
std::string shown(const json::Value& document, const char* member);
std::string shown(const json::Value& value);

// "2026-11-23 12:00:00" (UTC) of milliseconds since 1970; "-" for anything else.
std::string shown_time(const json::Value& document, const char* member);

// To standard error: "vtpmctl: verb: why", and a line that says what to do.
void print_error(const std::string& verb, const Error& error);

}  // namespace vtpm::cli
