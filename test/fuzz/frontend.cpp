// Fuzzes a session in service: no bytes of a client crash it or fill the memory, and what reaches the backend
// and the client is the same whatever the splits.
//
// Input: a byte that sets the size of the pieces, then the client's bytes behind its login.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "../unit/fake.hpp"

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

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2 || size > 4096)
		return 0;
	const std::string bytes(reinterpret_cast<const char *>(data) + 1, size - 1);
	const std::string whole = serve(bytes, bytes.size());
	if (serve(bytes, 1 + data[0] % 16) != whole) {
		fprintf(stderr, "another split, another answer\n");
		abort();
	}
	return 0;
}
