// Control channels: sequenced-packet sockets below PGDATA/pgpool.
//
// Owns connecting, sending and bounded receiving for processes that are attached to PostgreSQL (manager and
// backends). Must not know what the packets mean.
#include <cerrno>
#include <cstdio>
#include <cstring>

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "postgres/base/shared.hpp"

extern "C" {
#include "utils/timestamp.h"
}

namespace pgpool::postgres
{

namespace
{

bool address_of(const char *path, sockaddr_un &to)
{
	memset(&to, 0, sizeof to);
	to.sun_family = AF_UNIX;
	const size_t size = strlen(path) + 1;
	if (size > sizeof to.sun_path) {
		errno = ENAMETOOLONG;
		return false;
	}
	memcpy(to.sun_path, path, size);
	return true;
}

int fail(int fd)
{
	int saved = errno;

	close(fd);
	errno = saved;
	return -1;
}

int socket_for(const char *path, sockaddr_un &address)
{
	return address_of(path, address) ? socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
}

} // namespace

int channel_listen(const char *path)
{
	sockaddr_un address;
	int fd = socket_for(path, address);

	if (fd < 0)
		return -1;
	(void)unlink(path); // there is one manager; what is left is of a former one
	if (bind(fd, reinterpret_cast<sockaddr *>(&address), sizeof address) < 0 || chmod(path, 0600) < 0 ||
	    listen(fd, 128) < 0)
		return fail(fd);
	return fd;
}

int channel_connect(const char *path)
{
	sockaddr_un address;
	int fd = socket_for(path, address);

	if (fd < 0)
		return -1;
	// a full backlog answers EAGAIN at once; a process that hangs must not hang us
	if (connect(fd, reinterpret_cast<sockaddr *>(&address), sizeof address) < 0)
		return fail(fd);
	return fd;
}

int channel_connect_worker(uint32_t worker)
{
	char path[64];

	snprintf(path, sizeof path, control::kWorkerSocketFormat, worker);
	return channel_connect(path);
}

bool channel_send(int fd, const void *packet, size_t size)
{
	ssize_t n;

	do
		n = send(fd, packet, size, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n == static_cast<ssize_t>(size);
}

bool packet_valid(const void *packet, size_t size)
{
	control::Head head;

	if (size < sizeof head)
		return false;
	memcpy(&head, packet, sizeof head);
	return head.magic == control::kMagic && head.version == region::kVersion && head.size == size;
}

int channel_receive(int fd, void *buffer, size_t room, TimestampTz deadline)
{
	for (;;) {
		ssize_t n = recv(fd, buffer, room, MSG_DONTWAIT | MSG_TRUNC);

		if (n == 0)
			return 0;
		if (n > 0)
			return static_cast<size_t>(n) <= room && packet_valid(buffer, n) ? static_cast<int>(n) : -1;
		if (errno != EAGAIN && errno != EINTR)
			return 0;
		CHECK_FOR_INTERRUPTS();
		long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		if (left <= 0)
			return 0;
		pollfd p = {fd, POLLIN, 0};
		(void)poll(&p, 1, static_cast<int>(left > 100 ? 100 : left));
	}
}

} // namespace pgpool::postgres
