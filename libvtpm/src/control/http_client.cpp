// SPDX-License-Identifier: Apache-2.0
#include "control/error_names.h"
#include "json/strict.h"

#include <vtpm/control/http_client.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <sys/un.h>

#include <cerrno>

namespace vtpm::control {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using Local = asio::local::stream_protocol;

constexpr std::size_t kMaxBody = std::size_t{64} * 1024 * 1024;
constexpr std::size_t kMaxEvent = std::size_t{1} * 1024 * 1024;
constexpr std::size_t kMaxProblem = 65536;

Error transport_error(const std::string& socket, const error_code& error) {
  if (error == beast::error::timeout) return {ErrorCode::Timeout, socket + ": vtpmd did not answer in time"};
  if (error == boost::system::errc::permission_denied) return errno_error(socket, error.value());
  if (error == boost::system::errc::connection_refused ||
      error == boost::system::errc::no_such_file_or_directory)
    return {ErrorCode::Unreachable, socket + ": " + error.message() + " (is vtpmd running?)"};
  if (error == http::error::body_limit || error.category() == http::make_error_code(http::error{}).category())
    return {ErrorCode::Malformed, socket + ": the answer is not HTTP: " + error.message()};
  return {ErrorCode::Io, socket + ": " + error.message()};
}

// One connection, driven by an io_context of its own until each step has ended.
class Connection {
 public:
  Connection(std::string socket, std::chrono::seconds timeout)
      : socket_(std::move(socket)), timeout_(timeout), stream_(context_) {}

  Result<> connect() {
    if (socket_.size() >= sizeof(sockaddr_un::sun_path))
      return Error(ErrorCode::Configuration,
                   socket_ + ": longer than a Unix socket's path may be (107 bytes)");
    return step([&](auto done) { stream_.async_connect(Local::endpoint(socket_), done); });
  }

  Result<> write(http::request<http::string_body>& request) {
    return step([&](auto done) {
      http::async_write(stream_, request, [done](error_code error, std::size_t) { done(error); });
    });
  }

  template <class Body>
  Result<> read(http::response_parser<Body>& parser) {
    return step([&](auto done) {
      http::async_read(stream_, buffer_, parser, [done](error_code error, std::size_t) { done(error); });
    });
  }

  template <class Body>
  Result<> read_header(http::response_parser<Body>& parser) {
    return step([&](auto done) {
      http::async_read_header(stream_, buffer_, parser,
                              [done](error_code error, std::size_t) { done(error); });
    });
  }

  // What is there of the body, into the parser's buffer; waits without limit.
  Result<> read_more(http::response_parser<http::buffer_body>& parser) {
    unlimited_ = true;
    return step([&](auto done) {
      http::async_read_some(stream_, buffer_, parser, [done](error_code error, std::size_t) {
        done(error == http::error::need_buffer ? error_code() : error);
      });
    });
  }

 private:
  template <class Start>
  Result<> step(Start start) {
    error_code result;
    if (unlimited_)
      stream_.expires_never();
    else
      stream_.expires_after(timeout_);
    start([&result](error_code error) { result = error; });
    context_.restart();
    context_.run();
    if (result) return transport_error(socket_, result);
    return {};
  }

  std::string socket_;
  std::chrono::seconds timeout_;
  bool unlimited_ = false;
  asio::io_context context_{1};
  beast::basic_stream<Local> stream_;
  beast::flat_buffer buffer_{kMaxBody};
};

Result<http::request<http::string_body>> make_request(std::string_view method, std::string_view target,
                                                      std::string_view body) {
  const auto verb = http::string_to_verb({method.data(), method.size()});
  if (verb == http::verb::unknown) return Error(ErrorCode::Internal, "no such HTTP method");
  for (const char c : target)
    if (c <= ' ' || c == 0x7f)
      return Error(ErrorCode::Malformed, "a request target with a space or control character");
  http::request<http::string_body> request(verb, {target.data(), target.size()}, 11);
  request.set(http::field::host, "localhost");
  request.set(http::field::connection, "close");
  if (!body.empty()) {
    request.set(http::field::content_type, "application/json");
    request.body() = body;
  }
  request.prepare_payload();
  return request;
}

std::string member_text(const json::Value& document, const char* name) {
  const auto member = document.find(name);
  return member != document.end() && member->is_string() ? member->get<std::string>() : std::string();
}

ErrorCode code_of_status(unsigned status) noexcept {
  for (const auto code :
       {ErrorCode::Malformed, ErrorCode::PermissionDenied, ErrorCode::NotFound, ErrorCode::Conflict,
        ErrorCode::NotVerified, ErrorCode::Unavailable, ErrorCode::Timeout, ErrorCode::Unsupported})
    if (http_status(code) == static_cast<int>(status)) return code;
  return ErrorCode::Internal;
}

// The error that a problem document (RFC 9457) tells of: its type is "urn:vtpm:error:NAME".
Error problem(unsigned status, std::string_view body) {
  constexpr std::string_view kType = "urn:vtpm:error:";
  const auto document = json::parse(body, kMaxProblem);
  if (!document || !document->is_object())
    return {code_of_status(status), "vtpmd answered with status " + std::to_string(status)};
  const std::string type = member_text(*document, "type");
  const std::string detail = member_text(*document, "detail");
  const auto named = type.compare(0, kType.size(), kType) == 0
                         ? error_code_from(std::string_view(type).substr(kType.size()))
                         : std::nullopt;
  auto code = named.value_or(code_of_status(status));
  // Out of reach is something behind vtpmd, not vtpmd.
  if (code == ErrorCode::Unreachable) code = ErrorCode::Unavailable;
  return {code, detail.empty() ? member_text(*document, "title") : detail};
}

// Takes complete lines out of a stream of server-sent events and gives each event's data away.
class EventLines {
 public:
  explicit EventLines(const std::function<bool(std::string_view)>& event) : event_(event) {}

  // False: enough.
  Result<bool> add(std::string_view chunk) {
    pending_ += chunk;
    if (pending_.size() + data_.size() > kMaxEvent)
      return Error(ErrorCode::Malformed, "an event of more than " + std::to_string(kMaxEvent) + " bytes");
    for (auto end = pending_.find('\n'); end != std::string::npos; end = pending_.find('\n')) {
      std::string line = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (!take(line)) return false;
    }
    return true;
  }

 private:
  bool take(std::string_view line) {
    if (line.empty()) {
      const std::string data = std::exchange(data_, {});
      return data.empty() || event_(data);
    }
    constexpr std::string_view kData = "data:";
    if (line.substr(0, kData.size()) != kData) return true;
    line.remove_prefix(kData.size());
    if (!line.empty() && line.front() == ' ') line.remove_prefix(1);
    if (!data_.empty()) data_ += '\n';
    data_ += line;
    return true;
  }

  const std::function<bool(std::string_view)>& event_;
  std::string pending_;
  std::string data_;
};

Result<> read_events(Connection& connection, http::response_parser<http::buffer_body>& parser,
                     const std::function<bool(std::string_view)>& event) {
  EventLines lines(event);
  std::array<char, 8192> chunk;
  while (!parser.is_done()) {
    parser.get().body().data = chunk.data();
    parser.get().body().size = chunk.size();
    VTPM_TRY_VOID(connection.read_more(parser));
    const std::size_t got = chunk.size() - parser.get().body().size;
    VTPM_TRY(const bool more, lines.add({chunk.data(), got}));
    if (!more) return {};
  }
  return {};
}

}  // namespace

HttpClient::HttpClient(std::string runtime_dir, std::chrono::seconds timeout)
    : socket_(std::move(runtime_dir) + "/vtpmd.sock"), timeout_(timeout) {}

Result<HttpResponse> HttpClient::send(std::string_view method, std::string_view target,
                                      std::string_view body) const {
  VTPM_TRY(auto request, make_request(method, target, body));
  Connection connection(socket_, timeout_);
  VTPM_TRY_VOID(connection.connect());
  VTPM_TRY_VOID(connection.write(request));
  http::response_parser<http::string_body> parser;
  parser.body_limit(kMaxBody);
  VTPM_TRY_VOID(connection.read(parser));
  return HttpResponse{parser.get().result_int(), std::move(parser.get().body())};
}

Result<std::string> HttpClient::call(std::string_view method, std::string_view target,
                                     std::string_view body) const {
  VTPM_TRY(auto response, send(method, target, body));
  if (response.status >= 400) return problem(response.status, response.body);
  return std::move(response.body);
}

Result<> HttpClient::stream(std::string_view target,
                            const std::function<bool(std::string_view)>& event) const {
  VTPM_TRY(auto request, make_request("GET", target, {}));
  Connection connection(socket_, timeout_);
  VTPM_TRY_VOID(connection.connect());
  VTPM_TRY_VOID(connection.write(request));
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  VTPM_TRY_VOID(connection.read_header(parser));
  if (parser.get().result_int() >= 400) return problem(parser.get().result_int(), {});
  return read_events(connection, parser, event);
}

}  // namespace vtpm::control
