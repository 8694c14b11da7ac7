// SPDX-License-Identifier: Apache-2.0
#include "cli/output.h"
#include "cli/verbs.h"

#include <CLI/CLI.hpp>

#include <memory>
#include <optional>

namespace vtpm::cli {
namespace {

struct Range {
  std::uint64_t start = 0;
  std::uint64_t count = 100;
};

struct Proof {
  std::optional<std::uint64_t> index;
  std::optional<std::uint64_t> size;
  std::optional<std::uint64_t> from;
  std::optional<std::uint64_t> to;
};

Result<int> show(const Context& context, const std::string& target) {
  VTPM_TRY(const auto body, context.client().call("GET", target));
  VTPM_TRY(const auto document, parse_answer(body));
  VTPM_TRY_VOID(context.json ? print_json(document) : print_members(document));
  return kDone;
}

Result<int> head(const Context& context) {
  return show(context, "/v1/log/head");
}

// What an entry is about, in a few words: its instance and why, or the host's anchor.
std::string subject(const json::Value& entry) {
  std::string text = shown(entry, entry.contains("instance") ? "instance" : "anchor");
  for (const char* more : {"container", "reason"})
    if (entry.contains(more)) text += ", " + shown(entry, more);
  return text;
}

Result<> print_entries(const json::Value& document) {
  VTPM_TRY(auto reader, json::Reader::of(document));
  VTPM_TRY(const auto listed, reader.array("entries"));
  Table table({"INDEX", "TIME (UTC)", "KIND", "SUBJECT"});
  for (const auto& item : listed) {
    VTPM_TRY(auto member, item.object());
    VTPM_TRY(const auto text, member.string("entry"));
    VTPM_TRY(const auto entry, json::parse(text, text.size()));
    table.add(
        {shown(item.value(), "index"), shown_time(entry, "time"), shown(entry, "kind"), subject(entry)});
  }
  return print(table.text());
}

Result<int> entries(const Context& context, const Range& range) {
  VTPM_TRY(const auto body,
           context.client().call("GET", "/v1/log/entries?start=" + std::to_string(range.start) +
                                            "&count=" + std::to_string(range.count)));
  VTPM_TRY(const auto document, parse_answer(body));
  VTPM_TRY_VOID(context.json ? print_json(document) : print_entries(document));
  return kDone;
}

Result<int> proof(const Context& context, const Proof& proof) {
  const bool inclusion = proof.index && !proof.from && !proof.to;
  const bool consistency = proof.from && proof.to && !proof.index && !proof.size;
  if (!inclusion && !consistency)
    return Error(ErrorCode::Malformed, "give either --index (and --size), or --from and --to");
  std::string target = "/v1/log/proof?";
  if (consistency) {
    target += "from=" + std::to_string(*proof.from) + "&to=" + std::to_string(*proof.to);
  } else {
    target += "index=" + std::to_string(*proof.index);
    if (proof.size) target += "&size=" + std::to_string(*proof.size);
  }
  return show(context, target);
}

}  // namespace

void add_log(CLI::App& app, Context& context) {
  CLI::App* log = app.add_subcommand("log", "The host's append-only log");
  log->require_subcommand(1)->fallthrough();
  add_verb(*log, context, "head", "Its size and root", [&context] { return head(context); });
  const auto range = std::make_shared<Range>();
  auto* list = add_verb(*log, context, "entries", "Its entries; --json shows their exact bytes",
                        [&context, range] { return entries(context, *range); });
  list->add_option("--start", range->start, "Index of the first")->capture_default_str();
  list->add_option("--count", range->count, "How many")->capture_default_str();
  const auto wanted = std::make_shared<Proof>();
  auto* prove = add_verb(*log, context, "proof", "That an entry is in it, or that it only grew (RFC 9162)",
                         [&context, wanted] { return proof(context, *wanted); });
  prove->add_option("--index", wanted->index, "Inclusion: index of the entry");
  prove->add_option("--size", wanted->size, "Inclusion: size of the tree (default: now)");
  prove->add_option("--from", wanted->from, "Consistency: the earlier size");
  prove->add_option("--to", wanted->to, "Consistency: the later size");
}

}  // namespace vtpm::cli
