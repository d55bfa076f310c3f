// Messages of the protocol as tests speak it: a client's, built as bytes; a backend's, split and told in a line.
//
// Owns functions of bytes alone, for unit tests, fuzzers and tools: what they build may be wrong, and nothing here says
// what a right answer is. Must not know sockets, the core or GoogleTest. In test/tap the same is PgPoolWire.pm.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proto/message.hpp"
#include "proto/wire.hpp"

namespace wire
{

using pgpool::proto::Reader;
using pgpool::proto::Writer;
using Pairs = std::vector<std::pair<std::string, std::string>>;
using Param = std::optional<std::string>; // of Bind, or a column: nothing is NULL

// ---- a client's first packet
constexpr uint32_t kProtocol30 = 3u << 16;
constexpr uint32_t kProtocol32 = kProtocol30 + 2;
constexpr uint32_t kCancelRequest = 80877102;
constexpr uint32_t kSslRequest = 80877103;
constexpr uint32_t kGssRequest = 80877104;

inline std::string packet(std::string_view body)
{
	std::string out;
	Writer(out).u32(static_cast<uint32_t>(body.size() + 4)).bytes(body);
	return out;
}

inline std::string startup_packet(const Pairs &parameters, uint32_t version = kProtocol30)
{
	std::string body;
	Writer w(body);
	w.u32(version);
	for (const auto &p : parameters)
		w.string(p.first).string(p.second);
	w.u8(0);
	return packet(body);
}

// SSLRequest, GSSENCRequest
inline std::string request(uint32_t code)
{
	std::string body;
	Writer(body).u32(code);
	return packet(body);
}

inline std::string cancel_request(int32_t pid, std::string_view key)
{
	std::string body;
	Writer(body).u32(kCancelRequest).u32(static_cast<uint32_t>(pid)).bytes(key);
	return packet(body);
}

// ---- a client's messages. What is most often the same comes last: the unnamed statement, the unnamed portal, all
// rows.
inline std::string message(char type, std::string_view body = {})
{
	std::string out;
	Writer(out).begin(type).bytes(body).end();
	return out;
}

inline std::string text_message(char type, std::string_view text)
{
	return message(type, std::string(text) + '\0');
}

inline std::string query(std::string_view sql)
{
	return text_message('Q', sql);
}

inline std::string parse(std::string_view sql, std::string_view name = "", const std::vector<uint32_t> &types = {})
{
	std::string out;
	Writer w(out);
	w.begin('P').string(name).string(sql).u16(static_cast<uint16_t>(types.size()));
	for (const uint32_t type : types)
		w.u32(type);
	w.end();
	return out;
}

inline void put_params(Writer &w, const std::vector<Param> &params)
{
	w.u16(static_cast<uint16_t>(params.size()));
	for (const Param &param : params)
		w.u32(param ? static_cast<uint32_t>(param->size()) : 0xffffffff).bytes(param ? *param : std::string());
}

inline void put_formats(Writer &w, const std::vector<uint16_t> &formats)
{
	w.u16(static_cast<uint16_t>(formats.size()));
	for (const uint16_t format : formats)
		w.u16(format);
}

// Not bind(), which is a call of the system's.
inline std::string bind_to(std::string_view statement = "", std::string_view portal = "",
                           const std::vector<Param> &params = {}, const std::vector<uint16_t> &formats = {},
                           const std::vector<uint16_t> &results = {})
{
	std::string out;
	Writer w(out);
	w.begin('B').string(portal).string(statement);
	put_formats(w, formats);
	put_params(w, params);
	put_formats(w, results);
	w.end();
	return out;
}

inline std::string execute(uint32_t rows = 0, std::string_view portal = "")
{
	std::string out;
	Writer(out).begin('E').string(portal).u32(rows).end();
	return out;
}

// S, a statement, or P, a portal
inline std::string describe(char kind, std::string_view name = "")
{
	return text_message('D', kind + std::string(name));
}

inline std::string close_name(char kind, std::string_view name = "")
{
	return text_message('C', kind + std::string(name));
}

inline std::string sync()
{
	return message('S');
}

inline std::string flush()
{
	return message('H');
}

inline std::string copy_data(std::string_view data)
{
	return message('d', data);
}

inline std::string copy_done()
{
	return message('c');
}

inline std::string copy_fail(std::string_view why)
{
	return text_message('f', why);
}

inline std::string terminate()
{
	return message('X');
}

inline std::string function_call(uint32_t oid, const std::vector<Param> &params)
{
	std::string out;
	Writer w(out);
	w.begin('F').u32(oid).u16(0);
	put_params(w, params);
	w.u16(0).end();
	return out;
}

inline std::string password(std::string_view text)
{
	return text_message('p', text);
}

inline std::string sasl_first(std::string_view mechanism, std::string_view data)
{
	std::string out;
	Writer(out).begin('p').string(mechanism).u32(static_cast<uint32_t>(data.size())).bytes(data).end();
	return out;
}

// ---- splitting
struct Message {
	char type = 0;
	std::string body;
};

// Bytes of the message in front, as its header says, with the header; 0 = that is not there yet.
inline size_t size_of_first(std::string_view bytes)
{
	return bytes.size() < pgpool::proto::kHeaderSize ? 0 : size_t{pgpool::proto::load32(bytes.data() + 1)} + 1;
}

// Gives whole messages, in whatever pieces they come.
class Splitter
{
public:
	void append(const char *data, size_t size) { data_.append(data, size); }
	// False: it is not yet whole, or broken().
	bool next(Message &message)
	{
		const std::string_view left = std::string_view(data_).substr(head_);
		const size_t size = size_of_first(left);
		if (size == 0 || broken_)
			return false;
		if (size < pgpool::proto::kHeaderSize || size > kMost) {
			broken_ = true;
			return false;
		}
		if (left.size() < size)
			return false;
		message.type = left[0];
		message.body = left.substr(pgpool::proto::kHeaderSize, size - pgpool::proto::kHeaderSize);
		head_ += size;
		if (head_ == data_.size()) {
			clear();
		} else if (head_ > 1 << 20) {
			data_.erase(0, head_);
			head_ = 0;
		}
		return true;
	}
	bool broken() const { return broken_; }
	size_t pending() const { return data_.size() - head_; }
	std::string rest() const { return data_.substr(head_); }
	void clear()
	{
		if (data_.capacity() > 1 << 16)
			std::string().swap(data_); // an idle client must not keep the room of its largest row
		data_.clear();
		head_ = 0;
		broken_ = false;
	}

private:
	static constexpr size_t kMost = 0x40000001;
	std::string data_;
	size_t head_ = 0;
	bool broken_ = false;
};

// Takes the whole messages off the front of `bytes`.
inline std::vector<Message> take_messages(std::string &bytes)
{
	Splitter splitter;
	splitter.append(bytes.data(), bytes.size());
	std::vector<Message> all;
	for (Message m; splitter.next(m);)
		all.push_back(m);
	bytes = splitter.rest();
	return all;
}

// ---- reading a backend's
inline std::string field(std::string_view error_body, char code)
{
	return std::string(pgpool::proto::error_field(error_body, code));
}

// The columns of a DataRow; nothing when the body does not add up.
inline std::optional<std::vector<Param>> columns(std::string_view body)
{
	std::vector<Param> result;
	Reader r(body);
	for (uint16_t left = r.u16(); left > 0 && r.ok(); left--) {
		const uint32_t size = r.u32();
		result.push_back(size == 0xffffffff ? Param() : Param(r.bytes(size)));
	}
	if (!r.ok() || r.left() > 0)
		return std::nullopt;
	return result;
}

// Where the bodies of RowDescription have the OIDs of their tables.
inline std::vector<size_t> places_of_tables(std::string_view body)
{
	constexpr size_t kRest = 18; // table, column, type, size, modifier, format
	std::vector<size_t> places;
	Reader r(body);
	for (uint16_t left = r.u16(); left > 0; left--) {
		r.string();
		const size_t at = body.size() - r.left();
		r.bytes(kRest);
		if (!r.ok())
			break;
		places.push_back(at);
	}
	return places;
}

// "T D:1 C:SELECT 1 Z:I": the types, and what tells messages of one type apart. test/README.md explains it.
inline std::string summary(const std::vector<Message> &all)
{
	std::string s;
	for (const Message &m : all) {
		s += s.empty() ? "" : " ";
		s += m.type;
		if (m.type == 'Z')
			s += ":" + m.body;
		if (m.type == 'D' && m.body.size() > 6)
			s += ":" + m.body.substr(6);
		if (m.type == 'C')
			s += ":" + m.body.substr(0, m.body.size() - 1);
		if (m.type == 'E')
			s += (field(m.body, 'S') == "FATAL" ? ":FATAL:" : ":") + pgpool::proto::read_error(m.body).sqlstate;
		Reader r(m.body);
		if (m.type == 'A') {
			r.u32();
			const std::string channel(r.string());
			s += ":" + channel + "=" + std::string(r.string());
		}
		if (m.type == 'S') {
			const std::string name(r.string());
			s += ":" + name + "=" + std::string(r.string());
		}
	}
	return s;
}

// One message as a line of a report, for a reader.
inline std::string brief(const Message &m)
{
	std::string result(1, m.type);
	result += " (" + std::to_string(m.body.size()) + " bytes)";
	if (m.type == 'E' || m.type == 'N')
		return result + " " + field(m.body, 'S') + " " + field(m.body, 'C') + ": " + field(m.body, 'M');
	if (m.type == 'Z' && m.body.size() == 1)
		return result + " status " + m.body;
	result += " ";
	for (const char c : m.body.substr(0, 120))
		result += c >= 32 && c < 127 ? c : '.';
	return result;
}

} // namespace wire
