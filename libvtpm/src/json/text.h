// SPDX-License-Identifier: Apache-2.0
// Texts with bounds (vtpm/os/text.h) in JSON documents.
#pragma once

#include "json/strict.h"

#include <vtpm/os/text.h>

namespace vtpm::json {

// Each: Malformed, with the member's name, when the text is none such.
Result<std::string> plain_text(const Item& item, std::size_t max);
Result<std::string> plain_text(Reader& reader, std::string_view name, std::size_t max);
Result<std::optional<std::string>> optional_plain_text(Reader& reader, std::string_view name,
                                                       std::size_t max);
Result<std::string> content_digest(const Item& item);
Result<std::optional<std::string>> optional_content_digest(Reader& reader, std::string_view name);

}  // namespace vtpm::json
