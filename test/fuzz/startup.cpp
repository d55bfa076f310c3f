// Fuzzes the startup packet: any split gives the same kind, and what is read lies within the packet.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

#include "proto/startup.hpp"

namespace
{

void require(bool claim)
{
	if (!claim)
		abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	using namespace pgpool::proto;
	const std::string_view all(reinterpret_cast<const char *>(data), size);
	uint32_t packet = 0;
	const StartupKind whole = classify_startup(all, packet);
	for (size_t n = 0; n < size; n++) {
		uint32_t part = 0;
		const std::unique_ptr<char[]> copy(new char[n]);
		all.copy(copy.get(), n);
		const StartupKind kind = classify_startup({copy.get(), n}, part);
		// Once decided, always the same; and nothing is decided too late.
		require(kind == StartupKind::Incomplete || (kind == whole && part == packet));
	}
	if (whole != StartupKind::Startup && whole != StartupKind::Cancel)
		return 0;
	require(packet >= 8 && packet <= size);
	const std::string bytes(all.substr(0, packet));
	if (whole == StartupKind::Cancel) {
		CancelRequest request;
		if (read_cancel(bytes, request))
			require(request.key.size() == packet - 12 && request.key.size() >= 4);
		return 0;
	}
	Startup startup;
	Error error;
	if (!read_startup(bytes, startup, error)) {
		require(error.sqlstate.size() == 5 && !error.message.empty());
		return 0;
	}
	require(!startup.user.empty() && startup.application_name.size() <= 63);
	std::string out;
	append_negotiation(out, startup);
	require(out.size() <= packet + 16);
	return 0;
}
