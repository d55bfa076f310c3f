// The way to another node: its addresses in turn, and TLS as its sslmode says.
//
// Owns the dials on their way. Each leads a stream (stream.hpp) until the server may be spoken to, within a bounded
// time for the name and for each address:
//
//   Resolving -> Connecting -> Asking -> Handshake -> over
//                  ^  \           \______________________^   sslmode disable, a Unix socket; prefer, and it says no
//                  |___\___________|__________|              the next address; Resolving, if the addresses were old
//                  ones
//
// Must not know sessions, nor what is said on a stream that has arrived.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "core/base/ports.hpp"
#include "net/node_book.hpp"
#include "net/stream.hpp"
#include "net/tls_client.hpp"

namespace pgpool::net
{

class NodeDialer
{
public:
	NodeDialer(Loop &loop, NodeBook::Slots slots);
	~NodeDialer();
	NodeDialer(const NodeDialer &) = delete;
	NodeDialer &operator=(const NodeDialer &) = delete;

	// nullptr: no socket to be had. Whatever else is wrong, on_closed() tells.
	SocketStream *dial(uint32_t node, core::StreamOwner *owner);
	SocketStream *dial_at(uint32_t node, const NodeAddress &address,
	                      core::StreamOwner *owner); // there, and nowhere else
	void reload() { tls_.reload(); }                 // files of certificates may be others now
	void tick();

private:
	class Dial;

	SocketStream *lead(std::unique_ptr<Dial> dial);

	Loop &loop_;
	NodeBook book_;
	TlsClients tls_;
	std::unordered_map<const Dial *, std::unique_ptr<Dial>> dials_;
};

} // namespace pgpool::net
