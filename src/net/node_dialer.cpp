// See node_dialer.hpp.
#include "net/node_dialer.hpp"

#include <utility>

#include "net/loop.hpp"
#include "proto/wire.hpp"

#include "net/no_postgres.hpp"

namespace pgpool::net
{

namespace
{

// Microseconds.
constexpr int64_t kLookupTime = 5000000;
constexpr int64_t kAddressTime = 1000000; // to connect to one address, TLS included

// What a node was sent, its machine must acknowledge within some seconds; seconds and, the last one, milliseconds.
// Reads that can be served elsewhere do not wait for that (core/pool/node_watch.hpp).
constexpr core::TcpLimits kNodeLimits{2, 1, 3, 5000};

constexpr uint32_t kSslRequest = 80877103;

} // namespace

// ---- one dial

class NodeDialer::Dial final : public Pilot
{
public:
	// `only`: the one address to try, nullptr: those of the node.
	Dial(NodeDialer &all, std::shared_ptr<Node> node, const NodeAddress *only, core::StreamOwner *owner)
	    : all_(all), node_(std::move(node)), owner_(owner), only_(only != nullptr)
	{
		if (only)
			addresses_.push_back(*only);
	}

	SocketStream *begin();
	void found(const Node &node);
	void tick(int64_t now);

	// Pilot
	void on_connected() override;
	void on_data(const char *data, size_t size) override;
	void on_writable() override {}
	void on_closed(const char *why) override;
	void on_abandoned() override { all_.dials_.erase(this); }

private:
	enum class Step { Resolving, Connecting, Asking, Handshake };

	void next_address();
	void start(Step step, int64_t time);
	void look_up();
	void ask();
	void shake_hands();
	void note(const char *why);
	const char *advice() const;
	void arrive();
	void give_up();

	NodeDialer &all_;
	const std::shared_ptr<Node> node_;
	core::StreamOwner *const owner_;
	SocketStream *stream_ = nullptr;
	std::vector<NodeAddress> addresses_;
	size_t at_ = 0; // in `addresses_`: the next one
	int64_t deadline_ = 0;
	Step step_ = Step::Resolving;
	Step furthest_ = Step::Resolving;
	bool looked_up_ = false; // for this dial: where nobody is now, nobody will be
	bool plain_ = false;     // prefer: TLS has failed at this address
	const bool only_;
	std::string detail_;   // of the present problem
	std::string problems_; // so far, each with its address
};

// What is wrong at once is told in a later event, too.
SocketStream *NodeDialer::Dial::begin()
{
	stream_ = SocketStream::lead(all_.loop_, *this);
	if (!stream_)
		return nullptr;
	if (!node_) {
		stream_->fail("there is no such node any more");
	} else if (only_) {
		next_address();
	} else if (all_.book_.fresh(*node_)) {
		addresses_ = node_->addresses;
		next_address();
	} else {
		look_up();
	}
	return stream_;
}

void NodeDialer::Dial::start(Step step, int64_t time)
{
	step_ = step;
	furthest_ = std::max(furthest_, step);
	if (time > 0)
		deadline_ = all_.loop_.now_us() + time;
}

void NodeDialer::Dial::look_up()
{
	looked_up_ = true;
	start(Step::Resolving, kLookupTime);
	if (!all_.book_.look_up(node_))
		stream_->fail("the name could not be looked up");
}

void NodeDialer::Dial::found(const Node &node)
{
	if (step_ != Step::Resolving || &node != node_.get())
		return;
	addresses_ = node.addresses;
	at_ = 0;
	next_address();
}

void NodeDialer::Dial::next_address()
{
	if (at_ == addresses_.size()) {
		stream_->fail("the name has no address");
		return;
	}
	const NodeAddress &a = addresses_[at_++];
	start(Step::Connecting, kAddressTime);
	stream_->connect_to(a.get(), a.length);
}

void NodeDialer::Dial::tick(int64_t now)
{
	if (deadline_ == 0 || now < deadline_)
		return;
	deadline_ = 0;
	switch (step_) {
	case Step::Resolving:
		stream_->fail("the name could not be looked up in 5 s");
		break;
	case Step::Connecting:
		stream_->fail("no answer in 1 s");
		break;
	case Step::Asking:
		stream_->fail("no answer to SSLRequest in 1 s");
		break;
	case Step::Handshake:
		stream_->fail("no TLS handshake in 1 s");
		break;
	}
}

void NodeDialer::Dial::on_connected()
{
	if (step_ == Step::Handshake || plain_ || node_->mode == region::SslMode::Disable || node_->is_socket())
		arrive();
	else
		ask();
}

void NodeDialer::Dial::ask()
{
	char request[8];
	proto::store32(request, sizeof(request));
	proto::store32(request + 4, kSslRequest);
	start(Step::Asking, 0);
	stream_->queue(request, sizeof(request));
	stream_->flush();
}

// One byte. What comes with it is in clear text, and whoever put it there wants it to be taken for a part of what is
// encrypted.
void NodeDialer::Dial::on_data(const char *data, size_t size)
{
	if (size != 1)
		stream_->fail("bytes came behind the answer to SSLRequest");
	else if (*data == 'S')
		shake_hands();
	else if (*data != 'N')
		stream_->fail("the answer to SSLRequest was neither yes nor no");
	else if (node_->mode == region::SslMode::Prefer)
		arrive();
	else
		stream_->fail("the server does not do TLS");
}

void NodeDialer::Dial::shake_hands()
{
	SslPtr ssl = all_.tls_.connect(stream_->fd(), node_->mode, node_->root, node_->host, detail_);
	start(Step::Handshake, 0);
	if (ssl)
		stream_->start_tls(std::move(ssl));
	else
		stream_->fail("TLS could not be begun");
}

// The next step, or the end.
void NodeDialer::Dial::on_closed(const char *why)
{
	const bool was_shaking = step_ == Step::Handshake;
	note(why);
	if (was_shaking && node_->mode == region::SslMode::Prefer && !plain_) {
		plain_ = true; // as libpq: a server that cannot do it may do without
		at_--;
		next_address();
	} else if (at_ < addresses_.size()) {
		plain_ = false;
		next_address();
	} else if (!only_ && node_ && !node_->fixed && !looked_up_) {
		plain_ = false;
		NodeBook::doubt(*node_);
		look_up();
	} else {
		give_up();
	}
}

void NodeDialer::Dial::note(const char *why)
{
	if (!problems_.empty())
		problems_ += "; ";
	if (at_ > 0 && step_ != Step::Resolving)
		problems_ += addresses_[at_ - 1].text() + ": ";
	problems_ += why;
	if (step_ == Step::Resolving && node_)
		detail_ = node_->problem;
	if (!detail_.empty())
		problems_ += " (" + std::exchange(detail_, {}) + ")";
}

// What to do about it.
const char *NodeDialer::Dial::advice() const
{
	switch (furthest_) {
	case Step::Resolving:
		return "correct its host with pgpool.alter_replica(), or the name server";
	case Step::Connecting:
		return "see whether PostgreSQL runs there, listens on that address and port, and no firewall is between";
	case Step::Asking:
		return "see that it is PostgreSQL that listens there, with ssl = on, or set another sslmode with "
		       "pgpool.alter_replica()";
	case Step::Handshake:
		return "see its certificate, and sslrootcert and sslmode with pgpool.alter_replica()";
	}
	return "";
}

void NodeDialer::Dial::arrive()
{
	core::StreamOwner *const owner = owner_;
	if (!only_)
		NodeBook::works(*node_, addresses_[at_ - 1]);
	stream_->limit(kNodeLimits);
	stream_->arrive(owner);
	all_.dials_.erase(this); // and with it this object
	owner->on_connected();
}

void NodeDialer::Dial::give_up()
{
	core::StreamOwner *const owner = owner_;
	const std::string why = node_ ? node_->text() + ": " + problems_ + "; " + advice() : problems_;
	if (node_ && !only_)
		NodeBook::doubt(*node_);
	stream_->arrive(owner);
	all_.dials_.erase(this);
	owner->on_closed(why.c_str());
}

// ---- all of them

NodeDialer::NodeDialer(Loop &loop, NodeBook::Slots slots)
    : loop_(loop), book_(loop, std::move(slots), [this](const Node &node) {
	      for (auto &d : dials_)
		      d.second->found(node);
      })
{
}

NodeDialer::~NodeDialer() = default;

SocketStream *NodeDialer::lead(std::unique_ptr<Dial> dial)
{
	SocketStream *stream = dial->begin();
	if (stream)
		dials_[dial.get()] = std::move(dial);
	return stream;
}

SocketStream *NodeDialer::dial(uint32_t node, core::StreamOwner *owner)
{
	return lead(std::make_unique<Dial>(*this, book_.find(node), nullptr, owner));
}

SocketStream *NodeDialer::dial_at(uint32_t node, const NodeAddress &address, core::StreamOwner *owner)
{
	return lead(std::make_unique<Dial>(*this, book_.find(node), &address, owner));
}

void NodeDialer::tick()
{
	const int64_t now = loop_.now_us();
	for (auto &d : dials_)
		d.second->tick(now); // tells nobody yet
}

} // namespace pgpool::net
