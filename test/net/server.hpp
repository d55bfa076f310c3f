// A server as far as a client gets to see one before it logs in, in threads of its own.
//
// Owns the listening socket and a thread for each connection; all end with it. It answers SSLRequest as it is told, and
// then each "ping" with "pong"; a cancel request it keeps.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <openssl/ssl.h>

#include "certificates.hpp"
#include "proto/wire.hpp"

namespace fake
{

enum class Answer {
	Yes,
	No,
	Silent,         // to all
	YesAndMore,     // bytes in clear text behind the S
	YesAndSilent,   // no handshake follows
	YesAndNonsense, // what follows is none
	NoAndMore,
	Error,
	HangUp,
};

class Server
{
public:
	explicit Server(Answer answer, const Certificate *certificate = nullptr, const char *at = "127.0.0.1", int port = 0)
	    : answer_(answer), context_(SSL_CTX_new(TLS_server_method()))
	{
		if (certificate) {
			SSL_CTX_use_certificate(context_, certificate->x509.get());
			SSL_CTX_use_PrivateKey(context_, certificate->key.get());
		}
		sockaddr_in a{};
		sockaddr_un u{};
		a.sin_family = AF_INET;
		a.sin_port = htons(static_cast<uint16_t>(port));
		u.sun_family = AF_UNIX;
		const bool is_path = inet_pton(AF_INET, at, &a.sin_addr) != 1;
		if (is_path)
			strcpy(u.sun_path, at);
		listen_ = socket(is_path ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		const int on = 1;
		setsockopt(listen_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		socklen_t length = is_path ? sizeof(u) : sizeof(a);
		if (bind(listen_, is_path ? reinterpret_cast<sockaddr *>(&u) : reinterpret_cast<sockaddr *>(&a), length) != 0 ||
		    listen(listen_, 10) != 0)
			throw std::runtime_error(std::string("cannot listen at ") + at);
		if (!is_path) {
			getsockname(listen_, reinterpret_cast<sockaddr *>(&a), &length);
			port_ = ntohs(a.sin_port);
		}
		accepting_ = std::thread([this] { accept_all(); });
	}
	~Server()
	{
		over_ = true;
		release();
		shutdown(listen_, SHUT_RDWR);
		accepting_.join();
		{
			const std::lock_guard<std::mutex> lock(mutex_);
			for (const int fd : fds_)
				shutdown(fd, SHUT_RDWR);
		}
		for (std::thread &t : threads_)
			t.join();
		for (const int fd : fds_)
			close(fd);
		close(listen_);
		SSL_CTX_free(context_);
	}
	Server(const Server &) = delete;
	Server &operator=(const Server &) = delete;

	int port() const { return port_; }
	int connections() const { return connections_; }
	void hold_cancels() // the connection stays open until release()
	{
		const std::lock_guard<std::mutex> lock(mutex_);
		held_ = true;
	}
	void release()
	{
		const std::lock_guard<std::mutex> lock(mutex_);
		held_ = false;
		changed_.notify_all();
	}
	std::string cancel_request() const
	{
		const std::lock_guard<std::mutex> lock(mutex_);
		return cancel_;
	}
	std::string name_asked_for() const // SNI
	{
		const std::lock_guard<std::mutex> lock(mutex_);
		return sni_;
	}

private:
	void accept_all()
	{
		for (;;) {
			const int fd = accept4(listen_, nullptr, nullptr, SOCK_CLOEXEC);
			if (fd < 0 || over_) {
				if (fd >= 0)
					close(fd);
				return;
			}
			connections_++;
			const std::lock_guard<std::mutex> lock(mutex_);
			fds_.push_back(fd);
			threads_.emplace_back([this, fd] { serve(fd); });
		}
	}
	static void say(int fd, const std::string &bytes) { (void)!send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
	static void wait_for_end(int fd)
	{
		char c[256];
		while (read(fd, c, sizeof(c)) > 0)
			;
	}
	void serve(int fd)
	{
		char peeked[8];
		SSL *ssl = nullptr;
		const uint32_t code = recv(fd, peeked, sizeof(peeked), MSG_PEEK) == 8 ? pgpool::proto::load32(peeked + 4) : 0;
		if (code == 80877104) { // whether GSSAPI is to encrypt
			if (answer_ != Answer::Silent)
				say(fd, "N");
			wait_for_end(fd);
		} else if (code == 80877103) {
			(void)!read(fd, peeked, sizeof(peeked));
			if (answer(fd, ssl))
				speak(fd, ssl);
		} else {
			speak(fd, nullptr);
		}
		SSL_free(ssl);
		shutdown(fd, SHUT_RDWR);
	}
	// False: that was all.
	bool answer(int fd, SSL *&ssl)
	{
		char hello;
		switch (answer_) {
		case Answer::No:
			say(fd, "N");
			return true;
		case Answer::NoAndMore:
			say(fd, std::string("NR\0\0\0\10\0\0\0\0", 10));
			break;
		case Answer::YesAndMore:
			say(fd, std::string("SR\0\0\0\10\0\0\0\0", 10));
			break;
		case Answer::YesAndNonsense:
			say(fd, "S");
			(void)!recv(fd, &hello, 1, MSG_PEEK); // it has come
			say(fd, "this is no handshake");
			break;
		case Answer::YesAndSilent:
			say(fd, "S");
			break;
		case Answer::Error:
			say(fd, "E");
			break;
		case Answer::HangUp:
			return false;
		case Answer::Silent:
			break;
		case Answer::Yes:
			say(fd, "S");
			ssl = SSL_new(context_);
			SSL_set_fd(ssl, fd);
			if (SSL_accept(ssl) != 1) {
				return false;
			}
			const std::lock_guard<std::mutex> lock(mutex_);
			const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
			sni_ = name ? name : "";
			return true;
		}
		wait_for_end(fd);
		return false;
	}
	static int take(int fd, SSL *ssl, char *to, int size)
	{
		return ssl ? SSL_read(ssl, to, size) : static_cast<int>(read(fd, to, static_cast<size_t>(size)));
	}
	void speak(int fd, SSL *ssl)
	{
		char in[4096];
		int n;
		while ((n = take(fd, ssl, in, sizeof(in))) > 0) {
			if (std::string(in, static_cast<size_t>(n)) == "ping") {
				if (ssl)
					SSL_write(ssl, "pong", 4);
				else
					say(fd, "pong");
				continue;
			}
			std::unique_lock<std::mutex> lock(mutex_);
			cancel_.assign(in, static_cast<size_t>(n));
			changed_.wait(lock, [this] { return !held_ || over_; });
			return;
		}
	}

	const Answer answer_;
	SSL_CTX *context_;
	int listen_ = -1, port_ = 0;
	std::atomic<bool> over_{false};
	std::atomic<int> connections_{0};
	bool held_ = false;
	std::string cancel_, sni_;
	mutable std::mutex mutex_;
	std::condition_variable changed_;
	std::vector<int> fds_;
	std::vector<std::thread> threads_;
	std::thread accepting_;
};

} // namespace fake
