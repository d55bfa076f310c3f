// Fuzzes a server connection: nothing that a backend sends, at login or in service, crashes the worker.
//
// Input: a byte of flags (bit 0: the bytes come in service, else at login; the rest: size of the pieces), then
// the backend's bytes. Whatever it says, the client ends with its own replies, an error, or its connection.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "unit/fake.hpp"

namespace
{

using namespace fake;

void run(bool in_service, size_t piece, const std::string &bytes)
{
	World world;
	world.settings().pool_size.store(1);
	Stream *c = world.connect();
	c->from_peer = startup_packet({{"user", "anna"}, {"database", "shop"}});
	if (in_service) {
		world.settle();
		c->from_peer = parse("SELECT c1.x", "s") + bind_to("s") + execute() + message('S') + query("BEGIN");
		world.stream_event(c, SIZE_MAX);
	} else {
		for (int i = 0; i < 10; i++) {
			world.post_event();
			world.stream_event(c, SIZE_MAX);
		}
	}
	if (world.backends.empty())
		return;
	Stream *s = world.stream_of(world.backends[0].get());
	world.backends[0]->dead = true; // from here on the input speaks in its place
	for (size_t at = 0; at < bytes.size(); at += piece) {
		s->from_peer += bytes.substr(at, piece);
		while (world.stream_event(s, SIZE_MAX) || world.stream_event(c, SIZE_MAX)) {
		}
	}
	for (int i = 0; i < 5; i++)
		world.tick(500);
	s->peer_eof = s->peer_gone = true;
	c->peer_eof = c->peer_gone = true;
	for (int i = 0; i < 30; i++) {
		world.settle();
		world.tick(1000);
	}
	if (!world.problem.empty() || !world.engine().clients().sessions().empty()) {
		fprintf(stderr, "%s, %zu sessions left\n", world.problem.c_str(), world.engine().clients().sessions().size());
		abort();
	}
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > 4096)
		return 0;
	run(data[0] & 1, 1 + (data[0] >> 1) % 64, std::string(reinterpret_cast<const char *>(data) + 1, size - 1));
	return 0;
}
