// What one client can make a worker keep and do: see Bounds in engine.hpp.
#include <ctime>

#include "session_fixture.hpp"

namespace
{

using namespace fake;

std::string times(const std::string &unit, size_t bytes)
{
	std::string all;
	while (all.size() < bytes)
		all += unit;
	return all;
}

size_t count(const std::string &bytes, char type)
{
	std::string rest = bytes;
	size_t n = 0;
	for (const Message &m : take_messages(rest))
		n += m.type == type;
	EXPECT_EQ(rest, "") << "a message was cut";
	return n;
}

class Bounds : public Session
{
protected:
	static constexpr size_t kInput = 1 << 20;

	Stream *idle_client_with(const std::string &name)
	{
		Stream *s = login();
		EXPECT_EQ(ask(s, parse("SELECT 1", name) + kSync), "1 Z:I");
		EXPECT_EQ(busy(), 0);
		return s;
	}
	// Sends `input` while nobody reads. What is kept must not grow with it; then all is read.
	std::string drip(Stream *s, const std::string &input)
	{
		s->room = 0;
		size_t most_read = 0;
		for (size_t at = 0; at < input.size(); at += core::kChunk) {
			s->from_peer.append(input, at, core::kChunk);
			world.settle();
			EXPECT_LE(s->unsent(), 2 * core::kChunk) << "replies pile up";
			most_read = std::max(most_read, at + core::kChunk - s->from_peer.size());
		}
		EXPECT_LT(most_read, kInput / 2) << "it goes on to read";
		s->room = SIZE_MAX;
		world.settle();
		EXPECT_EQ(s->from_peer, "");
		return std::exchange(s->to_peer, {});
	}
};

TEST_F(Bounds, WhoDoesNotReadIsNotReadFrom)
{
	struct Case {
		const char *what;
		std::string unit;
		std::string first;
		char reply;
	};
	const Case cases[] = {
	    {"Sync", kSync, "", 'Z'},
	    {"Close", close_name('S', "nobody"), "", '3'},
	    {"Parse of a known text and Close", parse("SELECT 1", "p") + close_name('S', "p"), "", '1'},
	    {"Close behind a query at work", close_name('S', "nobody"), query("SELECT 2"), '3'},
	    {"Close in a block", close_name('S', "nobody"), query("BEGIN"), '3'},
	    {"Query", query("SELECT 3"), "", 'Z'},
	    {"Query without text", query(""), "", 'Z'},
	    {"Bind of a known name", bind_to("s") + kSync, "", '2'},
	};
	for (const Case &c : cases) {
		SCOPED_TRACE(c.what);
		Stream *s = idle_client_with("s");
		if (!c.first.empty())
			ask(s, c.first);
		const std::string input = times(c.unit, kInput);
		std::string all = drip(s, input);
		send(s, kSync);
		all += std::exchange(s->to_peer, {});
		EXPECT_EQ(count(all, c.reply), input.size() / c.unit.size() + (c.reply == 'Z'));
		send(s, query("ROLLBACK"));
		s->to_peer.clear();
	}
}

TEST_F(Bounds, WhatIsDroppedBehindAnErrorOfOursIsNotKeptEither)
{
	world.settings().query_wait_timeout.store(100);
	Stream *a = login(), *b = login(), *c = login();
	send(a, query("BEGIN"));
	send(b, query("BEGIN"));
	send(c, bind_to("nothing") + execute());
	world.pass(300);
	take_messages(c->to_peer);
	c->room = 0;
	send(c, times(execute(), kInput));
	EXPECT_EQ(c->from_peer, "") << "it has no reply, so it is read and dropped";
	c->room = SIZE_MAX;
	EXPECT_EQ(ask(c, kSync), "Z:I");
}

TEST_F(Bounds, AnotherClientHasItsTurnBeforeAPipelineIsDone)
{
	world.engine().context().set_bounds({10, 4096});
	Stream *a = idle_client_with("s"), *b = login();
	a->from_peer = times(parse("SELECT 1", "p") + close_name('S', "p"), 60000);
	b->from_peer = query("SELECT b");
	world.stream_event(a, core::kChunk);
	EXPECT_EQ(take_messages(a->to_peer).size(), 10u);
	EXPECT_TRUE(world.engine().clients().has_turns());
	world.stream_event(b, core::kChunk);
	EXPECT_EQ(b->from_peer, "");
	world.turn(0);
	EXPECT_EQ(take_messages(a->to_peer).size(), 10u);
	world.settle();
	EXPECT_EQ(got(b), "T D:b C:SELECT 1 Z:I");
	EXPECT_EQ(a->from_peer, "");
}

TEST_F(Bounds, WhoHasTurnsIsNotReadFasterThanItIsServed)
{
	world.engine().context().set_bounds({10, 4096});
	Stream *a = login();
	a->from_peer = times(kFlush, kInput);
	for (int i = 0; i < 50; i++) {
		for (int reads = 0; reads < 4; reads++)
			world.stream_event(a, core::kChunk);
		world.turn(0);
	}
	EXPECT_GE(a->from_peer.size(), kInput - 3 * core::kChunk) << "it is all kept";
	world.settle();
	EXPECT_EQ(a->from_peer, "");
	EXPECT_EQ(ask(a, kSync), "Z:I");
}

TEST_F(Bounds, WhatAClientSentBeforeItsEndIsServedInTurns)
{
	world.engine().context().set_bounds({2, 4096});
	Stream *a = login();
	std::string all;
	for (int i = 0; i < 20; i++)
		all += query("SELECT a" + std::to_string(i));
	a->from_peer = all + message('X');
	a->peer_eof = true;
	world.settle();
	int executed = 0;
	for (const std::string &sql : backend().log)
		executed += sql.substr(0, 8) == "SELECT a";
	EXPECT_EQ(executed, 20);
	EXPECT_TRUE(a->closed);
}

TEST_F(Bounds, ABackendThatHoldsRepliesBackIsAskedForThem)
{
	world.engine().context().set_bounds({1000, 8});
	Stream *a = login();
	std::string pipeline;
	for (int i = 0; i < 50; i++)
		pipeline +=
		    parse("SELECT " + std::to_string(i), "n" + std::to_string(i)) + close_name('S', "x" + std::to_string(i));
	send(a, pipeline);
	EXPECT_EQ(a->from_peer, "") << "it waits for a reply that waits for its Sync";
	send(a, kSync);
	const std::string all = std::exchange(a->to_peer, {});
	EXPECT_EQ(count(all, '1'), 50u);
	EXPECT_EQ(count(all, '3'), 50u);
	EXPECT_EQ(count(all, 'Z'), 1u);
}

// ---- no work that grows with what was sent before

// Of CPU: others may be at work on the machine.
double seconds(const std::function<void()> &work)
{
	const auto now = [] {
		timespec t{};
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
		return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
	};
	const double began = now();
	work();
	return now() - began;
}

// What grows with the square takes sixteen times as long, however often it is tried.
void expect_linear(const char *what, const std::function<void(int)> &work)
{
	double once = 1e9, fourfold = 1e10;
	work(500); // warm
	for (int i = 0; i < 10 && fourfold >= 9 * once; i++) {
		once = std::min(once, seconds([&] { work(4000); }));
		fourfold = std::min(fourfold, seconds([&] { work(16000); }));
	}
	EXPECT_LT(fourfold, 9 * once) << what << ": " << once << " s, and " << fourfold << " s for four times as much";
}

TEST(Linear, NotesOfAPipeline)
{
	auto run = [](int n, bool other_names, bool other_batches) {
		core::StatementStore store;
		core::ServerStatements server;
		core::StatementNotes notes(store, server);
		core::ClientStatements client;
		bool unsettled = false;
		for (int i = 0; i < n; i++) {
			const std::string name = other_names ? "n" + std::to_string(i) : "n";
			notes.note_batch(other_batches ? static_cast<uint64_t>(i) : 0);
			unsettled |= notes.unsettled(name, other_batches ? static_cast<uint64_t>(i) : 0);
			core::Statement *s = store.intern("text", "");
			notes.add(core::StatementNotes::OnServer::Nothing, s, name, client.set(name, {s, {}}));
			notes.will_be(name, s);
			notes.forget_before();
		}
		EXPECT_EQ(unsettled, other_batches && !other_names);
		while (!notes.empty())
			notes.confirm(&client);
		for (const auto &item : client.take_all())
			store.release(item.statement);
	};
	for (const bool names : {false, true})
		for (const bool batches : {false, true})
			expect_linear("notes", [&](int n) { run(n, names, batches); });
}

TEST(Linear, NamesOfAClient)
{
	expect_linear("names", [](int n) {
		core::StatementStore store;
		core::ClientStatements client;
		core::Statement *s = store.intern("text", "");
		for (int i = 0; i < n; i++)
			client.set("n" + std::to_string(n - i), {core::StatementStore::keep(s), {}});
		EXPECT_EQ(client.size(), static_cast<size_t>(n));
		for (int i = 0; i < n; i++) {
			EXPECT_EQ(client.find("n" + std::to_string(n - i)), s);
			store.release(client.set("n" + std::to_string(n - i), {}).statement);
		}
		EXPECT_EQ(client.size(), 0u);
		store.release(s);
	});
}

TEST(Linear, NamesOfStatementsInErrors)
{
	expect_linear("errors", [](int n) {
		core::StatementStore store;
		core::ClientStatements client;
		std::vector<core::Statement *> all;
		for (int i = 0; i < n; i++) {
			all.push_back(store.intern("text " + std::to_string(i), ""));
			client.set("n" + std::to_string(i), {all.back(), {}});
		}
		for (int i = 0; i < n; i++) {
			const std::string name = "n" + std::to_string(i);
			EXPECT_EQ(client.name_of(all[static_cast<size_t>(i)]->name), name);
			core::Statement *same = core::StatementStore::keep(all[static_cast<size_t>(i)]);
			client.set("again", {same, {}}); // a name more, and that one goes
			store.release(client.set(name, {}).statement);
			EXPECT_EQ(client.name_of(same->name), "again");
			store.release(client.set("again", {}).statement);
			EXPECT_EQ(client.name_of("_pgpool_0"), "");
		}
	});
}

TEST(Linear, StatementsThatLeaveAServer)
{
	expect_linear("statements", [](int n) {
		core::StatementStore store;
		core::ServerStatements server;
		for (int i = 0; i < n; i++) {
			core::Statement *s = store.intern("text " + std::to_string(i), "");
			server.parsing(s, static_cast<uint64_t>(i), 1);
			server.surplus(10, static_cast<uint64_t>(i)); // nothing of an earlier batch can go
			store.release(s);
		}
		server.drop_all(store);
	});
}

TEST(Names, AreFoundWhateverWasTakenAwayAroundThem)
{
	std::mt19937 rng(1);
	core::StatementStore store;
	core::ClientStatements client;
	std::map<std::string, core::Statement *> model;
	std::vector<core::Statement *> statements;
	for (int i = 0; i < 5; i++)
		statements.push_back(store.intern("text" + std::to_string(i), ""));
	for (int i = 0; i < 20000; i++) {
		const std::string name = "n" + std::to_string(rng() % (i < 10000 ? 8 : 200));
		core::Statement *s = rng() % 2 ? core::StatementStore::keep(statements[rng() % 5]) : nullptr;
		core::Statement *before = client.set(name, {s, {}}).statement;
		const auto it = model.find(name);
		ASSERT_EQ(before, it == model.end() ? nullptr : it->second);
		store.release(before);
		if (s)
			model[name] = s;
		else
			model.erase(name);
		ASSERT_EQ(client.size(), model.size());
	}
	for (int i = 0; i < 200; i++) {
		const std::string name = "n" + std::to_string(i);
		EXPECT_EQ(client.find(name), model.count(name) ? model[name] : nullptr);
	}
	for (const auto &item : client.take_all())
		store.release(item.statement);
	for (core::Statement *s : statements)
		store.release(s);
	EXPECT_EQ(store.size(), 0u);
}

// What waits for a server is not read beyond 64 KiB; what of a message is needed whole then is.
TEST_F(Bounds, ALongStatementThatWaitedForAServerIsReadToItsEnd)
{
	world.settings().pool_size.store(1);
	Stream *busy = login(), *a = login();
	for (const size_t size : {60000u, 70000u, 131847u, 900000u}) {
		const std::string text = "SELECT " + std::string(size, ' ') + "1", name = "s" + std::to_string(size);
		EXPECT_EQ(ask(busy, query("BEGIN")), "C:BEGIN Z:T");
		EXPECT_EQ(ask(a, parse(text, name) + kSync), "");
		EXPECT_EQ(ask(busy, query("COMMIT")), "C:COMMIT Z:I");
		EXPECT_EQ(got(a), "1 Z:I") << size;
	}
}

} // namespace
