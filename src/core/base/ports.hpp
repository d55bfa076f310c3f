// What the core needs from outside: byte streams, time, randomness, the manager and the other workers.
//
// Owns the interfaces only. src/net implements them on sockets and libuv, the tests with fakes and a clock
// of their own. An event (on_...) is never called from within a call to the same stream, so no method
// below can delete its caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "proto/scram.hpp"
#include "region/control.hpp"

namespace pgpool::core
{

// Most that is kept for a peer that does not read, per direction; also the size of one read.
constexpr size_t kChunk = 65536;

// Why a stream was closed (on_closed()) that could not keep what the peer does not take.
inline constexpr char kNoMemory[] = "out of memory";

struct TlsInfo {
	std::string version, cipher;
	std::string sni;
	std::string certificate_cn, certificate_dn;
	bool certificate_valid = false;
	std::string binding; // tls-server-end-point hash of our certificate
};

// Who may read what a dialled stream carries, besides its two ends. The safer, the greater.
enum class Secrecy : uint8_t {
	Clear,     // whoever is on the way
	Encrypted, // who stands in the way and shows a certificate of his own
	Verified,  // nobody: the server's certificate was verified
	Local,     // nobody: it does not leave the machine
};

// What on_closed() says when the other side's machine did not answer (TCP_USER_TIMEOUT, keepalives).
inline constexpr const char kTimedOut[] = "the connection timed out";

// Who hears of a stream. The bytes of on_data are the caller's: valid until it returns.
class StreamOwner
{
public:
	virtual ~StreamOwner() = default;
	virtual void on_connected() {} // a dialled stream is open
	virtual void on_data(const char *data, size_t size) = 0;
	virtual void on_writable() = 0;              // what was unsent has gone
	virtual void on_closed(const char *why) = 0; // end of file or an error; close() is still to be called
	virtual void on_half_closed() {}             // the peer will send no more, seen while reading is off
};

// Of a TCP connection, as TCP_KEEPIDLE and so on have them; 0 = as configured.
struct TcpLimits {
	int32_t idle, interval, count, user_timeout;
};

class Stream
{
public:
	virtual ~Stream() = default;
	virtual void limit(const TcpLimits &) {}
	// Puts bytes behind what is queued; they must stay valid until flush(), which sends them in one call
	// and copies what the socket does not take.
	virtual void queue(const char *data, size_t size) = 0;
	virtual void flush() = 0;
	virtual size_t unsent() const = 0;
	virtual int64_t blocked_since() const = 0; // monotonic microseconds, 0 = not blocked
	virtual bool broken() const = 0;           // writing failed; on_closed() will follow
	virtual uint64_t sent() const = 0;         // bytes the socket took, ever
	virtual void read(bool on) = 0;
	virtual void wipe_input(bool on) = 0; // what is read may be a password: the buffer is wiped behind on_data()
	virtual void shutdown_write() = 0;
	virtual void set_owner(StreamOwner *owner) = 0;
	// No event any more. Unsent bytes are lost, or go out within a bounded time when `flush` is true.
	virtual void close(bool flush) = 0;

	virtual bool can_tls() const = 0;
	// The next bytes are the client's handshake; nothing is heard of it until it is done, or on_closed().
	virtual void start_tls() = 0;
	virtual bool handshaking() const = 0;   // ... which is not done yet
	virtual const TlsInfo *tls() const = 0; // nullptr: clear text
	virtual Secrecy secrecy() const = 0;    // of one that is connected
	// sockaddr, empty for a Unix socket
	virtual std::string_view address() const = 0;
	virtual std::string peer() const = 0; // the same as text, for the log
};

struct ServerAddress {
	control::ServerRoute route;
	uint32_t node = 0; // its slot in the region, for ServerRoute::Node
};

// How a cancel request to a node ended.
enum class CancelEnd : uint8_t {
	Unsent, // no byte of it was sent, nor will be
	Done,   // the node closed the connection: it has acted on it
	Lost,   // sent, and who knows: it may be acted on later. Give what it was for to nobody
};

class Grammar;

class Outside
{
public:
	virtual ~Outside() = default;
	virtual int64_t now_us() = 0;   // CLOCK_MONOTONIC, as read in this event first
	virtual int64_t clock_us() = 0; // the same, read anew
	virtual int64_t wall_us() = 0;  // since 1970
	virtual void alarm() = 0;       // Clients::on_alarm() follows in a millisecond, once
	virtual void random(void *out, size_t size) = 0;
	virtual void log(std::string_view line) = 0;
	virtual Grammar &grammar() = 0;
	// The file of a database (routing/facts.hpp); false: there is none.
	virtual bool read_facts(uint32_t database, std::string &text) = 0;
	// False: there is no manager now; ask again when on_manager() says so.
	virtual bool ask_manager(const control::AuthLookup &lookup) = 0;
	// It looks at roles and databases, as soon as it is there; Engine::on_poke() follows.
	virtual void wake_manager() = 0;
	// PBKDF2 takes up to a second, so it is done beside the event loop; Questions::on_derived(id, ...) follows in a
	// later event, unless it is forgotten before. One at a time for a login; the iterations are those of the server's
	// verifier.
	virtual void derive(uint64_t id, std::string_view password, const proto::ScramVerifier &verifier) = 0;
	virtual void forget_derivation(uint64_t id) = 0;
	virtual Stream *dial(const ServerAddress &address, StreamOwner *owner) = 0; // nullptr: no socket to be had
	virtual void interrupt_backend(int32_t pid) = 0;                            // SIGINT
	virtual void terminate_backend(int32_t pid) = 0;                            // SIGTERM
	virtual void tell_worker(uint32_t worker, const void *packet, size_t size) = 0;
	// To all other workers; Clients::on_cancel_done(session) follows when each has acted on it.
	virtual void forward_cancel(const control::CancelKey &cancel, uint64_t session) = 0;
	// A cancel request with the backend's own key, to the very address that `server`, a connection to the node, goes
	// to. Engine::on_cancel_over(id, ...) follows in a later event, within some seconds: until then no other client may
	// have the server.
	virtual void cancel_on_node(uint32_t node, const Stream &server, int32_t pid, std::string_view key,
	                            uint64_t id) = 0;
	// Whether the postmaster answers there where `server`, a connection to the node, goes to: then NodeWatch::on_pulse(
	// node) follows in a later event, else nothing. False: it cannot be asked.
	[[nodiscard]] virtual bool take_pulse(uint32_t node, const Stream &server) = 0;
};

} // namespace pgpool::core
