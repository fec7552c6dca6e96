// The compiled part of Asio and Beast, once (BOOST_ASIO_SEPARATE_COMPILATION): nothing of Boost is linked.
#include <boost/asio/impl/src.hpp>
#include <boost/asio/ssl/impl/src.hpp>
#include <boost/beast/src.hpp>
