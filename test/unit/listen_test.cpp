// Clients that only listen give up their server, and hear as if they had it.
//
// The backends have one queue of notifications, as PostgreSQL has: a client must get each notification of its channels
// once and in order, wherever in a handover it comes.
#include "session_fixture.hpp"

namespace
{

using namespace fake;
using control::ClientState;
using control::ServerState;

class Listen : public Session
{
protected:
	void SetUp() override
	{
		world.prepare_backend = [](Backend &b) { b.agent = true; };
		world.settings().pool_size.store(2);
	}
	Stream *listening(const std::string &channels = "news")
	{
		Stream *s = login();
		EXPECT_EQ(ask(s, query("LISTEN " + channels)), "C:LISTEN Z:I");
		return s;
	}
	Stream *parked(const std::string &channels = "news")
	{
		Stream *s = listening(channels);
		world.pass(1200);
		EXPECT_EQ(busy(), 0);
		EXPECT_EQ(got(s), "");
		return s;
	}
	// Without a client of pgpool: some other session of the server.
	void notify(const std::string &channel, const std::string &payload, uint32_t database = 5)
	{
		world.catalog->notifications.push_back({database, 7, channel, payload});
	}
	control::ClientRow row(size_t i = 0) { return client_rows(world.engine()).at(i); }
	Backend *listener()
	{
		for (const control::ServerRow &r : server_rows(world.engine())) {
			if (r.state == ServerState::Listener)
				return world.find_backend(r.pid);
		}
		return nullptr;
	}
	int listeners() { return world.gauges().listeners.load(); }
	// Lets everything happen, one event at a time, and a notification between any two.
	std::string with_notifications_between(Stream *client, int &n)
	{
		for (bool more = true; more;) {
			more = world.post_event();
			for (size_t i = 0; i < world.streams.size(); i++) {
				Stream *s = world.streams[i].get();
				if (s->backend && world.backend_event(s, SIZE_MAX, SIZE_MAX)) {
					more = true;
					notify("news", std::to_string(n++));
				}
				if (world.stream_event(s, core::kChunk)) {
					more = true;
					notify("news", std::to_string(n++));
				}
			}
			if (n > 60)
				break;
		}
		world.settle();
		return got(client);
	}
	static std::string numbers(int from, int to)
	{
		std::string s;
		for (int i = from; i < to; i++)
			s += (i == from ? "A:news=" : " A:news=") + std::to_string(i);
		return s;
	}
};

TEST_F(Listen, AClientThatOnlyListensGivesUpItsServerAndStillHears)
{
	Stream *a = listening();
	EXPECT_EQ(busy(), 1);
	EXPECT_STREQ(row().pinned, "LISTEN");
	world.pass(1200);
	EXPECT_EQ(busy(), 0) << "parked";
	EXPECT_EQ(listeners(), 1);
	EXPECT_EQ(world.gauges().open.load(), 1) << "the listener takes no place of the pool";
	EXPECT_STREQ(row().pinned, "");
	EXPECT_EQ(row().state, ClientState::Listening);
	EXPECT_EQ(world.gauges().pinned.load(), 0);
	notify("news", "one");
	notify("other", "two");
	notify("news", "three");
	notify("news", "elsewhere", 6);
	EXPECT_EQ(got(a), "");
	world.settle();
	EXPECT_EQ(got(a), "A:news=one A:news=three");
	EXPECT_EQ(ask(a, query("SELECT pg_listening_channels()")), "T D:news C:SELECT 1 Z:I") << "and no marker";
	EXPECT_EQ(ask(a, query("NOTIFY news, 'own'")), "C:NOTIFY A:news=own Z:I");
	EXPECT_EQ(busy(), 1) << "it came back";
	world.pass(1200);
	EXPECT_EQ(busy(), 0);
	EXPECT_EQ(ask(a, query("UNLISTEN news")), "C:UNLISTEN Z:I");
	EXPECT_EQ(busy(), 0) << "released at once";
	EXPECT_EQ(row().state, ClientState::Idle);
	notify("news", "four");
	world.settle();
	EXPECT_EQ(got(a), "");
	world.pass(6000);
	EXPECT_EQ(listeners(), 0) << "nobody needs it any more";
}

TEST_F(Listen, OneServerListensForAllAndManyMoreThanThePoolHas)
{
	std::vector<Stream *> all;
	for (int i = 0; i < 50; i++) {
		all.push_back(login());
		EXPECT_EQ(ask(all.back(), query("LISTEN news")), "C:LISTEN Z:I") << i;
		EXPECT_EQ(ask(all.back(), query("LISTEN \"Odd" + std::to_string(i) + "\"")), "C:LISTEN Z:I") << i;
	}
	world.pass(1200);
	EXPECT_EQ(busy(), 0);
	EXPECT_EQ(listeners(), 1);
	EXPECT_LE(world.live_backends(), 3u);
	notify("news", "all");
	notify("Odd7", "one");
	world.settle();
	for (size_t i = 0; i < all.size(); i++)
		EXPECT_EQ(got(all[i]), i == 7 ? "A:news=all A:Odd7=one" : "A:news=all") << i;
	for (Stream *s : all) {
		EXPECT_EQ(ask(s, query("BEGIN")), "C:BEGIN Z:T");
		EXPECT_EQ(ask(s, query("COMMIT")), "C:COMMIT Z:I");
	}
}

TEST_F(Listen, NothingIsLostOrDoubledInAHandover)
{
	Stream *a = listening();
	int n = 0;
	world.tick(1000);
	std::string all = with_notifications_between(a, n);
	EXPECT_EQ(all, numbers(0, n)) << "parking";
	EXPECT_EQ(row().state, ClientState::Listening);
	const int before = n = 1000;
	a->from_peer += query("SELECT c1.x");
	n = 0;
	all = with_notifications_between(a, n);
	EXPECT_EQ(row().server_pid != 0, true) << before;
	const size_t answer = all.find("T D:c1.x C:SELECT 1 ");
	ASSERT_NE(answer, std::string::npos) << all;
	std::string without = all;
	without.erase(without.find("T D:c1.x C:SELECT 1 "), strlen("T D:c1.x C:SELECT 1 "));
	without.erase(without.find("Z:I"), without.find("Z:I") + 3 == without.size() ? 3 : 4);
	EXPECT_EQ(without, numbers(0, n)) << "coming back";
}

TEST_F(Listen, WhatTheClientSendsInAHandoverIsServedBehindIt)
{
	// At each step of the way: the number of events that happen before the client sends.
	for (int events = 0; events < 30; events++) {
		Stream *a = listening();
		world.tick(1000);
		bool more = true;
		for (int i = 0; more && i < events; i++) {
			more = false;
			for (size_t k = 0; k < world.streams.size() && !more; k++) {
				Stream *s = world.streams[k].get();
				more =
				    (s->backend && world.backend_event(s, SIZE_MAX, SIZE_MAX)) || world.stream_event(s, core::kChunk);
			}
		}
		notify("news", "x");
		const std::string answer = ask(a, query("SELECT pg_listening_channels()"));
		EXPECT_TRUE(answer == "A:news=x T D:news C:SELECT 1 Z:I" || answer == "T D:news C:SELECT 1 A:news=x Z:I")
		    << events << ": " << answer;
		a->peer_eof = a->peer_gone = true;
		world.settle();
		world.pass(1200);
		EXPECT_EQ(busy(), 0) << events;
	}
}

TEST_F(Listen, AClientMayLeaveInAnyStepOfAHandover)
{
	for (const std::string how : {"leaves", "is terminated", "loses its listener"}) {
		for (int round = 0; round < 60; round++) {
			const bool back = round % 2 == 1;
			const int events = round / 2;
			Stream *a = back ? parked() : listening();
			Stream *other = parked();
			if (back)
				a->from_peer += query("SELECT c1.x");
			else
				world.tick(1000);
			for (int i = 0; i < events; i++) {
				bool more = false;
				for (size_t k = 0; k < world.streams.size() && !more; k++) {
					Stream *s = world.streams[k].get();
					more = (s->backend && world.backend_event(s, SIZE_MAX, SIZE_MAX)) ||
					       world.stream_event(s, core::kChunk);
				}
			}
			if (how == "is terminated")
				EXPECT_TRUE(world.engine().terminate_client(row(0).id));
			else if (how == "loses its listener")
				listener()->die();
			else
				a->peer_eof = a->peer_gone = true;
			world.engine().end_event();
			world.settle();
			notify("news", "x");
			world.settle();
			EXPECT_EQ(got(other), how == "loses its listener" ? "E:FATAL:57P01" : "A:news=x") << how << ", " << events;
			for (auto &s : world.streams) {
				if (!s->backend)
					s->peer_eof = s->peer_gone = true;
			}
			world.pass(2500);
			EXPECT_EQ(busy(), 0) << how << ", " << events;
			EXPECT_EQ(world.hushed(), 0) << how << ", " << events;
			EXPECT_EQ(world.engine().clients().sessions().size(), 0u) << how << ", " << events;
			world.pass(6000); // no listener
		}
	}
}

TEST_F(Listen, ALostListenerTakesItsClientsAlong)
{
	Stream *a = parked(), *b = parked("other"), *c = listening();
	ASSERT_NE(listener(), nullptr);
	listener()->die();
	world.settle();
	EXPECT_EQ(got(a), "E:FATAL:57P01");
	EXPECT_EQ(got(b), "E:FATAL:57P01");
	EXPECT_EQ(ask(c, query("SELECT c3.x")), "T D:c3.x C:SELECT 1 Z:I") << "it has a server of its own";
	EXPECT_TRUE(a->closed && b->closed);
	world.pass(1200);
	EXPECT_EQ(row().state, ClientState::Listening) << "by a new listener";
}

TEST_F(Listen, AChannelMayHaveAnyNameAndNoneEndsTheOthers)
{
	const std::string names[] = {"a.b",
	                             ".",
	                             "..",
	                             "a\"\"b",
	                             " ",
	                             "x; LISTEN y",
	                             "UPPER",
	                             "'",
	                             "\xe4\xf6",
	                             std::string(63, 'n'),
	                             std::string(60, 'n') + ".nn",
	                             "select"};
	Stream *other = parked();
	for (const std::string &n : names) {
		Stream *a = listening("\"" + n + "\"");
		world.pass(1200);
		EXPECT_EQ(busy(), 0) << n << " is parked";
		std::string plain = n;
		if (plain.find("\"\"") != std::string::npos)
			plain.erase(plain.find('"'), 1);
		notify(plain, "x");
		notify("news", n);
		world.settle();
		EXPECT_EQ(got(a), "A:" + plain + "=x") << n;
		EXPECT_EQ(got(other), "A:news=" + n);
		EXPECT_EQ(ask(a, query("SELECT pg_listening_channels()")), "T D:" + plain + " C:SELECT 1 Z:I")
		    << "it comes back";
		a->peer_eof = a->peer_gone = true;
		world.settle();
	}
	EXPECT_EQ(ask(login(), query("LISTEN \"\"")), "E:42601 Z:I");
}

// The listener refuses one of the channels: its clients keep their servers, and nobody else notices.
TEST_F(Listen, ARoundThatFailsFailsThoseWhoNeedIt)
{
	world.settings().pool_size.store(4);
	world.settings().max_pinned.store(4);
	Stream *before = parked("news");
	listener()->refused_channel = "bad";
	Stream *guilty = listening("bad"), *too = listening("bad"), *with = listening("news");
	EXPECT_EQ(ask(guilty, query("LISTEN good")), "C:LISTEN Z:I");
	EXPECT_EQ(ask(with, query("LISTEN good")), "C:LISTEN Z:I");
	for (int i = 0; i < 3; i++) {
		world.pass(5500); // and again
		EXPECT_EQ(busy(), 2) << "the two that need it";
		EXPECT_EQ(row(0).state, ClientState::Listening);
		EXPECT_EQ(row(3).state, ClientState::Listening);
		EXPECT_EQ(world.gauges().listeners.load(), 1) << "the same";
		for (const char *c : {"bad", "good", "news"})
			notify(c, "x");
		world.settle();
		EXPECT_EQ(got(before), "A:news=x");
		EXPECT_EQ(got(guilty), "A:bad=x A:good=x");
		EXPECT_EQ(got(too), "A:bad=x");
		EXPECT_EQ(got(with), "A:good=x A:news=x");
	}
	listener()->refused_channel.clear();
	world.pass(6000);
	EXPECT_EQ(busy(), 0) << "when it is refused no more, they are parked, too";
	notify("bad", "y");
	world.settle();
	EXPECT_EQ(got(guilty) + got(too), "A:bad=yA:bad=y");
}

TEST_F(Listen, ARefusalBeforeAnybodyIsParkedIsTakenAlike)
{
	world.settings().pool_size.store(3);
	world.settings().max_pinned.store(3);
	world.prepare_backend = [](Backend &b) {
		b.agent = true;
		b.refused_channel = "bad";
	};
	Stream *good = nullptr, *bad = nullptr;
	good = listening("news");
	for (auto &b : world.backends)
		b->refused_channel.clear();
	bad = login();
	ask(bad, query("LISTEN news"));
	for (auto &b : world.backends)
		b->refused_channel.clear();
	EXPECT_EQ(ask(bad, query("LISTEN bad")), "C:LISTEN Z:I");
	world.pass(1500);
	EXPECT_EQ(busy(), 1);
	notify("news", "x");
	notify("bad", "x");
	world.settle();
	EXPECT_EQ(got(good), "A:news=x");
	EXPECT_EQ(got(bad), "A:news=x A:bad=x");
}

TEST_F(Listen, AnotherListenerTakesTheNextClients)
{
	parked("news");
	parked("other");
	Stream *c = listening("more");
	world.pass(900);
	listener()->die();
	world.settle();
	world.pass(1200);
	EXPECT_EQ(busy(), 0) << "in whatever round the old one was";
	notify("more", "one");
	world.settle();
	EXPECT_EQ(got(c), "A:more=one");
}

TEST_F(Listen, AClientIsToldWhenItsOwnServerIsLostWithItsSubscriptions)
{
	Stream *a = listening();
	backend().die();
	world.settle();
	EXPECT_EQ(got(a), "E:FATAL:57P01");
	EXPECT_TRUE(a->closed);
}

TEST_F(Listen, AServerThatDiesOnTheWayBackIsReplacedByAnother)
{
	for (int events = 0; events < 12; events++) {
		Stream *a = parked();
		notify("news", "1");
		a->from_peer += query("SELECT pg_listening_channels()");
		for (int i = 0; i < events; i++) {
			bool more = false;
			for (size_t k = 0; k < world.streams.size() && !more; k++) {
				Stream *s = world.streams[k].get();
				more =
				    (s->backend && world.backend_event(s, SIZE_MAX, SIZE_MAX)) || world.stream_event(s, core::kChunk);
			}
			notify("news", std::to_string(i + 2));
		}
		const bool came_back = row().server_pid != 0 && row().state == ClientState::Idle;
		for (auto &b : world.backends) {
			if (!b->dead && b.get() != listener())
				b->die();
		}
		world.settle();
		const std::string heard = got(a);
		if (!came_back && !a->closed) {
			std::string all = heard;
			const size_t at = all.find("T D:news C:SELECT 1 ");
			ASSERT_NE(at, std::string::npos) << events << ": " << heard;
		}
		a->peer_eof = a->peer_gone = true;
		world.pass(7000);
	}
}

// It was set on the server that the client has given up, or on none that was ever given back.
TEST_F(Listen, SettingsAreTheClientsWhereverItsServerDies)
{
	auto one_event = [&] {
		for (size_t k = 0; k < world.streams.size(); k++) {
			Stream *s = world.streams[k].get();
			if ((s->backend && world.backend_event(s, SIZE_MAX, SIZE_MAX)) || world.stream_event(s, core::kChunk))
				return;
		}
	};
	int went_on = 0;
	for (int before = 0; before < 25; before++) {
		for (int behind = 0; behind < 15; behind++) {
			Stream *a = login();
			ask(a, query("LISTEN news"));
			ask(a, query("SET search_path mine")); // the server is not given back behind it
			world.tick(1000);
			for (int i = 0; i < before; i++)
				one_event();
			a->from_peer += query("SELECT c1.x");
			for (int i = 0; i < behind; i++)
				one_event();
			for (auto &b : world.backends) {
				if (!b->dead && b.get() != listener())
					b->die();
			}
			world.settle();
			got(a);
			if (!a->closed) {
				went_on++;
				EXPECT_EQ(ask(a, query("SHOW search_path")), "T D:mine C:SHOW Z:I") << before << ", " << behind;
			}
			a->peer_eof = a->peer_gone = true;
			world.pass(7000);
		}
	}
	EXPECT_GT(went_on, 50);
}

TEST_F(Listen, WithoutAListenerTheClientKeepsItsServer)
{
	Stream *a = listening();
	world.prepare_backend = [](Backend &b) { b.refuse = {"53300", "too many connections for role", "", ""}; };
	world.pass(1500);
	EXPECT_EQ(busy(), 1);
	EXPECT_STREQ(row().pinned, "LISTEN");
	notify("news", "x");
	world.settle();
	EXPECT_EQ(got(a), "A:news=x");
	world.prepare_backend = [](Backend &b) { b.agent = true; };
	Stream *b = login();
	EXPECT_EQ(ask(b, query("LISTEN news")), "C:LISTEN Z:I");
	world.pass(7200);
	EXPECT_EQ(busy(), 0) << "tried again";
	EXPECT_EQ(ask(a, query("SELECT pg_listening_channels()")), "T D:news C:SELECT 1 Z:I");
}

TEST_F(Listen, AHandoverThatTheServerRefusesIsTakenBack)
{
	Stream *a = listening();
	backend().refuses_notify = true;
	world.pass(1500);
	EXPECT_EQ(busy(), 1);
	notify("news", "x");
	world.settle();
	EXPECT_EQ(ask(a, query("SELECT pg_listening_channels()")), "A:news=x T D:news C:SELECT 1 Z:I");
	backend().refuses_notify = false;
	world.pass(7000);
	EXPECT_EQ(busy(), 0);
	for (auto &b : world.backends)
		b->refuses_notify = true;
	world.prepare_backend = [](Backend &b) { b.agent = b.refuses_notify = true; };
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "E:FATAL:54000") << "it cannot come back, on any server";
}

TEST_F(Listen, DiscardAllEndsItAndOtherPinsKeepTheServer)
{
	Stream *a = parked();
	EXPECT_EQ(ask(a, query("DISCARD ALL")), "C:DISCARD ALL Z:I");
	EXPECT_EQ(busy(), 0);
	notify("news", "x");
	world.settle();
	EXPECT_EQ(got(a), "");
	ask(a, query("LISTEN news"));
	ask(a, query("PIN temporary"));
	world.pass(2000);
	EXPECT_EQ(busy(), 1) << "it does not only listen";
	EXPECT_STREQ(row().pinned, "temporary, LISTEN");
	EXPECT_EQ(ask(a, query("PIN off")), "C:PIN Z:I");
	world.pass(1200);
	EXPECT_EQ(busy(), 0);
	ask(a, query("BEGIN"));
	world.pass(2000);
	EXPECT_EQ(busy(), 1) << "in a transaction";
	ask(a, query("ROLLBACK"));
}

TEST_F(Listen, AServerIsGivenUpAtOnceWhenSomebodyWaits)
{
	world.settings().pool_size.store(1);
	Stream *a = listening(), *b = login();
	EXPECT_EQ(ask(b, query("SELECT c2.x")), "T D:c2.x C:SELECT 1 Z:I");
	notify("news", "x");
	world.settle();
	EXPECT_EQ(got(a), "A:news=x");
}

TEST_F(Listen, SettingsAndEncodingStayTheClients)
{
	Stream *a = login({{"client_encoding", "LATIN1"}});
	ask(a, query("SET search_path mine"));
	ask(a, query("LISTEN news"));
	Stream *b = parked();
	EXPECT_EQ(listeners(), 2) << "one for each encoding";
	notify("news", "x");
	world.settle();
	EXPECT_EQ(got(a), "A:news=x");
	EXPECT_EQ(got(b), "A:news=x");
	EXPECT_EQ(ask(b, query("SHOW search_path")), "T D:public C:SHOW Z:I");
	EXPECT_EQ(ask(a, query("SHOW search_path")), "T D:mine C:SHOW Z:I");
}

TEST_F(Listen, APoolHasNotManyMoreListenersThanServersWhateverEncodingsItsClientsChoose)
{
	world.settings().pool_size.store(5);
	std::vector<Stream *> clients;
	for (int i = 1; i <= 8; i++) {
		clients.push_back(login({{"client_encoding", "LATIN" + std::to_string(i)}}));
		ask(clients.back(), query("LISTEN news"));
		world.pass(1200);
	}
	const int most = std::max(2, 5 / static_cast<int>(world.view.header()->workers));
	EXPECT_EQ(listeners(), most);
	EXPECT_EQ(busy(), 8 - most) << "the others keep their servers";
	notify("news", "x");
	world.settle();
	for (Stream *c : clients)
		EXPECT_EQ(got(c), "A:news=x");
	for (int i = 0; i < most; i++) // no longer needed
		clients[i]->peer_eof = clients[i]->peer_gone = true;
	world.pass(20000);
	EXPECT_EQ(busy(), std::max(0, 8 - 2 * most)) << "and give them up when there is room";
	EXPECT_LE(listeners(), most);
}

TEST_F(Listen, ASlowClientIsCutWhenItReadsNothing)
{
	world.view.header()->settings.write_timeout = 5000;
	world.engine().on_settings(world.view.header()->settings);
	Stream *a = parked(), *b = parked();
	a->room = 0;
	notify("news", "x");
	world.pass(4000);
	EXPECT_FALSE(a->closed);
	world.pass(3000);
	EXPECT_TRUE(a->closed);
	EXPECT_EQ(got(b), "A:news=x");
	b->room = 0;
	for (int i = 0; i < 1200; i++)
		notify("news", std::string(8000, 'x'));
	world.settle();
	EXPECT_TRUE(b->closed) << "too much is kept for it";
}

TEST_F(Listen, AShutdownEndsClientsAndListener)
{
	Stream *a = parked();
	world.engine().drain();
	world.engine().end_event();
	EXPECT_EQ(got(a), "E:FATAL:57P01");
	world.pass(2000);
	EXPECT_TRUE(world.engine().drained());
	EXPECT_EQ(world.live_backends(), 0u);
}

TEST_F(Listen, AListenerWithoutClientsIsNotInTheWayOfDropDatabase)
{
	Stream *a = parked();
	uint32_t closed = 0;
	world.engine().on_drain_database(5, closed);
	world.settle();
	EXPECT_EQ(closed, 1u) << "the pool's own";
	EXPECT_EQ(listeners(), 1) << "as a session that listens is in the way on any server";
	send(a, message('X'));
	world.engine().on_drain_database(6, closed);
	EXPECT_EQ(closed, 1u) << "of another database";
	world.engine().on_drain_database(5, closed);
	world.settle();
	EXPECT_EQ(closed, 2u);
	EXPECT_EQ(listeners(), 0);
}

TEST_F(Listen, InSessionModeAndWithoutTheAgentNobodyIsParked)
{
	Stream *a = login({}, true);
	ask(a, query("LISTEN news"));
	world.pass(3000);
	EXPECT_EQ(busy(), 1);
	world.prepare_backend = nullptr;
	EXPECT_EQ(listeners(), 0);
}

} // namespace
