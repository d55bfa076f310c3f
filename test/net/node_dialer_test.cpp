// Dials of nodes, over real sockets to servers in threads: names, addresses in turn, TLS by sslmode, limits of time;
// and cancel requests.
#include <gtest/gtest.h>

#include <csignal>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ifaddrs.h>
#include <netdb.h>
#include <uv.h>

#include "names.hpp"
#include "net/loop.hpp"
#include "net/node_cancel.hpp"
#include "net/node_pulse.hpp"
#include "net/node_dialer.hpp"
#include "region/names.hpp"
#include "server.hpp"

namespace
{

using namespace fake;
using namespace pgpool;
using region::SslMode;

// Whoever dials: says "ping" when he may.
class Dialled final : public core::StreamOwner
{
public:
	~Dialled() override
	{
		if (stream)
			stream->close(false);
	}
	void on_connected() override
	{
		connected++;
		stream->queue("ping", 4);
		stream->flush();
	}
	void on_data(const char *data, size_t size) override { got.append(data, size); }
	void on_writable() override {}
	void on_closed(const char *w) override { why = w; }

	bool over() const { return got == "pong" || !why.empty(); }
	// "clear", "tls", "verified", or why not
	std::string outcome() const
	{
		if (got != "pong")
			return why;
		return !stream->tls() ? "clear" : stream->tls()->certificate_valid ? "verified" : "tls";
	}

	core::Stream *stream = nullptr;
	int connected = 0;
	std::string got, why;
};

class Dial : public ::testing::Test
{
protected:
	Dial()
	    : loop(region::Settings{}), dialer(loop, [this](uint32_t i) { return i < slots.size() ? &slots[i] : nullptr; }),
	      cancels(loop, dialer, [this](uint64_t id, core::CancelEnd end) {
		      ended.push_back({id, end});
	      })
	{
		signal(SIGPIPE, SIG_IGN);
		loop.set_hooks([] {}, [](const char *line) { fprintf(stderr, "%s\n", line); });
		timer.data = this;
		uv_timer_init(loop.uv(), &timer);
		uv_timer_start(
		    &timer,
		    [](uv_timer_t *t) {
			    auto *self = static_cast<Dial *>(t->data);
			    self->loop.guarded([self] {
				    self->loop.tick();
				    self->dialer.tick();
				    self->cancels.tick();
			    });
		    },
		    20, 20);
	}
	void TearDown() override
	{
		loop.guarded([this] { owners.clear(); });
		unstick_names();
		uv_close(reinterpret_cast<uv_handle_t *>(&timer), nullptr);
		EXPECT_EQ(uv_run(loop.uv(), UV_RUN_DEFAULT), 0);
		EXPECT_EQ(uv_loop_close(loop.uv()), 0) << "something is left in the loop";
	}

	void set_node(uint32_t i, const std::string &host, int port, SslMode mode, const std::string &root = {})
	{
		region::NodeNames names{};
		snprintf(names.name, sizeof(names.name), "r%u", i);
		snprintf(names.host, sizeof(names.host), "%s", host.c_str());
		snprintf(names.sslrootcert, sizeof(names.sslrootcert), "%s", root.c_str());
		region::write_names(slots[i], names);
		slots[i].port.store(port);
		slots[i].sslmode.store(mode);
		slots[i].used.store(1);
		slots[i].generation.fetch_add(1);
	}
	Dialled &dial(uint32_t i)
	{
		owners.push_back(std::make_unique<Dialled>());
		Dialled &d = *owners.back();
		loop.guarded([&] { d.stream = dialer.dial(i, &d); });
		EXPECT_NE(d.stream, nullptr);
		return d;
	}
	// Events until then, or for so many seconds.
	bool run(const std::function<bool()> &until, int64_t seconds = 30)
	{
		const uint64_t end = uv_hrtime() + static_cast<uint64_t>(seconds) * 1000000000;
		while (!until() && uv_hrtime() < end)
			uv_run(loop.uv(), UV_RUN_ONCE);
		return until();
	}
	std::string outcome(uint32_t i)
	{
		const Dialled &d = dial(i);
		EXPECT_TRUE(run([&] { return d.over(); }));
		EXPECT_EQ(d.connected, d.got == "pong" ? 1 : 0) << "told once, and only if so";
		return d.outcome();
	}
	std::string dial_once(const std::string &host, int port, SslMode mode, const std::string &root = {})
	{
		set_node(0, host, port, mode, root);
		return outcome(0);
	}

	std::vector<region::NodeSlot> slots{5};
	net::Loop loop;
	net::NodeDialer dialer;
	net::NodeCancels cancels;
	uv_timer_t timer;
	std::vector<std::unique_ptr<Dialled>> owners;
	std::vector<std::pair<uint64_t, core::CancelEnd>> ended;
};

#define EXPECT_HAS(text, part) EXPECT_PRED_FORMAT2(::testing::IsSubstring, std::string(part), std::string(text))

struct AuthorityAndServers {
	Authority ours{"ours"}, other{"another"};
	Certificate good = ours.sign("DNS:node.test,IP:127.0.0.1"), stranger = other.sign("DNS:node.test,IP:127.0.0.1"),
	            misnamed = ours.sign("DNS:else.test"), expired = ours.sign("DNS:node.test", -60);
};

TEST_F(Dial, EachSslmodeTakesTheServersThatItShouldAndNoOthers)
{
	const AuthorityAndServers a;
	Server with(Answer::Yes, &a.good), without(Answer::No), stranger(Answer::Yes, &a.stranger),
	    misnamed(Answer::Yes, &a.misnamed), expired(Answer::Yes, &a.expired);
	const std::string no_tls = "the server does not do TLS";
	const std::string untrusted = "unable to get local issuer certificate";
	struct {
		SslMode mode;
		bool root;
		std::string with, without, stranger, misnamed, expired;
	} const cases[] = {
	    {SslMode::Disable, true, "clear", "clear", "clear", "clear", "clear"},
	    {SslMode::Prefer, false, "tls", "clear", "tls", "tls", "tls"},
	    {SslMode::Prefer, true, "tls", "clear", "tls", "tls", "tls"},
	    {SslMode::Require, false, "tls", no_tls, "tls", "tls", "tls"},
	    {SslMode::Require, true, "verified", no_tls, untrusted, "verified", "certificate has expired"},
	    {SslMode::VerifyCa, true, "verified", no_tls, untrusted, "verified", "certificate has expired"},
	    {SslMode::VerifyCa, false, untrusted, no_tls, untrusted, untrusted, untrusted}, // nobody the system knows
	    {SslMode::VerifyFull, true, "verified", no_tls, untrusted, "hostname mismatch", "certificate has expired"},
	    {SslMode::VerifyFull, false, untrusted, no_tls, untrusted, untrusted, untrusted},
	};
	set_name("node.test", {{"127.0.0.1"}});
	for (const auto &c : cases) {
		auto look = [&](const char *which, const Server &server, const std::string &expected) {
			SCOPED_TRACE(std::string(region::name_of(region::kSslModes, c.mode)) + (c.root ? " with root, " : ", ") +
			             which);
			EXPECT_HAS(dial_once("node.test", server.port(), c.mode, c.root ? a.ours.file : ""), expected);
		};
		look("with TLS", with, c.with);
		look("without", without, c.without);
		look("of another authority", stranger, c.stranger);
		look("of another name", misnamed, c.misnamed);
		look("expired", expired, c.expired);
	}
	EXPECT_EQ(with.name_asked_for(), "node.test");
}

TEST_F(Dial, VerifyFullLooksForAnAddressAmongAddresses)
{
	const Authority ca("ours");
	const Certificate by_address = ca.sign("IP:127.0.0.1"), by_name = ca.sign("DNS:127.0.0.1");
	Server right(Answer::Yes, &by_address), wrong(Answer::Yes, &by_name);
	EXPECT_EQ(dial_once("127.0.0.1", right.port(), SslMode::VerifyFull, ca.file), "verified");
	EXPECT_EQ(right.name_asked_for(), "");
	EXPECT_HAS(dial_once("127.0.0.1", wrong.port(), SslMode::VerifyFull, ca.file), "IP address mismatch");
}

TEST_F(Dial, WhatIsWrongIsToldWithNodeHostModeAndRemedy)
{
	Server without(Answer::No);
	set_name("node.test", {{"127.0.0.1"}});
	EXPECT_EQ(dial_once("node.test", without.port(), SslMode::VerifyFull),
	          "node \"r0\" (host node.test, port " + std::to_string(without.port()) +
	              ", sslmode verify-full): 127.0.0.1: the server does not do TLS; see that it is PostgreSQL that "
	              "listens there, with ssl = on, or set another sslmode with pgpool.alter_replica()");
	EXPECT_HAS(dial_once("127.0.0.1", without.port(), SslMode::VerifyCa, "/no/such/file"),
	           "the server does not do TLS");
	const AuthorityAndServers a;
	Server with(Answer::Yes, &a.good);
	EXPECT_HAS(dial_once("127.0.0.1", with.port(), SslMode::VerifyCa, "/no/such/file"), "sslrootcert = /no/such/file");
	slots[0].used.store(0);
	EXPECT_EQ(outcome(0), "there is no such node any more");
	EXPECT_EQ(outcome(4711), "there is no such node any more");
}

TEST_F(Dial, AServerThatAnswersOtherwiseIsRefusedWhateverTheMode)
{
	Server more(Answer::YesAndMore), no_and_more(Answer::NoAndMore), error(Answer::Error), hangs_up(Answer::HangUp);
	for (const SslMode mode : {SslMode::Prefer, SslMode::Require, SslMode::VerifyFull}) {
		EXPECT_HAS(dial_once("127.0.0.1", more.port(), mode), "bytes came behind the answer to SSLRequest");
		EXPECT_HAS(dial_once("127.0.0.1", no_and_more.port(), mode), "bytes came behind the answer to SSLRequest");
		EXPECT_HAS(dial_once("127.0.0.1", error.port(), mode), "neither yes nor no");
		EXPECT_HAS(dial_once("127.0.0.1", hangs_up.port(), mode), "end of file");
	}
}

TEST_F(Dial, AHandshakeThatFailsIsTheEndButForPrefer)
{
	Server nonsense(Answer::YesAndNonsense);
	EXPECT_HAS(dial_once("127.0.0.1", nonsense.port(), SslMode::Require), "wrong version number");
	EXPECT_EQ(dial_once("127.0.0.1", nonsense.port(), SslMode::Prefer), "clear");
}

TEST_F(Dial, WhoeverIsSilentIsGivenUpInTime)
{
	Server silent(Answer::Silent), half(Answer::YesAndSilent);
	Name stuck{{"127.0.0.1"}};
	stuck.stuck = true;
	set_name("stuck.test", stuck);
	set_node(0, "127.0.0.1", silent.port(), SslMode::Prefer);
	set_node(1, "127.0.0.1", half.port(), SslMode::Require);
	set_node(2, "stuck.test", silent.port(), SslMode::Disable);
	const uint64_t begin = uv_hrtime();
	Dialled *dialled[] = {&dial(0), &dial(1), &dial(2)};
	ASSERT_TRUE(run([&] { return dialled[0]->over() && dialled[1]->over() && dialled[2]->over(); }));
	EXPECT_LT((uv_hrtime() - begin) / 1000000, 10000u);
	EXPECT_HAS(dialled[0]->why, "no answer to SSLRequest in 1 s");
	EXPECT_HAS(dialled[1]->why, "no TLS handshake in 1 s");
	EXPECT_HAS(dialled[2]->why, "the name could not be looked up in 5 s");
}

TEST_F(Dial, ThePulseOfANodeIsWhetherItAnswersAtAll)
{
	Server lives(Answer::No), silent(Answer::Silent);
	set_node(0, "127.0.0.1", lives.port(), SslMode::Disable);
	set_node(1, "127.0.0.1", silent.port(), SslMode::Disable);
	std::vector<uint32_t> heard;
	net::NodePulses pulses(loop, [&heard](uint32_t node) { heard.push_back(node); });
	bool taken = true;
	for (const uint32_t node : {1u, 0u}) {
		const Dialled &server = dial(node);
		EXPECT_TRUE(run([&] { return server.connected > 0; }));
		loop.guarded([&] { taken &= pulses.take(node, static_cast<net::SocketStream &>(*server.stream)); });
	}
	EXPECT_TRUE(taken);
	EXPECT_TRUE(run([&] { return !heard.empty(); }));
	EXPECT_FALSE(run([&] { return heard.size() > 1; }, 1));
	EXPECT_EQ(heard, std::vector<uint32_t>{0});
	usleep(100000);
	loop.guarded([&] { pulses.tick(); }); // who was not answered is given up
}

TEST_F(Dial, AddressesAreTriedInTurnAndTheGoodOneIsRemembered)
{
	Server server(Answer::No);
	set_name("two.test", {{"127.0.0.2", "127.0.0.1"}});
	EXPECT_EQ(dial_once("two.test", server.port(), SslMode::Disable), "clear");
	EXPECT_EQ(outcome(0), "clear");
	EXPECT_EQ(asked_for("two.test"), 1) << "once for both";
	EXPECT_EQ(server.connections(), 2);
	// Now somebody listens at the first address, too: he is not asked while the other one answers.
	Server first(Answer::No, nullptr, "127.0.0.2", server.port());
	EXPECT_EQ(outcome(0), "clear");
	EXPECT_EQ(first.connections(), 0);
}

TEST_F(Dial, ANameIsLookedUpAgainWhenNobodyAnswersOrTheNodeIsAnother)
{
	Server server(Answer::No);
	set_name("moves.test", {{"127.0.0.2"}});
	EXPECT_HAS(dial_once("moves.test", server.port(), SslMode::Disable), "127.0.0.2: Connection refused");
	EXPECT_EQ(asked_for("moves.test"), 1) << "what was found a moment ago is not doubted";
	set_name("moves.test", {{"127.0.0.1"}});
	EXPECT_EQ(outcome(0), "clear");
	EXPECT_EQ(asked_for("moves.test"), 1);
	// In the same dial, when the addresses are old ones.
	auto second = std::make_unique<Server>(Answer::No, nullptr, "127.0.0.3");
	set_name("moves.test", {{"127.0.0.3"}});
	set_node(0, "moves.test", second->port(), SslMode::Disable);
	EXPECT_EQ(outcome(0), "clear") << "another generation";
	const int port = second->port();
	second.reset();
	Server third(Answer::No, nullptr, "127.0.0.4", port);
	set_name("moves.test", {{"127.0.0.4"}});
	EXPECT_EQ(outcome(0), "clear");
}

TEST_F(Dial, ANameThatDoesNotResolveIsTold)
{
	Name none;
	none.error = EAI_NONAME;
	set_name("none.test", none);
	const std::string why = dial_once("none.test", 5432, SslMode::Prefer);
	EXPECT_HAS(why, "the name has no address (unknown node or service)");
	EXPECT_HAS(why, "correct its host with pgpool.alter_replica()");
	EXPECT_HAS(dial_once(std::string(255, 'x'), 5432, SslMode::Prefer), "unknown node or service");
}

TEST_F(Dial, ASocketNeedsNoTls)
{
	char directory[] = "/tmp/pgpool_net_XXXXXX";
	ASSERT_NE(mkdtemp(directory), nullptr);
	const std::string path = std::string(directory) + "/.s.PGSQL.5432";
	{
		Server server(Answer::No, nullptr, path.c_str());
		EXPECT_EQ(dial_once(directory, 5432, SslMode::VerifyFull), "clear");
		EXPECT_EQ(owners.back()->stream->secrecy(), core::Secrecy::Local);
	}
	EXPECT_HAS(outcome(0), "Connection refused");
	unlink(path.c_str());
	EXPECT_HAS(outcome(0), "socket: No such file or directory");
	rmdir(directory);
	EXPECT_HAS(dial_once("/" + std::string(200, 'x'), 5432, SslMode::Disable), "the path of the socket is too long");
}

TEST_F(Dial, ADialThatIsClosedOnItsWayTellsNobody)
{
	Server silent(Answer::Silent), half(Answer::YesAndSilent);
	Name stuck{{"127.0.0.1"}};
	stuck.stuck = true;
	set_name("stuck.test", stuck);
	set_node(0, "127.0.0.1", silent.port(), SslMode::Prefer);
	set_node(1, "127.0.0.1", half.port(), SslMode::Require);
	set_node(2, "stuck.test", silent.port(), SslMode::Disable);
	for (const uint32_t i : {0u, 1u, 2u}) {
		for (const bool flush : {false, true}) {
			Dialled &d = dial(i);
			ASSERT_TRUE(run([&] { return i == 2 || silent.connections() + half.connections() > 0; }));
			loop.guarded([&] { std::exchange(d.stream, nullptr)->close(flush); });
			EXPECT_EQ(d.connected, 0);
			EXPECT_EQ(d.why, "");
		}
	}
}

// Any address of this machine's that is none of loopback.
std::string outward_address()
{
	ifaddrs *all = nullptr;
	std::string found;
	if (getifaddrs(&all) != 0)
		return found;
	for (ifaddrs *a = all; a && found.empty(); a = a->ifa_next) {
		char text[NI_MAXHOST];
		if (a->ifa_addr && a->ifa_addr->sa_family == AF_INET &&
		    getnameinfo(a->ifa_addr, sizeof(sockaddr_in), text, sizeof(text), nullptr, 0, NI_NUMERICHOST) == 0 &&
		    std::string(text).rfind("127.", 0) != 0)
			found = text;
	}
	freeifaddrs(all);
	return found;
}

TEST_F(Dial, SecrecyIsThatOfTheWay)
{
	const std::string address = outward_address();
	if (address.empty())
		GTEST_SKIP() << "this machine has no address but loopback";
	const Authority ca("ours");
	const Certificate c = ca.sign("IP:" + address);
	Server server(Answer::Yes, &c, address.c_str()), local(Answer::No);
	auto secrecy = [&](const std::string &host, int port, SslMode mode, const std::string &root) {
		EXPECT_EQ(dial_once(host, port, mode, root).find("node"), std::string::npos);
		return owners.back()->stream->secrecy();
	};
	EXPECT_EQ(secrecy(address, server.port(), SslMode::Disable, ""), core::Secrecy::Clear);
	EXPECT_EQ(secrecy(address, server.port(), SslMode::Prefer, ca.file), core::Secrecy::Encrypted);
	EXPECT_EQ(secrecy(address, server.port(), SslMode::Require, ""), core::Secrecy::Encrypted);
	EXPECT_EQ(secrecy(address, server.port(), SslMode::VerifyCa, ca.file), core::Secrecy::Verified);
	EXPECT_EQ(secrecy(address, server.port(), SslMode::VerifyFull, ca.file), core::Secrecy::Verified);
	EXPECT_EQ(secrecy("127.0.0.1", local.port(), SslMode::Disable, ""), core::Secrecy::Local);
}

TEST_F(Dial, ARootCertificateIsReadAgainAfterAReload)
{
	const Authority ours("ours"), other("another");
	const Certificate c = ours.sign("IP:127.0.0.1");
	Server server(Answer::Yes, &c);
	const std::string link = ours.file + ".link";
	ASSERT_EQ(symlink(ours.file.c_str(), link.c_str()), 0);
	EXPECT_EQ(dial_once("127.0.0.1", server.port(), SslMode::VerifyFull, link), "verified");
	unlink(link.c_str());
	ASSERT_EQ(symlink(other.file.c_str(), link.c_str()), 0);
	EXPECT_EQ(outcome(0), "verified");
	dialer.reload();
	EXPECT_HAS(outcome(0), "unable to get local issuer certificate");
	unlink(link.c_str());
}

// ---- cancel requests

TEST_F(Dial, ACancelRequestIsOverWhenTheNodeHasClosed)
{
	const AuthorityAndServers a;
	Server tls(Answer::Yes, &a.good), clear(Answer::No);
	for (Server *server : {&tls, &clear}) {
		const SslMode mode = server == &tls ? SslMode::VerifyFull : SslMode::Prefer;
		set_name("node.test", {{"127.0.0.1"}});
		EXPECT_EQ(dial_once("node.test", server->port(), mode, a.ours.file), server == &tls ? "verified" : "clear");
		// Wherever the name leads to by now: the backend is where the server's connection is.
		set_name("node.test", {{"127.0.0.9"}});
		for (const size_t length : {4u, 32u, 256u}) {
			const std::string key(length, '\xfe');
			server->hold_cancels();
			const size_t before = ended.size();
			loop.guarded([&] {
				cancels.start(0, static_cast<net::SocketStream &>(*owners.back()->stream), 4711, key, 42 + length);
			});
			char head[12];
			proto::store32(head, static_cast<uint32_t>(12 + length));
			proto::store32(head + 4, 80877102);
			proto::store32(head + 8, 4711);
			const std::string expected = std::string(head, 12) + key;
			ASSERT_TRUE(run([&] { return server->cancel_request() == expected; }));
			EXPECT_EQ(ended.size(), before) << "not before the node has closed";
			server->release();
			ASSERT_TRUE(run([&] { return ended.size() > before; }));
			EXPECT_EQ(ended.back(), std::make_pair(uint64_t{42 + length}, core::CancelEnd::Done));
		}
	}
}

TEST_F(Dial, ACancelRequestThatIsNotAnsweredIsLostAndOneThatWasNotSentIsNot)
{
	auto server = std::make_unique<Server>(Answer::No);
	EXPECT_EQ(dial_once("127.0.0.1", server->port(), SslMode::Prefer), "clear");
	auto cancel = [&](uint64_t id) {
		const size_t before = ended.size();
		loop.guarded([&] {
			cancels.start(0, static_cast<net::SocketStream &>(*owners.back()->stream), 1, "1234", id);
			EXPECT_EQ(ended.size(), before) << "in a later event";
		});
		EXPECT_TRUE(run([&] { return ended.size() > before; }));
		return ended.back();
	};
	server->hold_cancels();
	EXPECT_EQ(cancel(1), std::make_pair(uint64_t{1}, core::CancelEnd::Lost));
	set_node(0, "127.0.0.1", server->port(), SslMode::Require);
	EXPECT_EQ(cancel(2), std::make_pair(uint64_t{2}, core::CancelEnd::Unsent));
	server.reset();
	EXPECT_TRUE(run([&] { return !owners.back()->why.empty(); }));
	EXPECT_EQ(cancel(3), std::make_pair(uint64_t{3}, core::CancelEnd::Unsent));
}

} // namespace
