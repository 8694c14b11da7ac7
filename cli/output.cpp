// SPDX-License-Identifier: Apache-2.0
#include "cli/output.h"

#include <vtpm/os/file.h>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>

namespace vtpm::cli {
namespace {

constexpr std::size_t kMaxAnswer = std::size_t{64} * 1024 * 1024;

struct Hint {
  ErrorCode code;
  std::string_view text;
};
constexpr std::array kHints = {
    Hint{ErrorCode::Busy, "somebody else has it now: try again in a moment"},
    Hint{ErrorCode::Timeout, "`vtpmctl anchor` and vtpmd's log say what it waits for"},
    Hint{ErrorCode::Unavailable, "`vtpmctl anchor` and vtpmd's log say what it waits for; then try again"},
    Hint{ErrorCode::Malformed, "the verb's --help shows what is accepted"},
    Hint{ErrorCode::NotFound, "check the spelling of what is named; `vtpmctl list` shows the instances"},
    Hint{ErrorCode::Conflict, "`vtpmctl list` shows the instances and their states"},
    Hint{ErrorCode::PermissionDenied,
         "it needs root, or the group that vtpmd serves, or to be your own instance"},
    Hint{ErrorCode::NotVerified, "see the reasons above"},
    Hint{ErrorCode::Unsupported,
         "this version or this machine cannot do it; `vtpmctl doctor` checks the machine"},
    Hint{ErrorCode::Configuration, "correct the file or option that is named"},
    Hint{ErrorCode::Unreachable,
         "start vtpmd (systemctl start vtpmd), or say where its sockets are with --runtime-dir"},
    Hint{ErrorCode::Exhausted, "free what has run out (disk space, instances), or raise the limit"},
    Hint{ErrorCode::Corrupt, "nothing was deleted: keep the file that is named and see vtpmd's log"},
    Hint{ErrorCode::TpmFailure, "see vtpmd's log for the TPM's response code"},
    Hint{ErrorCode::Io, "see vtpmd's log and the kernel's (dmesg)"},
    Hint{ErrorCode::Internal, "this is a bug: please report it with vtpmd's log"},
};

std::string_view hint(ErrorCode code) noexcept {
  const auto found =
      std::find_if(kHints.begin(), kHints.end(), [&](const Hint& h) { return h.code == code; });
  return found == kHints.end() ? std::string_view() : found->text;
}

std::string printable(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return text;
}

}  // namespace

std::string Table::text() const {
  std::vector<std::size_t> widths(rows_.front().size(), 0);
  for (const auto& row : rows_)
    for (std::size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], row[i].size());
  std::string out;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      line.append(widths[i] - row[i].size() + 2, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  }
  return out;
}

Result<> print(std::string_view text) {
  auto written = write_all(STDOUT_FILENO, as_bytes(text));
  if (!written) return written.error().within("standard output");
  return written;
}

Result<> print_json(const json::Value& document) {
  return print(document.dump(2, ' ', false, json::Value::error_handler_t::replace) + "\n");
}

Result<> print_labelled(const std::vector<Labelled>& lines) {
  std::size_t width = 0;
  for (const auto& [label, value] : lines)
    width = std::max(width, label.size());
  std::string out;
  for (const auto& [label, value] : lines)
    out += printable(label) + ":" + std::string(width - label.size() + 1, ' ') + value + "\n";
  return print(out);
}

Result<> print_members(const json::Value& document) {
  if (!document.is_object()) return print_json(document);
  std::vector<Labelled> lines;
  for (const auto& [name, value] : document.items())
    lines.emplace_back(name, shown(value));
  return print_labelled(lines);
}

Result<json::Value> parse_answer(std::string_view body) {
  auto document = json::parse(body, kMaxAnswer);
  if (!document) return document.error().within("vtpmd's answer");
  return document;
}

std::string shown(const json::Value& value) {
  if (value.is_null() || (value.is_structured() && value.empty())) return "-";
  if (!value.is_string()) return printable(json::dump(value));
  auto text = printable(value.get<std::string>());
  return text.empty() ? "-" : text;
}

std::string shown(const json::Value& document, const char* member) {
  if (!document.is_object()) return "-";
  const auto found = document.find(member);
  return found == document.end() ? "-" : shown(*found);
}

std::string shown_time(const json::Value& document, const char* member) {
  const auto found = document.is_object() ? document.find(member) : document.end();
  if (found == document.end() || !found->is_number_unsigned()) return "-";
  const auto seconds = static_cast<std::time_t>(found->get<std::uint64_t>() / 1000);
  std::tm utc{};
  std::array<char, 32> text{};
  if (::gmtime_r(&seconds, &utc) == nullptr ||
      std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &utc) == 0)
    return "-";
  return text.data();
}

void print_error(const std::string& verb, const Error& error) {
  const std::string where = verb.empty() ? "vtpmctl: " : "vtpmctl: " + verb + ": ";
  std::string text = where + printable(error.context) + "\n";
  if (const auto advice = hint(error.kind()); !advice.empty()) text += "  " + std::string(advice) + "\n";
  static_cast<void>(write_all(STDERR_FILENO, as_bytes(text)));
}

}  // namespace vtpm::cli
