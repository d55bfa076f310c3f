// Fuzzes a session in service: no bytes of a client crash it or fill the memory, and what reaches the backend
// and the client is the same whatever the splits.
//
// Input: a byte that sets the size of the pieces, then the client's bytes behind its login.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "unit/fake.hpp"

namespace
{

using namespace fake;

// What the client got, and whether it was closed.
std::string serve(const std::string &bytes, size_t piece)
{
	World world;
	world.settings().pool_size.store(1);
	Stream *c = world.connect();
	c->from_peer = startup_packet({{"user", "anna"}, {"database", "shop"}});
	world.settle();
	c->to_peer.clear();
	for (size_t at = 0; at < bytes.size(); at += piece) {
		c->from_peer += bytes.substr(at, piece);
		for (int i = 0; i < 50 && !c->from_peer.empty() && c->reading; i++)
			world.settle();
		world.settle();
		for (auto &b : world.backends) {
			if (b->sleeping())
				b->wake();
		}
	}
	world.settle();
	if (c->unsent() > 2 * core::kChunk)
		abort();
	if (!world.problem.empty() && world.problem.find("lost its place") == std::string::npos &&
	    world.problem.find("not at rest") == std::string::npos) {
		fprintf(stderr, "%s\n", world.problem.c_str());
		abort();
	}
	return c->to_peer + (c->closed ? "closed" : "open");
}

// Terminate, or a message that no server takes, ends the session at once: what was on its way before may or may
// not have been answered by then. So the answers up to the end are compared, as far as both go.
bool agree(const std::string &a, const std::string &b)
{
	if (const std::string end = "closed";
	    a.size() >= end.size() && b.size() >= end.size() && a.substr(a.size() - end.size()) == end &&
	    b.substr(b.size() - end.size()) == end && a.find("SFATAL") == b.find("SFATAL")) {
		const size_t n = std::min(a.size(), b.size()) - end.size();
		return a.compare(0, n, b, 0, n) == 0;
	}
	const size_t end_a = a.find("SFATAL"), end_b = b.find("SFATAL");
	if (end_a == std::string::npos && end_b == std::string::npos)
		return a == b;
	if (end_a == std::string::npos || end_b == std::string::npos)
		return false;
	const size_t n = std::min(end_a, end_b) - 5; // without the header of the error
	return a.compare(0, n, b, 0, n) == 0;
}

// The last message is a Sync with a body that is not there in full: pgpool answers it by its header when no
// server is needed, a server when it is complete.
bool ends_in_part_of_a_sync(const std::string &bytes)
{
	for (std::string_view left = bytes;;) {
		const size_t total = size_of_first(left);
		if (total > left.size())
			return left[0] == 'S';
		if (total < pgpool::proto::kHeaderSize) // none is left, or its length is impossible
			return false;
		left.remove_prefix(total);
	}
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2 || size > 4096)
		return 0;
	const std::string bytes(reinterpret_cast<const char *>(data) + 1, size - 1);
	if (ends_in_part_of_a_sync(bytes))
		return 0;
	const std::string whole = serve(bytes, bytes.size());
	const std::string split = serve(bytes, 1 + data[0] % 16);
	if (!agree(split, whole)) {
		std::string a = whole, b = split;
		fprintf(stderr, "another split, another answer:\n  %s\n  %s\n", summary(take_messages(a)).c_str(),
		        summary(take_messages(b)).c_str());
		abort();
	}
	return 0;
}
