// Startup packets: every length, every split, and options as the server splits them.
#include "proto/startup.hpp"

#include <gtest/gtest.h>

#include "wire/messages.hpp"

namespace
{

using namespace pgpool::proto;
using wire::cancel_request;
using wire::startup_packet;

std::string number(uint32_t n)
{
	std::string s(4, '\0');
	store32(s.data(), n);
	return s;
}

Startup read(const std::string &packet)
{
	Startup s;
	Error e;
	EXPECT_TRUE(read_startup(packet, s, e)) << e.message;
	return s;
}

std::string refusal(const std::string &packet)
{
	Startup s;
	Error e;
	EXPECT_FALSE(read_startup(packet, s, e));
	return e.sqlstate;
}

std::string setting(const Startup &s, const char *name)
{
	for (const Setting &x : s.settings) {
		if (equal_names(x.first, name))
			return x.second;
	}
	return "-";
}

TEST(StartupPacket, OfAnyLengthIsClassifiedBySizeAlone)
{
	for (uint32_t length = 0; length <= 10004; length++) {
		uint32_t size;
		const StartupKind kind = classify_startup(number(length) + number(3 << 16), size);
		EXPECT_EQ(kind == StartupKind::Invalid, length < 8 || length > 10000) << length;
		EXPECT_EQ(kind == StartupKind::Startup, length == 8) << length;
	}
	for (const uint32_t length : {0x7fffffffu, 0x80000000u, 0xffffffffu}) {
		uint32_t size;
		EXPECT_EQ(classify_startup(number(length) + number(3 << 16), size), StartupKind::Invalid);
	}
}

TEST(StartupPacket, IsIncompleteAtEverySplit)
{
	const std::string packet = startup_packet({{"user", "anna"}, {"database", "shop"}});
	for (size_t n = 0; n < packet.size(); n++) {
		uint32_t size;
		EXPECT_EQ(classify_startup(packet.substr(0, n), size), StartupKind::Incomplete) << n;
	}
	uint32_t size;
	EXPECT_EQ(classify_startup(packet + "more", size), StartupKind::Startup);
	EXPECT_EQ(size, packet.size());
}

TEST(StartupPacket, RequestsForEncryptionAndCancelAreTold)
{
	uint32_t size;
	EXPECT_EQ(classify_startup(wire::request(wire::kSslRequest), size), StartupKind::Ssl);
	EXPECT_EQ(classify_startup(wire::request(wire::kGssRequest), size), StartupKind::Gss);
	EXPECT_EQ(classify_startup(number(9) + number(wire::kSslRequest), size), StartupKind::Invalid);
	const std::string cancel = cancel_request(-5, "abcd");
	EXPECT_EQ(classify_startup(cancel, size), StartupKind::Cancel);
	CancelRequest r;
	ASSERT_TRUE(read_cancel(cancel, r));
	EXPECT_EQ(r.pid, -5);
	EXPECT_EQ(r.key, "abcd");
	EXPECT_FALSE(read_cancel(cancel_request(1, "abc"), r));
	EXPECT_TRUE(read_cancel(cancel_request(1, std::string(256, 'k')), r));
	EXPECT_FALSE(read_cancel(cancel_request(1, std::string(257, 'k')), r));
}

TEST(StartupPacket, WithoutItsTerminatorOrWithBytesBehindItIsRefused)
{
	std::string packet = startup_packet({{"user", "anna"}});
	EXPECT_EQ(refusal(packet.substr(0, packet.size() - 1)), "08P01");
	EXPECT_EQ(refusal(packet + "x"), "08P01");
	EXPECT_EQ(refusal(packet + '\0'), "08P01");
	EXPECT_EQ(refusal(startup_packet({{"user", std::string("an\0na", 5)}})), "08P01");
	EXPECT_EQ(refusal(startup_packet({{"database", "shop"}})), "28000");
	EXPECT_EQ(refusal(startup_packet({})), "28000");
	EXPECT_EQ(refusal(startup_packet({{"user", "a"}}, 2u << 16)), "0A000");
}

TEST(StartupPacket, TheLastOfTwoValuesWins)
{
	const Startup s = read(startup_packet({{"user", "a"}, {"user", "b"}, {"TimeZone", "1"}, {"timezone", "2"}}));
	EXPECT_EQ(s.user, "b");
	EXPECT_EQ(setting(s, "TimeZone"), "2");
	EXPECT_EQ(s.settings.size(), 1u);
}

TEST(StartupPacket, OptionsAreTakenApartAsTheServerDoes)
{
	const Startup s = read(startup_packet(
	    {{"user", "a"}, {"options", "-c a=1 -cb=2  --c-d=3 \t--e=x\\ y\\\\z -c pgpool.tenant=t --f=a=b"}}));
	EXPECT_EQ(setting(s, "a"), "1");
	EXPECT_EQ(setting(s, "b"), "2");
	EXPECT_EQ(setting(s, "c_d"), "3");
	EXPECT_EQ(setting(s, "e"), "x y\\z");
	EXPECT_EQ(setting(s, "f"), "a=b");
	EXPECT_EQ(s.tenant, "t");
	for (const char *bad : {"-c", "-c x", "--x", "-c =1", "-d 5", "x=1", "-- -c a=1", "-"})
		EXPECT_NE(read(startup_packet({{"user", "a"}, {"options", bad}})).refusal.sqlstate, "") << bad;
	const Startup two = read(startup_packet({{"user", "a"}, {"options", "-x -c y --z=1 -c pgpool.tenant=t"}}));
	EXPECT_EQ(two.refusal.sqlstate, "0A000") << "the first one";
	EXPECT_EQ(setting(two, "z") + two.tenant, "1t") << "what is behind it is read all the same";
	EXPECT_EQ(read(startup_packet({{"user", "a"}, {"options", "reference=r"}})).tenant, "r");
}

TEST(StartupPacket, AParameterIsSetAfterTheOptionsInWhateverOrderTheyCome)
{
	using Pair = std::pair<std::string, std::string>;
	const Pair user{"user", "a"}, x{"x", "parameter"}, options{"options", "-c x=option -c y=1 --"};
	for (const auto &packet : {std::vector<Pair>{user, x, options}, {options, x, user}, {x, options, user}}) {
		EXPECT_EQ(setting(read(startup_packet(packet)), "x"), "parameter");
		EXPECT_EQ(setting(read(startup_packet(packet)), "y"), "1");
	}
	const Startup two = read(startup_packet({user, {"options", "-c y=1 -c z=1"}, {"options", "-c y=2"}}));
	EXPECT_EQ(setting(two, "y") + setting(two, "z"), "2-") << "the last options are the options";
}

TEST(StartupPacket, ReplicationIsABooleanAsPostgreSQLReadsIt)
{
	for (const char *yes : {"database", "true", "T", "tru", "on", "yes", "y", "1"})
		EXPECT_TRUE(read(startup_packet({{"user", "a"}, {"replication", yes}})).replication) << yes;
	for (const char *no : {"false", "F", "fals", "off", "of", "no", "n", "0"})
		EXPECT_FALSE(read(startup_packet({{"user", "a"}, {"replication", no}})).replication) << no;
	for (const char *bad : {"", "xyz", "o", "10", "truer", "Database"})
		EXPECT_EQ(refusal(startup_packet({{"user", "a"}, {"replication", bad}})), "22023") << bad;
}

TEST(StartupPacket, ANewerProtocolOrAnUnknownOptionIsNegotiated)
{
	auto negotiated = [](uint32_t minor, std::vector<std::pair<std::string, std::string>> p) {
		p.emplace_back("user", "a");
		std::string out;
		append_negotiation(out, read(startup_packet(p, (3u << 16) | minor)));
		return out;
	};
	EXPECT_EQ(negotiated(0, {}), "");
	EXPECT_EQ(negotiated(2, {}), "");
	EXPECT_EQ(negotiated(9, {}), std::string("v\0\0\0\x0c\0\3\0\2\0\0\0\0", 13));
	EXPECT_EQ(negotiated(0, {{"_pq_.x", "1"}}), std::string("v\0\0\0\x13\0\3\0\0\0\0\0\1_pq_.x\0", 20));
}

TEST(StartupPacket, AnApplicationNameIsCleanAndShort)
{
	EXPECT_EQ(clean_application_name("a\nb\xc3\xa9"), "a?b??");
	EXPECT_EQ(clean_application_name(std::string(100, 'x')).size(), 63u);
}

} // namespace
