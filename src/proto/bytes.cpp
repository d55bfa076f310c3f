// See bytes.hpp.
#include "proto/bytes.hpp"

#include <new>

#include "proto/no_postgres.hpp"

namespace pgpool::proto
{

namespace
{

template <class F> bool without_exception(F grow)
{
	try {
		grow();
		return true;
	} catch (const std::bad_alloc &) {
		return false;
	}
}

} // namespace

bool try_append(std::string &buffer, std::string_view bytes)
{
	return without_exception([&] { buffer.append(bytes); });
}

bool try_prepend(std::string &buffer, std::string_view bytes)
{
	return without_exception([&] { buffer.insert(0, bytes); });
}

bool try_reserve(std::string &buffer, size_t size)
{
	return buffer.capacity() >= size || without_exception([&] { buffer.reserve(size); });
}

} // namespace pgpool::proto
