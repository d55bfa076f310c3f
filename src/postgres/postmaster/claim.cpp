// The claim of pgpool's ports: an abstract socket for each, held as long as the server runs.
//
// Workers bind with SO_REUSEPORT, so a second cluster of the same user would silently take part of the connections. An
// abstract socket is a lock that the kernel frees with the last process that holds it. The postmaster takes it, and all
// children inherit it; what it could not have the manager takes when it is free. Anybody on the machine can make a
// socket of that name, so it counts only if it is of our user: nobody else's cluster can bind our port beside us.
// Must not know who listens.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "postgres/base/settings.hpp"
#include "postgres/base/shared.hpp"

#ifndef UDIAG_SHOW_UID // Linux 5.3
#define UDIAG_SHOW_UID 0x00000040
#define UNIX_DIAG_UID 7
#endif

namespace pgpool::postgres
{

namespace
{

enum class Claim { Held, Taken, Free };

struct Port {
	const char *setting;
	Claim claim;
	bool told;      // that a stranger has its name
	int told_error; // why it could not be claimed, 0 = nothing
};

Port ports[2] = {{"pgpool.port", Claim::Free, false, 0}, {"pgpool.session_port", Claim::Free, false, 0}};

int number_of(const Port &p)
{
	return &p == &ports[0] ? gucs.port : gucs.session_port;
}

socklen_t name_of(int port, sockaddr_un &address)
{
	memset(&address, 0, sizeof address);
	address.sun_family = AF_UNIX;
	int n = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "pgpool.%d", port);
	return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + n);
}

// One message of the kernel's list of Unix sockets. True: it is the socket of that name, and `uid` its owner's, which
// is not touched by others.
bool is_socket(const nlmsghdr *message, const char *name, size_t size, uid_t &uid)
{
	auto *body = static_cast<const unix_diag_msg *>(NLMSG_DATA(message));
	auto left = static_cast<int>(message->nlmsg_len) - static_cast<int>(NLMSG_LENGTH(sizeof *body));
	bool named = false, owned = false;
	uid_t owner = 0;

	for (auto *a = reinterpret_cast<const rtattr *>(body + 1); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type == UNIX_DIAG_NAME)
			named = RTA_PAYLOAD(a) == size && memcmp(RTA_DATA(a), name, size) == 0;
		else if (a->rta_type == UNIX_DIAG_UID && RTA_PAYLOAD(a) == sizeof owner) {
			memcpy(&owner, RTA_DATA(a), sizeof owner);
			owned = true;
		}
	}
	if (named && owned)
		uid = owner;
	return named && owned;
}

// Who made the abstract socket of that name. A socket that does not listen has no SO_PEERCRED, so the kernel's list is
// asked. False: it is not known.
bool holder(const sockaddr_un &address, socklen_t length, uid_t &uid)
{
	struct {
		nlmsghdr head;
		unix_diag_req body;
	} ask;
	alignas(nlmsghdr) static char answer[16384];
	timeval limit = {2, 0};
	size_t size = length - offsetof(sockaddr_un, sun_path);
	bool found = false, more = true;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	if (fd < 0)
		return false;
	memset(&ask, 0, sizeof ask);
	ask.head.nlmsg_len = sizeof ask;
	ask.head.nlmsg_type = SOCK_DIAG_BY_FAMILY;
	ask.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	ask.body.sdiag_family = AF_UNIX;
	ask.body.udiag_states = UINT32_MAX;
	ask.body.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_UID;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	more = send(fd, &ask, sizeof ask, 0) == static_cast<ssize_t>(sizeof ask);
	while (more) {
		ssize_t n = recv(fd, answer, sizeof answer, 0);
		auto left = static_cast<unsigned>(n > 0 ? n : 0);
		more = n > 0;
		for (auto *m = reinterpret_cast<nlmsghdr *>(answer); NLMSG_OK(m, left); m = NLMSG_NEXT(m, left)) {
			if (m->nlmsg_type == NLMSG_DONE || m->nlmsg_type == NLMSG_ERROR)
				more = false;
			else if (is_socket(m, address.sun_path, size, uid))
				found = true;
		}
	}
	close(fd);
	return found;
}

void tell(Port &p, const char *name, uid_t uid)
{
	if (std::exchange(p.told, true))
		return;
	ereport(LOG, (errmsg("abstract socket \"@%s\" is held by a process of user %u, not by a server of this one: "
	                     "pgpool listens on port %d without it",
	                     name, static_cast<unsigned>(uid), number_of(p)),
	              errhint("A second cluster of this user with the same %s would not be noticed.", p.setting)));
}

Claim claim(Port &p)
{
	sockaddr_un address;
	socklen_t size = name_of(number_of(p), address);
	uid_t uid = 0;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && bind(fd, reinterpret_cast<sockaddr *>(&address), size) == 0) {
		p.told_error = 0;
		p.told = false;
		return Claim::Held; // kept open on purpose
	}
	int error = errno;
	if (fd >= 0)
		close(fd);
	if (error != EADDRINUSE) {
		errno = error;
		if (std::exchange(p.told_error, error) != error)
			ereport(LOG, (errmsg("pgpool could not claim port %d: %m", number_of(p))));
		return Claim::Free;
	}
	p.told_error = 0;
	if (!holder(address, size, uid) || uid == geteuid()) {
		p.told = false;
		return Claim::Taken;
	}
	tell(p, address.sun_path + 1, uid);
	return Claim::Free;
}

// Claims what is not held. True: another cluster has one of the ports, which is told when it is new.
bool look_at_ports()
{
	bool known = region_view.header()->port_taken.load() != 0, taken = false;

	for (Port &p : ports) {
		if (number_of(p) == 0)
			continue;
		if (p.claim != Claim::Held)
			p.claim = claim(p);
		if (p.claim != Claim::Taken)
			continue;
		taken = true;
		if (!known)
			ereport(WARNING,
			        (errmsg("pgpool does not listen: another cluster on this machine uses port %d for its pooler",
			                number_of(p)),
			         errhint("Set %s to a free port and restart, or stop the other cluster.", p.setting)));
	}
	region_view.header()->port_taken.store(taken);
	return taken;
}

} // namespace

void claim_ports()
{
	(void)look_at_ports();
}

// In the manager: true if workers may listen again.
bool claim_ports_again()
{
	bool was_taken = region_view.header()->port_taken.load() != 0;

	if (look_at_ports() || !was_taken)
		return false;
	ereport(LOG, (errmsg("the other cluster has left pgpool's ports: listening on port %d", gucs.port)));
	return true;
}

} // namespace pgpool::postgres
