// slowsock.so: sockets that are slow, short or not ready, for the workers of a test cluster.
//
// Preloaded into the postmaster (LD_PRELOAD), it stands before recv, send, sendmsg, read and write, the calls under
// src/net and under OpenSSL, in processes that are called "pgpool worker". It owns the faults alone: what the calls
// mean stays the kernel's. Only stream sockets are touched; control sockets, pipes and files are not. Every fault is
// one that a kernel may show: epoll is level-triggered, so a call that said EAGAIN is made again.
//
// PGPOOL_SOCKETS, parts separated by commas (nothing: no fault):
//   delay=N     N microseconds go by behind each write: the peer's next bytes are there before the worker reads
//   short=N     no call moves more than N bytes
//   again=N     each N-th call of a socket and direction says EAGAIN
//   tcp         only clients that came by TCP, not the servers
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

namespace
{

struct Faults {
	unsigned delay_us = 0, again = 0;
	size_t most = SIZE_MAX;
	bool tcp_only = false;
};

constexpr int kMostFiles = 65536;
constexpr int kLooks = 200; // at the name of a process, which is set soon after its start

template <class F> F *next(const char *name)
{
	return reinterpret_cast<F *>(dlsym(RTLD_NEXT, name));
}

// Looked up at the first call: that may come before this library's own start.
#define REAL(name, ...)                                                                                                \
	auto *real_##name()                                                                                                \
	{                                                                                                                  \
		static auto *const f = next<ssize_t(__VA_ARGS__)>(#name);                                                      \
		return f;                                                                                                      \
	}
REAL(recv, int, void *, size_t, int)
REAL(send, int, const void *, size_t, int)
REAL(sendmsg, int, const msghdr *, int)
REAL(read, int, void *, size_t)
REAL(write, int, const void *, size_t)
#undef REAL

Faults read_faults()
{
	Faults f;
	const char *text = getenv("PGPOOL_SOCKETS");
	for (const char *p = text; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : nullptr) {
		if (strncmp(p, "delay=", 6) == 0)
			f.delay_us = static_cast<unsigned>(atoi(p + 6));
		else if (strncmp(p, "short=", 6) == 0)
			f.most = static_cast<size_t>(atoi(p + 6));
		else if (strncmp(p, "again=", 6) == 0)
			f.again = static_cast<unsigned>(atoi(p + 6));
		else if (strncmp(p, "tcp", 3) == 0)
			f.tcp_only = true;
	}
	return f;
}

bool is_worker()
{
	static std::atomic<pid_t> looked_at{0}, worker{0};
	static std::atomic<int> looks{0};
	const pid_t pid = getpid();
	if (worker.load(std::memory_order_relaxed) == pid)
		return true;
	if (looked_at.exchange(pid) != pid)
		looks = 0;
	if (looks++ > kLooks)
		return false;
	char name[256] = "";
	const int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	const ssize_t n = real_read()(fd, name, sizeof(name) - 1);
	close(fd);
	if (n <= 0 || !strstr(name, "pgpool worker"))
		return false;
	worker = pid;
	return true;
}

// nullptr: nothing to do with this call.
const Faults *faults_of(int fd)
{
	static const Faults faults = read_faults();
	if ((faults.delay_us == 0 && faults.again == 0 && faults.most == SIZE_MAX) || !is_worker())
		return nullptr;
	int type = 0, domain = 0;
	socklen_t length = sizeof(type);
	const int kept = errno;
	const bool stream = getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_STREAM;
	length = sizeof(domain);
	const bool tcp = stream && getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain != AF_UNIX;
	errno = kept;
	return stream && (tcp || !faults.tcp_only) ? &faults : nullptr;
}

bool says_again(const Faults &f, int fd, int direction)
{
	static std::atomic<unsigned> calls[kMostFiles][2];
	if (f.again == 0 || fd < 0 || fd >= kMostFiles || ++calls[fd][direction] % f.again != 0)
		return false;
	errno = EAGAIN;
	return true;
}

size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

template <class F> ssize_t faulty_read(int fd, size_t size, F call)
{
	const Faults *f = faults_of(fd);
	if (!f)
		return call(size);
	return says_again(*f, fd, 0) ? -1 : call(least(size, f->most));
}

template <class F> ssize_t faulty_write(int fd, size_t size, F call)
{
	const Faults *f = faults_of(fd);
	if (!f)
		return call(size);
	if (says_again(*f, fd, 1))
		return -1;
	const ssize_t n = call(least(size, f->most));
	const int kept = errno;
	if (f->delay_us > 0)
		usleep(f->delay_us);
	errno = kept;
	return n;
}

} // namespace

extern "C" {

ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
	return faulty_read(fd, size, [=](size_t n) { return real_recv()(fd, buffer, n, flags); });
}

ssize_t read(int fd, void *buffer, size_t size)
{
	return faulty_read(fd, size, [=](size_t n) { return real_read()(fd, buffer, n); });
}

ssize_t send(int fd, const void *buffer, size_t size, int flags)
{
	return faulty_write(fd, size, [=](size_t n) { return real_send()(fd, buffer, n, flags); });
}

ssize_t write(int fd, const void *buffer, size_t size)
{
	return faulty_write(fd, size, [=](size_t n) { return real_write()(fd, buffer, n); });
}

ssize_t sendmsg(int fd, const msghdr *m, int flags)
{
	size_t size = 0;
	for (size_t i = 0; i < m->msg_iovlen; i++)
		size += m->msg_iov[i].iov_len;
	return faulty_write(fd, size, [=](size_t n) {
		if (n == size)
			return real_sendmsg()(fd, m, flags);
		for (size_t i = 0; i < m->msg_iovlen; i++) { // the first piece that has bytes, in part
			if (m->msg_iov[i].iov_len > 0)
				return real_send()(fd, m->msg_iov[i].iov_base, least(n, m->msg_iov[i].iov_len), flags);
		}
		return real_sendmsg()(fd, m, flags);
	});
}
}
