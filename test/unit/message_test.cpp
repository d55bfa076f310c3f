// Messages: what is written can be read, and an ErrorResponse is understood whatever fields it has.
#include "proto/message.hpp"

#include <gtest/gtest.h>

#include "proto/wire.hpp"

namespace
{

using namespace pgpool::proto;

TEST(Message, AnErrorIsReadBackAsItWasWritten)
{
	std::string out;
	append_error(out, Severity::Fatal, {"53300", "too many", "A detail.", "A hint."});
	ASSERT_EQ(out[0], 'E');
	ASSERT_EQ(load32(&out[1]), out.size() - 1);
	const Error e = read_error(std::string_view(out).substr(5));
	EXPECT_EQ(e.sqlstate + "|" + e.message + "|" + e.detail + "|" + e.hint, "53300|too many|A detail.|A hint.");
}

TEST(Message, AnErrorWithAnySubsetOfFieldsIsUnderstood)
{
	const char fields[] = {'S', 'V', 'C', 'M', 'D', 'H', 'P', 'F', 'x'};
	for (unsigned set = 0; set < 1u << sizeof(fields); set++) {
		std::string body;
		for (size_t i = 0; i < sizeof(fields); i++) {
			if (set >> i & 1)
				body += fields[i] + std::string(fields[i] == 'C' ? "22012" : "text") + '\0';
		}
		for (const bool terminated : {true, false}) {
			const Error e = read_error(terminated ? body + '\0' : body);
			EXPECT_EQ(e.sqlstate, set & 4 ? "22012" : "XX000");
			EXPECT_EQ(e.message == "text", (set & 8) != 0);
			EXPECT_FALSE(e.message.empty());
			EXPECT_EQ(e.detail, set & 16 ? "text" : "");
			EXPECT_EQ(e.hint, set & 32 ? "text" : "");
		}
	}
}

TEST(Message, ATruncatedErrorIsReadAsFarAsItGoes)
{
	const std::string whole("SERROR\0C22012\0Mtext\0", 20);
	for (size_t n = 0; n <= whole.size(); n++) {
		const std::string copy(whole, 0, n); // its own memory, so that a byte too far is seen
		const Error e = read_error(copy);
		EXPECT_EQ(e.sqlstate, n >= 14 ? "22012" : "XX000") << n;
	}
	EXPECT_EQ(read_error(std::string("C\0", 2)).sqlstate, "XX000");
	EXPECT_EQ(read_error(std::string("Cabcdefgh\0", 10)).sqlstate, "XX000");
}

TEST(Message, AnIdentifierIsOneWhateverItHasAndTheNameOfASettingIsItsParts)
{
	auto quoted = [](std::string_view name, bool setting) {
		std::string sql;
		(setting ? append_setting_name : append_identifier)(sql, name);
		return sql;
	};
	EXPECT_EQ(quoted("a.b", false), "\"a.b\"");
	EXPECT_EQ(quoted("a.b", true), "\"a\".\"b\"");
	EXPECT_EQ(quoted("a\"; b..", false), "\"a\"\"; b..\"");
	EXPECT_EQ(quoted("a\".b.c", true), "\"a\"\"\".\"b\".\"c\"");
	EXPECT_EQ(quoted("DateStyle", true), quoted("DateStyle", false));
	EXPECT_EQ(quoted("\x95\x5c\xe4", false), "\"\x95\x5c\xe4\"") << "bytes of any encoding";
}

} // namespace
