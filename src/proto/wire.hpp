// Bytes of the PostgreSQL wire protocol, version 3: reading and writing integers and strings.
//
// Owns big-endian access, the bounds-checked Reader and the message Writer. Every bound is compared as
// `n > left`, never as `position + n > end`, so a hostile length cannot wrap. Knows no message.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace pgpool::proto
{

inline uint32_t load32(const char *p)
{
	uint32_t v;
	memcpy(&v, p, 4);
	return __builtin_bswap32(v);
}

inline uint16_t load16(const char *p)
{
	uint16_t v;
	memcpy(&v, p, 2);
	return __builtin_bswap16(v);
}

inline void store32(char *p, uint32_t v)
{
	v = __builtin_bswap32(v);
	memcpy(p, &v, 4);
}

// Takes as long for the first byte that differs as for the last.
inline bool same_secret(std::string_view a, std::string_view b)
{
	if (a.size() != b.size())
		return false;
	volatile unsigned char difference = 0;
	for (size_t i = 0; i < a.size(); i++)
		difference = difference | static_cast<unsigned char>(a[i] ^ b[i]);
	return difference == 0;
}

constexpr uint32_t kHeaderSize = 5;          // type byte and length
constexpr uint32_t kMaxMessage = 0x3fffffff; // 1 GiB - 1, as PQ_LARGE_MESSAGE_LIMIT
constexpr uint32_t kMaxSmallMessage = 10000; // as PQ_SMALL_MESSAGE_LIMIT
constexpr size_t kMostName = 63;             // NAMEDATALEN less one: PostgreSQL cuts a longer name
constexpr uint32_t kMaxStartup = 10000;      // as MAX_STARTUP_PACKET_LENGTH
constexpr uint32_t kMaxAuthMessage = 65535;  // as PG_MAX_AUTH_TOKEN_LENGTH

// Reads one message's body. After a failed read ok() is false and stays so; values are then empty.
class Reader
{
public:
	explicit Reader(std::string_view bytes) : bytes_(bytes) {}

	bool ok() const { return ok_; }
	size_t left() const { return bytes_.size(); }

	uint32_t u32() { return take(4) ? load32(taken_) : 0; }
	uint16_t u16() { return take(2) ? load16(taken_) : 0; }
	uint8_t u8() { return take(1) ? static_cast<uint8_t>(*taken_) : 0; }
	std::string_view bytes(size_t n) { return take(n) ? std::string_view(taken_, n) : std::string_view(); }

	// A NUL-terminated string, without its NUL.
	std::string_view string()
	{
		const size_t end = bytes_.find('\0');
		if (!ok_ || end == std::string_view::npos) {
			ok_ = false;
			return {};
		}
		std::string_view s = bytes_.substr(0, end);
		bytes_.remove_prefix(end + 1);
		return s;
	}

private:
	bool take(size_t n)
	{
		if (!ok_ || n > bytes_.size()) {
			ok_ = false;
			return false;
		}
		taken_ = bytes_.data();
		bytes_.remove_prefix(n);
		return true;
	}

	std::string_view bytes_;
	const char *taken_ = nullptr;
	bool ok_ = true;
};

// Appends messages to a string; end() fills in the length of the message that begin() opened.
class Writer
{
public:
	explicit Writer(std::string &out) : out_(out) {}

	Writer &begin(char type)
	{
		out_.push_back(type);
		start_ = out_.size();
		out_.append(4, '\0');
		return *this;
	}
	Writer &u8(uint8_t v)
	{
		out_.push_back(static_cast<char>(v));
		return *this;
	}
	Writer &u16(uint16_t v) { return u8(static_cast<uint8_t>(v >> 8)).u8(static_cast<uint8_t>(v)); }
	Writer &u32(uint32_t v)
	{
		char b[4];
		store32(b, v);
		out_.append(b, 4);
		return *this;
	}
	Writer &bytes(std::string_view s)
	{
		out_.append(s);
		return *this;
	}
	Writer &string(std::string_view s)
	{
		out_.append(s);
		out_.push_back('\0');
		return *this;
	}
	Writer &end()
	{
		store32(&out_[start_], static_cast<uint32_t>(out_.size() - start_));
		return *this;
	}

private:
	std::string &out_;
	size_t start_ = 0;
};

} // namespace pgpool::proto
