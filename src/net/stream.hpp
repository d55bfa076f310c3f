// A socket as the core's Stream: non-blocking, watched by one uv_poll_t, plain or TLS.
//
// Owns the file descriptor, the bytes that the socket did not take, and the TLS state. Reading goes into
// the loop's one buffer, so an idle stream owns none. Writing gathers what was queued during an event into
// one sendmsg(). Events are given to the owner from the loop only, never from within a call.
//
// Life: made by a listener or dial(), ended by close(), freed when libuv has let go of the handle. A
// stream that was closed with unsent bytes lingers without an owner until they went out.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <sys/socket.h>
#include <sys/uio.h>
#include <uv.h>

#include "core/list.hpp"
#include "core/ports.hpp"
#include "net/tls.hpp"

namespace pgpool::net
{

class Loop;

class SocketStream final : public core::Stream
{
public:
	// Takes the descriptor. nullptr: libuv refused it (and it is closed).
	static SocketStream *adopt(Loop &loop, int fd, const sockaddr *address, socklen_t address_length);
	static SocketStream *dial(Loop &loop, const sockaddr *address, socklen_t address_length, core::StreamOwner *owner);

	void queue(const char *data, size_t size) override;
	void flush() override;
	size_t unsent() const override { return out_ ? out_->size() - out_at_ : 0; }
	int64_t blocked_since() const override { return blocked_since_; }
	bool broken() const override { return broken_; }
	uint64_t sent() const override { return sent_; }
	void read(bool on) override;
	void shutdown_write() override;
	void set_owner(core::StreamOwner *owner) override { owner_ = owner; }
	void close(bool flush) override;
	bool can_tls() const override;
	void start_tls() override;
	const core::TlsInfo *tls() const override { return tls_ && !tls_->handshake ? &tls_->info : nullptr; }
	std::string_view address() const override { return {address_, address_length_}; }

	void sniff() { sniff_ = true; } // a first byte of 0x16 is a TLS handshake without SSLRequest
	void deferred();                // the loop comes back for what could not be done within a call
	void linger_tick(int64_t now);

	core::Hook<SocketStream> linger_hook;

private:
	struct Tls {
		SslPtr ssl;
		core::TlsInfo info;
		bool handshake = true;
		bool direct = false;
		bool want_write = false;
	};
	static constexpr int kPieces = 4;

	SocketStream(Loop &loop, int fd);
	~SocketStream() override = default;
	static void on_poll(uv_poll_t *handle, int status, int events);
	void handle(int status, int events);
	void watch();
	void connected();
	void readable();
	ssize_t receive(char *buffer, size_t size, bool &end);
	bool sniffed();
	void handshake();
	ssize_t send_pieces(const iovec *pieces, int count);
	void send_kept();
	void keep(size_t skip);
	void fail(const char *why);
	void linger();
	void destroy();
	void defer();

	Loop &loop_;
	uv_poll_t poll_;
	core::StreamOwner *owner_ = nullptr;
	std::unique_ptr<std::string> out_; // unsent, from out_at_ on
	size_t out_at_ = 0;
	std::unique_ptr<Tls> tls_;
	int64_t blocked_since_ = 0;
	int64_t linger_until_ = 0;
	uint64_t sent_ = 0;
	const char *why_ = nullptr; // it failed; the owner is told when the loop comes back
	iovec pieces_[kPieces];
	int piece_count_ = 0;
	int fd_;
	int watched_ = 0;
	uint8_t address_length_ = 0;
	char address_[28];
	bool reading_ = true;
	bool connecting_ = false;
	bool broken_ = false;
	bool half_closed_ = false;
	bool sniff_ = false;
	bool lingering_ = false;
	bool closed_ = false;
	bool deferred_ = false;
};

} // namespace pgpool::net
