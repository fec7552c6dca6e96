// Asio's operations as coroutine awaitables that return their error. Inside src/net only.
#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <memory>
#include <tuple>
#include <utility>

#include "net/transport.h"

namespace bise {

constexpr auto kAwait = boost::asio::as_tuple(boost::asio::use_awaitable);

// Awaits an operation of a Transport: start(done) with done(error, bytes).
template <class Start>
boost::asio::awaitable<std::tuple<ErrorCode, std::size_t>> transfer(Start start) {
  co_return co_await boost::asio::async_initiate<decltype(kAwait), void(ErrorCode, std::size_t)>(
      [&start](auto handler) {
        // std::function wants something copyable.
        auto shared = std::make_shared<decltype(handler)>(std::move(handler));
        start([shared](ErrorCode error, std::size_t bytes) { std::move (*shared)(error, bytes); });
      },
      kAwait);
}

}  // namespace bise
