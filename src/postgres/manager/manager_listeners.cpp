// Unix sockets on which workers accept clients.
//
// Owns .s.PGSQL.<port> files of the pooler in the server's unix_socket_directories, with the server's
// permissions. The manager makes them, because a path can be bound once and every worker must share it.
// Must not know the links over which workers get them.
#include <cerrno>
#include <cstring>

#include <grp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "postgres/manager/manager.hpp"
#include "postgres/base/settings.hpp"

extern "C" {
#include "storage/ipc.h"
#include "utils/varlena.h"
#include "postmaster/postmaster.h"
}

namespace pgpool::postgres
{

namespace
{

Listeners all;
char paths[2 * kMaxListeners][sizeof(sockaddr_un::sun_path)];
int path_count;

void remove_files(int, Datum)
{
	for (int i = 0; i < path_count; i++)
		(void)unlink(paths[i]);
}

// A file is in the way. Nobody answers: it is left over. Somebody answers: after a crash of the manager that
// is our own workers, who hold the former listener; the kernel names the process that called listen().
bool may_remove(const sockaddr_un &address, int former_manager)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	ucred owner{};
	socklen_t size = sizeof owner;

	if (fd < 0)
		return false;
	bool answers = connect(fd, reinterpret_cast<const sockaddr *>(&address), sizeof address) == 0 || errno == EAGAIN;
	// EAGAIN: its queue is full, so somebody listens. A pid that is nobody's was the manager of a server that is gone.
	bool ours = answers && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &owner, &size) == 0 && owner.pid > 0 &&
	            (owner.pid == former_manager || (kill(owner.pid, 0) < 0 && errno == ESRCH));
	close(fd);
	return !answers || ours;
}

bool give_permissions(const char *path)
{
	const char *group = Unix_socket_group;

	if (group && *group) {
		char *end;
		gid_t gid = static_cast<gid_t>(strtoul(group, &end, 10));
		if (*end != '\0') {
			const struct group *g = getgrnam(group);
			if (g == nullptr)
				return false;
			gid = g->gr_gid;
		}
		if (chown(path, static_cast<uid_t>(-1), gid) < 0)
			return false;
	}
	return chmod(path, Unix_socket_permissions) == 0;
}

int listen_in(const char *directory, int port, int former_manager)
{
	sockaddr_un address{};
	struct stat st;

	address.sun_family = AF_UNIX;
	int n = snprintf(address.sun_path, sizeof address.sun_path, "%s/.s.PGSQL.%d", directory, port);
	if (n >= static_cast<int>(sizeof address.sun_path)) {
		manager_problem("path of a Unix socket in \"%s\" is too long", directory);
		return -1;
	}
	if (lstat(address.sun_path, &st) == 0) {
		if (!S_ISSOCK(st.st_mode) || !may_remove(address, former_manager)) {
			manager_problem("Unix socket \"%s\" is used by another process", address.sun_path);
			return -1;
		}
		(void)unlink(address.sun_path);
	}
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && bind(fd, reinterpret_cast<sockaddr *>(&address), sizeof address) == 0) {
		strlcpy(paths[path_count++], address.sun_path, sizeof paths[0]);
		if (give_permissions(address.sun_path) && listen(fd, gucs.listen_backlog) == 0)
			return fd;
	}
	manager_problem("could not listen on Unix socket \"%s\": %s", address.sun_path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

int listen_on_port(int port, int former_manager, int *to)
{
	char *copy = pstrdup(server_setting("unix_socket_directories"));
	List *list = NIL;
	ListCell *cell;
	int count = 0;

	if (port != 0 && SplitDirectoriesString(copy, ',', &list)) {
		foreach (cell, list) {
			const char *directory = static_cast<const char *>(lfirst(cell));
			if (directory[0] == '@' || count == kMaxListeners)
				continue; // an abstract socket has no permissions
			int fd = listen_in(directory, port, former_manager);
			if (fd >= 0)
				to[count++] = fd;
		}
	}
	return count;
}

} // namespace

const Listeners &listeners_open(int former_manager)
{
	if (region_view.header()->port_taken.load())
		return all;
	on_proc_exit(remove_files, 0);
	all.transaction_count = listen_on_port(gucs.port, former_manager, all.fd);
	all.session_count = listen_on_port(gucs.session_port, former_manager, all.fd + all.transaction_count);
	return all;
}

const Listeners &listeners()
{
	return all;
}

} // namespace pgpool::postgres
