// A socket as the core's Stream: non-blocking, watched by one uv_poll_t, plain or TLS.
//
// Owns the file descriptor and the bytes that the socket did not take. Reading goes into the loop's one buffer, so an
// idle stream owns none. Writing gathers what was queued during an event into one sendmsg(). Events are given to the
// owner from the loop only, never from within a call. It has more than 40 methods: 18 are what core wants of a stream,
// the others are steps of the one state machine below. What TLS needs to know is a class of its own (tls_records.hpp).
//
// Life: made by a listener, dial() or lead(), ended by close(), freed when libuv has let go of the handle. A
// stream that was closed with unsent bytes lives on without an owner until they went out.
//
//   Connecting -> Clear                                   a dialled one
//   Placeless -> Connecting -> Clear -> Handshake -> Tls  one that is led: its pilot may begin again with Connecting,
//                                                         by another socket, until it arrives in Clear or Tls
//   Sniffing -> Clear -> Answering -> Handshake -> Tls    an accepted one; the middle ones with an SSLRequest
//       \------------------------------^                  ... without (direct TLS)
//   Clear, Tls -> Flushing -> Lingering -> Closed         close(true); any other state, or close(false): Closed
//
// Between start_tls() and Tls nobody but the handshake reads or writes the socket: what came before it in
// clear must not be taken for a part of the session, nor the session for clear text.
#pragma once

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>

#include <sys/socket.h>
#include <sys/uio.h>
#include <uv.h>

#include "core/base/list.hpp"
#include "core/base/ports.hpp"
#include "net/tls_records.hpp"

namespace pgpool::net
{

class Loop;

// Who leads a dialled stream to its server and is its owner until then: each event is to be answered by the next step.
class Pilot : public core::StreamOwner
{
public:
	virtual void on_abandoned() = 0; // it was closed: no call to it any more
};

class SocketStream final : public core::Stream
{
public:
	// Takes the descriptor. nullptr: libuv refused it (and it is closed).
	static SocketStream *adopt(Loop &loop, int fd, const sockaddr *address, socklen_t address_length);
	static SocketStream *dial(Loop &loop, const sockaddr *address, socklen_t address_length, core::StreamOwner *owner);

	// ---- for a pilot
	static SocketStream *lead(Loop &loop, Pilot &pilot);
	void connect_to(const sockaddr *address, socklen_t length); // whatever it was connected to
	void start_tls(SslPtr client);                              // on_connected() follows once more
	void fail(const char *why);                                 // on_closed() follows; `why` is a constant
	void arrive(core::StreamOwner *owner);                      // its events are the owner's from now on
	int fd() const { return fd_; }

	void queue(const char *data, size_t size) override;
	void flush() override;
	size_t unsent() const override { return out_ ? out_->size() - out_at_ : 0; }
	int64_t blocked_since() const override { return blocked_since_; }
	bool broken() const override { return broken_; }
	uint64_t sent() const override { return sent_; }
	void read(bool on) override;
	void wipe_input(bool on) override { wipe_input_ = on; }
	void shutdown_write() override;
	void set_owner(core::StreamOwner *owner) override { owner_ = owner; }
	void close(bool flush) override;
	bool can_tls() const override;
	void start_tls() override;
	bool handshaking() const override { return state_ == State::Answering || state_ == State::Handshake; }
	const core::TlsInfo *tls() const override { return state_ == State::Tls ? &tls_->info() : nullptr; }
	core::Secrecy secrecy() const override;
	void limit(const core::TcpLimits &limits) override;
	std::string_view address() const override { return {address_, address_length_}; }
	std::string peer() const override;

	void sniff() { state_ = State::Sniffing; }
	void deferred(); // the loop comes back for what could not be done within a call
	void linger_tick(int64_t now);

	core::Hook<SocketStream> linger_hook;

private:
	enum class State : uint8_t {
		Placeless, // its pilot does not know yet where to
		Connecting,
		Sniffing, // a first byte of 0x16 is a TLS handshake without SSLRequest
		Clear,
		Answering, // the clear answer to an SSLRequest is not yet out
		Handshake,
		Tls,
		Flushing,  // closed by the owner; unsent bytes, then the end of our side, still go out
		Lingering, // ... and the peer has a moment to read them
		Closed,
	};
	static constexpr int kPieces = 4;
	static constexpr int kReadsPerEvent = 4; // one bulk connection must not starve the others

	SocketStream(Loop &loop, int fd, State state);
	~SocketStream() override = default;
	static bool try_again(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }
	static void on_poll(uv_poll_t *handle, int status, int events);
	void handle(int status, int events);
	static SocketStream *make(Loop &loop, int fd, State state);
	void connect(const sockaddr *address, socklen_t length);
	bool open() const;
	bool may_read() const;
	bool may_write() const;
	int events_wanted() const;
	void watch();
	void connected();
	void ready(int events);
	void readable();
	ssize_t receive(char *buffer, size_t size, const char *&end);
	bool sniffed();
	void begin_handshake();
	void handshake();
	ssize_t send_pieces(const iovec *pieces, int count);
	void send_kept();
	void keep(size_t skip);
	void out_of_memory();
	void linger();
	bool drained();
	void destroy();
	void defer();

	Loop &loop_;
	uv_poll_t poll_;
	core::StreamOwner *owner_ = nullptr;
	std::unique_ptr<std::string> out_; // unsent, from out_at_ on
	size_t out_at_ = 0;
	std::unique_ptr<TlsRecords> tls_; // from Handshake on
	int64_t blocked_since_ = 0;
	int64_t linger_until_ = 0;
	uint64_t sent_ = 0;
	const char *why_ = nullptr; // it failed; the owner is told when the loop comes back
	iovec pieces_[kPieces];
	int piece_count_ = 0;
	int fd_;
	int watched_ = 0;
	State state_;
	uint8_t address_length_ = 0;
	char address_[28];
	bool reading_ = true;
	bool wipe_input_ = false;
	bool broken_ = false;
	bool half_closed_ = false;
	bool deferred_ = false;
	bool led_ = false; // the owner is a Pilot
};

} // namespace pgpool::net
