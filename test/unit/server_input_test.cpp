// The bytes of a backend, split into messages without a server: the same messages and runs, however they come.
#include "core/server/server_input.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace
{

using namespace pgpool;
using core::ServerInput;
using Header = ServerInput::Header;
using Start = ServerInput::Pass::Start;

std::string message(char type, std::string_view body)
{
	std::string out;
	proto::Writer(out).begin(type).bytes(body).end();
	return out;
}

// Lower case letters are forwarded; X and x are needed whole.
struct Reader {
	ServerInput input;
	std::string forwarded, types, whole;
	bool broken = false;

	void read(std::string_view bytes)
	{
		ServerInput::Pass in(input);
		if (in.start(bytes.data(), bytes.size()) != Start::Ready)
			return;
		size_t needs = 0;
		while (in.more()) {
			if (in.go_on())
				continue;
			const Header header = in.read_header();
			broken = header == Header::Broken;
			const bool needed_whole = header == Header::Whole && tolower(in.type()) == 'x';
			if (header != Header::Whole || (needed_whole && in.have() < in.total())) {
				needs = in.total();
				break;
			}
			const std::string_view body = in.begin_message();
			if (needed_whole)
				whole += body;
			types += in.type();
			forwarded += in.take_run(in.type() == 'x'); // with this one; it comes but once
			in.end_message(islower(in.type()));
		}
		forwarded += in.take_run();
		EXPECT_TRUE(in.keep_rest(needs));
	}
};

TEST(ServerInput, MessagesAndRunsAreTheSameInWhateverPiecesTheyCome)
{
	const std::string a = message('a', "first"), x = message('x', "needed"), end = message('z', "");
	const std::string all = a + message('B', "kept back") + x + message('X', "as well") + message('C', "") + end;
	for (size_t piece = 1; piece <= all.size(); piece++) {
		for (size_t first = 0; first < piece; first++) {
			Reader r;
			r.read(std::string_view(all).substr(0, first));
			for (size_t at = first; at < all.size(); at += piece)
				r.read(std::string_view(all).substr(at, piece));
			ASSERT_EQ(r.types, "aBxXCz") << piece << " after " << first;
			ASSERT_EQ(r.whole, "neededas well") << piece << " after " << first;
			ASSERT_EQ(r.forwarded, a + x + end) << piece << " after " << first;
			ASSERT_TRUE(r.input.took_all());
		}
	}
}

TEST(ServerInput, APartOfAMessageGoesOnAtOnceAndItsPlaceIsKnown)
{
	const std::string a = message('a', "0123456789"), b = message('B', "0123456789");
	Reader r;
	r.read(std::string_view(a).substr(0, 8));
	EXPECT_EQ(r.forwarded, a.substr(0, 8));
	EXPECT_TRUE(r.input.mid_forwarded());
	EXPECT_FALSE(r.input.between_messages());
	EXPECT_FALSE(r.input.took_all());
	r.read(a.substr(8) + b.substr(0, 8));
	EXPECT_EQ(r.forwarded, a);
	EXPECT_FALSE(r.input.between_messages());
	EXPECT_FALSE(r.input.mid_forwarded()) << "the client has nothing of it";
	r.read(std::string_view(b).substr(8));
	EXPECT_EQ(r.forwarded, a);
	EXPECT_TRUE(r.input.took_all());
}

TEST(ServerInput, NotAllIsTakenWhileAMessageIsLookedAtThatOthersCameBehind)
{
	const std::string two = message('a', "") + message('a', "");
	ServerInput input;
	ServerInput::Pass in(input);
	ASSERT_EQ(in.start(two.data(), two.size()), Start::Ready);
	for (const bool last : {false, true}) {
		ASSERT_EQ(in.read_header(), Header::Whole);
		in.begin_message();
		EXPECT_TRUE(input.between_messages());
		EXPECT_EQ(input.took_all(), last);
		in.end_message(true);
	}
	EXPECT_TRUE(in.keep_rest(0));
	EXPECT_TRUE(input.took_all());
}

TEST(ServerInput, WhatIsNeededIsWaitedForWithoutALook)
{
	const std::string x = message('x', "0123456789");
	Reader r;
	r.read(std::string_view(x).substr(0, 6));
	EXPECT_FALSE(r.input.took_all());
	EXPECT_TRUE(r.input.between_messages()) << "the client has nothing of it";
	ServerInput::Pass in(r.input);
	EXPECT_EQ(in.start(x.data() + 6, 3), Start::Wait);
	r.read(std::string_view(x).substr(9));
	EXPECT_EQ(r.forwarded, x);
	r.read(std::string_view(x).substr(0, 6));
	r.input.drop();
	EXPECT_TRUE(r.input.took_all());
}

TEST(ServerInput, ALengthThatNoMessageHasIsSeen)
{
	for (const uint32_t length : {0u, 3u, proto::kMaxMessage + 2, 0xffffffffu}) {
		std::string bytes = message('a', "");
		proto::store32(bytes.data() + 1, length);
		Reader r;
		r.read(message('a', "good") + bytes);
		EXPECT_TRUE(r.broken) << length;
		EXPECT_EQ(r.forwarded, message('a', "good"));
	}
}

} // namespace
