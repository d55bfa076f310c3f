// The engine: lists for the views, verbs of the administrator, ends of tenants, pools and workers.
#include <functional>

#include "region/names.hpp"
#include "session_fixture.hpp"

namespace
{

using namespace fake;
using control::ClientState;
using core::StrangerLog;

class Engine : public Session
{
protected:
	core::Engine &engine() { return world.engine(); }
	void poke()
	{
		engine().on_poke();
		engine().end_event();
		world.settle();
	}
	control::ClientRow row(size_t i = 0) { return client_rows(engine()).at(i); }
	Stream *greet() // says who it is, and waits for no answer
	{
		Stream *s = world.connect(0, false);
		s->from_peer = startup_packet({{"user", "anna"}, {"database", "shop"}});
		return s;
	}
	std::string pinned(size_t i = 0) { return row(i).pinned; }
	control::PreparedRow prepared(const std::string &text)
	{
		for (const control::PreparedRow &r : engine().prepared_rows()) {
			if (text == r.text)
				return r;
		}
		ADD_FAILURE() << text << " is not shown";
		return {};
	}
	// Each of two clients had a server of its own, and has given it back.
	void open_two_servers(Stream *a, Stream *b)
	{
		ask(a, query("BEGIN c1.x"));
		ask(b, query("BEGIN c2.x"));
		ask(a, query("COMMIT"));
		ask(b, query("COMMIT"));
	}
	void set_limit(int32_t region::Settings::*member, int32_t value)
	{
		world.view.header()->settings.*member = value;
		engine().on_settings(world.view.header()->settings);
	}
};

// ---- lists

TEST_F(Engine, AClientsStateIsThatOfItsWork)
{
	world.settings().pool_size.store(1);
	world.manager_answers = false;
	Stream *c = world.connect();
	c->address_bytes = "0123";
	send(c, startup_packet({{"user", "anna"}, {"database", "shop"}, {"application_name", "mine"}}));
	EXPECT_EQ(row().state, ClientState::Login);
	EXPECT_EQ(row().pool_slot, UINT32_MAX);
	EXPECT_EQ(row().address_length, 4u);
	world.manager_answers = true;
	engine().on_manager();
	world.settle();
	EXPECT_EQ(row().state, ClientState::Idle);
	EXPECT_EQ(row().server_pid, 0);
	EXPECT_STREQ(row().application_name, "mine");
	EXPECT_STREQ(row().tenant, "main");
	send(c, query("BEGIN c1.x"));
	EXPECT_EQ(row().state, ClientState::IdleInTransaction);
	EXPECT_EQ(row().server_pid, backend().pid);
	Stream *d = login();
	send(d, query("SELECT c2.x"));
	EXPECT_EQ(row(1).state, ClientState::Waiting);
	send(c, query("SLEEP c1.x"));
	EXPECT_EQ(row().state, ClientState::Active);
	send(c, message('X'));
	EXPECT_EQ(row().state, ClientState::Closing);
	backend().wake();
	world.settle();
	EXPECT_TRUE(c->closed);
	EXPECT_EQ(row().queries, 1u);
}

TEST_F(Engine, ClientsAreListedAFewAtATimeWhileTheyComeAndGo)
{
	std::vector<Stream *> clients;
	std::vector<uint64_t> ids;
	for (int i = 0; i < 10; i++)
		clients.push_back(login());
	for (const control::ClientRow &r : client_rows(engine()))
		ids.push_back(r.id);
	core::ClientRows rows(engine().clients().sessions()), others(engine().clients().sessions());
	std::vector<uint64_t> seen;
	auto take = [&](size_t most) {
		const auto some = rows.next(most);
		for (const control::ClientRow &r : some)
			seen.push_back(r.id);
		return some.size();
	};
	EXPECT_EQ(take(3), 3u);
	for (int i : {1, 3, 4, 9}) { // one that was listed, the next two, and the last
		clients[i]->peer_eof = true;
		world.settle();
	}
	login();
	EXPECT_EQ(take(2), 2u);
	EXPECT_EQ(take(100), 3u);
	EXPECT_EQ(take(100), 0u);
	std::vector<uint64_t> want{ids[0], ids[1], ids[2], ids[5], ids[6], ids[7], ids[8]};
	want.push_back(client_rows(engine()).back().id);
	EXPECT_EQ(seen, want);
	EXPECT_EQ(others.next(100).size(), 7u);
}

TEST_F(Engine, ServersAreListedAFewAtATimeWhileTheyComeAndGo)
{
	world.settings().pool_size.store(6);
	std::vector<Stream *> clients;
	for (int i = 0; i < 5; i++) {
		clients.push_back(login());
		ask(clients.back(), query("BEGIN c" + std::to_string(i) + ".x"));
	}
	std::vector<int32_t> pids, seen;
	for (const control::ServerRow &r : server_rows(engine()))
		pids.push_back(r.pid);
	ASSERT_EQ(pids.size(), 5u);
	core::ServerRows rows(engine().pools().servers());
	auto take = [&](size_t most) {
		const auto some = rows.next(most);
		for (const control::ServerRow &r : some)
			seen.push_back(r.pid);
		return some.size();
	};
	EXPECT_EQ(take(2), 2u);
	send(clients[1], query("COMMIT")); // they go to another list of their pool
	send(clients[3], query("COMMIT"));
	for (auto &b : world.backends) {
		if (b->pid == pids[0] || b->pid == pids[2])
			b->die();
	}
	world.settle();
	ask(login(), query("BEGIN c6.x"));
	ask(login(), query("BEGIN c7.x"));
	ask(login(), query("BEGIN c8.x"));
	EXPECT_EQ(take(1), 1u);
	EXPECT_EQ(take(100), 2u);
	EXPECT_EQ(take(100), 0u);
	EXPECT_EQ(seen, (std::vector<int32_t>{pids[0], pids[1], pids[3], pids[4], server_rows(engine()).back().pid}));
}

TEST_F(Engine, WhatEncryptsAClientIsShown)
{
	Stream *c = world.connect();
	c->tls_possible = true;
	c->tls_info.version = "TLSv1.3";
	c->tls_info.cipher = "TLS_AES_256_GCM_SHA384";
	c->tls_info.sni = "shop.example";
	std::string sni;
	world.answer = [&](const control::AuthLookup &q, control::AuthAnswer &) { sni = q.sni; };
	send(c, std::string("\0\0\0\x08\x04\xd2\x16\x2f", 8));
	EXPECT_EQ(c->to_peer, "S");
	EXPECT_EQ(row().tls, 0);
	c->tls_up = true;
	send(c, startup_packet({{"user", "anna"}, {"database", "shop"}}));
	EXPECT_EQ(sni, "shop.example");
	EXPECT_EQ(row().tls, 1);
	EXPECT_STREQ(row().tls_version, "TLSv1.3");
	EXPECT_STREQ(row().tls_cipher, "TLS_AES_256_GCM_SHA384");
}

TEST_F(Engine, WhyAClientKeepsItsServerIsShown)
{
	Stream *c = login();
	const std::string large(1 << 20, ' ');
	EXPECT_EQ(ask(c, parse("SELECT c1.x" + large, "s") + kSync), "1 Z:I");
	EXPECT_EQ(pinned(), "long statement");
	EXPECT_EQ(busy(), 1);
	EXPECT_EQ(ask(c, bind_to("s") + execute() + kSync), "2 D:c1.x C:SELECT 1 Z:I");
	EXPECT_EQ(ask(c, query("DEALLOCATE ALL")), "C:DEALLOCATE ALL Z:I");
	EXPECT_EQ(busy(), 0);
	EXPECT_EQ(ask(c, parse("SELECT c1.y" + large) + kSync), "1 Z:I");
	EXPECT_EQ(pinned(), "unnamed statement");
	EXPECT_EQ(ask(c, bind_to() + execute() + kSync), "2 D:c1.y C:SELECT 1 Z:I");
	EXPECT_EQ(pinned(), "");
	send(c, message('X'));
	login({}, true);
	EXPECT_EQ(pinned(), "session mode");
}

// However it arrives: up to twice 64 KiB of it can be at hand at once, and then it was taken for a short one.
TEST_F(Engine, ALongUnnamedStatementKeepsItsServerHoweverItArrives)
{
	for (const region::CacheUnnamed cache : {region::CacheUnnamed::Custom, region::CacheUnnamed::Generic}) {
		world.settings().cache_unnamed.store(cache);
		Stream *c = login();
		for (const size_t size : {70000, 100000, 131000}) {
			const std::string bytes = parse("SELECT c1.x" + std::string(size, ' ')) + kSync;
			for (const size_t first : {1, 30000, 40000, 65535, 65536, 69000}) {
				send(c, bytes.substr(0, first));
				std::string rest = bytes.substr(first);
				for (; rest.size() > core::kChunk; rest.erase(0, core::kChunk))
					send(c, rest.substr(0, core::kChunk));
				EXPECT_EQ(ask(c, rest), "1 Z:I");
				EXPECT_EQ(pinned(), "unnamed statement") << size << ", of which came first " << first;
				EXPECT_EQ(ask(c, bind_to() + execute() + kSync), "2 D:c1.x C:SELECT 1 Z:I");
				EXPECT_EQ(pinned(), "");
			}
		}
		send(c, message('X'));
	}
}

TEST_F(Engine, AStatementIsShownWithWhoHasIt)
{
	Stream *a = login(), *b = login();
	const std::string typed = parse("SELECT typed", "s", {23, 25});
	ask(a, parse("SELECT x", "s") + parse("SELECT x", "t") + bind_to("s") + execute() + kSync);
	ask(b, parse("SELECT x", "u") + typed + kSync);
	control::PreparedRow r = prepared("SELECT x");
	EXPECT_EQ(r.clients, 2u) << "one has two names for it";
	EXPECT_EQ(r.uses, 1u);
	EXPECT_GE(r.hits, 1u);
	EXPECT_GE(r.parses, 1u);
	r = prepared("SELECT typed");
	EXPECT_EQ(r.servers, 1u);
	EXPECT_EQ(r.tenant_count, 1u);
	EXPECT_STREQ(r.tenants[0], "main");
	ASSERT_EQ(r.type_count, 2u);
	EXPECT_EQ(r.types[0], 23u);
	EXPECT_EQ(r.types[1], 25u);
	EXPECT_EQ(prepared("SELECT typed").clients, 1u);
	send(a, message('X'));
	EXPECT_EQ(server_rows(engine()).size(), world.live_backends());
}

TEST_F(Engine, OfVeryManyStatementsTheMostUsedAreShown)
{
	set_limit(&region::Settings::max_prepared_statements, 1);
	set_limit(&region::Settings::max_client_statements, 10000);
	Stream *a = login();
	std::string all;
	for (int i = 0; i < 5100; i++)
		all += parse("SELECT " + std::to_string(i), "s" + std::to_string(i));
	send(a, all + bind_to("s5099") + execute() + kSync);
	EXPECT_EQ(engine().prepared_rows().size(), 5000u);
	EXPECT_EQ(prepared("SELECT 5099").uses, 1u);
}

// ---- verbs

TEST_F(Engine, ATerminatedClientIsToldAndACancelledOneGoesOn)
{
	Stream *a = login(), *b = login();
	send(a, query("SLEEP c1.x"));
	EXPECT_TRUE(engine().cancel_client(row(0).id));
	world.settle();
	EXPECT_EQ(got(a), "E:57014 Z:I");
	EXPECT_TRUE(engine().terminate_client(row(1).id));
	EXPECT_EQ(got(b), "E:FATAL:57P01");
	EXPECT_FALSE(engine().terminate_client(4711));
	EXPECT_FALSE(engine().cancel_client(4711));
	EXPECT_TRUE(engine().cancel_client(row(0).id)) << "an idle one has nothing to cancel";
	EXPECT_EQ(ask(a, query("SELECT c1.y")), "T D:c1.y C:SELECT 1 Z:I");
}

TEST_F(Engine, BeforeADatabaseIsDroppedItsServersGoAndNoneComes)
{
	Stream *a = login();
	uint32_t done = 0;
	engine().on_drain_database(4711, done);
	EXPECT_EQ(done, 0u);
	engine().on_drain_database(5, done);
	EXPECT_EQ(done, 1u);
	world.settle();
	EXPECT_EQ(world.live_backends(), 0u);
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "");
	engine().on_drain_database(5, done);
	world.pass(10000);
	EXPECT_EQ(got(a), "") << "as long as the statement takes";
	engine().pools().end_drain(4711);
	engine().pools().end_drain(5);
	world.settle();
	EXPECT_EQ(got(a), "") << "another statement still needs it";
	engine().pools().end_drain(5);
	world.settle();
	EXPECT_EQ(got(a), "T D:c1.x C:SELECT 1 Z:I");
}

TEST_F(Engine, ALowerLimitOfServersClosesIdleOnes)
{
	Stream *a = login(), *b = login();
	open_two_servers(a, b);
	EXPECT_EQ(world.live_backends(), 2u);
	set_limit(&region::Settings::max_server_connections, 1);
	world.pass(1100);
	EXPECT_EQ(world.live_backends(), 1u);
	world.settings().query_wait_timeout.store(300);
	ask(a, query("BEGIN c1.y"));
	send(b, query("SELECT c2.y"));
	world.pass(500);
	std::vector<Message> all = take_messages(b->to_peer);
	ASSERT_EQ(all.size(), 2u);
	EXPECT_NE(all[0].body.find("pgpool.max_server_connections is 1"), std::string::npos);
	ask(a, query("COMMIT"));
}

TEST(EngineTest, AtTheLimitOfServersAnIdleOneOfAnotherWorkerMakesRoom)
{
	World two(2);
	for (auto &n : two.nodes) {
		two.view.header()->settings.max_server_connections = 1;
		n->engine->on_settings(two.view.header()->settings);
	}
	Stream *s[2];
	for (uint32_t i = 0; i < 2; i++) {
		s[i] = two.connect(i);
		s[i]->from_peer = startup_packet({{"user", "anna"}, {"database", "shop"}});
		two.pass(1000);
		EXPECT_EQ(take_messages(s[i]->to_peer).back().type, 'Z');
	}
	for (int i = 0; i < 4; i++) {
		s[i % 2]->from_peer = query("SELECT c1.x");
		two.pass(1000);
		EXPECT_EQ(summary(take_messages(s[i % 2]->to_peer)), "T D:c1.x C:SELECT 1 Z:I");
		EXPECT_EQ(two.live_backends(), 1u);
	}
}

TEST_F(Engine, AStaleServerIsNotGivenToAClient)
{
	Stream *a = login();
	world.view.pool(0).epoch.fetch_add(1); // nobody has looked yet
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	EXPECT_TRUE(backend(0).dead);
	EXPECT_EQ(world.backends.size(), 2u);
}

TEST_F(Engine, AWaitThatIsTooLongTellsWhyNoServerCameUp)
{
	world.settings().query_wait_timeout.store(800);
	Stream *a = login();
	world.prepare_backend = [](Backend &b) { b.refuse = {"57P03", "starting up", "", ""}; };
	backend().die();
	world.settle();
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "");
	world.pass(1500);
	EXPECT_EQ(got(a), "E:57P03 Z:I");
	world.prepare_backend = nullptr;
}

TEST_F(Engine, ASmallerPoolClosesWhatIsTooMuch)
{
	open_two_servers(login(), login());
	world.settings().pool_size.store(1);
	poke();
	EXPECT_EQ(world.live_backends(), 1u);
}

// ---- ends

TEST_F(Engine, ADrainingWorkerEndsWhoIsIdleAndLetsTransactionsFinish)
{
	Stream *a = login(), *b = login();
	ask(a, query("BEGIN c1.x"));
	engine().drain();
	engine().end_event();
	EXPECT_EQ(got(b), "E:FATAL:57P01");
	EXPECT_FALSE(engine().drained());
	Stream *late = world.connect();
	EXPECT_EQ(ask(late, startup_packet({{"user", "anna"}, {"database", "shop"}})), "E:FATAL:57P01");
	EXPECT_EQ(ask(a, query("SELECT c1.y")), "T D:c1.y C:SELECT 1 Z:T");
	EXPECT_EQ(ask(a, query("COMMIT")), "C:COMMIT Z:I E:FATAL:57P01");
	world.pass(1100);
	EXPECT_TRUE(engine().drained());
	EXPECT_EQ(world.live_backends(), 0u);
}

TEST_F(Engine, ASmartShutdownRefusesNewClientsAndEndsIdleOnes)
{
	Stream *a = login(), *b = login();
	ask(a, query("BEGIN c1.x"));
	world.view.header()->phase.store(region::Phase::Stopping);
	poke();
	EXPECT_EQ(got(b), "E:FATAL:57P01");
	EXPECT_EQ(ask(world.connect(), startup_packet({{"user", "anna"}, {"database", "shop"}})), "E:FATAL:57P03");
	EXPECT_EQ(ask(a, query("COMMIT")), "C:COMMIT Z:I E:FATAL:57P01");
	world.pass(1100);
	world.view.header()->phase.store(region::Phase::Running);
	poke();
}

TEST_F(Engine, AnAbandonedWorkerEndsEverybody)
{
	Stream *a = login();
	ask(a, query("BEGIN c1.x"));
	engine().abandon();
	engine().end_event();
	EXPECT_EQ(got(a), "E:FATAL:57P01");
}

TEST_F(Engine, ClientsOfABannedTenantGoBetweenTwoTransactions)
{
	Stream *a = login(), *b = login();
	ask(a, query("BEGIN c1.x"));
	world.view.tenant(0).banned.store(1);
	poke();
	EXPECT_EQ(got(b), "E:FATAL:57P01");
	EXPECT_FALSE(a->closed);
	EXPECT_EQ(ask(a, query("COMMIT")), "C:COMMIT Z:I");
	EXPECT_EQ(ask(a, query("SELECT c1.y")), "E:FATAL:57P01");
	world.view.tenant(0).banned.store(0);
	Stream *c = login();
	world.view.tenant(0).state.store(region::SlotState::Dead);
	EXPECT_EQ(ask(c, query("SELECT c3.y")), "E:FATAL:57P01");
	world.view.tenant(0).state.store(region::SlotState::Used);
}

TEST_F(Engine, AClientOfADeadPoolIsToldWhatItDiedOf)
{
	region::PoolSlot &pool = world.view.pool(0);
	const std::pair<region::Missing, const char *> cases[] = {{region::Missing::Tenant, "E:FATAL:57P01"},
	                                                          {region::Missing::Role, "E:FATAL:28000"},
	                                                          {region::Missing::Database, "E:FATAL:3D000"}};
	world.settings().pool_size.store(1);
	for (const auto &dead : cases) {
		Stream *a = login(), *b = login(), *c = login();
		ask(a, query("BEGIN c1.x"));
		send(b, query("SELECT c2.x"));
		pool.missing.store(dead.first);
		pool.state.store(region::SlotState::Dead);
		poke();
		EXPECT_EQ(got(b), dead.second) << "it waited";
		EXPECT_EQ(ask(c, query("SELECT c3.x")), dead.second);
		EXPECT_EQ(ask(a, query("COMMIT")), "C:COMMIT Z:I");
		EXPECT_EQ(ask(a, query("SELECT c1.x")), dead.second);
		world.pass(1100);
		EXPECT_EQ(world.live_backends(), 0u);
		pool.generation.fetch_add(1);
		pool.state.store(region::SlotState::Used);
	}
}

TEST_F(Engine, APoolThatWasRenamedIsCalledByItsNewName)
{
	login();
	region::PoolSlot &pool = world.view.pool(0);
	pool.name_sequence.fetch_add(1);
	strcpy(pool.role, "berta");
	pool.name_sequence.fetch_add(1);
	poke();
	EXPECT_STREQ(row().role, "berta");
}

TEST_F(Engine, AManagerThatDiedWhileItWroteNamesHoldsNobodyUp)
{
	region::PoolSlot &pool = world.view.pool(0);
	pool.name_sequence.fetch_add(1); // and never again
	Stream *a = login();
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	poke();
	EXPECT_TRUE(region::names_torn(pool));
	region::PoolNames names;
	EXPECT_EQ(region::read_names(pool, names) & 1, 1u) << "so it is read again";
	region::write_names(pool, {"t", "d", "berta"});
	EXPECT_FALSE(region::names_torn(pool));
	poke();
	EXPECT_STREQ(row().role, "berta");
}

TEST_F(Engine, WhoProvesNothingTakesNoPlaceAndAProofIsForWhatWasAsked)
{
	std::vector<bool> asked;
	std::function<void(control::AuthAnswer &)> change;
	world.answer = [&](const control::AuthLookup &q, control::AuthAnswer &a) {
		asked.push_back(q.proved != 0);
		if (!q.proved)
			a.pool_slot = a.tenant_slot = UINT32_MAX;
		else if (change)
			change(a);
	};
	Stream *a = login();
	EXPECT_EQ(asked, (std::vector<bool>{false, true}));
	EXPECT_EQ(ask(a, query("SELECT c1.x")), "T D:c1.x C:SELECT 1 Z:I");
	const std::function<void(control::AuthAnswer &)> changes[] = {
	    [](control::AuthAnswer &x) { x.role_oid++; },
	    [](control::AuthAnswer &x) { x.method = control::AuthMethod::Md5; },
	    [](control::AuthAnswer &x) { strcat(x.verifier, "x"); },
	};
	for (const auto &c : changes) {
		change = c;
		Stream *b = greet();
		world.settle();
		EXPECT_EQ(got(b), "R E:FATAL:28P01") << "the proof was right when it was asked for";
	}
}

TEST_F(Engine, WhatAManagerThatHangsIsAskedIsBounded)
{
	size_t asked = 0;
	std::vector<control::AuthLookup> unanswered;
	world.manager_hangs = [&](const control::AuthLookup &q) {
		asked++;
		unanswered.push_back(q);
	};
	std::vector<Stream *> clients;
	for (int i = 0; i < 1000; i++)
		clients.push_back(greet());
	world.settle();
	EXPECT_EQ(asked, 256u);
	world.manager_hangs = nullptr;
	for (const control::AuthLookup &q : unanswered)
		world.nodes.front()->ask_manager(q);
	world.settle();
	size_t in = 0;
	for (Stream *s : clients)
		in += got(s).find("Z:I") != std::string::npos;
	EXPECT_EQ(in, 1000u) << "the others are asked as answers come";
}

TEST_F(Engine, WhatStrangersMakeUsLogIsShortAndNotTooOften)
{
	const size_t before = world.log.size();
	Stream s;
	for (int i = 0; i < 1000; i++)
		engine().context().log_stranger(s, std::string(5000, 'x') + "\n");
	ASSERT_EQ(world.log.size(), before + 20);
	EXPECT_LE(world.log.back().size(), 330u);
	world.pass(1100);
	EXPECT_EQ(world.log.back(), "980 more logins were refused and not logged (peer: 980)");
	engine().context().log_stranger(s, "a\nb\x7f");
	EXPECT_EQ(world.log.back(), "a?b? (client peer)");
}

// A sockaddr_in or sockaddr_in6, as StrangerLog gets it.
std::string v4(uint32_t address, uint16_t port)
{
	std::string s(16, '\0');
	memcpy(&s[2], &port, sizeof(port));
	memcpy(&s[4], &address, sizeof(address));
	return s;
}
std::string v6(uint64_t network, uint64_t host)
{
	std::string s(28, '\0');
	memcpy(&s[8], &network, sizeof(network));
	memcpy(&s[16], &host, sizeof(host));
	return s;
}

TEST(StrangerLog, OneWhoFloodsHidesNobodyElse)
{
	StrangerLog log;
	int64_t now = 1000000;
	int lines = 0;
	for (uint16_t port = 0; port < 5000; port++)
		lines += log.take(v4(1, port), "10.0.0.1:" + std::to_string(port), now);
	EXPECT_EQ(lines, 20) << "whatever ports it comes from";
	EXPECT_TRUE(log.take(v4(2, 7), "10.0.0.2:7", now)) << "another one is logged";
	EXPECT_TRUE(log.take({}, "[local]", now)) << "and one by the Unix socket";
	EXPECT_EQ(log.held_back(), "4980 more logins were refused and not logged (10.0.0.1: 4980)");
	EXPECT_EQ(log.held_back(), "");
}

TEST(StrangerLog, ManyAddressesAreBoundedTogether)
{
	StrangerLog log;
	int64_t now = 1000000;
	int lines = 0;
	uint64_t held = 0;
	for (int round = 0; round < 10; round++) {
		for (uint32_t a = 1; a <= 3000; a++)
			lines += log.take(v4(a, 1), "a:1", now++);
	}
	EXPECT_LE(lines, 210);
	EXPECT_GE(lines, 200);
	held = std::stoull(log.held_back());
	EXPECT_EQ(held + static_cast<uint64_t>(lines), 30000u) << "none is forgotten";
	EXPECT_TRUE(log.take(v4(5000, 1), "b:1", now + 1000000)) << "a second later there is room again";
}

TEST(StrangerLog, OneNetworkIsOneStranger)
{
	StrangerLog log;
	int lines = 0;
	for (uint64_t host = 0; host < 100; host++)
		lines += log.take(v6(7, host), "[::7]:1", 1000000);
	EXPECT_EQ(lines, 20);
	EXPECT_TRUE(log.take(v6(8, 1), "[::8]:1", 1000000));
}

TEST_F(Engine, AWorkerThatStartsHasTheSettingsOfTheLastReload)
{
	region::Header &header = *world.view.header();
	EXPECT_EQ(region::present_settings(header).port, header.settings.port);
	for (int port = 1; port <= 5; port++) {
		region::Settings s = header.settings;
		s.port = port;
		region::write_settings(header, s);
		EXPECT_EQ(region::present_settings(header).port, port);
		// the next writer dies in the middle of it
		header.renewed[(header.renewals.load() + 1) % 2].port = -1;
		EXPECT_EQ(region::present_settings(header).port, port);
	}
}

TEST_F(Engine, AnswersAndMessagesForWhoIsGoneAreIgnored)
{
	auto answer = control::make<control::AuthAnswer>(control::Type::AuthAnswer, 4711);
	engine().questions().on_answer(answer);
	engine().clients().on_cancel_done(4711);
	engine().clients().cancel_here(4711, "none");
	auto stranger = control::make<control::PlaceFree>(control::Type::PlaceFree);
	stranger.pool_generation = 4711;
	engine().pools().on_place_free(stranger);
	auto yield = control::make<control::YieldServer>(control::Type::YieldServer);
	yield.pool_slot = 3;
	engine().pools().on_yield(yield);
	auto proof = control::make<control::Proof>(control::Type::Proof);
	proof.pool_slot = 4711;
	engine().pools().on_proof(proof);
	Stream *a = login();
	engine().pools().on_place_free(stranger);
	EXPECT_EQ(ask(a, query("SELECT c1.y")), "T D:c1.y C:SELECT 1 Z:I");
}

TEST_F(Engine, AServerThatCannotBeDialledIsAnError)
{
	world.settings().query_wait_timeout.store(1000);
	world.can_dial = false;
	Stream *a = world.connect();
	EXPECT_EQ(ask(a, startup_packet({{"user", "anna"}, {"database", "shop"}})), "R");
	world.can_dial = true;
	world.pass(1200);
	const std::string s = got(a);
	EXPECT_EQ(s.substr(s.size() - 5), "K Z:I");
	EXPECT_EQ(world.counters().server_login_failures.load(), 1u);
}

} // namespace
