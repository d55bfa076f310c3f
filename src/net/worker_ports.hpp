// Where a worker listens for clients: the port, the session port, the Unix sockets that the manager has bound.
//
// Owns the listeners and the rule when one is tried again: a port that another cluster holds is not listened on, what
// could not be bound is tried each second. After stop() there is none any more. Must not know clients.
#pragma once

#include <cstdint>
#include <vector>

#include "net/listener.hpp"
#include "net/worker_problem.hpp"
#include "region/control.hpp"
#include "region/layout.hpp"

namespace pgpool::net
{

class Loop;

class WorkerPorts
{
public:
	WorkerPorts(Loop &loop, region::View region, uint32_t worker, WorkerProblem &problem, Listener::Accept accept);
	WorkerPorts(const WorkerPorts &) = delete;
	WorkerPorts &operator=(const WorkerPorts &) = delete;

	void listen();
	void tick();
	void replace_unix(const control::UnixListeners &message, const std::vector<int> &fds);
	void stop();

private:
	void give_up();
	void publish();

	Loop &loop_;
	region::WorkerSlot &slot_;
	const region::Header &header_;
	WorkerProblem &problem_;
	const Listener::Accept accept_;
	std::vector<Listener *> tcp_, session_tcp_, unix_;
	int64_t listen_again_at_ = 0; // 0: all is bound
	bool stopped_ = false;
};

} // namespace pgpool::net
