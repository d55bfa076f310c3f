// A worker, its clients and their backends, for tests that are told as conversations.
//
// Owns the World of one test, and the claim that nothing is left at its end.
#pragma once

#include <gtest/gtest.h>

#include "fake.hpp"

namespace fake
{

class Session : public ::testing::Test
{
protected:
	World world;

	Stream *login(const std::vector<std::pair<std::string, std::string>> &more = {}, bool session_port = false)
	{
		Stream *s = world.connect(0, session_port);
		std::vector<std::pair<std::string, std::string>> all{{"user", "anna"}, {"database", "shop"}};
		all.insert(all.end(), more.begin(), more.end());
		s->from_peer = startup_packet(all);
		world.settle();
		greeting = take_messages(s->to_peer);
		EXPECT_FALSE(greeting.empty());
		if (!greeting.empty()) {
			EXPECT_EQ(greeting.back().type, 'Z');
		}
		return s;
	}
	void send(Stream *s, const std::string &bytes)
	{
		s->from_peer += bytes;
		world.settle();
	}
	std::string got(Stream *s) { return summary(take_messages(s->to_peer)); }
	std::string ask(Stream *s, const std::string &bytes)
	{
		send(s, bytes);
		return got(s);
	}
	std::string key_of_greeting(int32_t &pid)
	{
		for (const Message &m : greeting) {
			if (m.type == 'K') {
				pid = static_cast<int32_t>(pgpool::proto::load32(m.body.data()));
				return m.body.substr(4);
			}
		}
		return {};
	}
	int busy() { return world.gauges().active.load(); }
	Backend &backend(size_t i = 0) { return *world.backends[i]; }
	void TearDown() override
	{
		world.check();
		EXPECT_EQ(world.problem, "");
		for (size_t i = 0; i < world.streams.size(); i++) {
			if (!world.streams[i]->backend)
				world.streams[i]->peer_eof = world.streams[i]->peer_gone = true;
		}
		for (int i = 0; i < 30; i++)
			world.pass(100);
		world.engine().drain();
		world.engine().end_event();
		for (int i = 0; i < 30; i++)
			world.pass(100);
		EXPECT_EQ(world.leftovers(), "");
	}

	std::vector<Message> greeting;
};

inline const std::string kSync = message('S');
inline const std::string kFlush = message('H');

} // namespace fake
