// rawpg: what every test tool in this folder needs to speak the PostgreSQL wire protocol by hand.
//
// It owns the login exchange (trust, password, MD5, SCRAM-SHA-256), a non-blocking channel over TCP, Unix socket or
// TLS, a blocking connection on top of it, the seeded random numbers and the command line; messages are those of
// test/wire. It keeps no opinion about what a right answer is: that belongs to the tools. Nothing but loopback
// addresses and Unix sockets can be reached with it. Each part has a file: rawpg_channel.cpp, _login, _conn, _options;
// the numbers and texts are in rawpg.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "wire/messages.hpp"

typedef struct ssl_st SSL;

namespace rawpg
{

using namespace wire;
using Bytes = std::string;

uint64_t now_us();
inline uint64_t now_ms()
{
	return now_us() / 1000;
}
uint64_t random_seed();

// splitmix64: small, and the same numbers everywhere.
class Rng
{
public:
	explicit Rng(uint64_t seed) : state_(seed) {}
	uint64_t next();
	uint64_t below(uint64_t n) { return n == 0 ? 0 : next() % n; }
	uint64_t between(uint64_t low, uint64_t high) { return low + below(high - low + 1); }
	bool chance(uint64_t percent) { return below(100) < percent; }
	Bytes bytes(size_t n);

private:
	uint64_t state_;
};

Bytes hex(const Bytes &bytes);
Bytes unhex(const std::string &text);
std::string hexdump(const Bytes &bytes, size_t most);
Bytes md5_hex(const Bytes &bytes);
Bytes sha256(const Bytes &bytes);
Bytes base64(const Bytes &bytes);
Bytes unbase64(const Bytes &text);

// ---- where to go and as whom
enum class Tls { Off, Request, Direct };

struct Target {
	std::string host = "127.0.0.1"; // or the directory of a Unix socket
	unsigned port = 5432;
	std::string user = "postgres";
	std::string database = "postgres";
	std::string password;
	Pairs params; // further startup parameters
	uint32_t protocol = kProtocol30;
	Tls tls = Tls::Off;
	std::string sni;
	std::string source; // local address to bind

	Bytes startup_packet() const;
};

// One socket, never blocking, plain or TLS.
class Channel
{
public:
	enum class Io { Ok, Again, End, Error };

	Channel() = default;
	Channel(const Channel &) = delete;
	Channel &operator=(const Channel &) = delete;
	~Channel() { close(); }

	bool open(const Target &target); // starts connecting; false: see why()
	Io finish_connect();
	Io handshake(const Target &target); // call again on Again
	Io read(char *into, size_t size, size_t &got);
	Io write(const char *from, size_t size, size_t &sent);
	void half_close();
	void reset(); // close with RST
	void close();
	int fd() const { return fd_; }
	bool tls() const { return ssl_ != nullptr; }
	bool wants_write() const { return wants_write_; }
	const std::string &why() const { return why_; }

private:
	Io fail(const char *what);
	Io tls_result(int result);

	int fd_ = -1;
	SSL *ssl_ = nullptr;
	bool wants_write_ = false;
	bool shaking_ = false;
	std::string why_;
};

// The login exchange as a state machine: feed it messages, send what it returns.
class Login
{
public:
	enum class Step { More, Done, Failed };

	explicit Login(const Target &target) : target_(target) {}
	Step feed(const Message &message, Bytes &out);
	const std::string &error() const { return error_; }
	const std::string &sqlstate() const { return sqlstate_; }

	uint32_t pid = 0;
	Bytes key;
	std::map<std::string, std::string> parameters;

private:
	Step authentication(const Bytes &body, Bytes &out);
	Step sasl_start(const Bytes &body, Bytes &out);
	Step sasl_continue(const Bytes &data, Bytes &out);
	Step sasl_final(const Bytes &data);
	Step fail(const std::string &why);

	const Target &target_;
	std::string error_, sqlstate_;
	Bytes client_first_, server_signature_;
};

struct Result {
	bool ok = false;
	std::vector<std::vector<Param>> rows;
	std::string tag, error, sqlstate;
	char status = 0;
	bool alive = false; // the connection can go on

	std::string value() const; // first column of the first row
};

// A connection that waits, always with a limit.
class Conn
{
public:
	enum class Got { Message, Timeout, End };

	bool connect(const Target &target, uint64_t limit_ms = 10000); // socket and TLS only
	bool login(const Target &target, uint64_t limit_ms = 10000);   // connect, then log in
	bool send(const Bytes &bytes, uint64_t limit_ms = 10000);
	Got next(Message &message, uint64_t limit_ms = 10000);
	Got next_byte(char &byte, uint64_t limit_ms); // answers to SSLRequest and the like
	Result run(const Bytes &sql, uint64_t limit_ms = 30000);
	bool readable(uint64_t limit_ms);
	void close();
	Channel &channel() { return channel_; }
	Splitter &splitter() { return splitter_; }
	const std::string &error() const { return error_; }
	const std::string &sqlstate() const { return sqlstate_; }

	uint32_t pid = 0;
	Bytes key;
	std::map<std::string, std::string> parameters;

private:
	bool wait(short events, uint64_t until);
	Got fill(uint64_t until);

	Channel channel_;
	Splitter splitter_;
	std::string error_, sqlstate_;
};

// ---- command line: --name value, --name=value, --flag
class Options
{
public:
	Options(int argc, char **argv);
	std::string text(const std::string &name, const std::string &preset, const std::string &help);
	uint64_t number(const std::string &name, uint64_t preset, const std::string &help);
	bool flag(const std::string &name, const std::string &help);
	std::vector<std::string> list(const std::string &name, const std::string &help);
	Target target(); // --host --port --user --database --password --tls --sni --startup --protocol
	void finish();   // unknown options and --help end the program here

private:
	std::vector<std::pair<std::string, std::optional<std::string>>> given_;
	std::vector<std::string> help_, known_;
	std::string program_;
	bool wants_help_ = false;
};

uint64_t raise_file_limit(uint64_t wanted); // the number of files that can be had

} // namespace rawpg
