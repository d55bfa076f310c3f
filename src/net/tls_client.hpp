// TLS to nodes, as a client: whose certificate is trusted, and what of it must fit, by the node's sslmode.
//
// Owns an SSL_CTX for each root certificate file in use, made when it is first needed and anew after a reload. One that
// cannot be loaded is no TLS: no connection falls back to another. The port's own certificate is another matter
// (tls.hpp). Must not know streams, nor how a server is asked for TLS.
#pragma once

#include <map>
#include <string>

#include "net/tls.hpp"
#include "region/nodes.hpp"

namespace pgpool::net
{

// As libpq: with a root certificate of its own, `require` verifies, too.
inline bool verifies(region::SslMode mode, const std::string &root)
{
	return mode >= region::SslMode::VerifyCa || (mode == region::SslMode::Require && !root.empty());
}

class TlsClients
{
public:
	// On this socket. nullptr: `why`. `host` is a name or an address as text; `root` a file, "" = those of the system.
	SslPtr connect(int fd, region::SslMode mode, const std::string &root, const std::string &host, std::string &why);
	void reload() { contexts_.clear(); }

private:
	SSL_CTX *context(bool verify, const std::string &root, std::string &why);

	std::map<std::string, SslContextPtr>
	    contexts_; // by the file, with a letter before it that says whether it verifies
};

} // namespace pgpool::net
