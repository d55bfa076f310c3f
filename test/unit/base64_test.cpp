// Base64: the vectors of RFC 4648, and every other spelling of the same bytes refused.
#include "proto/base64.hpp"

#include <string>

#include <gtest/gtest.h>

namespace
{

using namespace pgpool::proto;

std::string base64(const std::string &bytes)
{
	std::string out;
	base64_append(bytes.data(), bytes.size(), out);
	return out;
}

TEST(Base64, EncodesTheVectorsOfTheRfcAndReadsThemBack)
{
	const char *const pairs[][2] = {{"", ""},
	                                {"f", "Zg=="},
	                                {"fo", "Zm8="},
	                                {"foo", "Zm9v"},
	                                {"foob", "Zm9vYg=="},
	                                {"fooba", "Zm9vYmE="},
	                                {"foobar", "Zm9vYmFy"},
	                                {"\xff\xfe\xfd", "//79"},
	                                {"\xfb\xef", "++8="}};
	for (const auto &pair : pairs) {
		uint8_t bytes[8];
		size_t length = 99;
		EXPECT_EQ(base64(pair[0]), pair[1]);
		ASSERT_TRUE(base64_decode(pair[1], bytes, sizeof bytes, length)) << pair[1];
		EXPECT_EQ(std::string(bytes, bytes + length), pair[0]);
	}
}

TEST(Base64, RefusesEveryOtherSpelling)
{
	uint8_t bytes[16];
	size_t length;
	for (const char *text : {"Z", "Zg", "Zg=", "Zg===", "=", "====", "Z===", "Zg==Zg==", "Zg=A", "Zm8=\n", "Zm 8",
	                         "Zm9v ", "Zm9-", "Zm9_", "Zh==", "Zm9=", "Zm8=====", "\xc3\xa9\xc3\xa9", "===="})
		EXPECT_FALSE(base64_decode(text, bytes, sizeof bytes, length)) << text;
	EXPECT_FALSE(base64_decode(std::string_view("Zm9\0", 4), bytes, sizeof bytes, length));
}

TEST(Base64, NeverWritesBeyondTheCapacity)
{
	uint8_t bytes[5] = {0, 0, 0, 0, 0x55};
	size_t length;
	EXPECT_FALSE(base64_decode("Zm9vYmE=", bytes, 4, length));
	EXPECT_EQ(bytes[4], 0x55);
	EXPECT_TRUE(base64_decode("Zm9vYg==", bytes, 4, length));
	EXPECT_FALSE(base64_decode("Zm9v", bytes, 0, length));
	EXPECT_TRUE(base64_decode("", bytes, 0, length));
}

} // namespace
