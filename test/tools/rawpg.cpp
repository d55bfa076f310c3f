// rawpg: numbers, times and texts for all tools. See rawpg.hpp.
#include "rawpg.hpp"

#include <cctype>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <openssl/evp.h>
#include <openssl/rand.h>

namespace rawpg
{

uint64_t now_us()
{
	using namespace std::chrono;
	return static_cast<uint64_t>(duration_cast<microseconds>(steady_clock::now().time_since_epoch()).count());
}

uint64_t random_seed()
{
	uint64_t seed = 0;
	RAND_bytes(reinterpret_cast<unsigned char *>(&seed), sizeof seed);
	return seed >> 16; // short enough to be typed
}

uint64_t Rng::next()
{
	uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

Bytes Rng::bytes(size_t n)
{
	Bytes result(n, '\0');
	for (char &c : result)
		c = static_cast<char>(next() & 0xff);
	return result;
}

// ---- text forms of bytes
Bytes hex(const Bytes &bytes)
{
	static const char digits[] = "0123456789abcdef";
	Bytes result;
	for (unsigned char c : bytes) {
		result += digits[c >> 4];
		result += digits[c & 15];
	}
	return result;
}

Bytes unhex(const std::string &text)
{
	Bytes result;
	int high = -1;
	for (char c : text) {
		const char *all = "0123456789abcdef";
		const char *at = c == '\0' ? nullptr : strchr(all, tolower(c));
		if (at == nullptr)
			continue;
		int digit = static_cast<int>(at - all);
		if (high < 0) {
			high = digit;
		} else {
			result += static_cast<char>(high * 16 + digit);
			high = -1;
		}
	}
	return result;
}

std::string hexdump(const Bytes &bytes, size_t most)
{
	std::string result;
	size_t end = bytes.size() < most ? bytes.size() : most;
	char line[32];
	for (size_t at = 0; at < end; at += 16) {
		snprintf(line, sizeof line, "    %06zx ", at);
		result += line;
		std::string text;
		for (size_t i = at; i < at + 16; i++) {
			if (i >= end) {
				result += "   ";
				continue;
			}
			unsigned char c = static_cast<unsigned char>(bytes[i]);
			snprintf(line, sizeof line, " %02x", c);
			result += line;
			text += c >= 32 && c < 127 ? static_cast<char>(c) : '.';
		}
		result += "  " + text + "\n";
	}
	if (end < bytes.size())
		result += "    ... " + std::to_string(bytes.size()) + " bytes in all\n";
	return result;
}

static Bytes digest(const EVP_MD *kind, const Bytes &bytes)
{
	unsigned char out[EVP_MAX_MD_SIZE];
	unsigned int size = 0;
	EVP_Digest(bytes.data(), bytes.size(), out, &size, kind, nullptr);
	return Bytes(reinterpret_cast<char *>(out), size);
}

Bytes md5_hex(const Bytes &bytes)
{
	return hex(digest(EVP_md5(), bytes));
}

Bytes sha256(const Bytes &bytes)
{
	return digest(EVP_sha256(), bytes);
}

Bytes base64(const Bytes &bytes)
{
	Bytes out(4 * ((bytes.size() + 2) / 3) + 1, '\0');
	int size = EVP_EncodeBlock(reinterpret_cast<unsigned char *>(&out[0]),
	                           reinterpret_cast<const unsigned char *>(bytes.data()), static_cast<int>(bytes.size()));
	out.resize(static_cast<size_t>(size));
	return out;
}

Bytes unbase64(const Bytes &text)
{
	Bytes out(text.size() + 4, '\0');
	int size = EVP_DecodeBlock(reinterpret_cast<unsigned char *>(&out[0]),
	                           reinterpret_cast<const unsigned char *>(text.data()), static_cast<int>(text.size()));
	if (size < 0)
		return {};
	size_t padding = 0;
	while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=')
		padding++;
	out.resize(static_cast<size_t>(size) - padding);
	return out;
}

} // namespace rawpg
