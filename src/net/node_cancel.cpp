// See node_cancel.hpp.
#include "net/node_cancel.hpp"

#include <cstring>
#include <string>
#include <vector>

#include "net/loop.hpp"
#include "net/node_dialer.hpp"
#include "proto/wire.hpp"

#include "net/no_postgres.hpp"

namespace pgpool::net
{

namespace
{

constexpr int64_t kTime = 6000000; // for all of it, microseconds
constexpr uint32_t kCancelRequest = 80877102;

std::string cancel_request(int32_t pid, std::string_view key)
{
	std::string out(12, '\0');
	proto::store32(&out[0], static_cast<uint32_t>(out.size() + key.size()));
	proto::store32(&out[4], kCancelRequest);
	proto::store32(&out[8], static_cast<uint32_t>(pid));
	return out.append(key);
}

} // namespace

class NodeCancels::Cancel final : public core::StreamOwner
{
public:
	Cancel(NodeCancels &all, std::string request, uint64_t id)
	    : all_(all), deadline_(all.loop_.now_us() + kTime), request_(std::move(request)), id_(id)
	{
	}

	void begin(core::Stream *stream) { stream_ = stream; }
	bool late(int64_t now) const { return !stream_ || now > deadline_; }
	void end(bool closed_by_node);

	void on_connected() override
	{
		sent_ = true;
		stream_->queue(request_.data(), request_.size());
		stream_->flush();
	}
	void on_data(const char *, size_t) override {} // a node says nothing
	void on_writable() override {}
	void on_closed(const char *why) override { end(strcmp(why, "end of file") == 0); }

private:
	NodeCancels &all_;
	const int64_t deadline_;
	const std::string request_;
	const uint64_t id_;
	core::Stream *stream_ = nullptr; // there was none to be had
	bool sent_ = false;
};

void NodeCancels::Cancel::end(bool closed_by_node)
{
	NodeCancels &all = all_;
	const uint64_t id = id_;
	const core::CancelEnd end = !sent_           ? core::CancelEnd::Unsent
	                            : closed_by_node ? core::CancelEnd::Done
	                                             : core::CancelEnd::Lost;
	if (stream_)
		stream_->close(false);
	all.running_.erase(this); // and with it this object
	all.over_(id, end);
}

NodeCancels::NodeCancels(Loop &loop, NodeDialer &dialer, Over over)
    : loop_(loop), dialer_(dialer), over_(std::move(over))
{
}

NodeCancels::~NodeCancels() = default;

void NodeCancels::start(uint32_t node, const SocketStream &server, int32_t pid, std::string_view key, uint64_t id)
{
	auto cancel = std::make_unique<Cancel>(*this, cancel_request(pid, key), id);
	NodeAddress address;
	address.length = sizeof(address.to);
	// A server that is not connected any more runs nothing.
	if (getpeername(server.fd(), reinterpret_cast<sockaddr *>(&address.to), &address.length) == 0)
		cancel->begin(dialer_.dial_at(node, address, cancel.get()));
	running_[cancel.get()] = std::move(cancel);
}

void NodeCancels::tick()
{
	const int64_t now = loop_.now_us();
	std::vector<Cancel *> late;
	for (auto &c : running_) {
		if (c.second->late(now))
			late.push_back(c.second.get());
	}
	for (Cancel *c : late)
		c->end(false);
}

} // namespace pgpool::net
