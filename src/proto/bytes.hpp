// Growth of buffers whose size a peer decides.
//
// Owns the rule: where a buffer of one connection grows, no memory is the end of that connection, so it is told as a
// result. Any other allocation that fails throws, and ends the process.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace pgpool::proto
{

// False: there is no memory, and the buffer is as it was.
[[nodiscard]] bool try_append(std::string &buffer, std::string_view bytes);
[[nodiscard]] bool try_prepend(std::string &buffer, std::string_view bytes);
[[nodiscard]] bool try_reserve(std::string &buffer, size_t size);

} // namespace pgpool::proto
