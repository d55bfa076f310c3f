// The list whose items end each other, and the value that leaves nothing of itself.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "core/base/list.hpp"
#include "proto/secret.hpp"

namespace
{

using namespace pgpool;

struct Item {
	int number = 0;
	core::Hook<Item> hook;
};
using Items = core::List<Item, &Item::hook>;

// Goes through ten items; f may do anything to the list. The numbers that were seen.
std::vector<int> walk(const std::function<void(Items &, std::vector<Item> &, Item *)> &f)
{
	std::vector<Item> all(10);
	Items list;
	for (int i = 0; i < 10; i++) {
		all[static_cast<size_t>(i)].number = i;
		list.push_back(&all[static_cast<size_t>(i)]);
	}
	std::vector<int> seen;
	list.each([&](Item *item) {
		seen.push_back(item->number);
		f(list, all, item);
	});
	return seen;
}

TEST(ListTest, AnItemMayEndItselfTheNextOneAndAllOthers)
{
	EXPECT_EQ(walk([](Items &, auto &, Item *) {}), (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
	EXPECT_EQ(walk([](Items &l, auto &, Item *i) { l.remove(i); }), (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
	EXPECT_EQ(walk([](Items &l, auto &all, Item *i) {
		          if (i->number < 9)
			          l.remove(&all[static_cast<size_t>(i->number) + 1]);
	          }),
	          (std::vector<int>{0, 2, 4, 6, 8}))
	    << "the next one is gone, those behind it are seen";
	EXPECT_EQ(walk([](Items &l, auto &all, Item *i) {
		          for (int k : {1, 2, 3, 0})
			          if (i->number == 0)
				          l.remove(&all[static_cast<size_t>(k)]);
	          }),
	          (std::vector<int>{0, 4, 5, 6, 7, 8, 9}));
	EXPECT_EQ(walk([](Items &l, auto &all, Item *) {
		          for (Item &i : all)
			          l.remove(&i);
	          }),
	          (std::vector<int>{0}));
}

TEST(ListTest, AWalkWithinAWalkMayEndTheNextOfBoth)
{
	std::vector<int> inner;
	EXPECT_EQ(walk([&](Items &l, auto &all, Item *i) {
		          if (i->number != 2)
			          return;
		          l.each([&](Item *k) {
			          inner.push_back(k->number);
			          if (k->number == 2) {
				          l.remove(&all[3]);
				          l.remove(&all[4]);
			          }
		          });
	          }),
	          (std::vector<int>{0, 1, 2, 5, 6, 7, 8, 9}));
	EXPECT_EQ(inner, (std::vector<int>{0, 1, 2, 5, 6, 7, 8, 9}));
}

TEST(ListTest, WhatMovesToAnotherListIsNotFollowed)
{
	Items other;
	EXPECT_EQ(walk([&](Items &l, auto &all, Item *i) {
		          if (i->number == 0) {
			          l.remove(&all[1]);
			          other.push_back(&all[1]);
		          }
	          }),
	          (std::vector<int>{0, 2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST(ListTest, WalksThatGoOnLaterEndInAnyOrder)
{
	std::vector<Item> all(6);
	Items list;
	for (Item &item : all)
		list.push_back(&item);
	auto one = std::make_unique<Items::Walk>(list), two = std::make_unique<Items::Walk>(list);
	EXPECT_EQ(one->take(), &all[0]);
	list.each([&](Item *item) {
		if (item == &all[0])
			list.remove(&all[1]);
		if (item == &all[3]) {
			one = nullptr;
			list.remove(&all[0]);
			list.remove(&all[4]);
		}
		EXPECT_NE(item, &all[1]);
		EXPECT_NE(item, &all[4]);
	});
	Item last;
	list.push_back(&last);
	for (Item *want : {&all[2], &all[3], &all[5], &last})
		EXPECT_EQ(two->take(), want);
	EXPECT_EQ(two->take(), nullptr);
	EXPECT_EQ(two->take(), nullptr);
}

// Whether the bytes at `p` have `text` in them; the memory is the test's own.
bool has(const char *p, size_t size, std::string_view text)
{
	return std::string_view(p, size).find(text) != std::string_view::npos;
}

TEST(SecretTest, AStringIsWipedWhereverItWas)
{
	const std::string_view word = "a password that is longer than what fits into a string object";
	alignas(proto::SecretString) char place[sizeof(proto::SecretString)];
	auto *s = new (place) proto::SecretString;
	proto::assign(*s, word);
	const char *where = (*s)->data();
	proto::assign(*s, "short");
	EXPECT_EQ((*s)->data(), where) << "or the test looks at the wrong place";
	EXPECT_FALSE(has(where, word.size(), "longer")) << "shorter than before: the rest is wiped, too";
	proto::assign(*s, word);
	proto::drop_front(*s, 11);
	EXPECT_EQ(**s, word.substr(11));
	EXPECT_FALSE(has(where + (*s)->size(), 11, "object"));
	s->edit().assign("tiny");
	proto::SecretString taken = std::move(*s);
	EXPECT_EQ(*taken, "tiny");
	EXPECT_FALSE(has(place, sizeof(place), "tiny")) << "what was moved away";
	proto::assign(*s, "within");
	s->~Secret();
	EXPECT_FALSE(has(place, sizeof(place), "within"));
}

TEST(SecretTest, GrowingLeavesNothingInWhatItGrewOutOf)
{
	proto::SecretString s;
	ASSERT_TRUE(proto::try_append(s, "0123456789"));
	for (int i = 0; i < 100; i++)
		ASSERT_TRUE(proto::try_append(s, "0123456789"));
	EXPECT_EQ(s->size(), 1010u);
	std::string plain = "a plain text that is moved into a secret";
	const proto::SecretString kept(std::move(plain));
	EXPECT_EQ(*kept, "a plain text that is moved into a secret");
	EXPECT_EQ(plain, "") << "NOLINT";
}

TEST(SecretTest, APlainStructIsWipedToo)
{
	alignas(8) char place[sizeof(proto::Secret<proto::ScramKey>)];
	auto *key = new (place) proto::Secret<proto::ScramKey>;
	memset(key->edit().bytes, 'k', sizeof(proto::ScramKey));
	proto::Secret<proto::ScramKey> copy = *key, moved = std::move(*key);
	EXPECT_FALSE(has(place, sizeof(place), "kk"));
	EXPECT_EQ(memcmp(copy->bytes, moved->bytes, sizeof(proto::ScramKey)), 0);
	*key = *copy;
	EXPECT_TRUE(has(place, sizeof(place), "kk"));
	key->~Secret();
	EXPECT_FALSE(has(place, sizeof(place), "kk"));
}

} // namespace
