# Boost.Beast (headers) and OpenSSL, for models behind an endpoint. LLAVA_HTTP AUTO takes what is there, ON insists on Beast.
# Sets LLAVA_HAS_HTTP and LLAVA_HAS_TLS.
find_path(LLAVA_BEAST_INCLUDE boost/beast/http.hpp)
find_package(OpenSSL QUIET)
mark_as_advanced(LLAVA_BEAST_INCLUDE)
set(LLAVA_HAS_HTTP OFF)
set(LLAVA_HAS_TLS OFF)
if(LLAVA_HTTP AND LLAVA_BEAST_INCLUDE)
  set(LLAVA_HAS_HTTP ON)
  set(LLAVA_HAS_TLS ${OPENSSL_FOUND})
elseif(LLAVA_HTTP AND NOT LLAVA_HTTP STREQUAL "AUTO")
  message(FATAL_ERROR "The HTTP client needs Boost.Beast; install libboost-dev (and libssl-dev for https)\n"
                      "or configure with -DLLAVA_HTTP=OFF (llava judge then has no --endpoint).")
endif()
message(STATUS "HTTP client: ${LLAVA_HAS_HTTP}, https: ${LLAVA_HAS_TLS}")
