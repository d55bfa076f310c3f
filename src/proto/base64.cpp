// Base64: see base64.hpp. Owns the alphabet; must not know what the bytes mean.
#include "proto/base64.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::proto
{

namespace
{

constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int digit_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+')
		return 62;
	return c == '/' ? 63 : -1;
}

} // namespace

void base64_append(const void *data, size_t length, std::string &out)
{
	const uint8_t *in = static_cast<const uint8_t *>(data);

	for (; length >= 3; in += 3, length -= 3) {
		out += kAlphabet[in[0] >> 2];
		out += kAlphabet[(in[0] & 3) << 4 | in[1] >> 4];
		out += kAlphabet[(in[1] & 15) << 2 | in[2] >> 6];
		out += kAlphabet[in[2] & 63];
	}
	if (length == 0)
		return;
	const unsigned second = length == 2 ? in[1] : 0;
	out += kAlphabet[in[0] >> 2];
	out += kAlphabet[(in[0] & 3) << 4 | second >> 4];
	out += length == 2 ? kAlphabet[(second & 15) << 2] : '=';
	out += '=';
}

bool base64_decode(std::string_view text, uint8_t *out, size_t capacity, size_t &length)
{
	length = 0;
	if (text.size() % 4 != 0)
		return false;
	for (size_t at = 0; at < text.size(); at += 4) {
		size_t digits = 4;
		if (at + 4 == text.size() && text[at + 3] == '=')
			digits = text[at + 2] == '=' ? 2 : 3;

		unsigned bits = 0;
		for (size_t i = 0; i < 4; i++) {
			const int value = i < digits ? digit_value(text[at + i]) : 0;
			if (value < 0)
				return false;
			bits = bits << 6 | static_cast<unsigned>(value);
		}

		const size_t bytes = digits - 1;
		if ((bits & (0xffffffU >> (8 * bytes))) != 0)
			return false; // spare bits: a second spelling of the same bytes
		if (bytes > capacity - length)
			return false;
		for (size_t i = 0; i < bytes; i++)
			out[length++] = static_cast<uint8_t>(bits >> (16 - 8 * i));
	}
	return true;
}

} // namespace pgpool::proto
