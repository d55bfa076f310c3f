// A library for LD_PRELOAD that makes the process do something wrong when a test asks for it.
//
// A process of a server that was started with it looks for $PGPOOL_FAULTS/<pid> after each wait of its event loop; the
// word in that file is the fault, which happens once, in the thread that waits. Must not know pgpool, but for the
// function that a thread calls first.
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

extern "C" void *__libc_malloc(size_t);
extern "C" void *__libc_realloc(void *, size_t);

namespace
{

enum class InBacktrace { Nothing, Fault, Hang };

std::atomic<size_t> most_memory{SIZE_MAX}; // of one allocation
std::atomic<InBacktrace> in_backtrace{InBacktrace::Nothing};

template <class F> F next(const char *name)
{
	return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

// What the compiler cannot see through.
template <class T> T opaque(T value)
{
	volatile T hidden = value;
	return hidden;
}

using Function = void (*)();

struct Object {
	virtual ~Object() = default;
	virtual void act() {}
};

int overflow(int depth)
{
	volatile char frame[4096];
	memset(const_cast<char *>(frame), depth, sizeof(frame));
	return opaque(depth) >= 0 ? overflow(depth + 1) + frame[17] : 0;
}

// The return addresses of this frame and of those above become rubbish.
__attribute__((noinline, no_stack_protector)) void smash()
{
	volatile char frame[8];
	volatile char *p = frame;
	for (int i = 0; i < opaque(512); i++)
		p[i] = static_cast<char>(0x41);
}

// ... and here the compiler's guard sees it.
__attribute__((noinline, stack_protect)) void smash_guarded()
{
	volatile char frame[64];
	volatile char *p = frame;
	for (int i = 0; i < opaque(256); i++)
		p[i] = static_cast<char>(0x41);
}

void bad_free()
{
	// The header of what comes behind, at last of the free rest of the heap.
	for (int i = 0; i < 100; i++) {
		auto *p = static_cast<char *>(malloc(50000));
		memset(p, 0x55, static_cast<size_t>(opaque(50100)));
	}
}

// The loader's lock is held by another thread for ever; whoever looks for an unwind table may wait for it.
void hold_loader_lock()
{
	std::atomic<bool> held{false};
	std::thread([&held] {
		dl_iterate_phdr(
		    [](dl_phdr_info *, size_t, void *p) {
			    *static_cast<std::atomic<bool> *>(p) = true;
			    pause();
			    return 0;
		    },
		    &held);
	}).detach();
	while (!held)
		;
	raise(SIGSEGV);
}

// Nobody reads what the process has to say.
void full_pipe()
{
	int ends[2];
	if (pipe(ends) != 0)
		return;
	dup2(ends[1], STDERR_FILENO);
	const std::string all(static_cast<size_t>(fcntl(ends[1], F_GETPIPE_SZ)), ' ');
	ssize_t rc = write(ends[1], all.data(), all.size());
	(void)rc;
	raise(SIGSEGV);
}

void thrower()
{
	throw std::runtime_error("thrown by a test");
}

void uncaught() noexcept
{
	opaque<Function>(thrower)();
}

void use_up_cpu_time()
{
	rlimit limit;
	getrlimit(RLIMIT_CPU, &limit);
	limit.rlim_cur = 1;
	setrlimit(RLIMIT_CPU, &limit);
	for (;;)
		;
}

void do_wrong(const char *what);

void in_thread(const char *what)
{
	std::string copy(what);
	std::thread([copy] {
		if (auto first = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, "_ZN6pgpool3net15use_crash_stackEv")))
			first();
		do_wrong(copy.c_str());
	}).join();
}

void do_wrong(const char *what)
{
	auto is = [what](const char *name) { return strcmp(what, name) == 0; };
	if (strncmp(what, "thread-", 7) == 0)
		in_thread(what + 7);
	else if (strncmp(what, "most-memory-", 12) == 0)
		most_memory = strtoull(what + 12, nullptr, 10);
	else if (is("bad-pc"))
		reinterpret_cast<Function>(opaque<uintptr_t>(0x1234567))();
	else if (is("null-call"))
		opaque<Function>(nullptr)();
	else if (is("non-canonical-pc"))
		reinterpret_cast<Function>(opaque<uintptr_t>(0x4141414141414141))();
	else if (is("data-as-code")) {
		static char data[64];
		reinterpret_cast<Function>(opaque(reinterpret_cast<uintptr_t>(data)))();
	} else if (is("dangling-vtable")) {
		static uintptr_t freed[2] = {0x5555555555550000, 0};
		opaque(reinterpret_cast<Object *>(freed))->act();
	} else if (is("null-store"))
		*opaque<volatile int *>(nullptr) = 1;
	else if (is("smashed-stack"))
		smash();
	else if (is("guarded-stack"))
		smash_guarded();
	else if (is("stack-overflow"))
		overflow(0);
	else if (is("abort"))
		abort();
	else if (is("illegal-instruction"))
		__builtin_trap();
	else if (is("division"))
		fprintf(stderr, "%d\n", opaque(7) / opaque(0));
	else if (is("bus-error")) {
		FILE *file = tmpfile();
		*static_cast<volatile char *>(mmap(nullptr, 4096, PROT_WRITE, MAP_SHARED, fileno(file), 0)) = 1;
	} else if (is("heap"))
		bad_free();
	else if (is("loader-lock"))
		hold_loader_lock();
	else if (is("full-pipe"))
		full_pipe();
	else if (is("fault-in-handler")) {
		in_backtrace = InBacktrace::Fault;
		*opaque<volatile int *>(nullptr) = 1;
	} else if (is("hang-in-handler")) {
		in_backtrace = InBacktrace::Hang;
		*opaque<volatile int *>(nullptr) = 1;
	} else if (is("uncaught"))
		uncaught();
	else if (is("cpu-time"))
		use_up_cpu_time();
	else
		fprintf(stderr, "there is no fault \"%s\"\n", what);
}

void look()
{
	static const char *directory = getenv("PGPOOL_FAULTS");
	char path[512], what[64] = {};
	snprintf(path, sizeof(path), "%s/%d", directory ? directory : "/nonexistent", static_cast<int>(getpid()));
	if (access(path, R_OK) != 0)
		return;
	if (FILE *file = fopen(path, "r")) {
		const bool read = fscanf(file, "%63s", what) == 1;
		fclose(file);
		unlink(path);
		if (read)
			do_wrong(what);
	}
}

} // namespace

extern "C" {

int epoll_wait(int fd, epoll_event *events, int most, int timeout)
{
	static const auto real = next<int (*)(int, epoll_event *, int, int)>("epoll_wait");
	const int n = real(fd, events, most, timeout);
	const int error = errno;
	look();
	errno = error;
	return n;
}

int epoll_pwait(int fd, epoll_event *events, int most, int timeout, const sigset_t *mask)
{
	static const auto real = next<int (*)(int, epoll_event *, int, int, const sigset_t *)>("epoll_pwait");
	const int n = real(fd, events, most, timeout, mask);
	const int error = errno;
	look();
	errno = error;
	return n;
}

int backtrace(void **frames, int most)
{
	static const auto real = next<int (*)(void **, int)>("backtrace");
	switch (in_backtrace.load()) {
	case InBacktrace::Fault:
		opaque<Function>(nullptr)();
		break;
	case InBacktrace::Hang:
		for (;;)
			pause();
	case InBacktrace::Nothing:
		break;
	}
	return real(frames, most);
}

void *malloc(size_t size)
{
	if (size > most_memory.load(std::memory_order_relaxed)) {
		errno = ENOMEM;
		return nullptr;
	}
	return __libc_malloc(size);
}

void *realloc(void *old, size_t size)
{
	if (size > most_memory.load(std::memory_order_relaxed)) {
		errno = ENOMEM;
		return nullptr;
	}
	return __libc_realloc(old, size);
}
}
