// The settings of a backend without a server around them: what it tells, a change, and what is saved of them.
#include "core/server/server_settings.hpp"
#include "proto/startup.hpp"

#include <gtest/gtest.h>

namespace
{

using namespace pgpool;
using namespace pgpool::core;

struct SettingsOfServer : ::testing::Test {
	SettingsOfServer()
	{
		limits.max_session_settings = 10;
		limits.session_settings_memory = 64;
		agent.answers(true);
		for (const auto &[name, value] : {std::pair{"DateStyle", "ISO"}, {"TimeZone", "UTC"}, {"work_mem", "4MB"}})
			EXPECT_TRUE(settings.tell(name, value, true));
		settings.logged_in();
	}
	static proto::Error error(const char *sqlstate) { return {sqlstate, "no", "", ""}; }

	ParamStore store;
	region::Settings limits{};
	AgentLink agent;
	ServerSettings settings{store, limits, agent};
};

TEST_F(SettingsOfServer, AChangeIsSentOrAwaited)
{
	const Params want = settings.now().with("TimeZone", "Asia/Tokyo", true);
	ASSERT_TRUE(settings.change_to(want, false, ""));
	EXPECT_TRUE(settings.unproved());
	EXPECT_FALSE(settings.awaited());
	EXPECT_EQ(settings.now(), want) << "the client's messages go right behind";
	settings.keep_unproved("Q");
	settings.in_force();
	EXPECT_FALSE(settings.unproved());
	EXPECT_FALSE(settings.has_unproved());
	ASSERT_TRUE(settings.change_to(settings.now().with("TimeZone", "UTC", true), true, ""));
	EXPECT_FALSE(settings.unproved());
	EXPECT_TRUE(settings.awaited());
	settings.fail();
	EXPECT_TRUE(settings.awaited()) << "until the server is closed";
}

TEST_F(SettingsOfServer, OnesThatAreRefusedAreKnown)
{
	const Params want = settings.now().with("a.b", "1", false).with("c.d", "2", false);
	ASSERT_TRUE(settings.change_one_by_one(want));
	ASSERT_EQ(settings.each().size(), 2u);
	EXPECT_EQ(settings.answered(error("42501")), ServerSettings::Progress::More);
	EXPECT_EQ(settings.answered({}), ServerSettings::Progress::Done);
	EXPECT_TRUE(settings.awaited());
	settings.in_force();
	EXPECT_FALSE(settings.awaited());
	ASSERT_EQ(settings.refused().size(), 1u);
	EXPECT_EQ(settings.refused()[0].name, "a.b");
	EXPECT_EQ(settings.now()->find("a.b"), nullptr);
	EXPECT_NE(settings.now()->find("c.d"), nullptr);
}

TEST_F(SettingsOfServer, ACanceledOneIsTriedAgainWithAllOthers)
{
	ASSERT_TRUE(settings.change_one_by_one(settings.now().with("a.b", "1", false)));
	for (int i = 0; i < 3; i++) {
		for (size_t n = settings.each().size(); n > 1; n--)
			EXPECT_EQ(settings.answered({}), ServerSettings::Progress::More);
		EXPECT_EQ(settings.answered(error(proto::sqlstate::kQueryCanceled)), ServerSettings::Progress::Again);
		EXPECT_TRUE(settings.refused().empty());
		EXPECT_EQ(settings.each().size(), 2u) << "behind the role's";
	}
	EXPECT_EQ(settings.answered({}), ServerSettings::Progress::More);
	EXPECT_EQ(settings.answered(error(proto::sqlstate::kQueryCanceled)), ServerSettings::Progress::Done);
}

TEST_F(SettingsOfServer, AreSavedAndLoaded)
{
	settings.set_defaults(store.empty().with("work_mem", "8MB", true));
	EXPECT_TRUE(settings.tell("TimeZone", "Asia/Tokyo", true));
	EXPECT_FALSE(settings.tell("a.b", "x y", true));
	EXPECT_FALSE(settings.tell("too.long", "", false));
	const std::string saved = settings.save();
	ServerSettings other(store, limits, agent);
	ASSERT_TRUE(other.load(saved));
	EXPECT_EQ(other.now(), settings.now());
	EXPECT_EQ(other.defaults(), settings.defaults());
	EXPECT_TRUE(other.too_many()) << "a value is not known";
	EXPECT_EQ(other.save(), saved);

	ParamStore elsewhere;
	ServerSettings there(elsewhere, limits, agent);
	ASSERT_TRUE(there.load(saved));
	EXPECT_EQ(there.save(), saved);
	ServerSettings without(store, limits, agent);
	settings.set_defaults({});
	ASSERT_TRUE(without.load(settings.save()));
	EXPECT_FALSE(without.defaults());
}

TEST_F(SettingsOfServer, WhatIsNotWholeIsRefused)
{
	settings.set_defaults(store.empty().with("work_mem", "8MB", true));
	const std::string saved = settings.save();
	ServerSettings other(store, limits, agent);
	const Params before = other.now();
	for (size_t n = 0; n < saved.size(); n++)
		EXPECT_FALSE(other.load(std::string_view(saved).substr(0, n))) << n;
	EXPECT_FALSE(other.load(saved + '\0'));
	EXPECT_EQ(other.now(), before);
	// Each byte as another one: what is taken all the same says so itself.
	for (size_t n = 0; n < saved.size(); n++) {
		for (const int flip : {0x01, 0x08, 0x20, 0x80, 0xff}) {
			std::string bytes = saved;
			bytes[n] = static_cast<char>(bytes[n] ^ flip);
			ServerSettings third(store, limits, agent);
			if (third.load(bytes)) {
				EXPECT_TRUE(proto::equal_names(third.save(), bytes)) << n; // a store has one spelling of a name
			}
		}
	}
}

TEST_F(SettingsOfServer, NamesOutOfOrderAreRefused)
{
	const std::string saved = settings.save();
	for (const char *name : {"DateStyle", "TimeZone"}) {
		std::string bytes = saved;
		bytes[bytes.find(name)] = 'z';
		EXPECT_FALSE(ServerSettings(store, limits, agent).load(bytes)) << name;
	}
}

} // namespace
