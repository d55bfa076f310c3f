// No memory, at every allocation in turn.
//
// Each script is played once for every allocation of the core that it makes, with that one failing. Either the
// exception leaves the event, and the worker ends (net/loop.hpp), or the connection of the client that needed the
// memory ends, and its server's, and nothing else is changed. In both cases what clients got and what backends executed
// is the beginning of what happens with memory. Owns operator new of the test program.
#include <csetjmp>
#include <cstdlib>
#include <exception>
#include <functional>
#include <new>
#include <set>

#include <gtest/gtest.h>

#include "fake.hpp"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

namespace
{

constexpr uint64_t kNever = UINT64_MAX;
constexpr size_t kAnySize = 0;

struct {
	uint64_t left = kNever; // allocations until the one that fails
	size_t least = kAnySize;
	bool failed = false;
} memory;

void *allocate(size_t size)
{
	if (memory.left != kNever && fake::At::core() && size >= memory.least && memory.left-- == 0) {
		memory.left = kNever;
		memory.failed = true;
		return nullptr;
	}
	return malloc(size ? size : 1);
}

void *allocate_or_throw(size_t size)
{
	if (void *p = allocate(size))
		return p;
	throw std::bad_alloc();
}

} // namespace

void *operator new(size_t size)
{
	return allocate_or_throw(size);
}
void *operator new[](size_t size)
{
	return allocate_or_throw(size);
}
void *operator new(size_t size, const std::nothrow_t &) noexcept
{
	return allocate(size);
}
void *operator new[](size_t size, const std::nothrow_t &) noexcept
{
	return allocate(size);
}
void operator delete(void *p) noexcept
{
	free(p);
}
void operator delete[](void *p) noexcept
{
	free(p);
}
void operator delete(void *p, size_t) noexcept
{
	free(p);
}
void operator delete[](void *p, size_t) noexcept
{
	free(p);
}

namespace
{

using namespace fake;

// Two clients: one does what the script says, the other is there before and after.
struct Play {
	World world;
	Stream *client = nullptr, *other = nullptr;
	std::string got, other_got; // all messages, in words

	Stream *login(const std::vector<std::pair<std::string, std::string>> &more = {})
	{
		Stream *s = world.connect();
		std::vector<std::pair<std::string, std::string>> all{{"user", "anna"}, {"database", "shop"}};
		all.insert(all.end(), more.begin(), more.end());
		s->from_peer = startup_packet(all);
		world.settle();
		return s;
	}
	void send(const std::string &bytes)
	{
		client->from_peer += bytes;
		world.settle();
	}
	void hear()
	{
		if (client)
			got += summary(take_messages(client->to_peer)) + " ";
		other_got += summary(take_messages(other->to_peer)) + " ";
	}
	bool half_message() const { return (client && !client->to_peer.empty()) || !other->to_peer.empty(); }
	// Without what pgpool itself has to say to more or fewer servers.
	std::multiset<std::string> executed() const
	{
		std::multiset<std::string> all;
		for (const auto &b : world.backends) {
			for (const std::string &sql : b->log) {
				const bool ours = sql == "ROLLBACK" || sql == "DISCARD ALL" || sql.substr(0, 12) == "SELECT d.oid" ||
				                  sql.find("pg_catalog.") != std::string::npos ||
				                  sql.find("_pgpool_") != std::string::npos || sql.empty();
				if (!ours)
					all.insert(sql);
			}
		}
		return all;
	}
};

using Script = std::function<void(Play &)>;

// By an exception that leaves the event, or by std::terminate() where none may leave (a destructor).
bool ends_worker(const std::function<void()> &act)
{
	static jmp_buf terminated;
	const std::terminate_handler before = std::set_terminate([] { longjmp(terminated, 1); });
	volatile bool ended = false;
	if (setjmp(terminated) != 0) {
		ended = true;
	} else {
		try {
			act();
		} catch (const std::bad_alloc &) {
			ended = true;
		}
	}
	At::reset();
	std::set_terminate(before);
	return ended;
}

enum class Outcome { AsEver, ClientEnded, WorkerEnded };

Outcome play(Play &p, const Script &script, uint64_t fail_at, size_t least)
{
	p.world.prepare_backend = [](Backend &b) { b.agent = true; };
	p.other = p.login({{"TimeZone", "zone2"}});
	p.other->from_peer += query("SELECT before");
	p.world.settle();
	memory = {fail_at, least, false};
	const bool worker_ended = ends_worker([&] { script(p); });
	memory.left = kNever;
	if (!worker_ended) {
		p.world.pass(1500);
		p.other->from_peer += query("SHOW TimeZone");
		p.world.pass(500);
	}
	p.hear();
	p.world.check();
	return worker_ended ? Outcome::WorkerEnded : p.client && p.client->closed ? Outcome::ClientEnded : Outcome::AsEver;
}

bool begins_with(const std::string &whole, std::string beginning)
{
	const size_t error = beginning.find("E:FATAL:53200 ");
	if (error != std::string::npos)
		beginning.resize(error);
	while (!beginning.empty() && beginning.back() == ' ')
		beginning.pop_back();
	return whole.compare(0, beginning.size(), beginning) == 0;
}

void leave_all_behind(Play &p)
{
	if (p.client)
		p.client->peer_eof = p.client->peer_gone = true;
	p.other->peer_eof = p.other->peer_gone = true;
	for (int i = 0; i < 30; i++)
		p.world.pass(100);
	p.world.engine().drain();
	p.world.engine().end_event();
	for (int i = 0; i < 30; i++)
		p.world.pass(100);
	EXPECT_EQ(p.world.leftovers(), "");
}

// The number of times that the client alone ended.
int play_all(const Script &script, size_t least = kAnySize)
{
	Play with_memory;
	const Outcome usual = play(with_memory, script, kNever, least);
	EXPECT_EQ(with_memory.world.problem, "");
	const std::multiset<std::string> executed = with_memory.executed();
	int ended = 0;
	for (uint64_t k = 0; k < 100000; k++) {
#ifdef __SANITIZE_ADDRESS__
		__lsan_disable(); // the memory of a worker that ended is the system's
#endif
		auto *p = new Play;
		const Outcome outcome = play(*p, script, k, least);
#ifdef __SANITIZE_ADDRESS__
		__lsan_enable();
#endif
		if (!memory.failed) {
			delete p;
			return ended;
		}
		EXPECT_EQ(p->world.problem, "") << "allocation " << k;
		EXPECT_TRUE(begins_with(with_memory.got, p->got)) << "allocation " << k << ": the client got\n"
		                                                  << p->got << "\nbut with memory\n"
		                                                  << with_memory.got;
		const std::multiset<std::string> now = p->executed();
		for (auto it = now.begin(); it != now.end(); it = now.upper_bound(*it))
			EXPECT_LE(now.count(*it), executed.count(*it))
			    << "allocation " << k << ": executed: " << it->substr(0, 100);
		if (outcome == Outcome::WorkerEnded) {
			EXPECT_TRUE(begins_with(with_memory.other_got, p->other_got)) << "allocation " << k << ": " << p->other_got;
		} else {
			EXPECT_FALSE(p->half_message()) << "allocation " << k;
			EXPECT_EQ(p->other_got, with_memory.other_got) << "allocation " << k << ": the other client";
			EXPECT_TRUE(outcome == Outcome::ClientEnded || p->got == with_memory.got)
			    << "allocation " << k << ": the client got\n"
			    << p->got << "\nbut with memory\n"
			    << with_memory.got;
			ended += outcome == Outcome::ClientEnded && usual != Outcome::ClientEnded;
			leave_all_behind(*p);
			delete p;
		}
		if (::testing::Test::HasFailure())
			return ended;
	}
	ADD_FAILURE() << "there is no end of allocations";
	return ended;
}

std::string in_pieces(const std::string &piece, size_t pieces)
{
	std::string text = "SELECT big ";
	while (text.size() < pieces * core::kChunk) {
		text.append(core::kChunk - (5 + text.size()) % core::kChunk, ' ');
		text += piece; // where a read will begin
	}
	return text;
}

TEST(Memory, Login)
{
	play_all([](Play &p) {
		p.client = p.login({{"application_name", "x"}, {"TimeZone", "zone1"}});
		p.send(query("SELECT 1"));
	});
}

TEST(Memory, Query)
{
	play_all([](Play &p) {
		p.client = p.login();
		p.send(query("SELECT 1"));
		p.send(query("BEGIN"));
		p.send(query("FAIL"));
		p.send(query("ROLLBACK"));
		p.send(query("ROWS r 20 3000"));
	});
}

TEST(Memory, QueryInTwoPieces)
{
	EXPECT_GT(play_all([](Play &p) {
		          p.client = p.login();
		          const std::string q = query("SELECT " + std::string(300, 'x'));
		          p.send(q.substr(0, 100));
		          p.send(q.substr(100));
		          p.send(query("SELECT 2"));
	          }),
	          0);
}

TEST(Memory, ParseBindExecute)
{
	play_all([](Play &p) {
		p.client = p.login();
		for (int i = 0; i < 2; i++)
			p.send(parse("SELECT shared", "s" + std::to_string(i)) + bind_to("s" + std::to_string(i)) + execute() +
			       message('S'));
		p.send(parse("SELECT own") + bind_to() + execute() + message('S'));
		p.send(bind_to("s0") + describe('P') + execute() + close_name('S', "s0") + message('S'));
		p.send(parse("ALTER x") + bind_to() + execute() + message('S'));
		p.send(bind_to("s1") + describe('P') + execute() + message('S'));
	});
}

// What is behind the place where memory ends begins as a message of its own.
TEST(Memory, BigParseInPieces)
{
	EXPECT_GT(play_all(
	              [](Play &p) {
		              p.client = p.login();
		              p.send(parse(in_pieces(query("SELECT smuggled"), 8), "big") + bind_to("big") + execute() +
		                     message('S'));
		              p.send(query("SELECT 2"));
	              },
	              1024),
	          0);
}

TEST(Memory, BigQueryInPieces)
{
	play_all(
	    [](Play &p) {
		    p.client = p.login();
		    p.send(query(in_pieces(query("SELECT smuggled"), 8)));
		    p.send(query("SELECT 2"));
	    },
	    1024);
}

TEST(Memory, Waiting)
{
	EXPECT_GT(play_all([](Play &p) {
		          p.world.settings().pool_size.store(1);
		          p.other->from_peer += query("BEGIN");
		          p.world.settle();
		          p.client = p.login();
		          p.send(query("SELECT 1"));
		          p.send(query("SELECT 2") + query("SELECT " + std::string(5000, 'y')));
		          p.other->from_peer += query("COMMIT");
		          p.world.settle();
	          }),
	          0);
}

TEST(Memory, Copy)
{
	play_all([](Play &p) {
		p.client = p.login();
		p.send(query("COPYIN c"));
		p.send(message('d', std::string(3000, 'd')) + message('d', "e").substr(0, 3));
		p.send(message('d', "e").substr(3) + message('c'));
		p.send(query("COPYOUT c 5"));
		p.send(query("SELECT 1"));
	});
}

TEST(Memory, Settings)
{
	EXPECT_GT(play_all([](Play &p) {
		          p.world.settings().pool_size.store(1);
		          p.client = p.login({{"application_name", "first"}});
		          p.send(query("SET TimeZone zone1"));
		          p.other->from_peer += query("SET TimeZone zone2") + query("SHOW TimeZone");
		          p.world.settle();
		          p.send(query("SHOW TimeZone") + query("SHOW application_name"));
		          p.send(query("SET TimeZone " + std::string(100000, 'z')));
		          p.send(query("RESET TimeZone"));
	          }),
	          0);
}

TEST(Memory, Listen)
{
	play_all([](Play &p) {
		p.client = p.login();
		p.send(query("LISTEN news"));
		p.world.pass(2000);
		p.world.catalog->notifications.push_back({5, 7, "news", "1"});
		p.world.settle();
		p.send(query("SELECT 1"));
		p.world.pass(2000);
		p.world.catalog->notifications.push_back({5, 7, "news", "2"});
		p.world.settle();
	});
}

TEST(Memory, CancelAndLeave)
{
	play_all([](Play &p) {
		p.client = p.login();
		std::string key;
		int32_t pid = 0;
		for (const Message &m : take_messages(p.client->to_peer)) {
			if (m.type == 'K') {
				pid = static_cast<int32_t>(pgpool::proto::load32(m.body.data()));
				key = m.body.substr(4);
			}
		}
		p.send(query("SLEEP s"));
		Stream *canceller = p.world.connect();
		canceller->from_peer = cancel_request(pid, key);
		p.world.settle();
		canceller->peer_eof = canceller->peer_gone = true;
		p.world.settle();
		p.send(query("BEGIN"));
		p.client->peer_eof = p.client->peer_gone = true;
		p.world.settle();
	});
}

} // namespace
