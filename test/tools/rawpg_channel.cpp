// rawpg: one socket, plain or TLS. See rawpg.hpp.
//
// Sockets are non-blocking without exception; whoever waits does it with poll and a limit. Must not know messages.
#include "rawpg.hpp"

#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace rawpg
{

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

} // namespace rawpg
