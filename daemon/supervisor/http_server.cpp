// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/http_server.h"

#include "daemon/supervisor/peer_stream.h"

#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

namespace vtpm::supervisor {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using namespace std::chrono_literals;
using Limit = Expiry<PeerStream>;
using Parser = http::request_parser<http::string_body>;

constexpr auto kDeadline = 5s;
constexpr std::uint32_t kHeaderLimit = 8 * 1024;
constexpr std::uint64_t kBodyLimit = 1024 * 1024;

// What is answered to a request that could not be read; nothing when the peer has left or stalled.
std::optional<HttpReply> reply_to(boost::system::error_code error) {
  if (error == http::error::body_limit) return problem(413, "content-too-large", "a body may have 1 MiB");
  if (error == http::error::header_limit || error == http::error::buffer_overflow)
    return problem(431, "header-too-large", "a request's header may have 8 KiB");
  if (error == boost::system::errc::bad_message)
    return problem(400, "malformed", "descriptors came with the request, which has no use for them");
  if (error == boost::system::errc::device_or_resource_busy)
    return problem(Error(ErrorCode::Busy, "earlier descriptors are not closed yet: try again"));
  if (error == http::error::end_of_stream) return std::nullopt;
  if (error.category() == make_error_code(http::error::bad_method).category())
    return problem(400, "malformed", "not an HTTP/1.1 request: " + error.message());
  return std::nullopt;
}

http::response<http::string_body> to_beast(HttpReply reply, unsigned version, bool keep_alive) {
  http::response<http::string_body> message(static_cast<http::status>(reply.status), version);
  message.set(http::field::server, "vtpmd");
  message.set(http::field::content_type, reply.type);
  message.set(http::field::cache_control, "no-store");
  if (!reply.allow.empty()) message.set(http::field::allow, reply.allow);
  message.keep_alive(keep_alive);
  message.body() = std::move(reply.body);
  message.prepare_payload();
  return message;
}

asio::awaitable<boost::system::error_code> read(PeerStream& stream, beast::flat_buffer& buffer,
                                                Parser& parser) {
  const Limit limit(stream, kDeadline);
  const auto [error, size] = co_await http::async_read(stream, buffer, parser, kResume);
  co_return error;
}

asio::awaitable<bool> send(PeerStream& stream, HttpReply reply, unsigned version, bool keep_alive) {
  const auto message = to_beast(std::move(reply), version, keep_alive);
  const Limit limit(stream, kDeadline);
  const auto [error, sent] = co_await http::async_write(stream, message, kResume);
  co_return !error;
}

// A stream of events has no length: it ends with the connection.
asio::awaitable<void> send_events(PeerStream& stream, std::shared_ptr<Subscription> events) {
  std::string text =
      "HTTP/1.1 200 OK\r\nServer: vtpmd\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
      "Connection: close\r\n\r\n";
  for (;;) {
    {
      const Limit limit(stream, kDeadline);
      const auto [error, sent] = co_await asio::async_write(stream, asio::buffer(text), kResume);
      if (error) co_return;
    }
    auto next = co_await events->next();
    if (!next) co_return;
    text = std::move(*next);
  }
}

// Body and target are the peer's; the credentials are the kernel's.
HttpRequest from_beast(Parser& parser, const PeerCredentials& peer) {
  auto& message = parser.get();
  return {std::string(message.method_string()),
          std::string(message.target()),
          std::move(message.body()),
          peer,
          {}};
}

}  // namespace

// A connection, where close() finds it.
class HttpServer::Open {
 public:
  Open(HttpServer& server, const asio::any_io_executor& executor, UniqueFd socket, uid_t peer)
      : stream(executor, std::move(socket), peer, server.context_.workers.disposal), server_(server) {
    server_.open_.insert(this);
  }
  Open(const Open&) = delete;
  Open& operator=(const Open&) = delete;
  ~Open() { server_.open_.erase(this); }

  PeerStream stream;
  beast::flat_buffer buffer{kHeaderLimit + 65536};

 private:
  HttpServer& server_;
};

void HttpServer::close() {
  closed_ = true;
  for (Open* open : open_)
    open->stream.interrupt();
}

asio::awaitable<void> HttpServer::serve(UniqueFd socket, PeerCredentials peer) {
  std::vector<UniqueFd> last;
  {
    Open open(*this, co_await asio::this_coro::executor, std::move(socket), peer.uid);
    while (!closed_ && co_await serve_one(open, peer)) {
    }
    last.push_back(open.stream.release());
  }
  // What is still in it goes with it. Until then it counts as a connection.
  co_await dispose(context_.workers.disposal, peer.uid, Disposal::Kind::Connection, std::move(last));
}

asio::awaitable<bool> HttpServer::serve_one(Open& open, const PeerCredentials& peer) {
  Parser parser;
  parser.header_limit(kHeaderLimit);
  parser.body_limit(kBodyLimit);
  const auto error = co_await read(open.stream, open.buffer, parser);
  if (error) {
    auto refusal = reply_to(error);
    if (refusal) co_await send(open.stream, std::move(*refusal), 11, false);
    co_return false;
  }
  const bool keep_alive = parser.get().keep_alive();
  const unsigned version = parser.get().version();
  HttpReply reply = co_await answer(context_, from_beast(parser, peer));
  if (reply.stream) {
    co_await send_events(open.stream, std::move(reply.stream));
    co_return false;
  }
  const bool sent = co_await send(open.stream, std::move(reply), version, keep_alive);
  co_return sent&& keep_alive;
}

}  // namespace vtpm::supervisor
