// rawpg: a connection that waits, always with a limit. See rawpg.hpp.
#include "rawpg.hpp"

#include <cerrno>
#include <poll.h>

namespace rawpg
{

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

} // namespace rawpg
