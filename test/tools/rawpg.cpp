// rawpg: the implementation of rawpg.hpp (see there for what it owns).
//
// Sockets are non-blocking without exception; whoever waits does it with poll and a limit. SCRAM keys are
// kept per (password, salt, iterations), because thousands of logins with 4096 rounds each would measure
// OpenSSL and not the server.
#include "rawpg.hpp"

#include <arpa/inet.h>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <mutex>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

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

Bytes base64(const Bytes &bytes)
{
	Bytes out(4 * ((bytes.size() + 2) / 3) + 1, '\0');
	int size = EVP_EncodeBlock(reinterpret_cast<unsigned char *>(&out[0]),
	                           reinterpret_cast<const unsigned char *>(bytes.data()), static_cast<int>(bytes.size()));
	out.resize(static_cast<size_t>(size));
	return out;
}

static Bytes unbase64(const Bytes &text)
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

Bytes Target::startup_packet() const
{
	Pairs all{{"user", user}, {"database", database}};
	all.insert(all.end(), params.begin(), params.end());
	return wire::startup_packet(all, protocol);
}

// ---- channel
static SSL_CTX *tls_context()
{
	static SSL_CTX *context = [] {
		SSL_CTX *made = SSL_CTX_new(TLS_client_method());
		SSL_CTX_set_verify(made, SSL_VERIFY_NONE, nullptr);
		SSL_CTX_set_mode(made, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
		SSL_CTX_set_session_cache_mode(made, SSL_SESS_CACHE_OFF);
		return made;
	}();
	return context;
}

Channel::Io Channel::fail(const char *what)
{
	why_ = std::string(what) + ": " + strerror(errno);
	return Io::Error;
}

static bool unix_address(const Target &target, sockaddr_un &address)
{
	std::string path = target.host + "/.s.PGSQL." + std::to_string(target.port);
	if (path.size() >= sizeof address.sun_path)
		return false;
	address = sockaddr_un{};
	address.sun_family = AF_UNIX;
	memcpy(address.sun_path, path.c_str(), path.size() + 1);
	return true;
}

static bool loopback_address(const std::string &host, unsigned port, sockaddr_in &address)
{
	address = sockaddr_in{};
	address.sin_family = AF_INET;
	address.sin_port = htons(static_cast<uint16_t>(port));
	const std::string &name = host == "localhost" ? std::string("127.0.0.1") : host;
	return inet_pton(AF_INET, name.c_str(), &address.sin_addr) == 1 && ntohl(address.sin_addr.s_addr) >> 24 == 127;
}

bool Channel::open(const Target &target)
{
	close();
	sockaddr_un local;
	sockaddr_in inet, source;
	bool is_unix = !target.host.empty() && target.host[0] == '/';
	if (is_unix ? !unix_address(target, local) : !loopback_address(target.host, target.port, inet)) {
		why_ = "not a loopback address or socket directory: " + target.host;
		return false;
	}
	fd_ = ::socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd_ < 0) {
		fail("socket");
		return false;
	}
	int one = 1;
	if (!is_unix)
		setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (!is_unix && !target.source.empty() && loopback_address(target.source, 0, source)) {
		setsockopt(fd_, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
		if (::bind(fd_, reinterpret_cast<sockaddr *>(&source), sizeof source) != 0) {
			fail("bind");
			return false;
		}
	}
	const sockaddr *to = is_unix ? reinterpret_cast<sockaddr *>(&local) : reinterpret_cast<sockaddr *>(&inet);
	socklen_t size = is_unix ? sizeof local : sizeof inet;
	int result = ::connect(fd_, to, size);
	// A Unix socket answers EAGAIN while the listener's queue is full; it cannot be waited for.
	for (int tries = 0; result != 0 && is_unix && errno == EAGAIN && tries < 1000; tries++) {
		usleep(1000);
		result = ::connect(fd_, to, size);
	}
	if (result != 0 && errno != EINPROGRESS) {
		fail("connect");
		close();
		return false;
	}
	return true;
}

Channel::Io Channel::finish_connect()
{
	pollfd p{fd_, POLLOUT, 0};
	if (poll(&p, 1, 0) == 0)
		return Io::Again;
	int error = 0;
	socklen_t size = sizeof error;
	getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
	errno = error;
	return error == 0 ? Io::Ok : fail("connect");
}

Channel::Io Channel::tls_result(int result)
{
	int code = SSL_get_error(ssl_, result);
	wants_write_ = code == SSL_ERROR_WANT_WRITE;
	if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE)
		return Io::Again;
	if (code == SSL_ERROR_ZERO_RETURN)
		return Io::End;
	char text[128];
	unsigned long number = ERR_get_error();
	ERR_error_string_n(number, text, sizeof text);
	ERR_clear_error();
	why_ = std::string("TLS: ") + text;
	// A peer that closes without close_notify is an end all the same.
	return number == 0 || strstr(text, "unexpected eof") != nullptr ? Io::End : Io::Error;
}

Channel::Io Channel::handshake(const Target &target)
{
	if (ssl_ == nullptr) {
		ssl_ = SSL_new(tls_context());
		SSL_set_fd(ssl_, fd_);
		if (!target.sni.empty())
			SSL_set_tlsext_host_name(ssl_, target.sni.c_str());
		static const unsigned char alpn[] = "\x0apostgresql";
		if (target.tls == Tls::Direct)
			SSL_set_alpn_protos(ssl_, alpn, sizeof alpn - 1);
		shaking_ = true;
	}
	int result = SSL_connect(ssl_);
	if (result == 1) {
		shaking_ = false;
		wants_write_ = false;
		return Io::Ok;
	}
	Io io = tls_result(result);
	return io == Io::End ? Io::Error : io;
}

Channel::Io Channel::read(char *into, size_t size, size_t &got)
{
	got = 0;
	if (ssl_ != nullptr) {
		int result = SSL_read(ssl_, into, static_cast<int>(size));
		if (result <= 0)
			return tls_result(result);
		got = static_cast<size_t>(result);
		return Io::Ok;
	}
	ssize_t result = ::recv(fd_, into, size, 0);
	if (result > 0) {
		got = static_cast<size_t>(result);
		return Io::Ok;
	}
	if (result == 0)
		return Io::End;
	if (errno == EAGAIN || errno == EINTR)
		return Io::Again;
	return fail("recv");
}

Channel::Io Channel::write(const char *from, size_t size, size_t &sent)
{
	sent = 0;
	if (size == 0)
		return Io::Ok;
	if (ssl_ != nullptr) {
		int result = SSL_write(ssl_, from, static_cast<int>(size));
		if (result <= 0)
			return tls_result(result);
		wants_write_ = false;
		sent = static_cast<size_t>(result);
		return Io::Ok;
	}
	ssize_t result = ::send(fd_, from, size, MSG_NOSIGNAL);
	if (result >= 0) {
		sent = static_cast<size_t>(result);
		return Io::Ok;
	}
	if (errno == EAGAIN || errno == EINTR)
		return Io::Again;
	return fail("send");
}

void Channel::half_close()
{
	if (ssl_ != nullptr && !shaking_)
		SSL_shutdown(ssl_);
	::shutdown(fd_, SHUT_WR);
}

void Channel::reset()
{
	linger hard{1, 0};
	if (fd_ >= 0)
		setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
	close();
}

void Channel::close()
{
	if (ssl_ != nullptr)
		SSL_free(ssl_);
	ssl_ = nullptr;
	wants_write_ = shaking_ = false;
	if (fd_ >= 0)
		::close(fd_);
	fd_ = -1;
}

// ---- login
static Bytes hmac(const Bytes &key, const Bytes &data)
{
	unsigned char out[EVP_MAX_MD_SIZE];
	unsigned int size = 0;
	HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char *>(data.data()),
	     data.size(), out, &size);
	return Bytes(reinterpret_cast<char *>(out), size);
}

static Bytes salted_password(const Bytes &secret, const Bytes &salt, int iterations)
{
	static std::mutex lock;
	static std::map<Bytes, Bytes> known;
	Bytes name = secret + '\0' + salt + '\0' + std::to_string(iterations);
	std::lock_guard<std::mutex> hold(lock);
	Bytes &key = known[name];
	if (key.empty()) {
		key.resize(SHA256_DIGEST_LENGTH);
		PKCS5_PBKDF2_HMAC(secret.data(), static_cast<int>(secret.size()),
		                  reinterpret_cast<const unsigned char *>(salt.data()), static_cast<int>(salt.size()),
		                  iterations, EVP_sha256(), SHA256_DIGEST_LENGTH, reinterpret_cast<unsigned char *>(&key[0]));
	}
	return key;
}

Login::Step Login::fail(const std::string &why)
{
	error_ = why;
	return Step::Failed;
}

Login::Step Login::sasl_start(const Bytes &body, Bytes &out)
{
	if (body.find("SCRAM-SHA-256" + Bytes(1, '\0'), 4) == Bytes::npos)
		return fail("server offers no SCRAM-SHA-256");
	unsigned char raw[18];
	RAND_bytes(raw, sizeof raw);
	client_first_ = "n=,r=" + base64(Bytes(reinterpret_cast<char *>(raw), sizeof raw));
	Bytes first = "n,," + client_first_;
	out += wire::sasl_first("SCRAM-SHA-256", first);
	return Step::More;
}

static Bytes scram_attribute(const Bytes &text, char name)
{
	size_t at = 0;
	while (at < text.size()) {
		size_t end = text.find(',', at);
		if (end == Bytes::npos)
			end = text.size();
		if (end > at + 1 && text[at] == name && text[at + 1] == '=')
			return text.substr(at + 2, end - at - 2);
		at = end + 1;
	}
	return {};
}

Login::Step Login::sasl_continue(const Bytes &data, Bytes &out)
{
	Bytes nonce = scram_attribute(data, 'r'), salt = unbase64(scram_attribute(data, 's'));
	int iterations = atoi(scram_attribute(data, 'i').c_str());
	Bytes own = client_first_.substr(5);
	if (nonce.size() <= own.size() || nonce.compare(0, own.size(), own) != 0 || salt.empty())
		return fail("SCRAM: bad server-first-message: " + data);
	if (iterations < 1 || iterations > 1000000)
		return fail("SCRAM: bad iteration count in " + data);
	Bytes salted = salted_password(target_.password, salt, iterations);
	Bytes client_key = hmac(salted, "Client Key");
	Bytes final_bare = "c=biws,r=" + nonce;
	Bytes all = client_first_ + "," + data + "," + final_bare;
	Bytes proof = hmac(digest(EVP_sha256(), client_key), all);
	for (size_t i = 0; i < proof.size(); i++)
		proof[i] = static_cast<char>(proof[i] ^ client_key[i]);
	server_signature_ = base64(hmac(hmac(salted, "Server Key"), all));
	out += message('p', final_bare + ",p=" + base64(proof));
	return Step::More;
}

Login::Step Login::sasl_final(const Bytes &data)
{
	if (server_signature_.empty() || scram_attribute(data, 'v') != server_signature_)
		return fail("SCRAM: the server's signature is wrong");
	return Step::More;
}

Login::Step Login::authentication(const Bytes &body, Bytes &out)
{
	const uint32_t code = Reader(body).u32();
	switch (code) {
	case 0:
		return Step::More;
	case 3:
		out += password(target_.password);
		return Step::More;
	case 5:
		out += password("md5" + md5_hex(md5_hex(target_.password + target_.user) + body.substr(4, 4)));
		return Step::More;
	case 10:
		return sasl_start(body, out);
	case 11:
		return sasl_continue(body.substr(4), out);
	case 12:
		return sasl_final(body.substr(4));
	default:
		return fail("authentication request " + std::to_string(code));
	}
}

Login::Step Login::feed(const Message &m, Bytes &out)
{
	if (m.type == 'R' && m.body.size() >= 4)
		return authentication(m.body, out);
	if (m.type == 'E') {
		sqlstate_ = field(m.body, 'C');
		return fail(field(m.body, 'S') + " " + sqlstate_ + ": " + field(m.body, 'M'));
	}
	if (m.type == 'S') {
		size_t end = m.body.find('\0');
		if (end == Bytes::npos || m.body.back() != '\0')
			return fail("malformed ParameterStatus");
		parameters[m.body.substr(0, end)] = m.body.substr(end + 1, m.body.size() - end - 2);
		return Step::More;
	}
	if (m.type == 'K' && m.body.size() >= 8) {
		pid = Reader(m.body).u32();
		key = m.body.substr(4);
		return Step::More;
	}
	if (m.type == 'N' || m.type == 'v')
		return Step::More;
	if (m.type == 'Z')
		return m.body == "I" ? Step::Done : fail("first ReadyForQuery is not idle: " + brief(m));
	return fail("unexpected in login: " + brief(m));
}

// ---- blocking connection
std::string Result::value() const
{
	return rows.empty() || rows[0].empty() || !rows[0][0] ? std::string() : *rows[0][0];
}

bool Conn::wait(short events, uint64_t until)
{
	uint64_t now = now_ms();
	if (now >= until)
		return false;
	pollfd p{channel_.fd(), events, 0};
	int result = poll(&p, 1, static_cast<int>(until - now));
	return result > 0 || (result < 0 && errno == EINTR);
}

bool Conn::readable(uint64_t limit_ms)
{
	return wait(POLLIN, now_ms() + limit_ms);
}

Conn::Got Conn::next_byte(char &byte, uint64_t limit_ms)
{
	uint64_t until = now_ms() + limit_ms;
	for (;;) {
		size_t got = 0;
		Channel::Io io = channel_.read(&byte, 1, got);
		if (io == Channel::Io::Ok)
			return Got::Message;
		if (io != Channel::Io::Again)
			return Got::End;
		if (!wait(POLLIN, until))
			return Got::Timeout;
	}
}

bool Conn::connect(const Target &target, uint64_t limit_ms)
{
	uint64_t until = now_ms() + limit_ms;
	splitter_.clear();
	error_.clear();
	if (!channel_.open(target)) {
		error_ = channel_.why();
		return false;
	}
	wait(POLLOUT, until);
	if (channel_.finish_connect() != Channel::Io::Ok) {
		error_ = channel_.why().empty() ? "connect: time is up" : channel_.why();
		return false;
	}
	if (target.tls == Tls::Off)
		return true;
	char answer = 'S';
	if (target.tls == Tls::Request && !send(request(kSslRequest)))
		return false;
	if (target.tls == Tls::Request && (next_byte(answer, limit_ms) != Got::Message || answer != 'S')) {
		error_ = "server does not do TLS";
		return false;
	}
	for (;;) {
		Channel::Io io = channel_.handshake(target);
		if (io == Channel::Io::Ok)
			return true;
		if (io != Channel::Io::Again || !wait(channel_.wants_write() ? POLLOUT : POLLIN, until)) {
			error_ = io == Channel::Io::Again ? "TLS handshake: time is up" : channel_.why();
			return false;
		}
	}
}

bool Conn::login(const Target &target, uint64_t limit_ms)
{
	uint64_t until = now_ms() + limit_ms;
	sqlstate_.clear();
	if (!connect(target, limit_ms) || !send(target.startup_packet()))
		return false;
	Login exchange(target);
	for (;;) {
		Message m;
		uint64_t now = now_ms();
		Got got = next(m, until > now ? until - now : 0);
		if (got != Got::Message) {
			error_ = got == Got::Timeout ? "login: time is up" : "login: connection closed";
			return false;
		}
		Bytes out;
		Login::Step step = exchange.feed(m, out);
		if (step == Login::Step::Failed) {
			error_ = exchange.error();
			sqlstate_ = exchange.sqlstate();
			return false;
		}
		if (!out.empty() && !send(out))
			return false;
		if (step == Login::Step::Done)
			break;
	}
	pid = exchange.pid;
	key = exchange.key;
	parameters = exchange.parameters;
	return true;
}

bool Conn::send(const Bytes &bytes, uint64_t limit_ms)
{
	uint64_t until = now_ms() + limit_ms;
	size_t at = 0;
	while (at < bytes.size()) {
		size_t sent = 0;
		Channel::Io io = channel_.write(bytes.data() + at, bytes.size() - at, sent);
		at += sent;
		if (io == Channel::Io::Ok)
			continue;
		if (io != Channel::Io::Again) {
			error_ = channel_.why();
			return false;
		}
		// Read what comes meanwhile, or two full buffers would wait for each other.
		if (!wait(POLLOUT | POLLIN, until)) {
			error_ = "send: time is up";
			return false;
		}
		if (readable(0) && fill(until) == Got::End)
			return false;
	}
	return true;
}

Conn::Got Conn::fill(uint64_t until)
{
	char buffer[65536];
	for (;;) {
		size_t got = 0;
		Channel::Io io = channel_.read(buffer, sizeof buffer, got);
		if (io == Channel::Io::Ok) {
			splitter_.append(buffer, got);
			return Got::Message;
		}
		if (io != Channel::Io::Again) {
			error_ = channel_.why().empty() ? "connection closed" : channel_.why();
			return Got::End;
		}
		if (!wait(channel_.wants_write() ? POLLOUT : POLLIN, until))
			return Got::Timeout;
	}
}

Conn::Got Conn::next(Message &m, uint64_t limit_ms)
{
	uint64_t until = now_ms() + limit_ms;
	for (;;) {
		if (splitter_.next(m))
			return Got::Message;
		if (splitter_.broken()) {
			error_ = "not a message: " + hex(splitter_.rest().substr(0, 16));
			return Got::End;
		}
		Got got = fill(until);
		if (got != Got::Message)
			return got;
	}
}

Result Conn::run(const Bytes &sql, uint64_t limit_ms)
{
	Result result;
	uint64_t until = now_ms() + limit_ms;
	if (!send(query(sql))) {
		result.error = error_;
		return result;
	}
	for (;;) {
		Message m;
		uint64_t now = now_ms();
		Got got = next(m, until > now ? until - now : 0);
		if (got != Got::Message) {
			if (result.error.empty())
				result.error = got == Got::Timeout ? "query: time is up" : error_;
			return result;
		}
		if (m.type == 'D') {
			auto cells = columns(m.body);
			if (cells)
				result.rows.push_back(*cells);
		} else if (m.type == 'C') {
			result.tag = m.body.c_str();
		} else if (m.type == 'E') {
			result.error = field(m.body, 'S') + " " + field(m.body, 'C') + ": " + field(m.body, 'M');
			result.sqlstate = field(m.body, 'C');
		} else if (m.type == 'Z') {
			result.status = m.body.empty() ? '\0' : m.body[0];
			result.alive = true;
			result.ok = result.error.empty();
			return result;
		}
	}
}

void Conn::close()
{
	channel_.close();
	splitter_.clear();
}

// ---- command line
Options::Options(int argc, char **argv) : program_(argv[0])
{
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, nullptr, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		std::string word = argv[i];
		if (word.size() < 3 || word.compare(0, 2, "--") != 0) {
			fprintf(stderr, "%s: not an option: %s\n", argv[0], word.c_str());
			exit(2);
		}
		size_t equal = word.find('=');
		if (equal != std::string::npos)
			given_.emplace_back(word.substr(2, equal - 2), word.substr(equal + 1));
		else if (i + 1 < argc && strncmp(argv[i + 1], "--", 2) != 0)
			given_.emplace_back(word.substr(2), std::string(argv[++i]));
		else
			given_.emplace_back(word.substr(2), std::nullopt);
		wants_help_ = wants_help_ || given_.back().first == "help";
	}
}

std::vector<std::string> Options::list(const std::string &name, const std::string &help)
{
	std::vector<std::string> result;
	for (const auto &one : given_)
		if (one.first == name && one.second)
			result.push_back(*one.second);
	known_.push_back(name);
	help_.push_back("  --" + name + "  " + help);
	return result;
}

std::string Options::text(const std::string &name, const std::string &preset, const std::string &help)
{
	auto all = list(name, help + (preset.empty() ? "" : " (" + preset + ")"));
	return all.empty() ? preset : all.back();
}

uint64_t Options::number(const std::string &name, uint64_t preset, const std::string &help)
{
	std::string value = text(name, std::to_string(preset), help);
	char *end = nullptr;
	uint64_t result = strtoull(value.c_str(), &end, 0);
	if (value.empty() || *end != '\0') {
		fprintf(stderr, "%s: --%s wants a number, not \"%s\"\n", program_.c_str(), name.c_str(), value.c_str());
		exit(2);
	}
	return result;
}

bool Options::flag(const std::string &name, const std::string &help)
{
	list(name, help);
	for (const auto &one : given_)
		if (one.first == name && !one.second)
			return true;
	return false;
}

Target Options::target()
{
	Target t;
	t.host = text("host", t.host, "loopback address or socket directory");
	t.port = static_cast<unsigned>(number("port", t.port, "port"));
	t.user = text("user", t.user, "role");
	t.database = text("database", t.database, "database");
	t.password = text("password", "", "password");
	std::string tls = text("tls", "off", "off, request or direct");
	t.tls = tls == "request" ? Tls::Request : tls == "direct" ? Tls::Direct : Tls::Off;
	t.sni = text("sni", "", "server name for TLS");
	if (text("protocol", "3.0", "3.0 or 3.2") == "3.2")
		t.protocol = kProtocol32;
	for (const std::string &pair : list("startup", "further startup parameter, NAME=VALUE (repeatable)"))
		if (pair.find('=') != std::string::npos)
			t.params.emplace_back(pair.substr(0, pair.find('=')), pair.substr(pair.find('=') + 1));
	return t;
}

void Options::finish()
{
	bool bad = false;
	for (const auto &one : given_) {
		bool known = one.first == "help";
		for (const auto &name : known_)
			known = known || name == one.first;
		if (!known)
			fprintf(stderr, "%s: unknown option --%s\n", program_.c_str(), one.first.c_str());
		bad = bad || !known;
	}
	if (wants_help_ || bad) {
		printf("%s\n", program_.c_str());
		for (const auto &line : help_)
			printf("%s\n", line.c_str());
		exit(bad ? 2 : 0);
	}
}

uint64_t raise_file_limit(uint64_t wanted)
{
	rlimit limit{};
	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur < wanted) {
		rlimit more = limit;
		more.rlim_cur = wanted;
		more.rlim_max = wanted > limit.rlim_max ? wanted : limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &more) != 0) {
			more.rlim_cur = more.rlim_max = limit.rlim_max;
			setrlimit(RLIMIT_NOFILE, &more);
		}
		getrlimit(RLIMIT_NOFILE, &limit);
	}
	return limit.rlim_cur;
}

} // namespace rawpg
